//! Snapshots written again without what is truly gone. Gone is what no sound copy gives, by what is
//! recorded and by what was just read; a store that fails loses nothing, it ends the run.

use std::collections::{BTreeSet, HashSet};

use crate::error::{Error, Result};
use crate::format::control::Forgotten;
use crate::format::id::{ChunkId, SessionId, hash};
use crate::format::record::Kind;
use crate::format::snapshot::{Directory, Snapshot};
use crate::format::tree::{Entry, EntryKind, RefsNode, TREE_DEPTH_MAX};
use crate::repo::SnapshotInfo;
use crate::repo::despite::Despite;
use crate::repo::fetch::Fetcher;
use crate::repo::packer::Packer;
use crate::repo::session::Session;
use crate::repo::trees::{Node, Trees};

use super::losses::{has_sound_copy, missing, pass_over};
use super::nodes::Nodes;
use super::{Repair, RepairReport, Repaired};

/// Looks at every snapshot, and replaces those that miss something.
pub fn rewrite(
    repair: &Repair,
    roots: Vec<SnapshotInfo>,
    salvaged: &HashSet<ChunkId>,
    report: &mut RepairReport,
) -> Result<()> {
    let repo = repair.repo;
    let (index, _) = repo.index_despite(Despite::Runs)?;
    let fetcher = Fetcher::new(repo, &index);
    let held: HashSet<SessionId> = repo.holds()?.into_iter().map(|hold| hold.snapshot).collect();
    let mut whole = HashSet::new();
    for info in roots {
        repair.go_on()?;
        let name = format!("snapshots/{}", info.id);
        if !repair.is_owner() {
            let mut lost =
                missing(repair, &fetcher, std::slice::from_ref(&info), &mut |_| Ok(None))?;
            lost.retain(|id| !salvaged.contains(id));
            if !lost.is_empty() {
                let why = format!("it misses {} chunks: the owner's key repairs it", lost.len());
                repair.leave(report, &name, why);
            }
            continue;
        }
        let mut walk = Walk::new(repair, &fetcher, &info, salvaged, &mut whole);
        let kept = walk.run(None)?;
        let lost = walk.lost;
        if lost.is_empty() {
            continue;
        }
        let mut repaired = Repaired { old: info.id, new: None, lost };
        if kept.is_none() {
            repair.leave(report, &name, "nothing of it can be read: forget it".to_owned());
        } else if held.contains(&info.id) {
            repair.leave(report, &name, "it is held: release it, then repair again".to_owned());
        } else if !repair.options.dry_run {
            repaired.new = replace(repair, &info, &repaired.lost)?;
        }
        report.snapshots.push(repaired);
    }
    if !repair.options.dry_run {
        fetcher.record_damage(Vec::new(), "repair")?;
    }
    Ok(())
}

/// A session of its own: announced before anything is looked up, as every writer does.
fn replace(repair: &Repair, info: &SnapshotInfo, lost: &[Vec<u8>]) -> Result<Option<SessionId>> {
    let repo = repair.repo;
    let session = Session::new(repo)?;
    session.announce(repo, &[])?;
    let (index, _) = repo.index_despite(Despite::Runs)?;
    let fetcher = Fetcher::new(repo, &index);
    let packer = Packer::new(repo, &session, &index, false);
    let (salvaged, mut whole) = (HashSet::new(), HashSet::new());
    let mut walk = Walk::new(repair, &fetcher, info, &salvaged, &mut whole);
    let root = walk.run(Some(Nodes::new(repo, &index, &packer)))?;
    let Some(root) = root else { return Ok(None) };
    packer.finish()?;
    let (sequence, previous) = repo.chain()?;
    let old = &info.snapshot;
    let mut counts = old.counts;
    counts.unread += lost.len() as u64;
    let snapshot = Snapshot {
        sequence: sequence + 1,
        previous,
        author: repo.identity(),
        tool: concat!("strongroom ", env!("CARGO_PKG_VERSION")).to_owned(),
        counts,
        root,
        parent: Some(info.id),
        end_ns: repo.env().now(),
        ..old.clone()
    };
    repo.make_index_durable()?;
    let body = session.seal_snapshot(repo, &snapshot.to_cbor());
    let bytes = repo.put_stated(Kind::Snapshot, &format!("snapshots/{}", session.id), &body)?;
    repo.keep_chain(sequence + 1, hash(&bytes))?;
    // Only now that its replacement is durable.
    let reason = match repair.options.reason.as_str() {
        "" => format!("repaired as {}", session.id),
        reason => format!("repaired as {}: {reason}", session.id),
    };
    let (snapshot, time_ns) = (info.id, repo.env().now());
    let forgotten = Forgotten { snapshot, time_ns, reason, policy: None, stored_hash: info.hash };
    repo.put_forgotten(&forgotten)?;
    Ok(Some(session.id))
}

/// One snapshot, gone through depth first with a stack of its own: how deep it is, its author
/// decides.
struct Walk<'a> {
    repair: &'a Repair<'a>,
    fetcher: &'a Fetcher<'a>,
    trees: Trees<'a>,
    info: &'a SnapshotInfo,
    salvaged: &'a HashSet<ChunkId>,
    /// Directories below which nothing is lost.
    whole: &'a mut HashSet<Directory>,
    lost: Vec<Vec<u8>>,
}

struct Level {
    dir: Directory,
    path: Vec<u8>,
    rest: std::vec::IntoIter<Node>,
    kept: Vec<Node>,
    changed: bool,
    /// The entry of the directory that is being gone through above this one.
    pending: Option<Node>,
}

