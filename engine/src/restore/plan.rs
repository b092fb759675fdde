//! The plan: the snapshot's entries in order, each compared with what the target has. Directories,
//! links and special files are made on the way; pieces of files are handed out, to be compared or
//! to be fetched, in batches.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::snapshot::Directory;
use crate::format::tree::{EntryKind, TREE_DEPTH_MAX};
use crate::repo::SnapshotInfo;
use crate::repo::trees::{Found, Node, Piece, Trees};
use crate::restore::compare::{Compare, Existing, PIECES_MAX};
use crate::restore::fetch::{Want, reads};
use crate::restore::target::{DirPlan, DirState, join};
use crate::restore::work::{Sum, Work};
use crate::restore::write::{FilePlan, Linked};
use crate::restore::{Hands, Task};
use crate::sys::buffer::PageBuffer;
use crate::sys::stat::{Kind, Stat, Time};
use crate::watch::Counter;

/// Pieces of files that are planned before what is missing is fetched: about 30 MiB, and 128 GiB of
/// large files.
const BATCH_PIECES: usize = 128 << 10;

/// Where in the snapshot to begin.
pub struct Start {
    /// What the target itself stands for.
    path: Vec<u8>,
    what: Found,
}

/// A directory that is still to be gone through.
struct Level {
    plan: Arc<DirPlan>,
    ids: Directory,
    /// The filter was true for it, or for one above it, or there is none.
    included: bool,
    depth: usize,
}

struct Plan<'p, 'w> {
    work: &'p Work<'w>,
    trees: &'p Trees<'p>,
    hands: &'p mut Hands<'w>,
    links: HashMap<[u8; 16], Arc<Linked>>,
    /// The batch: what has to be fetched, comparisons that are out, and the pieces in both.
    wants: Vec<Want>,
    comparisons: usize,
    pieces: usize,
    buffer: PageBuffer,
}

/// What is there in a file's place.
enum There {
    /// Its content is as it should be, or is taken to be.
    Same,
    /// It can be repaired.
    File,
    /// Nothing, or nothing that may be written to.
    Other,
}

impl Start {
    pub fn find(trees: &Trees, info: &SnapshotInfo, path: Option<&[u8]>) -> Result<Self> {
        let top = info.snapshot.root;
        let path = path.unwrap_or(b"/");
        let (mut at, what) = trees
            .at(&top, path)?
            .ok_or_else(|| Error::NoPath { snapshot: info.id.to_string(), path: path.to_vec() })?;
        if let Found::Entry(node) = &what
            && node.entry.kind != EntryKind::Directory
        {
            // It lands in the target under its name.
            at.truncate(at.len() - node.entry.name.len());
        }
        Ok(Self { path: at, what })
    }
}

/// Plans everything from `start` on.
pub fn plan<'w>(work: &Work<'w>, trees: &Trees, hands: &mut Hands<'w>, start: Start) -> Result<()> {
    let links = HashMap::new();
    let (wants, buffer) = (Vec::new(), PageBuffer::default());
    let (comparisons, pieces) = (0, 0);
    let mut plan = Plan { work, trees, hands, links, wants, comparisons, pieces, buffer };
    let included = plan.includes_above(&start.path);
    let top = work.target.top(start.path);
    let mut levels = Vec::new();
    match start.what {
        Found::Top(ids) => levels.push(Level { plan: top, ids, included, depth: 0 }),
        Found::Entry(node) if node.entry.kind == EntryKind::Directory => match node.child {
            Some(ids) => levels.push(Level { plan: top, ids, included, depth: 0 }),
            None => work.leave(&top)?,
        },
        Found::Entry(node) => {
            plan.entry(&top, &top.path(), included, 0, *node, &mut levels)?;
            work.leave(&top)?;
        }
    }
    while let Some(level) = levels.pop() {
        let from = levels.len();
        plan.directory(&level, &mut levels)?;
        // The next to be gone through is the first by name.
        levels[from..].reverse();
        work.leave(&level.plan)?;
    }
    plan.flush()
}

