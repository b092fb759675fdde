//! Afterwards, with all faults off: everything that was committed and not forgotten is there and restores byte for byte,
//! nothing is there that nobody backed up, and a check finds no damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::env::{Env, TimeNs};
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::store::{MemoryStore, Store};
use strongroom::watch::Tally;

use super::client::{Shared, restored};
use super::objects::Objects;
use super::record::Record;
use super::rng::Rng;
use super::sources::picture;
use super::world::HOUR_NS;
use crate::support::KEY;

/// The objects as they are now, in a store without faults.
pub fn quiet(objects: &Objects) -> MemoryStore {
    let store = MemoryStore::new();
    for (name, bytes) in objects.all() {
        store.put_if_absent(name, bytes).unwrap();
    }
    store
}

/// How often prune must be run at most until nothing is left to be done: one to end what was begun, one to propose, one to
/// tidy up what its own tombstone left open, and one to find nothing.
const PRUNES_MAX: usize = 6;

pub fn verify(store: &MemoryStore, shared: &Shared, now: TimeNs, rng: &mut Rng) {
    if let Err(finding) = all(store, shared, now, rng) {
        shared.found(finding);
    }
}

/// One owner with a cache looks at everything: what it has opened once need not be opened again.
fn all(store: &MemoryStore, shared: &Shared, now: TimeNs, rng: &mut Rng) -> Result<(), String> {
    let env = Env::seeded(rng.next(), now + 1000 * HOUR_NS);
    let cache = shared.place.join("oracle");
    let repo = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&KEY), Some(&cache), &env);
    let repo = repo.map_err(|error| format!("it no longer opens: {error:?}"))?;
    examine(&repo, shared, rng)?;
    if shared.prunes && rng.chance(5_000) {
        free_all(&repo)?;
        let after = |finding| format!("after the last prune: {finding}");
        examine(&repo, shared, rng).map_err(after)?;
    }
    Ok(())
}

/// Whatever was left half done, prune ends it, and in the end nothing is stored that no snapshot needs.
fn free_all(repo: &Repo) -> Result<(), String> {
    let options = PruneOptions { dry_run: false, max_unused: 0.0, fence_after_ns: 0 };
    let mut last = None;
    for _ in 0..PRUNES_MAX {
        let report = prune::run(repo, &options, &Tally::default());
        let report = report.map_err(|error| format!("the last prune: {error:?}"))?;
        if report.generation.is_none() && report.waiting_for.is_empty() {
            let garbage = (report.packs_doomed, report.bytes_unused);
            return match garbage {
                (0, 0) | (0, _) => Ok(()),
                _ => Err(format!("prune leaves garbage: {report:?}")),
            };
        }
        last = Some(report);
    }
    Err(format!("prune comes to no end: {last:?}"))
}

fn examine(repo: &Repo, shared: &Shared, rng: &mut Rng) -> Result<(), String> {
    let snapshots = repo.snapshots().map_err(|error| format!("snapshots: {error:?}"))?;
    let mut found: BTreeMap<usize, &SnapshotInfo> = BTreeMap::new();
    for info in &snapshots {
        let place = Record::place(&info.snapshot.tags);
        if found.insert(place, info).is_some() {
            return Err(format!("b{place} is there twice"));
        }
    }
    let record = shared.record();
    for (place, backup) in record.backups.iter().enumerate() {
        let Some(info) = found.get(&place) else {
            if record.is_promised(place) {
                return Err(format!("b{place} was committed and is not there: {backup:?}"));
            }
            continue;
        };
        if record.is_gone(place) {
            return Err(format!("b{place} was forgotten and is there: {backup:?}"));
        }
        let got = restored(repo, info, shared, rng);
        let got = got.map_err(|error| format!("b{place}, {}: {error:?}", info.id))?;
        if got != picture(&backup.tree) {
            return Err(format!("b{place}, {}: other content than backed up", info.id));
        }
    }
    // It costs as much as all else, and what it could find would most likely have been found.
    if rng.chance(5_000) {
        return Ok(());
    }
    let options = CheckOptions { read_data: rng.chance(5_000) };
    let report = check::run(repo, &options, &Tally::default());
    let report = report.map_err(|error| format!("check: {error:?}"))?;
    match report.damages.first() {
        Some(damage) => Err(format!("check: {damage:?}")),
        None => Ok(()),
    }
}
