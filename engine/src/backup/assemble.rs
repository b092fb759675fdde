//! Finished entries → directories: REFS and TREE nodes, cut where names say so, stored as chunks;
//! then the directory above. Whoever finishes the last entry of a directory does this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::backup::identify::About;
use crate::backup::walk::{DirNode, Done};
use crate::backup::work::Worker;
use crate::error::Result;
use crate::format::id::{ChunkId, hash};
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::format::tree::{
    Child, ChunkRef, LIST_ABOVE_CHUNKS, ListChild, RefsNode, Segment, TreeChild, TreeNode,
    ends_inner, ends_leaf, ends_list, leaf_from_encoded, put_entry,
};
use crate::repo::trees::Piece;
use crate::sys::stat::Stat;
use crate::watch::{Counter, ProblemKind};

/// Which entries are one file. A group is named after the first path that was met, and keeps its name in later backups.
#[derive(Default)]
pub struct HardLinks {
    groups: Mutex<HashMap<(u64, u64), [u8; 16]>>,
}

impl HardLinks {
    pub fn group(&self, stat: &Stat, before: Option<[u8; 16]>, path: &[u8]) -> [u8; 16] {
        let fresh = || hash(path)[..16].try_into().expect("half of a hash");
        let mut groups = self.groups.lock().expect("no panic holds this lock");
        *groups.entry((stat.dev, stat.ino)).or_insert_with(|| before.unwrap_or_else(fresh))
    }
}

/// One leaf being filled: both halves of it.
#[derive(Default)]
struct Leaf {
    entries: usize,
    first_name: Vec<u8>,
    /// The entries as the TREE node will hold them.
    encoded: Vec<u8>,
    children: Vec<Child>,
    chunks: Vec<ChunkRef>,
    lists: Vec<ChunkId>,
}

/// A stored node, as the node above names it.
struct Stored {
    ids: Directory,
    first_name: Vec<u8>,
    entries: u64,
}

impl Stored {
    fn into_child(self) -> TreeChild {
        TreeChild { first_name: self.first_name, entries: self.entries }
    }
}

