//! Forgetting, holding and pruning through the engine: what is freed, what stays, what a verdict
//! waits for, what a later run picks up. Races are the simulation's; every failing operation is in
//! `faults.rs`.

mod support;

use std::path::Path;
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::id::SessionId;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions, ForgetReport, Keep, Policy};
use strongroom::maintain::hold;
use strongroom::maintain::prune::{self, PruneOptions, PruneReport};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, MemoryStore, Op, Store};
use strongroom::watch::Tally;

use support::{FUTURE_NS, assert_same, back_up, new_store, noise, open, picture};

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

fn forget(repo: &Repo, snapshots: &[SessionId]) -> ForgetReport {
    let options = ForgetOptions { reason: "test".to_owned(), ..ForgetOptions::default() };
    forget::run(repo, snapshots, &options, &Tally::default()).unwrap()
}

/// A prune to which no session is too young to be called dead.
const NOW: PruneOptions = PruneOptions { dry_run: false, max_unused: 0.0, fence_after_ns: 0 };

fn prune_with(repo: &Repo, options: &PruneOptions) -> PruneReport {
    prune::run(repo, options, &Tally::default()).unwrap()
}

fn stored_bytes(store: &MemoryStore) -> u64 {
    let mut sum = 0;
    store.list("packs", &mut |_, len| sum += len).unwrap();
    sum
}

fn count(store: &MemoryStore, folder: &str) -> usize {
    let mut n = 0;
    store.list(folder, &mut |_, _| n += 1).unwrap();
    n
}

fn assert_clean(repo: &Repo) {
    let options = CheckOptions { read_data: true };
    let report = check::run(repo, &options, &Tally::default()).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
}

