//! Every reference of every live snapshot resolves: REFS nodes are followed from the roots, each
//! once, level by level, and where the key sees names each TREE node is held to its REFS node.
//! Which snapshots and paths a break costs is found out elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::findings::{DamageIndex, cause_of};
use super::health::Health;
use super::{Check, parallel};
use crate::error::{Error, FormatError, Named, Result};
use crate::format::id::{ChunkId, IdKey, PackId, SessionId};
use crate::format::snapshot::Directory;
use crate::format::tree::{ChunkRef, INNER_DEPTH_MAX, RefsNode, Segment, TreeNode};
use crate::repo::fetch::Fetcher;
use crate::repo::trees::Trees;

/// Chunks and nodes that cannot be had, with the damages to blame.
pub type Broken = HashMap<ChunkId, Vec<DamageIndex>>;

pub struct Walked {
    pub broken: Broken,
    /// Every REFS node could be read, so every reference was met.
    pub complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    /// A directory, or a piece of a huge one.
    Dir(Directory),
    /// A chunk list, with the bytes and chunks that whoever points to it expects, where that is known.
    List { id: ChunkId, bytes: Option<u64>, chunks: Option<u64> },
}

#[derive(Clone, Copy)]
struct Job {
    node: Node,
    /// Inner nodes above it, up to the directory or list that it is a piece of.
    inner: usize,
    /// Nodes of one level are visited in the order in which they lie.
    place: (PackId, u64),
}

struct Walk<'a> {
    check: &'a Check<'a>,
    fetcher: &'a Fetcher<'a>,
    health: &'a Health<'a>,
    seen: Mutex<HashSet<Node>>,
    next: Mutex<Vec<Job>>,
    huge: Mutex<Vec<Directory>>,
    broken: Mutex<Broken>,
    incomplete: AtomicBool,
}