impl<'a> Walk<'a> {
    fn new(
        repair: &'a Repair<'a>,
        fetcher: &'a Fetcher<'a>,
        info: &'a SnapshotInfo,
        salvaged: &'a HashSet<ChunkId>,
        whole: &'a mut HashSet<Directory>,
    ) -> Self {
        let trees = Trees::new(repair.repo, fetcher);
        Self { repair, fetcher, trees, info, salvaged, whole, lost: Vec::new() }
    }

    /// What is left of the snapshot; `None`: nothing. With `nodes` what changed is stored; else
    /// the answer only says that something is left.
    fn run(&mut self, mut nodes: Option<Nodes>) -> Result<Option<Directory>> {
        let root = self.info.snapshot.root;
        let Some(level) = self.open(root, Vec::new())? else { return Ok(None) };
        let mut levels = vec![level];
        loop {
            self.repair.go_on()?;
            let depth = levels.len();
            let level = levels.last_mut().expect("the root ends the loop");
            if let Some(node) = level.rest.next() {
                let path = [&level.path[..], b"/", &node.entry.name].concat();
                match node.child {
                    Some(child) if !self.whole.contains(&child) => {
                        let opened = if depth > TREE_DEPTH_MAX {
                            self.lost.push(path);
                            None
                        } else {
                            self.open(child, path)?
                        };
                        level.pending = opened.is_some().then_some(node);
                        level.changed |= opened.is_none();
                        levels.extend(opened);
                    }
                    _ if self.is_there(&node)? => level.kept.push(node),
                    _ => {
                        self.lost.push(path);
                        level.changed = true;
                    }
                }
                continue;
            }
            let done = levels.pop().expect("just seen");
            let ids = match (done.changed, &mut nodes) {
                (true, Some(nodes)) => nodes.directory(done.kept)?,
                (true, None) => done.dir,
                (false, _) => {
                    self.whole.insert(done.dir);
                    done.dir
                }
            };
            let Some(up) = levels.last_mut() else { return Ok(Some(ids)) };
            let mut node = up.pending.take().expect("it was gone into");
            node.child = Some(ids);
            up.changed |= done.changed;
            up.kept.push(node);
        }
    }

    /// `None`: it is lost.
    fn open(&mut self, dir: Directory, path: Vec<u8>) -> Result<Option<Level>> {
        let mut entries = Vec::new();
        let read = self.trees.each(&dir, &mut |node| {
            entries.push(node);
            Ok(())
        });
        let (entries, changed) = match read {
            Ok(()) => (entries, false),
            // In a dry run nothing was moved: what hangs below is not looked at.
            Err(error) if missing_chunk(&error).is_some_and(|id| self.salvaged.contains(&id)) => {
                (Vec::new(), false)
            }
            Err(error) => {
                self.is_gone(error)?;
                self.lost.push(if path.is_empty() { b"/".to_vec() } else { path.clone() });
                let Some(entries) = self.without_names(&dir, &path)? else { return Ok(None) };
                (entries, true)
            }
        };
        let rest = entries.into_iter();
        Ok(Some(Level { dir, path, rest, kept: Vec::new(), changed, pending: None }))
    }

    /// The names in a directory are lost, and what its files were; its subdirectories are not. Above
    /// the roots of the snapshot their names are known; else they get new ones.
    fn without_names(&mut self, dir: &Directory, path: &[u8]) -> Result<Option<Vec<Node>>> {
        let children = match self.trees.refs(&dir.refs) {
            Ok(RefsNode::Leaf { children, .. }) => children,
            Ok(_) => return Ok(None),
            Err(error) => return self.is_gone(error).map(|()| None),
        };
        if children.is_empty() {
            return Ok(None);
        }
        let below = [path, b"/"].concat();
        let roots =
            self.info.snapshot.roots.iter().filter_map(|root| root.strip_prefix(&below[..]));
        let known: BTreeSet<&[u8]> =
            roots.filter_map(|rest| rest.split(|&byte| byte == b'/').next()).collect();
        let mut known = known.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
        if known.len() != children.len() {
            known.clear();
        }
        let node = |(place, child): (usize, &crate::format::tree::Child)| {
            let name =
                known.get(place).map_or_else(|| format!("lost-{place:06}").into(), |n| n.to_vec());
            let entry = Entry { name, kind: EntryKind::Directory, mode: 0o700, ..Entry::default() };
            let child = Some(Directory { refs: child.refs, tree: child.tree });
            Node { entry, content: Vec::new(), child }
        };
        Ok(Some(children.iter().enumerate().map(node).collect()))
    }

    /// Has every piece of a file a sound copy?
    fn is_there(&self, node: &Node) -> Result<bool> {
        let mut there = true;
        let read = self.trees.pieces(node, &mut |piece| {
            there = there && piece.chunk().is_none_or(|chunk| self.has(&chunk.id));
            Ok(())
        });
        match read {
            Ok(()) => Ok(there),
            Err(error) => self.is_gone(error).map(|()| false),
        }
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.salvaged.contains(id) || has_sound_copy(self.fetcher.index(), id)
    }

    /// Is something that could not be read gone for good? A read that failed is no loss.
    fn is_gone(&self, error: Error) -> Result<()> {
        if let Some(id) = missing_chunk(&error) {
            let (index, suspects) = (self.fetcher.index(), self.fetcher.suspects());
            let bad = |pack, offset| {
                index.packs().damaged.contains(&(pack, offset)) || suspects.has(pack, offset)
            };
            let copies = index.copies(&id);
            if !copies.iter().all(|copy| bad(copy.place.pack.id, copy.place.frame.offset)) {
                return Err(error);
            }
        }
        pass_over(error)
    }
}

/// The chunk that no copy gave.
fn missing_chunk(error: &Error) -> Option<ChunkId> {
    let Error::Damaged { what, .. } = error else { return None };
    what.strip_prefix("chunk ").and_then(ChunkId::from_hex)
}
