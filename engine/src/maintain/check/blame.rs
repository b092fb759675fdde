//! What a break costs: which snapshots need it and, where the key sees names, which paths. Runs
//! only if something is broken, walks each snapshot with names, and passes over what it has found
//! whole once.

use std::collections::{HashMap, HashSet};

use super::Check;
use super::findings::DamageIndex;
use super::walk::Broken;
use crate::error::{Error, FormatError, Named, Result};
use crate::format::id::{ChunkId, IdKey, SessionId};
use crate::format::snapshot::Directory;
use crate::format::tree::{Child, Entry, INNER_DEPTH_MAX, RefsNode, Segment, TreeNode};
use crate::repo::fetch::Fetcher;

struct Blame<'a> {
    check: &'a Check<'a>,
    fetcher: &'a Fetcher<'a>,
    broken: &'a Broken,
    /// Directories below which nothing is broken.
    whole: HashSet<Directory>,
    /// Damages below each chunk list that was looked at.
    lists: HashMap<ChunkId, Vec<DamageIndex>>,
}

/// A directory that the walk is in.
struct Open {
    dir: Directory,
    path_len: usize,
    children: std::vec::IntoIter<Item>,
    broken: bool,
}

/// Something below a directory. `name`: none for the directory itself, and for pieces of a huge one.
struct Item {
    name: Option<Vec<u8>>,
    damages: Vec<DamageIndex>,
    child: Option<Directory>,
}

pub fn blame(
    check: &Check,
    fetcher: &Fetcher,
    broken: &Broken,
    roots: &[(SessionId, Directory)],
) -> Result<()> {
    let mut blame = Blame { check, fetcher, broken, whole: HashSet::new(), lists: HashMap::new() };
    roots.iter().try_for_each(|(snapshot, root)| blame.snapshot(snapshot, root))
}

