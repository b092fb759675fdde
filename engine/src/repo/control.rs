//! Control records read: what is forgotten, what is held, which generations of deletion there are,
//! and so which snapshots are live. Only what an admin or owner signed counts. The order of reads
//! matters and is said where it does. When to write them is decided by forget, hold and prune.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Named, Result};
use crate::format::control::{Doomed, Forgotten, Hold, Proposal, Release, Verdict};
use crate::format::id::{HoldId, IdentityId, SessionId};
use crate::format::kind::parse_number;
use crate::format::record::Kind;
use crate::format::session::Tombstone;
use crate::format::slot::Role;
use crate::repo::Repo;
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found};
use crate::store::Put;

/// One numbered step of deletion: what is proposed, and what was decided.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    pub proposal: Option<Proposed>,
    pub verdict: Option<Decided>,
}

#[derive(Debug, Clone)]
pub(crate) struct Proposed {
    pub proposal: Proposal,
    /// H of its stored bytes.
    pub hash: [u8; 32],
}

#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub doomed: Doomed,
    pub hash: [u8; 32],
}

/// By number, as the store shows them.
pub(crate) type Retired = BTreeMap<u32, Generation>;

/// A hold that nobody released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInfo {
    pub id: HoldId,
    pub snapshot: SessionId,
    pub time_ns: i64,
    pub reason: String,
    pub author: IdentityId,
}

/// Every object below `snapshots/`, sorted by what it is good for. Tombstones are among the live
/// ones.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    pub live: Vec<SessionId>,
    /// Forgotten and not held.
    pub dead: Vec<SessionId>,
    /// Named by a verdict: being deleted, whatever else is said of it.
    pub doomed: Vec<SessionId>,
}

impl Liveness {
    pub fn all(&self) -> impl Iterator<Item = &SessionId> {
        self.live.iter().chain(&self.dead).chain(&self.doomed)
    }
}

impl Repo {
    /// Only an admin or owner deletes, and decides what is kept.
    pub(crate) fn needs_admin(&self) -> Result<()> {
        if matches!(self.role(), Role::Admin | Role::Owner) {
            return Ok(());
        }
        Err(Error::Role { role: self.role(), needs: "a key that may delete (admin or owner)" })
    }

