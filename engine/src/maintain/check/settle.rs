//! Which suspected damages are damages. Nothing is lost where everything that is hit has another
//! sound copy, or where no snapshot needs it; what is hit is recorded, so that the next backup of
//! the good source stores it again.

use std::collections::HashSet;

use super::Check;
use super::findings::Scope;
use super::health::{Health, Rotten};
use super::stream::{Buffer, PackStream};
use super::walk::Walked;
use crate::error::{Error, Result};
use crate::format::id::PackId;
use crate::repo::damage::is_proof;
use crate::repo::fetch::Fetcher;
use crate::watch::{Problem, ProblemKind};

const HEALED: &str = "every chunk of it has another sound copy";
const UNNEEDED: &str = "no snapshot needs what has no other copy";
const STANDS_ELSEWHERE: &str = "all packs that are there stand in other runs: it is not needed";

/// Settles all that is suspected. `all_seen`: the walk met every reference of every live snapshot.
pub fn settle(check: &Check, health: &Health, walked: &Walked, all_seen: bool) {
    let all_seen = all_seen && walked.complete;
    let mut lost_in = HashSet::new();
    let (rot, others): (Vec<_>, Vec<_>) =
        check.findings.suspected().into_iter().partition(|(_, scope, _)| is_rot(scope));
    for (index, scope, costs) in others {
        let harmless = if costs { None } else { harmless(health, &scope, all_seen) };
        if let (Scope::Chunks(pack, _), None) = (&scope, harmless) {
            lost_in.insert(*pack);
        }
        check.findings.settle(index, harmless);
    }
    for (index, scope, costs) in rot {
        let Scope::Rot(pack) = scope else { unreachable!("sorted above") };
        let harmless = match health.explains_rot(&pack) {
            _ if costs => None,
            true if lost_in.contains(&pack) => None,
            true => Some("it is explained by frames whose loss is healed"),
            false => health.has_copies(&pack).then_some(HEALED),
        };
        check.findings.settle(index, harmless);
    }
}

fn is_rot(scope: &Scope) -> bool {
    matches!(scope, Scope::Rot(_))
}

fn harmless(health: &Health, scope: &Scope, all_seen: bool) -> Option<&'static str> {
    let unneeded = all_seen.then_some(UNNEEDED);
    match scope {
        Scope::Chunks(_, chunks) if chunks.iter().all(|id| health.has_copy(id, None)) => {
            Some(HEALED)
        }
        Scope::Lost(pack) if health.has_copies(pack) => Some(HEALED),
        // A snapshot that needed it would have been met.
        Scope::Chunks(..) | Scope::Lost(_) => unneeded,
        Scope::Directory(pack) | Scope::Rot(pack) => health.has_copies(pack).then_some(HEALED),
        Scope::Run => (all_seen && health.all_named()).then_some(STANDS_ELSEWHERE),
    }
}

/// Records what was found bad; how many frames are new. That a store cannot be written to is no
/// reason to hide what was found.
pub fn record(check: &Check, fetcher: &Fetcher, health: &Health) -> Result<u64> {
    match try_record(check, fetcher, health) {
        Ok(frames) => Ok(frames),
        Err(error @ (Error::Interrupted | Error::Cache { .. })) => Err(error),
        Err(error) => {
            let cause = format!("what is damaged could not be recorded: {error}");
            let (kind, name) = (ProblemKind::Notice, b"damaged".to_vec());
            check.watch.problem(Problem { kind, name, cause });
            Ok(0)
        }
    }
}

fn try_record(check: &Check, fetcher: &Fetcher, health: &Health) -> Result<u64> {
    let suspects = fetcher.suspects().packs();
    let mut frames = Vec::new();
    for (pack, rotten) in &health.bad().rotten {
        // Rot that a bad frame explains is recorded with that frame; else everything in the pack is stored again.
        let explained = suspects.contains(pack) || health.explains_rot(pack);
        if (rotten.structure || !explained) && still_rotten(check, pack, rotten)? {
            frames.extend_from_slice(&rotten.frames);
        }
    }
    let how = if check.read_data { "check --read-data" } else { "check" };
    fetcher.record_damage(frames, how)
}

/// Read once more: is it bad again?
fn still_rotten(check: &Check, pack: &PackId, rotten: &Rotten) -> Result<bool> {
    let directory = check.repo.pack_directory(pack, rotten.len);
    if rotten.structure && directory.is_err_and(|error| is_proof(&error)) {
        return Ok(true);
    }
    let (store, mut buffer) = (&**check.repo.store(), Buffer::default());
    let on_read = |_| check.go_on();
    let stream = PackStream::new(store, pack, rotten.len, &mut buffer, &on_read);
    match stream.finish() {
        Ok(hash) => Ok(hash != pack.0),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(_) => Ok(false),
    }
}
