//! Finished entries → directories: REFS and TREE nodes, cut where names say so, stored as chunks;
//! then the directory above. Entries go into a leaf in their order, as soon as all before them are
//! done, and a leaf is stored as soon as it is full, so that a directory of millions is never held.
//! Whoever finishes an entry does this.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::backup::ahead::Ahead;
use crate::backup::identify::About;
use crate::backup::walk::{DirNode, Done};
use crate::backup::work::Worker;
use crate::error::Result;
use crate::format::id::{ChunkId, hash};
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::format::tree::{
    Child, ChunkRef, LIST_ABOVE_CHUNKS, ListChild, LooseEntry, RefsNode, Segment, TreeChild,
    TreeNode, ends_inner, ends_leaf, ends_list, leaf_from_encoded,
};
use crate::repo::trees::{ContentRef, Piece};
use crate::sys::dir::Names;
use crate::sys::stat::Stat;
use crate::watch::{Counter, ProblemKind};

/// What a waiting entry takes beside its content: allocations, and its place among the others.
const WAITING_BYTES: usize = 160;

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

/// A directory under way.
#[derive(Default)]
pub struct Assembly {
    /// Place of the first entry that has not gone into a leaf.
    next: usize,
    leaf: Leaf,
    /// Done, but something before them is not. `None`: not in the snapshot.
    waiting: BTreeMap<usize, Option<Finished>>,
    /// In order; `None` while somebody stores the leaf.
    nodes: Vec<Option<Stored>>,
}

/// An entry that is ready to go into a leaf.
struct Finished {
    entry: LooseEntry,
    content: Vec<ContentRef>,
    child: Option<Box<Directory>>,
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
    is_full: bool,
}

impl Finished {
    /// About what it takes in memory while it waits, in bytes.
    fn memory(&self) -> usize {
        self.entry.extent()
            + self.content.len() * size_of::<ContentRef>()
            + self.child.as_ref().map_or(0, |_| size_of::<Directory>())
            + WAITING_BYTES
    }
}

impl Assembly {
    /// Takes in an entry that is done. A leaf that became full by that comes back with its number, to
    /// be stored and told by `stored`.
    fn put(
        &mut self,
        place: usize,
        finished: Option<Finished>,
        names: &Names,
        ahead: &Ahead,
    ) -> Option<(usize, Leaf)> {
        if place == self.next {
            self.append(finished, names);
        } else {
            ahead.add(finished.as_ref().map_or(WAITING_BYTES, Finished::memory));
            self.waiting.insert(place, finished);
        }
        self.go_on(names, ahead)
    }

    fn stored(
        &mut self,
        number: usize,
        node: Stored,
        names: &Names,
        ahead: &Ahead,
    ) -> Option<(usize, Leaf)> {
        self.nodes[number] = Some(node);
        self.go_on(names, ahead)
    }

    /// Takes in what waited only for what is there now.
    fn go_on(&mut self, names: &Names, ahead: &Ahead) -> Option<(usize, Leaf)> {
        while !self.leaf.is_full {
            let waiting = self.waiting.first_entry().filter(|first| *first.key() == self.next)?;
            let finished = waiting.remove();
            ahead.sub(finished.as_ref().map_or(WAITING_BYTES, Finished::memory));
            self.append(finished, names);
        }
        Some(self.take_leaf())
    }

    fn append(&mut self, finished: Option<Finished>, names: &Names) {
        if let Some(finished) = finished {
            self.leaf.append(&names[self.next], finished);
        }
        self.next += 1;
    }

    fn take_leaf(&mut self) -> (usize, Leaf) {
        self.nodes.push(None);
        (self.nodes.len() - 1, std::mem::take(&mut self.leaf))
    }

    /// When everything has been taken in: the leaves that are stored, and the last, which is not.
    fn take(&mut self) -> (Vec<Stored>, Leaf) {
        assert!(self.waiting.is_empty(), "nothing waits when every entry is done");
        let stored =
            |node: Option<Stored>| node.expect("who fills a leaf stores it before he goes");
        let nodes = std::mem::take(&mut self.nodes).into_iter().map(stored).collect();
        (nodes, std::mem::take(&mut self.leaf))
    }
}

impl Leaf {
    fn append(&mut self, name: &[u8], finished: Finished) {
        let Finished { entry, content, child } = finished;
        let child = child.map(|ids| {
            self.children.push(Child { refs: ids.refs, tree: ids.tree });
            self.children.len() as u32 - 1
        });
        let content = self.segments(&content);
        entry.put(&content, child, &mut self.encoded);
        if self.entries == 0 {
            self.first_name = name.to_vec();
        }
        self.entries += 1;
        self.is_full = ends_leaf(name, self.entries, self.encoded.len(), self.chunks.len());
    }

