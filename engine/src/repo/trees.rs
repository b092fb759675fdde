//! Directories read back: REFS and TREE nodes joined into entries with their content, streamed in name order.

use crate::error::{Error, Named, Result};
use crate::format::id::ChunkId;
use crate::format::tree::{Entry, EntryKind, INNER_DEPTH_MAX, RefsNode, Segment, TreeNode};
use crate::repo::fetch::Fetcher;
use crate::repo::Repo;

/// The two ids of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirIds {
    pub refs: ChunkId,
    pub tree: ChunkId,
}

impl DirIds {
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.refs.0);
        bytes[32..].copy_from_slice(&self.tree.0);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (refs, tree) = bytes.split_at(32);
        let id = |half: &[u8]| ChunkId(half.try_into().expect("half of 64 bytes"));
        Self { refs: id(refs), tree: id(tree) }
    }
}

/// A piece of a file's content, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Chunk { id: ChunkId, len: u32 },
    Hole { len: u64 },
}

impl Piece {
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Chunk { len, .. } => u64::from(*len),
            Piece::Hole { len } => *len,
        }
    }

    pub fn chunk(&self) -> Option<(ChunkId, u32)> {
        match self {
            Piece::Chunk { id, len } => Some((*id, *len)),
            Piece::Hole { .. } => None,
        }
    }
}

/// An entry with what it points to. `entry.content` and `entry.child` are meaningful only with the REFS node they came
/// with; `content` stands in for them.
#[derive(Debug, Clone)]
pub struct Node {
    pub entry: Entry,
    pub content: Vec<ContentRef>,
    pub child: Option<DirIds>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRef {
    Piece(Piece),
    /// A chunk list node.
    List { id: ChunkId, len: u64 },
}

pub struct Trees<'f> {
    repo: &'f Repo,
    fetcher: &'f Fetcher<'f>,
}

impl<'f> Trees<'f> {
    pub fn new(repo: &'f Repo, fetcher: &'f Fetcher<'f>) -> Self {
        Self { repo, fetcher }
    }

    /// Calls `each` with every entry of a directory, in name order.
    pub fn each(&self, dir: &DirIds, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<()> {
        let mut last = Vec::new();
        self.each_at(dir, 0, &mut |node| {
            if !last.is_empty() && node.entry.name <= last {
                return Err(out_of_order(dir));
            }
            last.clone_from(&node.entry.name);
            each(node)
        })
    }

    fn each_at(
        &self,
        dir: &DirIds,
        depth: u32,
        each: &mut dyn FnMut(Node) -> Result<()>,
    ) -> Result<()> {
        let name = format!("directory {}", dir.tree);
        let refs = self.refs(&dir.refs)?;
        let plain = self.fetcher.chunk(&dir.tree, self.repo.id_key()?)?;
        match (TreeNode::from_bytes(&plain).named(&name)?, refs) {
            (TreeNode::Leaf { entries }, refs @ RefsNode::Leaf { .. }) => {
                for entry in entries {
                    entry.check_against(&refs).named(&name)?;
                    each(joined(entry, &refs))?;
                }
                Ok(())
            }
            (TreeNode::Inner { children: names }, RefsNode::Inner { children })
                if names.len() == children.len() && depth < INNER_DEPTH_MAX =>
            {
                children.iter().try_for_each(|&(refs, tree)| {
                    self.each_at(&DirIds { refs, tree }, depth + 1, each)
                })
            }
            _ => Err(Error::Damaged {
                what: name,
                cause: "its two halves do not belong together".to_owned(),
            }),
        }
    }

    /// One entry by name.
    pub fn find(&self, dir: &DirIds, name: &[u8]) -> Result<Option<Node>> {
        let mut found = None;
        self.each(dir, &mut |node| {
            if node.entry.name == name {
                found = Some(node);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The content of a file, chunk lists resolved, in order.
    pub fn pieces(&self, node: &Node, each: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        for content in &node.content {
            match content {
                ContentRef::Piece(piece) => each(*piece)?,
                ContentRef::List { id, len } => {
                    let mut rest = *len;
                    self.list(id, 0, &mut |piece| {
                        let Piece::Chunk { len, .. } = piece else { return each(piece) };
                        rest = rest.checked_sub(u64::from(len)).ok_or_else(|| wrong_length(id))?;
                        each(piece)
                    })?;
                    if rest != 0 {
                        return Err(wrong_length(id));
                    }
                }
            }
        }
        Ok(())
    }

    fn list(
        &self,
        id: &ChunkId,
        depth: u32,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        match self.refs(id)? {
            RefsNode::List { chunks } => {
                chunks.into_iter().try_for_each(|(id, len)| each(Piece::Chunk { id, len }))
            }
            RefsNode::ListInner { rows } if depth < INNER_DEPTH_MAX => {
                rows.iter().try_for_each(|row| self.list(&row.id, depth + 1, each))
            }
            _ => Err(Error::Damaged {
                what: format!("chunk list {id}"),
                cause: "it is no chunk list, or nested too deeply".to_owned(),
            }),
        }
    }

    pub fn refs(&self, id: &ChunkId) -> Result<RefsNode> {
        let plain = self.fetcher.chunk(id, self.repo.refid_key())?;
        RefsNode::from_bytes(&plain).named(&format!("references {id}"))
    }
}

/// The entry with its content taken out of the REFS leaf; `check_against` has proven the places.
fn joined(mut entry: Entry, refs: &RefsNode) -> Node {
    let RefsNode::Leaf { children, chunks, lists } = refs else { unreachable!("checked: a leaf") };
    let mut content = Vec::new();
    for segment in std::mem::take(&mut entry.content) {
        match segment {
            Segment::Run { first, chunks: count, .. } => {
                let run = &chunks[first as usize..(first + count) as usize];
                content.extend(
                    run.iter().map(|&(id, len)| ContentRef::Piece(Piece::Chunk { id, len })),
                );
            }
            Segment::Hole { len } => content.push(ContentRef::Piece(Piece::Hole { len })),
            Segment::List { list, len } => {
                content.push(ContentRef::List { id: lists[list as usize], len });
            }
            Segment::Rebuilt { .. } => unreachable!("no encoder is known: refused when decoded"),
        }
    }
    let child = entry.child.filter(|_| entry.kind == EntryKind::Dir).map(|child| {
        let (refs, tree) = children[child as usize];
        DirIds { refs, tree }
    });
    Node { entry, content, child }
}

fn out_of_order(dir: &DirIds) -> Error {
    let cause = "its entries are not in order".to_owned();
    Error::Damaged { what: format!("directory {}", dir.tree), cause }
}

fn wrong_length(id: &ChunkId) -> Error {
    let cause = "its chunks do not add up to the stated length".to_owned();
    Error::Damaged { what: format!("chunk list {id}"), cause }
}