    /// Which snapshots count. A forgotten record is listed before the holds are: a hold that was
    /// there when the snapshot was forgotten is seen.
    pub(crate) fn liveness(&self) -> Result<Liveness> {
        let all = self.session_ids("snapshots")?;
        let forgotten: HashSet<SessionId> = self.session_ids("forgotten")?.into_iter().collect();
        let (maybe, mut live): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|id| forgotten.contains(id));
        if maybe.is_empty() {
            return Ok(Liveness { live, ..Liveness::default() });
        }
        let held: HashSet<SessionId> = self.holds()?.into_iter().map(|h| h.snapshot).collect();
        let retired = self.retired()?;
        let named: HashSet<SessionId> = retired
            .values()
            .filter_map(|generation| generation.verdict.as_ref())
            .flat_map(|verdict| verdict.doomed.snapshots.iter().copied())
            .collect();
        let (mut dead, mut doomed) = (Vec::new(), Vec::new());
        for id in maybe {
            if named.contains(&id) {
                doomed.push(id);
            } else if !held.contains(&id) && self.is_forgotten(&id)? {
                dead.push(id);
            } else {
                live.push(id);
            }
        }
        live.sort_unstable();
        Ok(Liveness { live, dead, doomed })
    }

    /// A record that is rotten, forged, or of another snapshot hides nothing: the snapshot stays.
    pub(super) fn is_forgotten(&self, id: &SessionId) -> Result<bool> {
        match self.forgotten(id) {
            Ok(record) => Ok(record.snapshot == *id),
            Err(Error::Format { .. } | Error::Damaged { .. }) => Ok(false),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn forgotten(&self, id: &SessionId) -> Result<Forgotten> {
        let name = format!("forgotten/{id}");
        let read = self.read(Kind::Forgotten, &name, RECORD_BYTES_MAX)?;
        let (_, body) = self.open_sealed(Kind::Forgotten, &name, &read.body)?;
        Forgotten::from_cbor(&body).named(&name)
    }

    /// Forgets a snapshot for good. Twice is once: the first record stands.
    pub(crate) fn put_forgotten(&self, record: &Forgotten) -> Result<Put> {
        let name = format!("forgotten/{}", record.snapshot);
        let body = self.seal_record(Kind::Forgotten, &record.to_cbor())?;
        Ok(self.try_put_stated(Kind::Forgotten, &name, &body)?.0)
    }

    /// Puts a tombstone where the session's snapshot would stand. `Existed`: it has ended by itself,
    /// or was fenced already.
    pub(crate) fn put_tombstone(&self, session: &SessionId, reason: &str) -> Result<Put> {
        let time_ns = self.env().now();
        let tombstone = Tombstone { session: *session, time_ns, reason: reason.to_owned() };
        let name = format!("snapshots/{session}");
        Ok(self.try_put_stated(Kind::Tombstone, &name, &tombstone.to_cbor())?.0)
    }

    /// Holds that count. Releases are listed first: whoever puts a new hold before releasing the
    /// old one is never without.
    pub(crate) fn holds(&self) -> Result<Vec<HoldInfo>> {
        let mut released = HashSet::new();
        let mut names = Vec::new();
        self.store().list("holds", &mut |name, _| names.push(name))?;
        for name in names.iter().filter(|name| name.as_str().ends_with(".released")) {
            let name = name.as_str();
            // A release that does not count releases nothing.
            let Some(read) = self.control(Kind::Release, name)? else { continue };
            let hold = name.strip_suffix(".released").and_then(|n| HoldId::from_hex(&n[6..]));
            let release = Release::from_cbor(&read.0).named(name)?;
            released.extend(hold.filter(|hold| *hold == release.hold));
        }
        names.clear();
        self.store().list("holds", &mut |name, _| names.push(name))?;
        let mut holds = Vec::new();
        for name in &names {
            let Some(id) = HoldId::from_hex(name.last()) else { continue };
            if released.contains(&id) {
                continue;
            }
            let name = name.as_str();
            let Some((body, author)) = self.control(Kind::Hold, name)? else { continue };
            let Hold { snapshot, time_ns, reason } = Hold::from_cbor(&body).named(name)?;
            holds.push(HoldInfo { id, snapshot, time_ns, reason, author });
        }
        Ok(holds)
    }

    /// The body of a sealed control record and its author; `None`: nobody entitled signed it. A
    /// rotten one is an error: what it said might protect something.
    fn control(&self, kind: Kind, name: &str) -> Result<Option<(Vec<u8>, IdentityId)>> {
        let read = match self.read(kind, name, RECORD_BYTES_MAX) {
            Err(Error::Damaged { .. }) => return Ok(None),
            read => read?,
        };
        let (_, body) = self.open_sealed(kind, name, &read.body)?;
        Ok(Some((body, read.author)))
    }

    /// Every generation that is there. One whose records nobody entitled signed is void: it is
    /// empty, and its number is taken all the same. A proposal
    /// or a verdict that cannot be read for another reason is an error: what it names must not be
    /// relied on.
    pub(crate) fn retired(&self) -> Result<Retired> {
        let mut names = Vec::new();
        self.store().list("retired", &mut |name, _| names.push(name))?;
        let mut retired = Retired::new();
        for name in &names {
            let verdict = name.last().strip_suffix(".verdict");
            let Some(number) = parse_number(verdict.unwrap_or(name.last())) else { continue };
            let generation = retired.entry(number).or_default();
            if verdict.is_some() {
                generation.verdict = self.verdict(number)?;
            } else {
                generation.proposal = self.proposal(number)?;
            }
        }
        Ok(retired)
    }

    /// How many verdicts there are.
    pub(crate) fn verdicts(&self) -> Result<usize> {
        let mut count = 0;
        self.store().list("retired", &mut |name, _| {
            count += usize::from(name.as_str().ends_with(".verdict"));
        })?;
        Ok(count)
    }

    pub(crate) fn proposal(&self, number: u32) -> Result<Option<Proposed>> {
        let name = proposal_name(number);
        let Some((body, hash)) = self.retiring(Kind::Proposal, &name)? else { return Ok(None) };
        let proposal = Proposal::from_cbor(&body).named(&name)?;
        same_number(&name, number, proposal.generation)?;
        Ok(Some(Proposed { proposal, hash }))
    }

    pub(crate) fn verdict(&self, number: u32) -> Result<Option<Decided>> {
        let name = verdict_name(number);
        let Some((body, hash)) = self.retiring(Kind::Verdict, &name)? else { return Ok(None) };
        let verdict = Verdict::from_cbor(&body).named(&name)?;
        same_number(&name, number, verdict.generation)?;
        Ok(Some(Decided { doomed: verdict.doomed, hash }))
    }

    /// `None`: void, or dropped since it was listed, when all that it names was gone.
    fn retiring(&self, kind: Kind, name: &str) -> Result<Option<(Vec<u8>, [u8; 32])>> {
        match self.read(kind, name, RECORD_BYTES_MAX) {
            Ok(read) => Ok(Some((read.body, read.hash))),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sessions that name an object below `folder`.
    pub(crate) fn session_ids(&self, folder: &str) -> Result<Vec<SessionId>> {
        let mut ids = Vec::new();
        self.store().list(folder, &mut |name, _| ids.extend(SessionId::from_hex(name.last())))?;
        Ok(ids)
    }
}

pub(crate) fn proposal_name(number: u32) -> String {
    format!("retired/{number:08}")
}

pub(crate) fn verdict_name(number: u32) -> String {
    format!("retired/{number:08}.verdict")
}

fn same_number(name: &str, number: u32, said: u32) -> Result<()> {
    if number == said {
        return Ok(());
    }
    let cause = format!("it says that it is number {said}");
    Err(Error::Damaged { what: name.to_owned(), cause })
}