fn assert_restores(repo: &Repo, id: &SessionId, wanted: &support::Picture, path: &Path) {
    let info = repo.find_snapshot(&id.to_string()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let root = path.canonicalize().unwrap();
    let root = root.as_os_str().as_encoded_bytes();
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    restore::run(repo, &info, Some(root), target.path(), &options, &watch).unwrap();
    assert_eq!(watch.problems(), []);
    let (mut wanted, mut found) = (wanted.clone(), picture(target.path()));
    wanted.remove(&b""[..]);
    found.remove(&b""[..]);
    assert_same(&wanted, &found);
}

#[test]
fn what_only_a_forgotten_snapshot_needs_is_freed() {
    let env = Env::seeded(1, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("both"), noise(1, 3 << 20)).unwrap();
    std::fs::write(dir.path().join("old"), noise(2, 3 << 20)).unwrap();
    let first = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    std::fs::remove_file(dir.path().join("old")).unwrap();
    std::fs::write(dir.path().join("new"), noise(3, 3 << 20)).unwrap();
    let second = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    let after = picture(dir.path());

    let repo = open(&store, None, &env);
    let report = prune_with(&repo, &NOW);
    assert_eq!((report.generation, report.packs_deleted, report.snapshots), (None, 0, 2));
    assert_eq!(forget(&repo, &[first]).forgotten, 1);
    assert!(matches!(repo.find_snapshot(&first.to_string()), Err(Error::NoSnapshot { .. })));
    let before = stored_bytes(&store);
    let dry = prune_with(&repo, &PruneOptions { dry_run: true, ..NOW });
    assert_eq!(stored_bytes(&store), before);
    assert_eq!(count(&store, "retired"), 0);
    let report = prune_with(&repo, &NOW);
    let freed = before - stored_bytes(&store);
    assert!((2 << 20..4 << 20).contains(&freed), "{freed} {report:?}");
    assert_eq!((report.packs_deleted, report.snapshots_deleted), (dry.packs_doomed, 1));
    assert_eq!((dry.packs_deleted, dry.snapshots_doomed), (0, 1));
    assert!(report.packs_moved > 0 && report.waiting_for.is_empty(), "{report:?}");
    assert_eq!(count(&store, "snapshots"), 1 + 1, "the second, and the tombstone of the mover");
    assert_clean(&repo);
    assert_restores(&repo, &second, &after, dir.path());
    // The next prune finds nothing but the rest of the first.
    let again = prune_with(&repo, &NOW);
    assert_eq!((again.packs_deleted, again.packs_moved), (0, 0), "{again:?}");
    // What was moved is still deduplicated against.
    let third = back_up(&open(&store, None, &env), dir.path());
    assert!(third.counts.bytes_new < 10_000, "{:?}", third.counts);
}

#[test]
fn a_held_snapshot_survives_every_policy_and_its_release_ends_that() {
    let env = Env::seeded(2, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for n in 0..3 {
        std::fs::write(dir.path().join("file"), noise(n, 1 << 20)).unwrap();
        ids.push((
            back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap(),
            picture(dir.path()),
        ));
    }
    let repo = open(&store, None, &env);
    let held = hold::add(&repo, &ids[0].0, "inspection").unwrap();
    let policy = Policy { last: 1, ..Policy::default() };
    let options = ForgetOptions { policy, reason: "nightly".to_owned(), ..Default::default() };
    let report = forget::run(&repo, &[], &options, &Tally::default()).unwrap();
    let keep: Vec<_> = report.groups[0].decisions.iter().map(|d| d.keep.clone()).collect();
    let inspection = Keep::Held { reason: "inspection".to_owned() };
    assert_eq!(keep, [vec![Keep::Last], vec![], vec![inspection]]);
    // Named, it stays as well; forgotten before it was held, it is back.
    assert_eq!(forget(&repo, &[ids[0].0]).forgotten, 0);
    let late = hold::add(&repo, &ids[1].0, "second thoughts").unwrap();
    prune_with(&repo, &NOW);
    assert_clean(&repo);
    for (id, wanted) in &ids {
        assert_restores(&repo, id, wanted, dir.path());
    }
    hold::release(&repo, &late, "done").unwrap();
    hold::release(&repo, &held, "done").unwrap();
    assert_eq!(hold::list(&repo).unwrap(), []);
    forget(&repo, &[ids[0].0]);
    let report = prune_with(&repo, &NOW);
    assert_eq!(report.snapshots_deleted, 2);
    let gone = hold::add(&repo, &ids[0].0, "too late");
    assert!(matches!(gone, Err(Error::HoldTooLate { is_final: true, .. })), "{gone:?}");
    assert_eq!(hold::list(&repo).unwrap(), []);
    assert_restores(&repo, &ids[2].0, &ids[2].1, dir.path());
}

#[test]
fn a_verdict_waits_for_open_sessions_and_fences_silent_ones() {
    let env = Env::seeded(3, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), noise(1, 2 << 20)).unwrap();
    let first = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    std::fs::write(dir.path().join("a"), noise(2, 2 << 20)).unwrap();
    let second = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    let wanted = picture(dir.path());
    // A writer that dies before its commit: its session stays open.
    std::fs::write(dir.path().join("b"), noise(3, 2 << 20)).unwrap();
    let dying = FaultyStore::new(Arc::new(store.clone()), |_, op, name| {
        let commit = op == Op::Put && name.starts_with("snapshots/");
        if commit { Fault::Kill } else { Fault::None }
    });
    let repo = open(&dying, None, &env);
    let paths = [dir.path().to_path_buf()];
    let source = strongroom::backup::Source::Paths(&paths);
    let died = strongroom::backup::run(&repo, source, &Default::default(), &Tally::default());
    assert!(died.is_err());

    let repo = open(&store, None, &env);
    forget(&repo, &[first]);
    let before = stored_bytes(&store);
    let day = PruneOptions { fence_after_ns: DAY_NS, ..NOW };
    let report = prune_with(&repo, &day);
    assert_eq!((report.waiting_for.len(), report.packs_deleted), (1, 0), "{report:?}");
    assert!(stored_bytes(&store) >= before);
    // Again, by anyone: still waiting for the same generation.
    let again = prune_with(&open(&store, None, &env), &day);
    assert_eq!((again.generation, &again.waiting_for), (report.generation, &report.waiting_for));
    // What is proposed is not relied on meanwhile, and a new session is waited for as well. Two
    // days later both are over.
    let later = Env::seeded(4, FUTURE_NS + 2 * DAY_NS);
    let repo = open(&store, None, &later);
    let report = prune_with(&repo, &day);
    assert_eq!(report.sessions_fenced.len(), 1, "{report:?}");
    assert!(stored_bytes(&store) < before, "{report:?}");
    assert_clean(&repo);
    assert_restores(&repo, &second, &wanted, &paths[0].clone());
    // What the dead session had stored was left for its author for a while; after that it is freed
    // too.
    let kept = stored_bytes(&store);
    let last = Env::seeded(5, FUTURE_NS + 4 * DAY_NS);
    prune_with(&open(&store, None, &last), &day);
    assert!(stored_bytes(&store) + (1 << 20) < kept, "{} {kept}", stored_bytes(&store));
    assert_clean(&open(&store, None, &last));
}

#[test]
fn small_runs_and_packs_are_put_together() {
    let env = Env::seeded(6, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    for n in 0..36 {
        std::fs::write(dir.path().join(n.to_string()), noise(n, 20_000)).unwrap();
        back_up(&open(&store, None, &env), dir.path());
    }
    let last = open(&store, None, &env).find_snapshot("latest").unwrap().id;
    let wanted = picture(dir.path());
    let (packs, runs) = (count(&store, "packs"), count(&store, "index"));
    let repo = open(&store, None, &env);
    let report = prune_with(&repo, &NOW);
    assert!(report.runs_merged as usize >= runs && report.packs_moved > 30, "{report:?}");
    assert!(count(&store, "packs") < packs / 4 && count(&store, "index") <= 2);
    assert_clean(&repo);
    assert_restores(&repo, &last, &wanted, dir.path());
    let again = prune_with(&repo, &NOW);
    assert_eq!((again.packs_deleted, again.packs_moved), (0, 0), "{again:?}");
}

#[test]
fn nothing_is_deleted_while_a_live_snapshot_cannot_be_read() {
    let env = Env::seeded(7, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for n in 0..2 {
        std::fs::write(dir.path().join("file"), noise(n, 1 << 20)).unwrap();
        ids.push(back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap());
    }
    let repo = open(&store, None, &env);
    forget(&repo, &[ids[0]]);
    let name = strongroom::store::ObjectName::new(&format!("snapshots/{}", ids[1])).unwrap();
    let good = store.get(&name, 1 << 20).unwrap();
    store.tamper(&name, |bytes| bytes[100] ^= 1);
    let before = stored_bytes(&store);
    assert!(prune::run(&repo, &NOW, &Tally::default()).is_err());
    // Vanished without a record: the third snapshot's chain tells.
    store.tamper(&name, |bytes| bytes.clone_from(&good));
    std::fs::write(dir.path().join("file"), noise(9, 1 << 20)).unwrap();
    back_up(&repo, dir.path());
    store.delete(&name).unwrap();
    let error = prune::run(&repo, &NOW, &Tally::default()).unwrap_err();
    assert!(error.to_string().contains("no record says"), "{error}");
    store.put_if_absent(&name, &good).unwrap();
    assert!(stored_bytes(&store) >= before);
    prune_with(&repo, &NOW);
    assert!(stored_bytes(&store) < before + (1 << 20));
    assert_clean(&repo);
}

#[test]
fn a_restore_finds_what_a_prune_moves_under_it() {
    let env = Env::seeded(8, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    for n in 0..40 {
        std::fs::write(dir.path().join(format!("old{n}")), noise(n, 60_000)).unwrap();
        std::fs::write(dir.path().join(format!("kept{n}")), noise(100 + n, 60_000)).unwrap();
    }
    let first = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    for n in 0..40 {
        std::fs::remove_file(dir.path().join(format!("old{n}"))).unwrap();
    }
    let second = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    let wanted = picture(dir.path());
    let packs = |store: &MemoryStore| -> Vec<_> {
        store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect()
    };
    let before = packs(&store);
    let (behind, clock) = (store.clone(), env.clone());
    let once = std::sync::Once::new();
    // Between the listing of a restore and its first read of a pack, everything moves.
    let moving = FaultyStore::new(Arc::new(store.clone()), move |_, op, name| {
        if op == Op::GetRange && name.starts_with("packs/") {
            once.call_once(|| {
                let repo = open(&behind, None, &clock);
                forget(&repo, &[first]);
                let report = prune_with(&repo, &NOW);
                assert!(report.packs_moved > 0 && report.packs_deleted > 0, "{report:?}");
            });
        }
        Fault::None
    });
    assert_restores(&open(&moving, None, &env), &second, &wanted, dir.path());
    assert!(before.iter().any(|name| !packs(&store).contains(name)));
}

#[test]
fn damage_met_by_a_prune_is_left_recorded_and_healed() {
    let env = Env::seeded(9, FUTURE_NS);
    let store = new_store(&env);
    let dir = tempfile::tempdir().unwrap();
    for n in 0..4 {
        std::fs::write(dir.path().join(format!("old{n}")), noise(n, 60_000)).unwrap();
        std::fs::write(dir.path().join(format!("kept{n}")), noise(100 + n, 60_000)).unwrap();
    }
    let first = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    let pack = store.names().into_iter().find(|name| name.as_str().starts_with("packs/")).unwrap();
    for n in 0..4 {
        std::fs::remove_file(dir.path().join(format!("old{n}"))).unwrap();
    }
    let second = back_up(&open(&store, None, &env), dir.path()).snapshot.unwrap();
    let wanted = picture(dir.path());
    // Every frame of content: whichever of them are needed are hit.
    store.tamper(&pack, |bytes| (0..8).for_each(|n| bytes[10_000 + n * 60_000] ^= 1));
    let repo = open(&store, None, &env);
    forget(&repo, &[first]);
    let watch = Tally::default();
    // It goes as far as its proposal; then it is known that live chunks are bad.
    assert!(prune::run(&repo, &NOW, &watch).is_err());
    assert_eq!(watch.problems().len(), 1);
    assert!(store.names().contains(&pack));
    assert!(count(&store, "damaged") > 0);
    // Now that it is known, nothing is deleted before it is healed.
    assert!(prune::run(&repo, &NOW, &Tally::default()).is_err());
    let options = strongroom::backup::BackupOptions { rescan: true, ..Default::default() };
    support::back_up_with(&open(&store, None, &env), dir.path(), &options);
    let report = prune_with(&open(&store, None, &env), &NOW);
    assert!(report.packs_deleted > 0 && !store.names().contains(&pack), "{report:?}");
    assert_clean(&open(&store, None, &env));
    assert_restores(&open(&store, None, &env), &second, &wanted, dir.path());
}
