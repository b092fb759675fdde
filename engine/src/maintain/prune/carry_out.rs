//! Deleting what verdicts say: in any order, by anyone, any number of times, for ids never return.
//! A verdict itself is never deleted: a slow pruner must not find its name free. Its proposal is,
//! once a later generation is decided.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::control::Doomed;
use crate::repo::control::{Retired, proposal_name};
use crate::repo::packer::pack_name;
use crate::store::ObjectName;
use crate::watch::Counter;

use super::{Prune, PruneReport};

/// Folders that verdicts name objects in.
const FOLDERS: [&str; 5] = ["packs", "index", "snapshots", "sessions", "seals"];

/// Carries out every verdict that is there: whoever made it may have died over it.
pub fn all(prune: &Prune, retired: &Retired) -> Result<()> {
    let decided =
        retired.iter().filter_map(|(n, generation)| Some((n, generation.verdict.as_ref()?)));
    let mut present = None;
    for (number, verdict) in decided {
        let present = match &mut present {
            Some(present) => present,
            None => {
                // What is followed must outlast what it deletes.
                prune.repo.make_folder_durable("retired")?;
                present.insert(list(prune)?)
            }
        };
        delete(prune, &verdict.doomed, present)?;
        // A listing that was under way when its verdict came must see one of the two: the newest
        // stays. The verdict after it has waited for whoever listed.
        let later = retired.range(number + 1..).any(|(_, later)| later.verdict.is_some());
        if later && retired[number].proposal.is_some() {
            prune.repo.delete(&proposal_name(*number))?;
        }
    }
    Ok(())
}

/// Carries out one verdict and reports it.
pub fn one(prune: &Prune, number: u32, report: &mut PruneReport) -> Result<()> {
    let Some(verdict) = prune.repo.verdict(number)? else { return Ok(()) };
    prune.repo.make_folder_durable("retired")?;
    let doomed = &verdict.doomed;
    (report.packs_deleted, report.bytes_deleted) = delete(prune, doomed, &mut list(prune)?)?;
    report.runs_deleted = doomed.runs.len() as u64;
    report.snapshots_deleted = doomed.snapshots.len() as u64;
    report.sessions_deleted = doomed.sessions.len() as u64;
    Ok(())
}

/// What is there, with lengths in bytes: verdicts pile up, and what is gone need not be deleted
/// again.
fn list(prune: &Prune) -> Result<HashMap<ObjectName, u64>> {
    let mut present = HashMap::new();
    for folder in FOLDERS {
        prune.repo.store().list(folder, &mut |name, len| {
            present.insert(name, len);
        })?;
    }
    Ok(present)
}

/// Packs deleted, and their bytes.
fn delete(
    prune: &Prune,
    doomed: &Doomed,
    present: &mut HashMap<ObjectName, u64>,
) -> Result<(u64, u64)> {
    let there = doomed.packs.iter().filter(|pack| present.contains_key(&pack_name(pack)));
    prune.watch.add(Counter::PacksFound, there.count() as u64);
    let (mut packs, mut bytes) = (0, 0);
    for pack in &doomed.packs {
        prune.go_on()?;
        let name = pack_name(pack);
        if let Some(len) = present.remove(&name) {
            prune.watch.current(name.as_str().as_bytes());
            prune.repo.store().delete(&name)?;
            (packs, bytes) = (packs + 1, bytes + len);
            prune.watch.add(Counter::PacksDone, 1);
        }
    }
    let runs = doomed.runs.iter().map(|id| format!("index/{id}"));
    let snapshots = doomed.snapshots.iter().map(|id| format!("snapshots/{id}"));
    let sessions = doomed.sessions.iter();
    let sessions = sessions.flat_map(|id| [format!("sessions/{id}"), format!("seals/{id}")]);
    for name in runs.chain(snapshots).chain(sessions) {
        prune.go_on()?;
        let name = ObjectName::new(&name)?;
        if present.remove(&name).is_some() {
            prune.repo.store().delete(&name)?;
        }
    }
    Ok((packs, bytes))
}