impl Plan<'_, '_> {
    /// Goes through the entries of a directory; its subdirectories go to `levels`.
    fn directory(&mut self, level: &Level, levels: &mut Vec<Level>) -> Result<()> {
        let path = level.plan.path();
        if level.depth > TREE_DEPTH_MAX {
            self.work.lost(path, format!("directories are more than {TREE_DEPTH_MAX} deep"));
            return Ok(());
        }
        let (plan, included, depth) = (&level.plan, level.included, level.depth);
        let trees = self.trees;
        let listed = trees
            .each(&level.ids, &mut |node| self.entry(plan, &path, included, depth, node, levels));
        match listed {
            Err(error) if is_damage(&error) => {
                self.work.lost(path, error);
                Ok(())
            }
            listed => listed,
        }
    }

    fn entry(
        &mut self,
        dir: &Arc<DirPlan>,
        dir_path: &[u8],
        included: bool,
        depth: usize,
        node: Node,
        levels: &mut Vec<Level>,
    ) -> Result<()> {
        self.work.go_on()?;
        let path = join(dir_path, &node.entry.name);
        let is_dir = node.entry.kind == EntryKind::Directory;
        let options = self.work.options;
        if options.exclude.as_ref().is_some_and(|exclude| exclude(&path, is_dir)) {
            return Ok(());
        }
        let included =
            included || options.include.as_ref().is_some_and(|filter| filter(&path, is_dir));
        if is_dir {
            let plan = self.work.target.below(dir, &node.entry);
            let made = !included || self.make(&plan)?;
            return match node.child.filter(|_| made) {
                Some(ids) => {
                    levels.push(Level { plan, ids, included, depth: depth + 1 });
                    Ok(())
                }
                None => self.work.leave(&plan),
            };
        }
        if !included || !self.make(dir)? {
            return Ok(());
        }
        self.work.count(Counter::EntriesFound, 1);
        self.work.current(&path);
        self.leaf(dir, node)
    }

    /// `false`: it could not be made, and nothing goes into it.
    fn make(&mut self, dir: &Arc<DirPlan>) -> Result<bool> {
        let unmade = dir.state() == DirState::Unmade;
        match self.work.target.make(dir, self.work.options.dry_run) {
            Ok(DirState::Failed) => Ok(false),
            Ok(_) => {
                self.work.count(Counter::EntriesFound, u64::from(unmade));
                Ok(true)
            }
            Err(not_made) => {
                let above = not_made.dir.up().expect("the topmost is never made");
                let error = self.work.of_entry(above, not_made.dir.name(), not_made.error)?;
                self.work.lost(not_made.dir.path(), error);
                Ok(false)
            }
        }
    }

    /// A file, or anything else but a directory.
    fn leaf(&mut self, dir: &Arc<DirPlan>, node: Node) -> Result<()> {
        let entry = &node.entry;
        let mut link = None;
        if let Some(group) = entry.hard_link {
            match self.links.get(&group).filter(|first| first.kind() == entry.kind) {
                Some(first) => return self.work.link(first, dir, node.entry.name),
                None => link = Some(Linked::new(dir, entry)),
            }
            self.links.extend(link.iter().map(|link| (group, link.clone())));
        }
        if entry.kind == EntryKind::File {
            return self.file(dir, &node, link);
        }
        let made = match self.work.other(dir, entry) {
            Ok(()) => {
                self.work.sum(Sum::Others, 1);
                true
            }
            Err(error) => {
                self.work.lost(dir.path_of(&entry.name), error);
                false
            }
        };
        link.map_or(Ok(()), |link| self.work.settle(&link, made))
    }

    fn file(&mut self, dir: &Arc<DirPlan>, node: &Node, link: Option<Arc<Linked>>) -> Result<()> {
        let size = node.entry.size.unwrap_or(0);
        self.work.count(Counter::BytesFound, size);
        let there = match self.there(dir, node) {
            Ok(there) => there,
            Err(error) => {
                let error = self.work.of_entry(dir, &node.entry.name, error)?;
                self.work.lost(dir.path_of(&node.entry.name), error);
                return link.map_or(Ok(()), |link| self.work.settle(&link, false));
            }
        };
        if let There::Same = there {
            self.work.bytes(Sum::BytesInPlace, size);
            self.work.file_done(Sum::FilesInPlace);
            return link.map_or(Ok(()), |link| self.work.settle(&link, true));
        }
        let existed = matches!(there, There::File);
        let file = FilePlan::new(self.work, dir, &node.entry, existed, link);
        let (mut at, mut compare) = (0, Vec::new());
        let trees = self.trees;
        let planned = trees.pieces(node, &mut |piece| {
            self.piece(&file, at, piece, &mut compare)?;
            at += piece.bytes();
            Ok(())
        });
        match planned {
            Err(error) if is_damage(&error) => file.fail(error),
            planned => planned?,
        }
        self.compare(&file, compare)?;
        self.work.done(&file)
    }

