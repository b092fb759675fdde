//! What live snapshots need and no sound copy gives. A copy is sound if its pack is there with the
//! stated length and its frame is not recorded as damaged; a delta's, if its bases have one too.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::format::id::ChunkId;
use crate::format::snapshot::Directory;
use crate::format::tree::RefsNode;
use crate::repo::fetch::Fetcher;
use crate::repo::live::each_below;
use crate::repo::lookup::{Copy, Index};
use crate::repo::trees::Trees;
use crate::repo::{Repo, SnapshotInfo};

use super::{Repair, RepairReport};

/// Live snapshots that open; those that do not cannot be helped here, and are left.
pub fn roots(repair: &Repair, report: &mut RepairReport) -> Result<Vec<SnapshotInfo>> {
    let repo = repair.repo;
    let vanished = repo.vanished_snapshots()?;
    let (snapshots, damaged) = repo.snapshots_despite()?;
    for (id, error) in damaged.into_iter().chain(vanished) {
        repair.leave(report, &format!("snapshots/{id}"), format!("it cannot be opened: {error}"));
    }
    Ok(snapshots)
}

/// Is there a copy that readers and writers may go by?
pub fn has_sound_copy(index: &Index, id: &ChunkId) -> bool {
    index.copies(id).iter().any(|copy| is_sound(index, copy))
}

pub fn is_sound(index: &Index, copy: &Copy) -> bool {
    let is_recorded = |copy: &Copy| {
        index.packs().damaged.contains(&(copy.place.pack.id, copy.place.frame.offset))
    };
    let mut bases = copy.segment.run().bases(&copy.place.frame).into_iter().flatten();
    !is_recorded(copy)
        && bases.all(|base| {
            let copies = index.copies(&base.id);
            copies.iter().any(|base| base.place.frame.bases == 0 && !is_recorded(base))
        })
}

/// How else a node can be had that no copy in the index gives.
pub type Rescue<'r> = dyn FnMut(&ChunkId) -> Result<Option<Vec<u8>>> + 'r;

/// Every id below these roots without a sound copy. What hangs below a node that cannot be had is
/// not met.
pub fn missing(
    repair: &Repair,
    fetcher: &Fetcher,
    roots: &[SnapshotInfo],
    rescue: &mut Rescue,
) -> Result<Vec<ChunkId>> {
    let (repo, index) = (repair.repo, fetcher.index());
    let trees = Trees::new(repo, fetcher);
    let (mut seen, mut missing) = (HashSet::new(), Vec::new());
    let mut next: Vec<ChunkId> = Vec::new();
    let mut meet = |id: &ChunkId, is_refs: bool, next: &mut Vec<ChunkId>| {
        if !is_refs && has_sound_copy(index, id) {
            return;
        }
        if seen.insert(*id) {
            if is_refs {
                next.push(*id);
            }
            if !has_sound_copy(index, id) {
                missing.push(*id);
            }
        }
    };
    for info in roots {
        let Directory { refs, tree } = info.snapshot.root;
        meet(&refs, true, &mut next);
        meet(&tree, false, &mut next);
    }
    while let Some(id) = next.pop() {
        repair.go_on()?;
        let node = match trees.refs(&id) {
            Ok(node) => node,
            Err(error) => {
                pass_over(error)?;
                let Some(plain) = rescue(&id)? else { continue };
                let Ok(node) = RefsNode::from_bytes(&plain) else { continue };
                node
            }
        };
        each_below(&node, &mut |id, is_refs| meet(id, is_refs, &mut next));
    }
    Ok(missing)
}

/// Damage is what we are here for; all else ends the run.
pub fn pass_over(error: Error) -> Result<()> {
    match error {
        Error::Damaged { .. } | Error::Format { .. } => Ok(()),
        error => Err(error),
    }
}

/// The keys that prove a chunk of this repository, as far as ours do.
pub fn names(repo: &Repo, id: &ChunkId, bytes: &[u8]) -> bool {
    repo.refid_key().id(bytes) == *id || repo.id_key().is_ok_and(|key| key.id(bytes) == *id)
}
