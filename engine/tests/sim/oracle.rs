//! Afterwards, with all faults off: everything that was committed and not forgotten is there and restores byte for byte,
//! nothing is there that nobody backed up, and a check finds no damage.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use strongroom::browse;
use strongroom::env::Env;
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::store::{MemoryStore, Store};
use strongroom::watch::Tally;

use super::client::{Shared, message, restored};
use super::objects::Objects;
use super::record::Record;
use super::rng::Rng;
use super::sources::picture;
use super::world::{HOUR_NS, State};
use crate::support::KEY;

/// How often prune must be run at most until nothing is left to be done: one to end what was begun, one to propose, one to
/// tidy up what its own tombstone left open, and one to find nothing.
const PRUNES_MAX: usize = 6;

pub fn verify(state: &mut State, shared: &Shared, rng: &mut Rng) {
    match catch_unwind(AssertUnwindSafe(|| all(state, shared, rng))) {
        Ok(Ok(())) => {}
        Ok(Err(finding)) => shared.found(finding),
        Err(panic) => shared.found(format!("afterwards: panicked: {}", message(&*panic))),
    }
}

fn all(state: &mut State, shared: &Shared, rng: &mut Rng) -> Result<(), String> {
    let env = Env::seeded(rng.next(), state.now + 1000 * HOUR_NS);
    let rotted = !state.rotten.is_empty();
    if rotted {
        let cache = shared.place.join("rotten");
        damage_is_told(&open(&state.objects, &cache, &env)?, shared, rng)?;
        // As if it had never been: nothing that was whole may have gone for it.
        for rotten in std::mem::take(&mut state.rotten).into_iter().rev() {
            if rotten.vanished {
                return Ok(());
            }
            if state.objects.get(&rotten.name).is_some() {
                state.objects.replace(&rotten.name, Some(rotten.was));
            }
        }
    }
    let repo = open(&state.objects, &shared.place.join("oracle"), &env)?;
    // What was recorded as damaged stays so. What was lost before the last prune is lost after it, too.
    if shared.prunes && !rotted && rng.chance(5_000) {
        free_all(&repo)?;
        let after = |finding| format!("after the last prune: {finding}");
        return examine(&repo, shared, rng).map_err(after);
    }
    examine(&repo, shared, rng)
}

/// One owner with a cache looks at everything, in a store without faults: what it has opened once need not be opened
/// again.
fn open(objects: &Objects, cache: &Path, env: &Env) -> Result<Repo, String> {
    let store = MemoryStore::new();
    for (name, bytes) in objects.all() {
        store.put_if_absent(name, bytes).unwrap();
    }
    let repo = Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), Some(cache), env);
    repo.map_err(|error| format!("it no longer opens: {error:?}"))
}

/// What does not restore was named by the check; what does is what was backed up.
fn damage_is_told(repo: &Repo, shared: &Shared, rng: &mut Rng) -> Result<(), String> {
    let options = CheckOptions { read_data: true };
    let Ok(report) = check::run(repo, &options, &Tally::default()) else { return Ok(()) };
    let Ok(snapshots) = repo.snapshots() else {
        return match report.damages.first() {
            Some(_) => Ok(()),
            None => Err("snapshots cannot be listed, and the check is clean".to_owned()),
        };
    };
    for info in &snapshots {
        let place = Record::place(&info.snapshot.tags);
        let named = report.damages.iter().any(|damage| damage.snapshots.contains(&info.id));
        match restored(repo, info, shared, rng) {
            Ok(found) if found == picture(&shared.record().backups[place].tree) => {}
            Ok(_) => return Err(format!("b{place} was restored wrong, and nothing was said")),
            Err(_) if named => {}
            // It names what is damaged, and so does the check, which cannot know whom that costs what.
            Err(error)
                if report.damages.iter().any(|of| error.to_string().contains(&of.object)) => {}
            Err(error) => {
                let damages = &report.damages;
                return Err(format!(
                    "b{place} fails, the check did not name it: {error:?} {damages:?}"
                ));
            }
        }
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
                (0, 0) => Ok(()),
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
    let stats = browse::stats(repo).map_err(|error| format!("stats: {error:?}"))?;
    let deltas = stats.frames_by_codec.iter().find(|codec| codec.codec == "delta");
    shared.deltas.fetch_add(deltas.map_or(0, |codec| codec.frames), Ordering::Relaxed);
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
    if !rng.chance(3_000) {
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
