//! The proposal of a generation: what no live snapshot needs, on state read after the last verdict.
//! Moved frames and merged runs are durable and read back before it is published.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::env::TimeNs;
use crate::error::{Error, Named, Result};
use crate::format::control::{Doomed, Proposal};
use crate::format::id::{PackId, SessionId};
use crate::format::record::Kind;
use crate::format::session::Tombstone;
use crate::repo::control::{Retired, proposal_name};
use crate::repo::live::Places;
use crate::repo::mover::{self, Mover};
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found};

use super::choose::{Chosen, PackUse, choose};
use super::state::State;
use super::{Prune, PruneReport, decide, merge, relocate};

/// Keeps a proposal within the limit of a record, 64 MiB; the rest goes in the next generation.
const PACKS_MAX: usize = 500_000;

/// Publishes a proposal and returns its number; `None`: there is nothing to delete, or this is a
/// dry run.
pub fn propose(prune: &Prune, retired: &Retired, report: &mut PruneReport) -> Result<Option<u32>> {
    if !prune.options.dry_run {
        mover::close_left(prune.repo)?;
        // What a dead session left can only be proposed once the session is closed.
        decide::settle(prune, report)?;
    }
    let (state, live) = State::marked(prune, &|_| false)?;
    let open = state.open_sessions(prune)?;
    let places = Places::new(&state.index)?;
    let chosen = choose(prune, &places, &live)?;
    let mut doomed = Doomed {
        packs: dead_packs(prune, &state, &chosen, &open)?,
        snapshots: state.liveness.dead.clone(),
        sessions: closed_sessions(prune, &state, &places)?,
        runs: state.rotten_runs.clone(),
    };
    describe(report, &state, &chosen, &doomed);
    let half_dead = relocate::select(prune, &state, &chosen, &open)?;
    report.packs_moved = half_dead.len() as u64;
    report.bytes_moved = half_dead.iter().map(|pack| pack.live_bytes).sum();
    report.bytes_unused -= half_dead.iter().map(|pack| pack.dead_bytes()).sum::<u64>();
    let runs = merge::select(prune, &places, &open)?;
    report.packs_doomed += half_dead.len() as u64;
    report.bytes_doomed += half_dead.iter().map(|pack| pack.row.len).sum::<u64>();
    report.runs_merged = runs.len() as u64;
    if prune.options.dry_run {
        return Ok(None);
    }
    let moves = !half_dead.is_empty();
    let mut mover = moves.then(|| Mover::begin(prune.repo, prune.watch)).transpose()?;
    let prepared = prepare(prune, &places, &chosen, &half_dead, &runs, mover.as_mut(), &mut doomed);
    let proposed = prepared.and_then(|()| publish(prune, retired, doomed));
    mover.map_or(Ok(()), Mover::close)?;
    proposed
}

/// Moves frames and merges runs, and adds what that replaces to the doomed.
fn prepare(
    prune: &Prune,
    places: &Places,
    chosen: &Chosen,
    half_dead: &[PackUse],
    runs: &[usize],
    mover: Option<&mut Mover>,
    doomed: &mut Doomed,
) -> Result<()> {
    if let Some(mover) = mover {
        doomed.packs.extend(relocate::relocate(prune, places, chosen, half_dead, mover)?);
    }
    doomed.runs.extend(merge::merge(prune, places, runs)?);
    doomed.runs.sort_unstable();
    doomed.packs.sort_unstable();
    places.index.stands()
}

fn publish(prune: &Prune, retired: &Retired, doomed: Doomed) -> Result<Option<u32>> {
    if doomed == Doomed::default() {
        return Ok(None);
    }
    let number = retired.keys().next_back().map_or(1, |last| last + 1);
    let verdict = retired.values().next_back().and_then(|last| last.verdict.as_ref());
    let proposal = Proposal {
        generation: number,
        doomed,
        time_ns: prune.repo.env().now(),
        previous_verdict: verdict.map(|verdict| verdict.hash),
    };
    // If another's is there already, that one is decided.
    prune.repo.try_put_stated(Kind::Proposal, &proposal_name(number), &proposal.to_cbor())?;
    Ok(Some(number))
}

