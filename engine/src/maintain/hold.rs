//! Holds: snapshots that survive every policy, with a reason. A hold counts from when its record is
//! there until its release is; one that comes after a verdict has named the snapshot comes too
//! late, and says so.

use crate::error::{Error, Result};
use crate::format::control::{Hold, Release};
use crate::format::id::{HoldId, SessionId};
use crate::format::record::Kind;
use crate::repo::Repo;

pub use crate::repo::HoldInfo;

/// Holds a snapshot. One that is forgotten, but not yet deleted, is live again.
pub fn add(repo: &Repo, snapshot: &SessionId, reason: &str) -> Result<HoldId> {
    repo.needs_admin()?;
    let id = HoldId(repo.env().random());
    let hold = Hold { snapshot: *snapshot, time_ns: repo.env().now(), reason: reason.to_owned() };
    let name = format!("holds/{id}");
    let body = repo.seal_record(Kind::Hold, &hold.to_cbor())?;
    repo.put_stated(Kind::Hold, &name, &body)?;
    // Looked at after the hold is there: a verdict that we do not see has seen the hold. Twice: one
    // listing may miss a proposal that is just being dropped, and its new verdict.
    match too_late(repo, snapshot).and_then(|()| too_late(repo, snapshot)) {
        Ok(()) => Ok(id),
        Err(error) => {
            release(repo, &id, "it came too late")?;
            Err(error)
        }
    }
}

/// A verdict that names the snapshot is final; a proposal without a verdict may or may not see the
/// hold.
fn too_late(repo: &Repo, snapshot: &SessionId) -> Result<()> {
    for (number, generation) in repo.retired()? {
        let (doomed, is_final) = match (&generation.verdict, &generation.proposal) {
            (Some(verdict), _) => (&verdict.doomed, true),
            (None, Some(proposed)) => (&proposed.proposal.doomed, false),
            (None, None) => continue,
        };
        if doomed.snapshots.contains(snapshot) {
            return Err(Error::HoldTooLate { snapshot: *snapshot, generation: number, is_final });
        }
    }
    // Vanished altogether: there is nothing left to hold.
    if repo.exists(&format!("snapshots/{snapshot}"))? {
        return Ok(());
    }
    Err(Error::NoSnapshot { wanted: snapshot.to_string() })
}

/// Holds that nobody has released, oldest first.
pub fn list(repo: &Repo) -> Result<Vec<HoldInfo>> {
    let mut holds = repo.holds()?;
    holds.sort_by_key(|hold| (hold.time_ns, hold.id.0));
    Ok(holds)
}

/// Ends a hold. Policies apply to its snapshot again.
pub fn release(repo: &Repo, hold: &HoldId, reason: &str) -> Result<()> {
    repo.needs_admin()?;
    if !repo.exists(&format!("holds/{hold}"))? {
        return Err(Error::NoHold { wanted: hold.to_string() });
    }
    let release = Release { hold: *hold, time_ns: repo.env().now(), reason: reason.to_owned() };
    let body = repo.seal_record(Kind::Release, &release.to_cbor())?;
    // Released twice is released: the first record stands.
    repo.try_put_stated(Kind::Release, &format!("holds/{hold}.released"), &body)?;
    Ok(())
}