pub fn walk<'a>(
    check: &'a Check<'a>,
    fetcher: &'a Fetcher<'a>,
    health: &'a Health<'a>,
    roots: &[(SessionId, Directory)],
) -> Result<Walked> {
    let (seen, next, huge, broken, incomplete) = Default::default();
    let walk = Walk { check, fetcher, health, seen, next, huge, broken, incomplete };
    roots.iter().for_each(|(_, root)| walk.push(Node::Dir(*root), 0));
    loop {
        let mut level = std::mem::take(&mut *lock(&walk.next));
        if level.is_empty() {
            break;
        }
        level.sort_unstable_by_key(|job| job.place);
        parallel::each(
            check.threads(),
            &level,
            || (),
            |(), job| {
                check.go_on()?;
                match job.node {
                    Node::Dir(dir) => walk.dir(&dir, job.inner),
                    Node::List { id, bytes, chunks } => walk.list(&id, bytes, chunks, job.inner),
                }
            },
        )?;
    }
    walk.check_order()?;
    let broken = walk.broken.into_inner().expect("no panic holds this lock");
    Ok(Walked { broken, complete: !walk.incomplete.into_inner() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic holds this lock")
}

impl Walk<'_> {
    fn push(&self, node: Node, inner: usize) {
        if !lock(&self.seen).insert(node) {
            return;
        }
        let id = match &node {
            Node::Dir(dir) => &dir.refs,
            Node::List { id, .. } => id,
        };
        let place = self.health.place_of(id);
        lock(&self.next).push(Job { node, inner, place });
    }

    fn dir(&self, dir: &Directory, inner: usize) -> Result<()> {
        let Some(refs) = self.refs(&dir.refs)? else {
            self.resolve(&dir.tree, None);
            return Ok(());
        };
        match &refs {
            RefsNode::Leaf { children, chunks, .. } => {
                chunks.iter().for_each(|ChunkRef { id, len }| self.resolve(id, Some(*len)));
                for child in children {
                    self.push(Node::Dir(Directory { refs: child.refs, tree: child.tree }), 0);
                }
            }
            RefsNode::Inner { children } if inner < INNER_DEPTH_MAX => {
                for child in children {
                    let piece = Directory { refs: child.refs, tree: child.tree };
                    self.push(Node::Dir(piece), inner + 1);
                }
                if inner == 0 {
                    lock(&self.huge).push(*dir);
                }
            }
            _ => self.wrong(&dir.refs, "it is no directory, or nested too deeply"),
        }
        self.names(dir, &refs)
    }

    /// The other half of a directory: with TREE it is read, else it only has to be there.
    fn names(&self, dir: &Directory, refs: &RefsNode) -> Result<()> {
        let mut list_bytes = Vec::new();
        if self.check.sees_names() {
            let tree = self.fetch(&dir.tree, self.check.repo.id_key()?, |plain| {
                let tree = TreeNode::from_bytes(plain)?;
                tree.check_against(refs).map(|()| tree)
            })?;
            if let Some(TreeNode::Leaf { entries }) = tree {
                let content = entries.iter().flat_map(|entry| &entry.content);
                content.for_each(|segment| list_lengths(segment, &mut list_bytes));
            }
        } else {
            self.resolve(&dir.tree, None);
        }
        let RefsNode::Leaf { lists, .. } = refs else { return Ok(()) };
        for (place, id) in (0u32..).zip(lists) {
            let said = list_bytes.iter().filter(|(list, _)| *list == place);
            let mut said = said.map(|(_, bytes)| Some(*bytes)).peekable();
            let unsaid = said.peek().is_none().then_some(None);
            for bytes in said.chain(unsaid) {
                self.push(Node::List { id: *id, bytes, chunks: None }, 0);
            }
        }
        Ok(())
    }

    fn list(
        &self,
        id: &ChunkId,
        bytes: Option<u64>,
        count: Option<u64>,
        inner: usize,
    ) -> Result<()> {
        let Some(refs) = self.refs(id)? else { return Ok(()) };
        let (found_bytes, found_count) = match &refs {
            RefsNode::List { chunks } => {
                chunks.iter().for_each(|ChunkRef { id, len }| self.resolve(id, Some(*len)));
                (chunks.iter().map(|chunk| u64::from(chunk.len)).sum(), chunks.len() as u64)
            }
            RefsNode::ListInner { lists } if inner < INNER_DEPTH_MAX => {
                for row in lists {
                    let (bytes, chunks) = (Some(row.bytes), Some(row.chunks));
                    self.push(Node::List { id: row.id, bytes, chunks }, inner + 1);
                }
                // Their sums were checked not to overflow.
                let (bytes, chunks) =
                    (lists.iter().map(|row| row.bytes), lists.iter().map(|row| row.chunks));
                (bytes.sum(), chunks.sum())
            }
            _ => {
                self.wrong(id, "it is no chunk list, or nested too deeply");
                return Ok(());
            }
        };
        let same = |wanted: Option<u64>, found| wanted.is_none_or(|wanted| wanted == found);
        if !same(bytes, found_bytes) || !same(count, found_count) {
            self.wrong(id, "its chunks do not add up to what its owner says");
        }
        Ok(())
    }

    fn refs(&self, id: &ChunkId) -> Result<Option<RefsNode>> {
        let refs = self.fetch(id, self.check.repo.refid_key(), RefsNode::from_bytes)?;
        self.incomplete.fetch_or(refs.is_none(), Ordering::Relaxed);
        Ok(refs)
    }

    /// Fetches and parses a node. `None`: it is broken, and that has been noted.
    fn fetch<T>(
        &self,
        id: &ChunkId,
        key: &IdKey,
        parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>> {
        let missing = self.health.missing(id, None);
        if !missing.is_empty() {
            self.mark(id, missing);
            return Ok(None);
        }
        let node = self.fetcher.chunk(id, key);
        match node.and_then(|plain| parse(&plain).named("node")) {
            Ok(node) => Ok(Some(node)),
            Err(error @ (Error::Interrupted | Error::Role { .. } | Error::Cache { .. })) => {
                Err(error)
            }
            Err(error) => {
                self.wrong(id, &cause_of("node", &error));
                Ok(None)
            }
        }
    }

    fn resolve(&self, id: &ChunkId, len: Option<u32>) {
        let missing = self.health.missing(id, len);
        if !missing.is_empty() {
            self.mark(id, missing);
        }
    }

    fn wrong(&self, id: &ChunkId, cause: &str) {
        let object = self.health.object_of(id);
        let what = if cause.contains(&id.to_string()) {
            cause.to_owned()
        } else {
            format!("node {id}: {cause}")
        };
        self.mark(id, vec![self.check.findings.damage(&object, &what)]);
    }

    fn mark(&self, id: &ChunkId, damages: Vec<DamageIndex>) {
        let mut broken = lock(&self.broken);
        let known = broken.entry(*id).or_default();
        known.extend(damages);
        known.sort_unstable();
        known.dedup();
    }

    /// The pieces of a huge directory, read in a row: their names ascend from one to the next.
    fn check_order(&self) -> Result<()> {
        if !self.check.sees_names() || !lock(&self.broken).is_empty() {
            return Ok(());
        }
        let trees = Trees::new(self.check.repo, self.fetcher);
        for dir in lock(&self.huge).drain(..) {
            self.check.go_on()?;
            if let Err(error) = trees.each(&dir, &mut |_| Ok(())) {
                self.wrong(&dir.tree, &cause_of("", &error));
            }
        }
        Ok(())
    }
}

/// Chunk lists by their places in the REFS node, with the bytes that the entry says they have.
fn list_lengths(segment: &Segment, found: &mut Vec<(u32, u64)>) {
    match segment {
        Segment::List { list, len } => found.push((*list, *len)),
        Segment::Rebuilt { parts, .. } => parts.iter().for_each(|part| list_lengths(part, found)),
        Segment::Chunks { .. } | Segment::Hole { .. } => {}
    }
}
