//! Finished entries → directories: REFS and TREE nodes, cut where names say so, stored as chunks; then the directory above. Whoever
//! finishes the last entry of a directory does this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::backup::walk::{DirNode, Done};
use crate::backup::work::Worker;
use crate::error::Result;
use crate::format::id::{ChunkId, hash};
use crate::format::seal::Recipient;
use crate::format::tree::{Entry, ListRow, RefsNode, Segment, TreeNode, ends_inner, ends_leaf, ends_list};
use crate::repo::trees::{DirIds, Piece};
use crate::sys::stat::Stat;
use crate::watch::Counter;

/// A file with more chunks keeps them in a chunk list of its own.
const INLINE_CHUNKS_MAX: usize = 1024;

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
    entries: Vec<Entry>,
    children: Vec<(ChunkId, ChunkId)>,
    chunks: Vec<(ChunkId, u32)>,
    lists: Vec<ChunkId>,
    tree_bytes: usize,
}

/// A stored node, as the node above names it.
struct Stored {
    ids: DirIds,
    first_name: Vec<u8>,
    entries: u64,
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

    fn assemble(&mut self, dir: &DirNode) -> Result<DirIds> {
        let mut leaf = Leaf::default();
        let mut nodes = Vec::new();
        for done in dir.take_done().into_iter().flatten() {
            self.add(&mut leaf, done)?;
            let name = &leaf.entries.last().expect("just added").name;
            if ends_leaf(name, leaf.entries.len(), leaf.tree_bytes, leaf.chunks.len()) {
                nodes.push(self.store_leaf(std::mem::take(&mut leaf))?);
            }
        }
        if nodes.is_empty() || !leaf.entries.is_empty() {
            nodes.push(self.store_leaf(leaf)?);
        }
        while nodes.len() > 1 {
            nodes = self.store_inner(nodes)?;
        }
        Ok(nodes[0].ids)
    }

    fn add(&mut self, leaf: &mut Leaf, done: Done) -> Result<()> {
        let entry = match done {
            Done::Dir(mut entry, ids) => {
                entry.child = ids.map(|ids| {
                    leaf.children.push((ids.refs, ids.tree));
                    leaf.children.len() as u64 - 1
                });
                entry
            }
            Done::Leaf(record) => {
                let mut entry = record.entry;
                entry.content = self.segments(leaf, &record.pieces)?;
                entry
            }
        };
        leaf.tree_bytes += entry.encoded_len_hint();
        leaf.entries.push(entry);
        Ok(())
    }

    /// The content of a file as segments that point into this leaf.
    fn segments(&mut self, leaf: &mut Leaf, pieces: &[Piece]) -> Result<Vec<Segment>> {
        let inline = pieces.len() <= INLINE_CHUNKS_MAX;
        let mut segments = Vec::new();
        let mut rest = pieces;
        while let Some(piece) = rest.first() {
            if let Piece::Hole { len } = piece {
                segments.push(Segment::Hole { len: *len });
                rest = &rest[1..];
                continue;
            }
            let run: Vec<(ChunkId, u32)> = rest.iter().map_while(Piece::chunk).collect();
            rest = &rest[run.len()..];
            let len = run.iter().map(|(_, len)| u64::from(*len)).sum();
            if inline {
                let first = leaf.chunks.len() as u64;
                segments.push(Segment::Run { first, chunks: run.len() as u64, len });
                leaf.chunks.extend(run);
            } else {
                let list = leaf.lists.len() as u64;
                leaf.lists.push(self.store_list(&run)?);
                segments.push(Segment::List { list, len });
            }
        }
        Ok(segments)
    }

    fn store_leaf(&mut self, leaf: Leaf) -> Result<Stored> {
        let Leaf { entries, children, chunks, lists, .. } = leaf;
        let first_name = entries.first().map(|entry| entry.name.clone()).unwrap_or_default();
        let count = entries.len() as u64;
        let refs = RefsNode::Leaf { children, chunks, lists };
        let ids = self.store_pair(&refs, &TreeNode::Leaf { entries })?;
        Ok(Stored { ids, first_name, entries: count })
    }

    fn store_inner(&mut self, nodes: Vec<Stored>) -> Result<Vec<Stored>> {
        let mut above = Vec::new();
        let mut group: Vec<Stored> = Vec::new();
        let count = nodes.len();
        for (place, node) in nodes.into_iter().enumerate() {
            group.push(node);
            let last = group.last().expect("just added");
            if place + 1 == count || ends_inner(&last.first_name, group.len()) {
                let children = group.iter().map(|node| (node.ids.refs, node.ids.tree)).collect();
                let entries = group.iter().map(|node| node.entries).sum();
                let first_name = group[0].first_name.clone();
                let names = group.drain(..).map(|node| (node.first_name, node.entries)).collect();
                let refs = RefsNode::Inner { children };
                let ids = self.store_pair(&refs, &TreeNode::Inner { children: names })?;
                above.push(Stored { ids, first_name, entries });
            }
        }
        Ok(above)
    }

    fn store_pair(&mut self, refs: &RefsNode, tree: &TreeNode) -> Result<DirIds> {
        let refs = self.store(Recipient::Meta, &refs.to_bytes())?;
        let tree = self.store(Recipient::Tree, &tree.to_bytes())?;
        Ok(DirIds { refs, tree })
    }

    fn store_list(&mut self, run: &[(ChunkId, u32)]) -> Result<ChunkId> {
        let mut rows = Vec::new();
        let mut from = 0;
        for (place, (id, _)) in run.iter().enumerate() {
            if place + 1 == run.len() || ends_list(id, place + 1 - from) {
                let chunks = run[from..=place].to_vec();
                let bytes = chunks.iter().map(|(_, len)| u64::from(*len)).sum();
                let count = chunks.len() as u64;
                let node = RefsNode::List { chunks };
                let id = self.store(Recipient::Meta, &node.to_bytes())?;
                rows.push(ListRow { id, chunks: count, bytes });
                from = place + 1;
            }
        }
        while rows.len() > 1 {
            rows = self.store_list_inner(&rows)?;
        }
        Ok(rows[0].id)
    }

    fn store_list_inner(&mut self, rows: &[ListRow]) -> Result<Vec<ListRow>> {
        let mut above = Vec::new();
        let mut from = 0;
        for (place, row) in rows.iter().enumerate() {
            if place + 1 == rows.len() || ends_list(&row.id, place + 1 - from) {
                let rows = rows[from..=place].to_vec();
                let chunks = rows.iter().map(|row| row.chunks).sum();
                let bytes = rows.iter().map(|row| row.bytes).sum();
                let node = RefsNode::ListInner { rows };
                let id = self.store(Recipient::Meta, &node.to_bytes())?;
                above.push(ListRow { id, chunks, bytes });
                from = place + 1;
            }
        }
        Ok(above)
    }
}
