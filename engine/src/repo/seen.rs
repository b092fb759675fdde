//! What this client has seen: the newest roster, and which snapshots were live. Kept in its cache (mode 0600, no part
//! of the format, safe to delete), so that a store that is rolled back to an older state is noticed. Without a cache,
//! or with a new one, there is nothing to compare with: then only what the slot and signatures cite is noticed.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::id::{SessionId, hash};
use crate::format::roster::Roster;
use crate::repo::Repo;
use crate::repo::control::Liveness;
use crate::store::ObjectName;
use crate::watch::{Problem, ProblemKind, Watch};

/// Snapshots remembered: 4 MiB. Of more, those with the lowest ids are forgotten, which are no special ones.
const SNAPSHOTS_MAX: usize = 256 << 10;
const HEAD: usize = 4 + 32;
const SUM: usize = 32;

/// The file: roster u32 ‖ H of the roster ‖ n × snapshot [16] ‖ H of all before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    roster: u32,
    roster_hash: [u8; 32],
    snapshots: BTreeSet<SessionId>,
}

impl Seen {
    /// Whatever is not as we wrote it says nothing.
    fn read(cache: &Path) -> Self {
        let bytes = std::fs::read(path(cache)).unwrap_or_default();
        let Some((body, sum)) = bytes.split_last_chunk::<SUM>() else { return Self::default() };
        let Some((head, ids)) = body.split_first_chunk::<HEAD>() else { return Self::default() };
        if hash(body) != *sum {
            return Self::default();
        }
        let (roster, roster_hash) = head.split_at(4);
        let (ids, rest) = ids.as_chunks::<16>();
        // Another file of this cache in its place (found by the fuzzer: the chain's sum is right, too).
        if !rest.is_empty() {
            return Self::default();
        }
        Self {
            roster: u32::from_le_bytes(roster.try_into().expect("four bytes")),
            roster_hash: roster_hash.try_into().expect("32 bytes"),
            snapshots: ids.iter().map(|id| SessionId(*id)).collect(),
        }
    }

    /// A cache that cannot be written to remembers less; that is no reason to stop.
    fn write(&self, cache: &Path) {
        let mut body = [&self.roster.to_le_bytes()[..], &self.roster_hash].concat();
        self.snapshots.iter().for_each(|id| body.extend_from_slice(&id.0));
        let sum = hash(&body);
        body.extend_from_slice(&sum);
        let fresh = cache.join(format!("seen.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&fresh).and_then(|mut file| file.write_all(&body));
        if written.and_then(|()| std::fs::rename(&fresh, path(cache))).is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
    }
}

fn path(cache: &Path) -> PathBuf {
    cache.join("seen")
}

/// Holds the roster that the store shows to the newest that this client has seen. `false`: it is a new one, to be
/// remembered.
pub(super) fn knows_roster(cache: &Path, roster: &Roster, roster_hash: [u8; 32]) -> Result<bool> {
    let seen = Seen::read(cache);
    if roster.number < seen.roster {
        let (newest, seen) = (roster.number, seen.roster);
        let what = format!("roster {newest} is the newest here, this client has seen {seen}");
        return Err(Error::Rollback { what });
    }
    if roster.number == seen.roster && roster_hash != seen.roster_hash {
        let what = format!("roster {} is another than this client has seen", seen.roster);
        return Err(Error::Rollback { what });
    }
    Ok(roster.number == seen.roster)
}

pub(super) fn remember_roster(cache: &Path, roster: &Roster, roster_hash: [u8; 32]) {
    let mut seen = Seen::read(cache);
    (seen.roster, seen.roster_hash) = (roster.number, roster_hash);
    seen.write(cache);
}

impl Repo {
    /// Snapshots that this client has seen live, that are gone, and that no valid record says were forgotten. What is
    /// live now is remembered.
    pub(crate) fn vanished(&self) -> Result<Vec<SessionId>> {
        let Some(cache) = self.cache() else { return Ok(Vec::new()) };
        let before = Seen::read(cache);
        let Liveness { live, dead, doomed } = self.liveness()?;
        let there: BTreeSet<SessionId> = live.iter().chain(&dead).chain(&doomed).copied().collect();
        let mut vanished = Vec::new();
        for id in before.snapshots.difference(&there) {
            if !self.is_forgotten(id)? && !self.is_doomed(id)? {
                vanished.push(*id);
            }
        }
        let mut now = before.clone();
        now.snapshots = live.into_iter().chain(vanished.iter().copied()).collect();
        if !self.make_snapshots_durable(now.snapshots.difference(&before.snapshots)) {
            now.snapshots.retain(|id| before.snapshots.contains(id));
        }
        while now.snapshots.len() > SNAPSHOTS_MAX {
            now.snapshots.pop_first();
        }
        if now != before {
            now.write(cache);
        }
        Ok(vanished)
    }

    /// What is remembered must not vanish: it may be visible from a put that was told to have failed, and gone after a
    /// power loss.
    fn make_snapshots_durable<'a>(&self, fresh: impl Iterator<Item = &'a SessionId>) -> bool {
        let names = fresh.map(|id| ObjectName::new(&format!("snapshots/{id}")));
        let names: Vec<ObjectName> = names.map(|name| name.expect("hex makes a name")).collect();
        names.is_empty() || self.store().make_durable(&mut names.iter()).is_ok()
    }

    /// The same, for whoever lists snapshots: each with its error.
    pub fn vanished_snapshots(&self) -> Result<Vec<(SessionId, Error)>> {
        let rollback = |id| (id, Error::Rollback { what: format!("snapshots/{id}: {VANISHED}") });
        Ok(self.vanished()?.into_iter().map(rollback).collect())
    }

    /// Carrying out a verdict deletes snapshots, and the verdict stays.
    fn is_doomed(&self, id: &SessionId) -> Result<bool> {
        let retired = self.retired()?;
        let mut verdicts = retired.values().filter_map(|generation| generation.verdict.as_ref());
        Ok(verdicts.any(|verdict| verdict.doomed.snapshots.contains(id)))
    }

    /// Says loudly which snapshots vanished. That it cannot be found out is told too, and stops nobody.
    pub(crate) fn tell_vanished(&self, watch: &dyn Watch) {
        let tell = |kind: ProblemKind, name: String, cause: String| {
            watch.problem(Problem { kind, name: name.into_bytes(), cause });
        };
        match self.vanished() {
            Ok(vanished) => vanished.iter().for_each(|id| {
                tell(ProblemKind::Damage, format!("snapshots/{id}"), VANISHED.to_owned());
            }),
            Err(error) => {
                let cause = format!("cannot tell whether any has vanished: {error}");
                tell(ProblemKind::Notice, "snapshots".to_owned(), cause);
            }
        }
    }
}

pub(crate) const VANISHED: &str =
    "this client has seen it; it is gone, and no record says that it was forgotten";
