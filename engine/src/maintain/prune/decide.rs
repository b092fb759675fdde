//! The verdict: every session that was open after the proposal came out has ended or is fenced;
//! then snapshots and holds are read again, and what a live snapshot needs is rescued. Only one
//! verdict counts: if another got there first, it is followed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use crate::error::{Error, Named, Result};
use crate::format::control::{Doomed, Verdict};
use crate::format::id::{ChunkId, PackId, SessionId};
use crate::format::record::Kind;
use crate::format::session::Session;
use crate::repo::control::verdict_name;
use crate::repo::live::{At, Live, Places};
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found};
use crate::store::Put;

use super::choose::{base_ids, each_live_row, lost};
use super::propose::used_sessions;
use super::state::State;
use super::{Prune, PruneReport, merge};

/// What a verdict rests on: who is forgotten, held, fenced; what was proposed; the copies that
/// stay.
const RELIED_ON: [&str; 6] = ["snapshots", "forgotten", "holds", "retired", "index", "packs"];

pub enum Outcome {
    /// Of these sessions nobody knows yet whether they commit.
    Waiting(Vec<SessionId>),
    Decided,
    /// The proposal is not there any more, or has its verdict.
    Overtaken,
}

pub fn decide(prune: &Prune, number: u32, report: &mut PruneReport) -> Result<Outcome> {
    let repo = prune.repo;
    // A number is used once: a proposal that stands beside a verdict came too late.
    let Some(proposed) = repo.proposal(number)? else { return Ok(Outcome::Overtaken) };
    if repo.verdict(number)?.is_some() {
        return Ok(Outcome::Overtaken);
    }
    let waiting = settle(prune, report)?;
    if !waiting.is_empty() {
        return Ok(Outcome::Waiting(waiting));
    }
    // What was forgotten after the proposal is not named by it and stays whole: it may be held yet.
    let named: HashSet<SessionId> = proposed.proposal.doomed.snapshots.iter().copied().collect();
    let (state, live) = State::marked(prune, &|id| !named.contains(id))?;
    let places = Places::new(&state.index)?;
    let doomed = spare(prune, &state, &places, &live, proposed.proposal.doomed, report)?;
    places.index.stands()?;
    // What was relied on was visible, which is not yet durable.
    for folder in RELIED_ON {
        repo.make_folder_durable(folder)?;
    }
    let verdict =
        Verdict { generation: number, doomed, time_ns: repo.env().now(), proposal: proposed.hash };
    repo.try_put_stated(Kind::Verdict, &verdict_name(number), &verdict.to_cbor())?;
    Ok(Outcome::Decided)
}

/// Fences silent sessions and returns those that may still commit. Sessions are listed first, then
/// what ends them.
pub fn settle(prune: &Prune, report: &mut PruneReport) -> Result<Vec<SessionId>> {
    let repo = prune.repo;
    let announced = repo.session_ids("sessions")?;
    let mut ended: HashSet<SessionId> = repo.session_ids("snapshots")?.into_iter().collect();
    ended.extend(repo.session_ids("forgotten")?);
    let (mut open, mut silent) = (Vec::new(), Vec::new());
    let mut adopted = BTreeSet::new();
    for id in announced {
        prune.go_on()?;
        let name = format!("sessions/{id}");
        match repo.read(Kind::Session, &name, RECORD_BYTES_MAX) {
            Ok(read) => {
                let session = Session::from_cbor(&read.body).named(&name)?;
                let adopts = session.adopts.into_iter().map(|dead| (read.author, dead));
                adopted.extend(adopts);
                if !ended.contains(&id) && prune.is_stale(session.time_ns) {
                    silent.push(id);
                } else if !ended.contains(&id) {
                    open.push((read.author, id));
                }
            }
            Err(error) if is_not_found(&error) => {}
            // Rotten or forged: nobody can tell whose it is or how old. A true writer loses
            // seconds.
            Err(Error::Format { .. } | Error::Damaged { .. }) => {
                silent.extend((!ended.contains(&id)).then_some(id));
            }
            Err(error) => return Err(error),
        }
    }
    // A later session of the same author says that it is dead.
    let (dead, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|it| adopted.contains(it));
    silent.extend(dead.into_iter().map(|(_, id)| id));
    if !silent.is_empty() {
        // A session may look open because its snapshot vanished: that must not get a tombstone.
        State::read(prune)?;
        silent.iter().try_for_each(|id| fence(prune, id, report))?;
    }
    Ok(open.into_iter().map(|(_, id)| id).collect())
}

