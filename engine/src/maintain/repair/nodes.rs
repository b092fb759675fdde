//! Directories written again: entries with what they point to become REFS and TREE nodes, cut where
//! names say so, stored as frames of one session.

use crate::error::Result;
use crate::format::codec::Encoder;
use crate::format::id::ChunkId;
use crate::format::pack::ChunkRow;
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::format::tree::{
    Child, RefsNode, Segment, TreeChild, TreeNode, ends_inner, ends_leaf, leaf_from_encoded,
    put_entry,
};
use crate::repo::Repo;
use crate::repo::lookup::{Claim, Index};
use crate::repo::packer::Packer;
use crate::repo::session::Encoded;
use crate::repo::trees::{ContentRef, Node, Piece};

pub struct Nodes<'a> {
    pub repo: &'a Repo,
    pub index: &'a Index,
    pub packer: &'a Packer<'a>,
    encoder: Encoder,
}

#[derive(Default)]
struct Leaf {
    entries: usize,
    first_name: Vec<u8>,
    encoded: Vec<u8>,
    children: Vec<Child>,
    chunks: Vec<crate::format::tree::ChunkRef>,
    lists: Vec<ChunkId>,
}

struct Stored {
    ids: Directory,
    first_name: Vec<u8>,
    entries: u64,
}

impl<'a> Nodes<'a> {
    pub fn new(repo: &'a Repo, index: &'a Index, packer: &'a Packer<'a>) -> Self {
        Self { repo, index, packer, encoder: Encoder::new() }
    }

    /// Stores a directory with these entries, which are in name order.
    pub fn directory(&mut self, entries: Vec<Node>) -> Result<Directory> {
        let mut leaf = Leaf::default();
        let mut nodes = Vec::new();
        for node in entries {
            let name = leaf.add(node);
            if ends_leaf(&name, leaf.entries, leaf.encoded.len(), leaf.chunks.len()) {
                nodes.push(self.leaf(std::mem::take(&mut leaf))?);
            }
        }
        if nodes.is_empty() || leaf.entries > 0 {
            nodes.push(self.leaf(leaf)?);
        }
        while nodes.len() > 1 {
            nodes = self.inner(nodes)?;
        }
        Ok(nodes[0].ids)
    }

    fn leaf(&mut self, leaf: Leaf) -> Result<Stored> {
        let Leaf { entries, first_name, encoded, children, chunks, lists } = leaf;
        let refs = RefsNode::Leaf { children, chunks, lists };
        let ids = self.pair(&refs, &leaf_from_encoded(entries, &encoded))?;
        Ok(Stored { ids, first_name, entries: entries as u64 })
    }

    fn inner(&mut self, nodes: Vec<Stored>) -> Result<Vec<Stored>> {
        let mut above = Vec::new();
        let mut group: Vec<Stored> = Vec::new();
        let count = nodes.len();
        for (place, node) in nodes.into_iter().enumerate() {
            group.push(node);
            let last = &group[group.len() - 1].first_name;
            if place + 1 < count && !ends_inner(last, group.len()) {
                continue;
            }
            let child = |node: &Stored| Child { refs: node.ids.refs, tree: node.ids.tree };
            let refs = RefsNode::Inner { children: group.iter().map(child).collect() };
            let entries = group.iter().map(|node| node.entries).sum();
            let first_name = group[0].first_name.clone();
            let name =
                |node: Stored| TreeChild { first_name: node.first_name, entries: node.entries };
            let tree = TreeNode::Inner { children: group.drain(..).map(name).collect() };
            let ids = self.pair(&refs, &tree.to_bytes())?;
            above.push(Stored { ids, first_name, entries });
        }
        Ok(above)
    }

    fn pair(&mut self, refs: &RefsNode, tree: &[u8]) -> Result<Directory> {
        let refs_bytes = refs.to_bytes();
        let refs = self.repo.refid_key().id(&refs_bytes);
        let tree_id = self.repo.id_key()?.id(tree);
        self.store(Recipient::Meta, refs, &refs_bytes)?;
        self.store(Recipient::Tree, tree_id, tree)?;
        Ok(Directory { refs, tree: tree_id })
    }

    fn store(&mut self, recipient: Recipient, id: ChunkId, plain: &[u8]) -> Result<()> {
        if self.index.claim(&id) == Claim::Known {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let (codec, bytes) = self.encoder.encode_plain(plain, &mut buffer);
        let bytes = bytes.to_vec();
        let len = plain.len() as u32;
        let chunks = vec![ChunkRow { id, offset: 0, len }];
        let encoded = Encoded { codec, bytes, plain_len: len, chunks, bases: Vec::new() };
        let frame = self.packer.session().seal(recipient, encoded);
        self.packer.add(frame, &|pack| self.packer.complete(pack))
    }
}

impl Leaf {
    /// Adds an entry, and gives its name back.
    fn add(&mut self, node: Node) -> Vec<u8> {
        let Node { mut entry, content, child } = node;
        entry.child = child.map(|child| {
            self.children.push(Child { refs: child.refs, tree: child.tree });
            self.children.len() as u32 - 1
        });
        entry.content = self.segments(&content);
        put_entry(&entry, &mut self.encoded);
        if self.entries == 0 {
            self.first_name.clone_from(&entry.name);
        }
        self.entries += 1;
        entry.name
    }

    fn segments(&mut self, content: &[ContentRef]) -> Vec<Segment> {
        let mut segments = Vec::new();
        for part in content {
            match part {
                ContentRef::Piece(Piece::Hole { len }) => {
                    segments.push(Segment::Hole { len: *len })
                }
                ContentRef::Piece(piece) => {
                    let chunk = piece.chunk().expect("no hole");
                    let place = self.chunks.len() as u32;
                    self.chunks.push(chunk);
                    match segments.last_mut() {
                        Some(Segment::Chunks { first, chunks, len })
                            if *first + *chunks == place =>
                        {
                            *chunks += 1;
                            *len += u64::from(chunk.len);
                        }
                        _ => segments.push(Segment::Chunks {
                            first: place,
                            chunks: 1,
                            len: chunk.len.into(),
                        }),
                    }
                }
                ContentRef::List { id, len } => {
                    let list = self.lists.len() as u32;
                    self.lists.push(*id);
                    segments.push(Segment::List { list, len: *len });
                }
            }
        }
        segments
    }
}