impl Blame<'_> {
    /// Depth first with a stack of its own: how deep a tree is, its author decides.
    fn snapshot(&mut self, snapshot: &SessionId, root: &Directory) -> Result<()> {
        let mut path = Vec::new();
        let mut open = vec![self.open(root, 0)?];
        while let Some(dir) = open.last_mut() {
            let Some(item) = dir.children.next() else {
                let done = open.pop().expect("just seen");
                if let Some(parent) = open.last_mut() {
                    parent.broken |= done.broken;
                }
                if !done.broken {
                    self.whole.insert(done.dir);
                }
                continue;
            };
            path.truncate(dir.path_len);
            if let Some(name) = &item.name {
                path.push(b'/');
                path.extend_from_slice(name);
            }
            dir.broken |= !item.damages.is_empty();
            for damage in &item.damages {
                let shown = if path.is_empty() { b"/".as_slice() } else { &path };
                let shown = self.check.sees_names().then_some(shown);
                self.check.findings.costs(*damage, snapshot, shown);
            }
            if let Some(child) = item.child.filter(|child| !self.whole.contains(child)) {
                self.check.go_on()?;
                let child = self.open(&child, path.len())?;
                open.push(child);
            }
        }
        Ok(())
    }

    fn open(&mut self, dir: &Directory, path_len: usize) -> Result<Open> {
        let children = self.items(dir)?.into_iter();
        Ok(Open { dir: *dir, path_len, children, broken: false })
    }

    /// What is in a directory, as far as it can be read.
    fn items(&mut self, dir: &Directory) -> Result<Vec<Item>> {
        let own = [dir.refs, dir.tree].iter().flat_map(|id| self.damages(id)).collect();
        let mut items = vec![Item { name: None, damages: own, child: None }];
        let Some(refs) = self.node(&dir.refs, self.check.repo.refid_key(), RefsNode::from_bytes)?
        else {
            return Ok(items);
        };
        let tree = match self.check.repo.id_key() {
            Ok(key) if self.check.sees_names() => self.node(&dir.tree, key, |plain| {
                let tree = TreeNode::from_bytes(plain)?;
                tree.check_against(&refs).map(|()| tree)
            })?,
            _ => None,
        };
        match tree {
            Some(TreeNode::Leaf { entries }) => {
                for entry in entries {
                    items.push(self.entry(entry, &refs)?);
                }
            }
            _ => self.nameless(&refs, &mut items)?,
        }
        Ok(items)
    }

    fn entry(&mut self, entry: Entry, refs: &RefsNode) -> Result<Item> {
        let mut damages = Vec::new();
        for segment in &entry.content {
            self.segment(segment, refs, &mut damages)?;
        }
        let child = match (refs, entry.child) {
            (RefsNode::Leaf { children, .. }, Some(place)) => children.get(place as usize),
            _ => None,
        };
        damages.sort_unstable();
        damages.dedup();
        Ok(Item { name: Some(entry.name), damages, child: child.map(directory) })
    }

    fn segment(
        &mut self,
        segment: &Segment,
        refs: &RefsNode,
        damages: &mut Vec<DamageIndex>,
    ) -> Result<()> {
        let RefsNode::Leaf { chunks, lists, .. } = refs else { return Ok(()) };
        match segment {
            Segment::Chunks { first, chunks: count, .. } => {
                let run = chunks.iter().skip(*first as usize).take(*count as usize);
                damages.extend(run.flat_map(|chunk| self.damages(&chunk.id)));
            }
            Segment::List { list, .. } => {
                if let Some(id) = lists.get(*list as usize) {
                    damages.extend(self.list(id, 0)?);
                }
            }
            Segment::Rebuilt { parts, .. } => {
                for part in parts {
                    self.segment(part, refs, damages)?;
                }
            }
            Segment::Hole { .. } => {}
        }
        Ok(())
    }

    /// Names cannot be seen, or there are none here: all that the REFS node has stands for the directory itself.
    fn nameless(&mut self, refs: &RefsNode, items: &mut Vec<Item>) -> Result<()> {
        let (children, chunks, lists): (&[Child], &[_], &[_]) = match refs {
            RefsNode::Leaf { children, chunks, lists } => (children, chunks, lists),
            RefsNode::Inner { children } => (children, &[], &[]),
            RefsNode::List { .. } | RefsNode::ListInner { .. } => (&[], &[], &[]),
        };
        let mut damages: Vec<_> = chunks.iter().flat_map(|chunk| self.damages(&chunk.id)).collect();
        for id in lists {
            damages.extend(self.list(id, 0)?);
        }
        damages.sort_unstable();
        damages.dedup();
        items.push(Item { name: None, damages, child: None });
        let child = |child| Item { name: None, damages: Vec::new(), child: Some(directory(child)) };
        items.extend(children.iter().map(child));
        Ok(())
    }

    /// All damages in and below a chunk list. One that is nested too deeply has a damage at that depth.
    fn list(&mut self, id: &ChunkId, inner: usize) -> Result<Vec<DamageIndex>> {
        if let Some(known) = self.lists.get(id) {
            return Ok(known.clone());
        }
        let mut damages = self.damages(id);
        match self.node(id, self.check.repo.refid_key(), RefsNode::from_bytes)? {
            Some(RefsNode::List { chunks }) => {
                damages.extend(chunks.iter().flat_map(|chunk| self.damages(&chunk.id)));
            }
            Some(RefsNode::ListInner { lists }) if inner < INNER_DEPTH_MAX => {
                for row in lists {
                    damages.extend(self.list(&row.id, inner + 1)?);
                }
            }
            _ => {}
        }
        damages.sort_unstable();
        damages.dedup();
        self.lists.insert(*id, damages.clone());
        Ok(damages)
    }

    fn damages(&self, id: &ChunkId) -> Vec<DamageIndex> {
        self.broken.get(id).cloned().unwrap_or_default()
    }

    /// `None`: it cannot be read, which the walk has noted.
    fn node<T>(
        &self,
        id: &ChunkId,
        key: &IdKey,
        parse: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>> {
        let plain = self.fetcher.chunk(id, key);
        match plain.and_then(|plain| parse(&plain).named("node")) {
            Ok(node) => Ok(Some(node)),
            Err(error @ (Error::Interrupted | Error::Cache { .. })) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn directory(child: &Child) -> Directory {
    Directory { refs: child.refs, tree: child.tree }
}
