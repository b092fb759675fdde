//! Afterwards, with all faults off: everything that was committed and not forgotten is there and restores byte for byte,
//! nothing is there that nobody backed up, and a check finds no damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::env::{Env, TimeNs};
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::store::{MemoryStore, Store};
use strongroom::watch::Tally;

use super::client::{Shared, restored};
use super::objects::Objects;
use super::record::{Record, Told};
use super::rng::Rng;
use super::sources::picture;
use crate::support::KEY;

/// The objects as they are now, in a store without faults.
pub fn quiet(objects: &Objects) -> MemoryStore {
    let store = MemoryStore::new();
    for (name, bytes) in objects.all() {
        store.put_if_absent(name, bytes).unwrap();
    }
    store
}

pub fn verify(store: &MemoryStore, shared: &Shared, now: TimeNs, rng: &mut Rng) {
    if let Err(finding) = examine(store, shared, now, rng) {
        shared.found(finding);
    }
}

fn examine(store: &MemoryStore, shared: &Shared, now: TimeNs, rng: &mut Rng) -> Result<(), String> {
    let env = Env::seeded(rng.next(), now);
    let repo = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&KEY), None, &env);
    let repo = repo.map_err(|error| format!("it no longer opens: {error:?}"))?;
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
        let there = found.get(&place);
        match (backup.committed, there) {
            (Some(id), None) if backup.forget == Told::No => {
                return Err(format!("b{place} was committed as {id} and is not there"));
            }
            (_, Some(info)) => {
                let got = restored(&repo, info, shared, rng)
                    .map_err(|error| format!("b{place}, {}: {error:?}", info.id))?;
                if got != picture(&backup.tree) {
                    return Err(format!("b{place}, {}: other content than backed up", info.id));
                }
            }
            _ => {}
        }
    }
    let options = CheckOptions { read_data: true };
    let report = check::run(&repo, &options, &Tally::default());
    let report = report.map_err(|error| format!("check: {error:?}"))?;
    match report.damages.first() {
        Some(damage) => Err(format!("check: {damage:?}")),
        None => Ok(()),
    }
}
