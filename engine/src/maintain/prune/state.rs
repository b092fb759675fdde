//! What a generation is built on, read in the order that the protocol asks for: snapshots and
//! holds, then packs, then runs, then sessions. All of it must be readable.

use std::collections::{BTreeSet, HashSet};

use crate::error::{Error, Result};
use crate::format::id::{ObjectHash, SessionId};
use crate::format::snapshot::Directory;
use crate::repo::SnapshotInfo;
use crate::repo::control::Liveness;
use crate::repo::live::{self, Live, Places};
use crate::repo::lookup::Index;
use crate::repo::records::is_not_found;
use crate::repo::seen::VANISHED;

use super::Prune;

pub struct State {
    pub liveness: Liveness,
    pub roots: Vec<(SessionId, Directory)>,
    pub index: Index,
    /// Index runs whose bytes do not match their names: nobody can read them.
    pub rotten_runs: Vec<ObjectHash>,
}

impl State {
    /// Reads all of it and marks what the live snapshots need. A listing is not atomic, and while
    /// it went on another prune may have moved a frame: what seems to be missing is looked for
    /// again before anyone believes it.
    ///
    /// `spared`: forgotten snapshots for which this is true are marked as well, as far as they are
    /// whole.
    pub fn marked(prune: &Prune, spared: &dyn Fn(&SessionId) -> bool) -> Result<(Self, Live)> {
        let read = || {
            let state = Self::read(prune)?;
            let places = Places::new(&state.index)?;
            let mark = |roots: &[_]| live::mark(prune.repo, &places, roots, prune.watch);
            let mut roots = state.roots.clone();
            for id in state.liveness.dead.iter().filter(|id| spared(id)) {
                let info = prune.repo.snapshot(id).ok().flatten();
                roots.extend(info.map(|info| (info.id, info.snapshot.root)));
            }
            let live = mark(&roots).or_else(|error| {
                if roots.len() > state.roots.len() { mark(&state.roots) } else { Err(error) }
            })?;
            Ok((state, live))
        };
        match read() {
            Err(Error::Damaged { .. }) => read(),
            Err(error) if is_not_found(&error) => read(),
            read => read,
        }
    }

    pub fn read(prune: &Prune) -> Result<Self> {
        let repo = prune.repo;
        if let Some(id) = repo.vanished()?.first() {
            return Err(Error::Rollback { what: format!("snapshots/{id}: {VANISHED}") });
        }
        let liveness = repo.liveness()?;
        let mut infos = Vec::new();
        for id in &liveness.live {
            prune.go_on()?;
            match repo.snapshot(id)? {
                Some(info) => infos.push(info),
                None => not_vanished(prune, id)?,
            }
        }
        chains_are_whole(prune, &infos, &liveness)?;
        let roots = infos.iter().map(|info| (info.id, info.snapshot.root)).collect();
        let (index, rotten_runs) = repo.index_for_deleting(prune.watch)?;
        Ok(Self { liveness, roots, index, rotten_runs })
    }

    /// Sessions that may still commit. Listed after the packs: whoever wrote a pack that was listed
    /// is among the announced. Closed is what had its object among the snapshots that were read, or
    /// was forgotten.
    pub fn open_sessions(&self, prune: &Prune) -> Result<BTreeSet<SessionId>> {
        let announced = prune.repo.session_ids("sessions")?;
        let forgotten: HashSet<SessionId> =
            prune.repo.session_ids("forgotten")?.into_iter().collect();
        let closed: HashSet<&SessionId> = self.liveness.all().chain(&forgotten).collect();
        Ok(announced.into_iter().filter(|id| !closed.contains(id)).collect())
    }
}

/// A listed snapshot that opens to nothing is a tombstone, or was forgotten and deleted just now.
fn not_vanished(prune: &Prune, id: &SessionId) -> Result<()> {
    let name = format!("snapshots/{id}");
    if prune.repo.exists(&name)? || prune.repo.exists(&format!("forgotten/{id}"))? {
        return Ok(());
    }
    let cause = "it vanished, and no record says that it was forgotten".to_owned();
    Err(Error::Damaged { what: name, cause })
}

/// Each snapshot cites its author's previous one: that is there, or a record says that it was
/// forgotten.
fn chains_are_whole(prune: &Prune, infos: &[SnapshotInfo], liveness: &Liveness) -> Result<()> {
    let known: HashSet<[u8; 32]> = infos.iter().map(|info| info.hash).collect();
    let cited = infos.iter().filter_map(|info| Some((info.snapshot.previous?, info.id)));
    let mut open: Vec<_> = cited.filter(|(previous, _)| !known.contains(previous)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let forgotten = prune.repo.session_ids("forgotten")?;
    // Those still there first: they are the likely ones, and few.
    for id in liveness.dead.iter().chain(&forgotten) {
        if open.is_empty() {
            break;
        }
        let record = prune.repo.forgotten(id)?;
        open.retain(|(previous, _)| *previous != record.stored_hash);
    }
    let Some((_, id)) = open.first() else { return Ok(()) };
    let cause =
        "the snapshot that it follows is not there, and no record says that it was forgotten";
    Err(Error::Damaged { what: format!("snapshots/{id}"), cause: cause.to_owned() })
}
