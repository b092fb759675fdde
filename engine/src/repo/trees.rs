//! Directories read back: REFS and TREE nodes joined into entries with their content, streamed in name order.

use crate::error::{Error, FormatError, Named, Result};
use crate::format::id::ChunkId;
use crate::format::snapshot::Directory;
use crate::format::tree::{ChunkRef, Entry, INNER_DEPTH_MAX, RefsNode, Segment, TreeNode};
use crate::repo::Repo;
use crate::repo::fetch::Fetcher;

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

    pub fn chunk(&self) -> Option<ChunkRef> {
        match self {
            Piece::Chunk { id, len } => Some(ChunkRef { id: *id, len: *len }),
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
    pub child: Option<Directory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRef {
    Piece(Piece),
    /// A chunk list node.
    List {
        id: ChunkId,
        len: u64,
    },
}

impl ContentRef {
    pub fn bytes(&self) -> u64 {
        match self {
            ContentRef::Piece(piece) => piece.bytes(),
            ContentRef::List { len, .. } => *len,
        }
    }

    pub fn chunk(&self) -> Option<ChunkRef> {
        match self {
            ContentRef::Piece(piece) => piece.chunk(),
            ContentRef::List { .. } => None,
        }
    }
}

/// What a path of a snapshot names.
#[derive(Debug, Clone)]
pub enum Found {
    /// `/`, which has no entry of its own.
    Top(Directory),
    Entry(Box<Node>),
}

/// A part of a directory: all its entries whose names are not below `from`, and below `until`.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub from: Vec<u8>,
    pub until: Option<Vec<u8>>,
    /// In name order.
    pub nodes: Vec<Node>,
    /// Of the TREE node.
    pub tree_bytes: usize,
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
    pub fn each(&self, dir: &Directory, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<()> {
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
        dir: &Directory,
        depth: usize,
        each: &mut dyn FnMut(Node) -> Result<()>,
    ) -> Result<()> {
        let name = directory_name(dir);
        let (tree, refs, _) = self.pair(dir)?;
        match (tree, refs) {
            (TreeNode::Leaf { entries }, refs) => {
                entries.into_iter().try_for_each(|entry| each(joined(entry, &refs).named(&name)?))
            }
            (_, RefsNode::Inner { children }) if depth < INNER_DEPTH_MAX => {
                children.iter().try_for_each(|child| {
                    let child = Directory { refs: child.refs, tree: child.tree };
                    self.each_at(&child, depth + 1, each)
                })
            }
            _ => Err(too_deep(name)),
        }
    }

    /// Both nodes, and the length of the TREE node.
    fn pair(&self, dir: &Directory) -> Result<(TreeNode, RefsNode, usize)> {
        let name = directory_name(dir);
        let refs = self.refs(&dir.refs)?;
        let plain = self.fetcher.chunk(&dir.tree, self.repo.id_key()?)?;
        let tree = TreeNode::from_bytes(&plain).named(&name)?;
        tree.check_against(&refs).named(&name)?;
        Ok((tree, refs, plain.len()))
    }

    /// The part of a directory that has the entry of a name, if there is one.
    pub fn part(&self, dir: &Directory, name: &[u8]) -> Result<Part> {
        let (mut at, mut part) = (*dir, Part::default());
        for _ in 0..=INNER_DEPTH_MAX {
            let (tree, refs, tree_bytes) = self.pair(&at)?;
            match (tree, refs) {
                (TreeNode::Leaf { entries }, refs) => {
                    let joined = entries.into_iter().map(|entry| joined(entry, &refs));
                    let nodes: std::result::Result<_, _> = joined.collect();
                    return Ok(Part {
                        nodes: nodes.named(&directory_name(dir))?,
                        tree_bytes,
                        ..part
                    });
                }
                (TreeNode::Inner { children: names }, RefsNode::Inner { children }) => {
                    let after = names.partition_point(|child| &child.first_name[..] <= name);
                    if let Some(first) = after.checked_sub(1) {
                        part.from.clone_from(&names[first].first_name);
                    }
                    let place = after.saturating_sub(1);
                    if let Some(next) = names.get(place + 1) {
                        part.until = Some(next.first_name.clone());
                    }
                    // An empty inner node has nothing in it.
                    let Some(child) = children.get(place) else { return Ok(part) };
                    at = Directory { refs: child.refs, tree: child.tree };
                }
                _ => unreachable!("checked: both have one shape"),
            }
        }
        Err(too_deep(directory_name(dir)))
    }

    /// One entry by name.
    pub fn find(&self, dir: &Directory, name: &[u8]) -> Result<Option<Node>> {
        let mut part = self.part(dir, name)?;
        let found = part.nodes.binary_search_by(|node| node.entry.name[..].cmp(name));
        Ok(found.ok().map(|place| part.nodes.swap_remove(place)))
    }

    /// What an absolute path names in a snapshot whose root is `top`, with the path in its plain
    /// form: one slash before each name. Symlinks are not followed. `None`: it is not there.
    pub fn at(&self, top: &Directory, path: &[u8]) -> Result<Option<(Vec<u8>, Found)>> {
        let mut plain = Vec::new();
        let mut found = Found::Top(*top);
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            let dir = match &found {
                Found::Top(dir) => Some(*dir),
                Found::Entry(node) => node.child,
            };
            let Some(dir) = dir else { return Ok(None) };
            let Some(node) = self.find(&dir, name)? else { return Ok(None) };
            found = Found::Entry(Box::new(node));
            plain.push(b'/');
            plain.extend_from_slice(name);
        }
        if plain.is_empty() {
            plain.push(b'/');
        }
        Ok(Some((plain, found)))
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
        depth: usize,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        match self.refs(id)? {
            RefsNode::List { chunks } => {
                chunks.iter().try_for_each(|chunk| each(Piece::from(chunk)))
            }
            RefsNode::ListInner { lists } if depth < INNER_DEPTH_MAX => {
                lists.iter().try_for_each(|row| self.list(&row.id, depth + 1, each))
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

impl From<&ChunkRef> for Piece {
    fn from(chunk: &ChunkRef) -> Self {
        Piece::Chunk { id: chunk.id, len: chunk.len }
    }
}

/// The entry with its content taken out of the REFS leaf; `check_against` has proven the places.
fn joined(mut entry: Entry, refs: &RefsNode) -> Result<Node, FormatError> {
    let RefsNode::Leaf { children, chunks, lists } = refs else { unreachable!("checked: a leaf") };
    let mut content = Vec::new();
    for segment in std::mem::take(&mut entry.content) {
        match segment {
            Segment::Chunks { first, chunks: count, .. } => {
                let run = &chunks[first as usize..first as usize + count as usize];
                content.extend(run.iter().map(|chunk| ContentRef::Piece(Piece::from(chunk))));
            }
            Segment::Hole { len } => content.push(ContentRef::Piece(Piece::Hole { len })),
            Segment::List { list, len } => {
                content.push(ContentRef::List { id: lists[list as usize], len });
            }
            Segment::Rebuilt { encoder, .. } => {
                let feature = format!("encoder {encoder}");
                return Err(FormatError::Unsupported { object: "file content", feature });
            }
        }
    }
    let child = entry.child.map(|child| {
        let child = children[child as usize];
        Directory { refs: child.refs, tree: child.tree }
    });
    Ok(Node { entry, content, child })
}

fn directory_name(dir: &Directory) -> String {
    format!("directory {}", dir.tree)
}

fn too_deep(what: String) -> Error {
    Error::Damaged { what, cause: "it is nested too deeply".to_owned() }
}

fn out_of_order(dir: &Directory) -> Error {
    let cause = "its entries are not in order".to_owned();
    Error::Damaged { what: directory_name(dir), cause }
}

fn wrong_length(id: &ChunkId) -> Error {
    let cause = "its chunks do not add up to the stated length".to_owned();
    Error::Damaged { what: format!("chunk list {id}"), cause }
}