    /// A file that has other names, and would have to be changed, counts as another: those names
    /// may lie outside of the target.
    fn there(&mut self, dir: &Arc<DirPlan>, node: &Node) -> io::Result<There> {
        let entry = &node.entry;
        let Some(found) = self.work.target.stat(dir, &entry.name)? else {
            return Ok(There::Other);
        };
        if found.kind != Kind::File {
            return Ok(There::Other);
        }
        let mtime = Time { secs: entry.mtime.secs, nanos: entry.mtime.nanos };
        let same = found.size == entry.size.unwrap_or(0) && found.mtime == mtime;
        if same && !self.work.options.verify_existing {
            return self.same(dir, node, &found);
        }
        if self.work.target.place(dir)?.open_file_to_write(&entry.name).is_ok() {
            return Ok(There::File);
        }
        if same && self.intact(dir, node).unwrap_or(false) {
            return self.same(dir, node, &found);
        }
        Ok(There::Other)
    }

    fn same(&self, dir: &DirPlan, node: &Node, found: &Stat) -> io::Result<There> {
        let kept = self.work.refresh(dir, &node.entry, found)?;
        Ok(if kept { There::Same } else { There::Other })
    }

    /// Is the content of a file that may not be written to what it should be?
    fn intact(&mut self, dir: &DirPlan, node: &Node) -> Result<bool> {
        let Ok(mut existing) = Existing::open(self.work, dir, &node.entry.name) else {
            return Ok(false);
        };
        let (mut at, mut intact) = (0, true);
        let (key, buffer) = (self.work.key, &mut self.buffer);
        self.trees.pieces(node, &mut |piece| {
            intact = intact && existing.holds(key, at, &piece, buffer);
            at += piece.bytes();
            Ok(())
        })?;
        Ok(intact)
    }

    fn piece(
        &mut self,
        file: &Arc<FilePlan>,
        at: u64,
        piece: Piece,
        compare: &mut Vec<(u64, Piece)>,
    ) -> Result<()> {
        self.work.go_on()?;
        match piece {
            _ if file.existed() => {
                file.hold();
                compare.push((at, piece));
                if compare.len() == PIECES_MAX {
                    self.compare(file, std::mem::take(compare))?;
                }
            }
            Piece::Chunk { id, len } => {
                file.hold();
                self.wants.push(Want { file: file.clone(), at, id, len });
            }
            // A new file gets it with its length.
            Piece::Hole { len } => {
                self.work.bytes(Sum::BytesRestored, len);
                return Ok(());
            }
        }
        self.pieces += 1;
        if self.pieces >= BATCH_PIECES {
            self.compare(file, std::mem::take(compare))?;
            self.flush()?;
        }
        Ok(())
    }

    fn compare(&mut self, file: &Arc<FilePlan>, pieces: Vec<(u64, Piece)>) -> Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        self.comparisons += 1;
        self.hands.give(Task::Compare(Compare { file: file.clone(), pieces }))
    }

    /// Ends the batch: what is wanted is fetched.
    fn flush(&mut self) -> Result<()> {
        let mut wants = std::mem::take(&mut self.wants);
        wants.extend(self.hands.differing(std::mem::take(&mut self.comparisons))?);
        self.pieces = 0;
        if self.work.options.dry_run {
            return wants
                .iter()
                .try_for_each(|want| self.work.pretend(&want.file, u64::from(want.len)));
        }
        let hands = &mut *self.hands;
        reads(self.work, wants, &mut |read| hands.give(Task::Read(read)))
    }

    /// Does the filter, if there is one, take in a path or one above it?
    fn includes_above(&self, path: &[u8]) -> bool {
        let Some(include) = &self.work.options.include else { return true };
        let ends = (1..path.len()).filter(|&at| path[at] == b'/').chain([path.len()]);
        ends.into_iter().any(|end| include(&path[..end], true))
    }
}

/// Something in the repository, which leaves the rest as it is; anything else ends the run.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. } | Error::Format { .. } | Error::Store(_))
}