fn fence(prune: &Prune, id: &SessionId, report: &mut PruneReport) -> Result<()> {
    if prune.repo.put_tombstone(id, "it was silent while a prune waited")? == Put::Created {
        prune.notice(&format!("sessions/{id}"), "fenced: it was silent, or adopted by another");
        report.sessions_fenced.push(*id);
    }
    Ok(())
}

/// Of what was proposed, what may go now.
fn spare(
    prune: &Prune,
    state: &State,
    places: &Places,
    live: &Live,
    proposed: Doomed,
    report: &mut PruneReport,
) -> Result<Doomed> {
    let rescue = Rescue { places, doomed: Mutex::new(proposed.packs.iter().copied().collect()) };
    each_live_row(prune, places, live, &|segment, row, id| {
        if places.is_first(segment, row, id) { rescue.chunk(id) } else { Ok(()) }
    })?;
    let packs = rescue.doomed.into_inner().expect("no panic holds this lock");
    report.packs_rescued = (proposed.packs.len() - packs.len()) as u64;
    let runs = merge::replaceable(places, &proposed.runs, &packs);
    let dead: HashSet<&SessionId> = state.liveness.dead.iter().collect();
    let used = used_sessions(state, places);
    let still = |id: &SessionId| !used.contains(id);
    Ok(Doomed {
        packs: proposed.packs.into_iter().filter(|id| packs.contains(id)).collect(),
        runs,
        snapshots: proposed.snapshots.into_iter().filter(|id| dead.contains(id)).collect(),
        sessions: proposed.sessions.into_iter().filter(still).collect(),
    })
}

/// Takes packs off the list until every live chunk has a copy in a pack that stays, with full
/// copies of its bases.
struct Rescue<'a> {
    places: &'a Places<'a>,
    doomed: Mutex<HashSet<PackId>>,
}

impl Rescue<'_> {
    fn chunk(&self, id: &ChunkId) -> Result<()> {
        let copies = self.places.copies(id);
        if copies.iter().any(|at| at.is_full() && self.stays(at)) {
            return Ok(());
        }
        let whole = |at: &&At| base_ids(self.places, at).iter().all(|base| self.has_full(base));
        let best = copies.iter().filter(whole).min_by_key(|at| {
            // A delta that stays costs at most its bases; then full copies, then deltas of packs to
            // be rescued.
            (!self.stays(at), !at.is_full(), at.pack())
        });
        let best = best.ok_or_else(|| lost(id))?;
        self.take_off(best);
        base_ids(self.places, best).iter().try_for_each(|base| self.full(base))
    }

    /// A full copy of a base stays, or its pack is rescued.
    fn full(&self, id: &ChunkId) -> Result<()> {
        let copies = self.places.copies(id);
        let full: Vec<&At> = copies.iter().filter(|at| at.is_full()).collect();
        if full.iter().any(|at| self.stays(at)) {
            return Ok(());
        }
        self.take_off(full.first().ok_or_else(|| lost(id))?);
        Ok(())
    }

    fn has_full(&self, id: &ChunkId) -> bool {
        self.places.copies(id).iter().any(At::is_full)
    }

    fn stays(&self, at: &At) -> bool {
        !self.doomed.lock().expect("no panic holds this lock").contains(&at.pack())
    }

    fn take_off(&self, at: &At) {
        self.doomed.lock().expect("no panic holds this lock").remove(&at.pack());
    }
}