    /// The content of a file as segments that point into this leaf.
    fn segments(&mut self, content: &[ContentRef]) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut rest = content;
        while let Some(first) = rest.first() {
            match *first {
                ContentRef::Piece(Piece::Hole { len }) => segments.push(Segment::Hole { len }),
                ContentRef::List { id, len } => {
                    let list = self.lists.len() as u32;
                    self.lists.push(id);
                    segments.push(Segment::List { list, len });
                }
                ContentRef::Piece(Piece::Chunk { .. }) => {
                    let first = self.chunks.len();
                    self.chunks.extend(rest.iter().map_while(ContentRef::chunk));
                    let run = &self.chunks[first..];
                    let len = run.iter().map(|chunk| u64::from(chunk.len)).sum();
                    let (first, chunks) = (first as u32, run.len() as u32);
                    segments.push(Segment::Chunks { first, chunks, len });
                    rest = &rest[chunks as usize..];
                    continue;
                }
            }
            rest = &rest[1..];
        }
        segments
    }
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
    /// Every name of `dir` has been handed out.
    pub fn listed(&mut self, dir: &Arc<DirNode>) -> Result<()> {
        self.work.ahead.add(dir.names.memory());
        self.one_done(dir)
    }

    /// An entry of `dir` is done. `None`: it is not in the snapshot.
    pub fn entry_done(
        &mut self,
        dir: &Arc<DirNode>,
        place: usize,
        done: Option<Done>,
    ) -> Result<()> {
        self.put(dir, place, done)?;
        self.one_done(dir)
    }

    /// Something that `dir` waited for is done. If it was the last thing, completes it, and the directories above while
    /// they complete by that.
    fn one_done(&mut self, dir: &Arc<DirNode>) -> Result<()> {
        let mut dir = dir.clone();
        while dir.count_down() {
            let ids = self.complete(&dir)?;
            self.work.ahead.sub(dir.names.memory());
            self.work.count(Counter::Dirs, 1);
            let Some((up, place)) = &dir.up else {
                self.work.set_root(ids);
                return Ok(());
            };
            let entry = dir.entry.lock().expect("no panic holds this lock").take();
            let done = entry.map(|entry| Done::Dir(entry, (!dir.unread).then_some(ids)));
            self.put(up, *place, done)?;
            let up = up.clone();
            dir = up;
        }
        Ok(())
    }

    fn put(&mut self, dir: &DirNode, place: usize, done: Option<Done>) -> Result<()> {
        let finished = match done {
            Some(done) => self.finish(dir, done)?,
            None => None,
        };
        let (names, ahead) = (&dir.names, &self.work.ahead);
        let mut full = dir.assembly().put(place, finished, names, ahead);
        while let Some((number, leaf)) = full {
            let node = self.store_leaf(leaf)?;
            full = dir.assembly().stored(number, node, names, ahead);
        }
        Ok(())
    }

    /// `None`: the file system gave something that the format cannot hold.
    fn finish(&mut self, dir: &DirNode, done: Done) -> Result<Option<Finished>> {
        let (entry, content, child) = match done {
            Done::Dir(entry, child) => (entry, Vec::new(), child.map(Box::new)),
            Done::Leaf(record) => (record.entry, self.content(record.pieces)?, None),
        };
        let bytes = content.iter().map(ContentRef::bytes).sum();
        match LooseEntry::new(&entry, bytes) {
            Ok(entry) => Ok(Some(Finished { entry, content, child })),
            Err(error) => {
                self.work.problem(ProblemKind::Unread, &dir.path_of(&entry.name), error);
                Ok(None)
            }
        }
    }

    /// The pieces of a file; runs of them as stored lists if there are many.
    fn content(&mut self, pieces: Vec<Piece>) -> Result<Vec<ContentRef>> {
        if pieces.len() <= LIST_ABOVE_CHUNKS {
            return Ok(pieces.into_iter().map(ContentRef::Piece).collect());
        }
        let mut content = Vec::new();
        let mut rest = &pieces[..];
        while let Some(piece) = rest.first() {
            if let Piece::Hole { .. } = piece {
                content.push(ContentRef::Piece(*piece));
                rest = &rest[1..];
                continue;
            }
            let run: Vec<ChunkRef> = rest.iter().map_while(Piece::chunk).collect();
            rest = &rest[run.len()..];
            let len = run.iter().map(|chunk| u64::from(chunk.len)).sum();
            content.push(ContentRef::List { id: self.store_list(&run)?, len });
        }
        Ok(content)
    }

    /// Every entry has been taken in, and every leaf but the last is stored.
    fn complete(&mut self, dir: &DirNode) -> Result<Directory> {
        let (mut nodes, last) = dir.assembly().take();
        if nodes.is_empty() || last.entries > 0 {
            nodes.push(self.store_leaf(last)?);
        }
        while nodes.len() > 1 {
            nodes = self.store_inner(nodes)?;
        }
        Ok(nodes[0].ids)
    }

    fn store_leaf(&mut self, leaf: Leaf) -> Result<Stored> {
        let Leaf { entries, first_name, encoded, children, chunks, lists, .. } = leaf;
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