/// Packs without a needed frame, of sessions that are closed.
fn dead_packs(
    prune: &Prune,
    state: &State,
    chosen: &Chosen,
    open: &BTreeSet<SessionId>,
) -> Result<Vec<PackId>> {
    let packs = state.index.packs();
    let mut dead: Vec<(PackId, u64)> = packs
        .listed
        .iter()
        .filter(|(id, _)| !packs.doomed.contains(id))
        .filter(|(id, _)| chosen.packs.get(id).is_none_or(|pack| pack.live_bytes == 0))
        .map(|(id, len)| (*id, len))
        .collect();
    dead.sort_unstable();
    let mut closed = Closed::new(prune, open);
    let mut doomed = Vec::new();
    for (id, len) in dead {
        if doomed.len() < PACKS_MAX && closed.holds(&id, len)? {
            doomed.push(id);
        }
    }
    Ok(doomed)
}

/// Tells packs of sessions that are closed from those that somebody may still count on.
pub struct Closed<'a> {
    prune: &'a Prune<'a>,
    open: &'a BTreeSet<SessionId>,
    known: BTreeMap<SessionId, bool>,
}

impl<'a> Closed<'a> {
    pub fn new(prune: &'a Prune, open: &'a BTreeSet<SessionId>) -> Self {
        Self { prune, open, known: BTreeMap::new() }
    }

    pub fn holds(&mut self, pack: &PackId, len: u64) -> Result<bool> {
        self.prune.go_on()?;
        let Some(session) = self.prune.repo.pack_session(pack, len)? else {
            // Its trailer cannot be read: with no session open it is nobody's.
            return Ok(self.open.is_empty());
        };
        if let Some(known) = self.known.get(&session) {
            return Ok(*known);
        }
        let closed = !self.open.contains(&session) && !self.fenced_lately(&session)?;
        self.known.insert(session, closed);
        Ok(closed)
    }

    /// What a dead session has stored is left for a while: the next session of its author adopts
    /// it.
    fn fenced_lately(&self, session: &SessionId) -> Result<bool> {
        let repo = self.prune.repo;
        let name = format!("snapshots/{session}");
        let read = match repo.read(Kind::Tombstone, &name, RECORD_BYTES_MAX) {
            Ok(read) => read,
            Err(Error::Format { .. } | Error::Damaged { .. }) => return Ok(false),
            Err(error) if is_not_found(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let tombstone = Tombstone::from_cbor(&read.body).named(&name)?;
        Ok(repo.env().now().abs_diff(tombstone.time_ns) < self.prune.fence_after())
    }
}

impl Prune<'_> {
    pub(super) fn fence_after(&self) -> u64 {
        self.options.fence_after_ns.max(0) as u64
    }

    /// Silent for longer than a session should be, or from a clock that is off by as much.
    pub(super) fn is_stale(&self, time_ns: TimeNs) -> bool {
        self.repo.env().now().abs_diff(time_ns) >= self.fence_after()
    }
}

/// Announcements and seals of sessions that came to nothing or whose snapshot is dead, once no run
/// names their frames.
fn closed_sessions(prune: &Prune, state: &State, places: &Places) -> Result<Vec<SessionId>> {
    let used = used_sessions(state, places);
    let announced = prune.repo.session_ids("sessions")?;
    let forgotten: HashSet<SessionId> = prune.repo.session_ids("forgotten")?.into_iter().collect();
    let ended = |id: &SessionId| state.liveness.live.contains(id) || forgotten.contains(id);
    Ok(announced.into_iter().filter(|id| !used.contains(id) && ended(id)).collect())
}

/// Sessions of live snapshots, and those whose frames a run names.
pub fn used_sessions(state: &State, places: &Places) -> HashSet<SessionId> {
    let mut used: HashSet<SessionId> = state.roots.iter().map(|(id, _)| *id).collect();
    for segment in &places.segments {
        let contexts = segment.run().contexts();
        used.extend(contexts.map(|row| session_of(&row.context)));
    }
    used
}

/// docs/format.md, 4.1: the session stands at 24.
pub fn session_of(context: &[u8; 72]) -> SessionId {
    SessionId(context[24..40].try_into().expect("16 bytes"))
}

fn describe(report: &mut PruneReport, state: &State, chosen: &Chosen, doomed: &Doomed) {
    let listed = &state.index.packs().listed;
    report.snapshots = state.roots.len() as u64;
    report.packs = listed.len() as u64;
    report.bytes = listed.iter().map(|(_, len)| len).sum();
    report.packs_doomed = doomed.packs.len() as u64;
    report.bytes_doomed = doomed.packs.iter().filter_map(|id| listed.get(id)).sum();
    let kept = chosen.packs.iter().filter(|pack| pack.live_bytes > 0);
    report.bytes_unused = kept.map(|pack| pack.dead_bytes()).sum();
    report.snapshots_doomed = doomed.snapshots.len() as u64;
}