impl Worker<'_> {
    /// Something that `dir` waited for is done. If it was the last thing, assembles it, and the directories above while
    /// they complete by that.
    pub fn one_done(&mut self, dir: &Arc<DirNode>) -> Result<()> {
        let mut dir = dir.clone();
        while dir.count_down() {
            let ids = self.assemble(&dir)?;
            self.work.count(Counter::Dirs, 1);
            let Some((up, place)) = &dir.up else {
                self.work.set_root(ids);
                return Ok(());
            };
            let entry = dir.entry.lock().expect("no panic holds this lock").take();
            up.set(*place, entry.map(|entry| Done::Dir(entry, (!dir.unread).then_some(ids))));
            let up = up.clone();
            dir = up;
        }
        Ok(())
    }

    fn assemble(&mut self, dir: &DirNode) -> Result<Directory> {
        let mut leaf = Leaf::default();
        let mut nodes = Vec::new();
        for done in dir.take_done().into_iter().flatten() {
            let Some(name) = self.add(&mut leaf, dir, done)? else { continue };
            if ends_leaf(&name, leaf.entries, leaf.encoded.len(), leaf.chunks.len()) {
                nodes.push(self.store_leaf(std::mem::take(&mut leaf))?);
            }
        }
        if nodes.is_empty() || leaf.entries > 0 {
            nodes.push(self.store_leaf(leaf)?);
        }
        while nodes.len() > 1 {
            nodes = self.store_inner(nodes)?;
        }
        Ok(nodes[0].ids)
    }

    /// The name of the entry that was added. `None`: the file system gave something that the format cannot hold.
    fn add(&mut self, leaf: &mut Leaf, dir: &DirNode, done: Done) -> Result<Option<Vec<u8>>> {
        let entry = match done {
            Done::Dir(mut entry, ids) => {
                entry.child = ids.map(|ids| {
                    leaf.children.push(Child { refs: ids.refs, tree: ids.tree });
                    leaf.children.len() as u32 - 1
                });
                entry
            }
            Done::Leaf(record) => {
                let mut entry = record.entry;
                entry.content = self.segments(leaf, &record.pieces)?;
                entry
            }
        };
        if let Err(error) = entry.check() {
            self.work.problem(ProblemKind::Unread, &dir.path_of(&entry.name), error);
            return Ok(None);
        }
        put_entry(&entry, &mut leaf.encoded);
        if leaf.entries == 0 {
            leaf.first_name.clone_from(&entry.name);
        }
        leaf.entries += 1;
        Ok(Some(entry.name))
    }

    /// The content of a file as segments that point into this leaf.
    fn segments(&mut self, leaf: &mut Leaf, pieces: &[Piece]) -> Result<Vec<Segment>> {
        let inline = pieces.len() <= LIST_ABOVE_CHUNKS;
        let mut segments = Vec::new();
        let mut rest = pieces;
        while let Some(piece) = rest.first() {
            if let Piece::Hole { len } = piece {
                segments.push(Segment::Hole { len: *len });
                rest = &rest[1..];
                continue;
            }
            let run: Vec<ChunkRef> = rest.iter().map_while(Piece::chunk).collect();
            rest = &rest[run.len()..];
            let len = run.iter().map(|chunk| u64::from(chunk.len)).sum();
            if inline {
                let first = leaf.chunks.len() as u32;
                segments.push(Segment::Chunks { first, chunks: run.len() as u32, len });
                leaf.chunks.extend(run);
            } else {
                let list = leaf.lists.len() as u32;
                leaf.lists.push(self.store_list(&run)?);
                segments.push(Segment::List { list, len });
            }
        }
        Ok(segments)
    }

    fn store_leaf(&mut self, leaf: Leaf) -> Result<Stored> {
        let Leaf { entries, first_name, encoded, children, chunks, lists } = leaf;
        let refs = RefsNode::Leaf { children, chunks, lists };
        let ids = self.store_pair(&refs, &leaf_from_encoded(entries, &encoded))?;
        Ok(Stored { ids, first_name, entries: entries as u64 })
    }

    fn store_inner(&mut self, nodes: Vec<Stored>) -> Result<Vec<Stored>> {
        let mut above = Vec::new();
        let mut group: Vec<Stored> = Vec::new();
        let count = nodes.len();
        for (place, node) in nodes.into_iter().enumerate() {
            group.push(node);
            let last = group.last().expect("just added");
            if place + 1 == count || ends_inner(&last.first_name, group.len()) {
                let children = group
                    .iter()
                    .map(|node| Child { refs: node.ids.refs, tree: node.ids.tree })
                    .collect();
                let entries = group.iter().map(|node| node.entries).sum();
                let first_name = group[0].first_name.clone();
                let names = group.drain(..).map(Stored::into_child).collect();
                let refs = RefsNode::Inner { children };
                let tree = TreeNode::Inner { children: names }.to_bytes();
                let ids = self.store_pair(&refs, &tree)?;
                above.push(Stored { ids, first_name, entries });
            }
        }
        Ok(above)
    }

    fn store_pair(&mut self, refs: &RefsNode, tree: &[u8]) -> Result<Directory> {
        let refs = self.store(Recipient::Meta, &refs.to_bytes(), About::default())?;
        let tree = self.store(Recipient::Tree, tree, About::default())?;
        Ok(Directory { refs, tree })
    }

    fn store_list(&mut self, run: &[ChunkRef]) -> Result<ChunkId> {
        let mut rows = Vec::new();
        let mut from = 0;
        for (place, chunk) in run.iter().enumerate() {
            if place + 1 == run.len() || ends_list(&chunk.id, place + 1 - from) {
                let chunks = run[from..=place].to_vec();
                let bytes = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
                let count = chunks.len() as u64;
                let node = RefsNode::List { chunks };
                let id = self.store(Recipient::Meta, &node.to_bytes(), About::default())?;
                rows.push(ListChild { id, chunks: count, bytes });
                from = place + 1;
            }
        }
        while rows.len() > 1 {
            rows = self.store_list_inner(&rows)?;
        }
        Ok(rows[0].id)
    }

    fn store_list_inner(&mut self, rows: &[ListChild]) -> Result<Vec<ListChild>> {
        let mut above = Vec::new();
        let mut from = 0;
        for (place, row) in rows.iter().enumerate() {
            if place + 1 == rows.len() || ends_list(&row.id, place + 1 - from) {
                let lists = rows[from..=place].to_vec();
                let chunks = lists.iter().map(|row| row.chunks).sum();
                let bytes = lists.iter().map(|row| row.bytes).sum();
                let node = RefsNode::ListInner { lists };
                let id = self.store(Recipient::Meta, &node.to_bytes(), About::default())?;
                above.push(ListChild { id, chunks, bytes });
                from = place + 1;
            }
        }
        Ok(above)
    }
}
