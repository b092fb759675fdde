//! Repair: lost runs come back from packs, good frames out of rotten packs, and snapshots lose only
//! what is truly gone, by name. Afterwards check has nothing to complain of, prune works, and what
//! was not named restores bit for bit.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::pack::{PackClass, PackHeader};
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::maintain::repair::{self, RepairOptions, RepairReport};
use strongroom::maintain::{hold, keys};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::Tally;

use support::hand::{copy, name, names};
use support::{Picture, assert_same, back_up, back_up_with, new_store, noise, open, picture};

const STRUCTURE: CheckOptions = CheckOptions { read_data: false };
const READ_DATA: CheckOptions = CheckOptions { read_data: true };

fn env() -> Env {
    Env::system(2)
}

struct Bench {
    store: MemoryStore,
    source: tempfile::TempDir,
    wanted: Picture,
}

/// One snapshot with packs of each class; then the source is gone.
fn bench() -> Bench {
    let source = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(source.path().join("study/series")).unwrap();
    for i in 0..5 {
        let path = source.path().join(format!("study/series/{i}.bin"));
        std::fs::write(path, noise(i, 900_000)).unwrap();
    }
    for i in 0..30 {
        let path = source.path().join(format!("study/{i}.txt"));
        std::fs::write(path, format!("file {i}\n")).unwrap();
    }
    let store = new_store(&env());
    back_up(&open(&store, None, &env()), source.path());
    let wanted = picture(source.path());
    Bench { store, source, wanted }
}

impl Bench {
    fn lands(&self, target: &Path) -> PathBuf {
        let source = self.source.path().canonicalize().unwrap();
        target.join(source.strip_prefix("/").unwrap())
    }

    fn assert_whole(&self, repo: &Repo) {
        let target = tempfile::tempdir().unwrap();
        assert_eq!(restore_latest(repo, target.path()).failed, 0);
        assert_same(&self.wanted, &picture(&self.lands(target.path())));
    }
}

fn restore_latest(repo: &Repo, target: &Path) -> RestoreReport {
    let info = repo.find_snapshot("latest").unwrap();
    restore::run(repo, &info, None, target, &RestoreOptions::default(), &Tally::default()).unwrap()
}

fn check_with(repo: &Repo, options: &CheckOptions) -> CheckReport {
    check::run(repo, options, &Tally::default()).unwrap()
}

fn repaired(repo: &Repo, dry_run: bool) -> RepairReport {
    let options = RepairOptions { dry_run, reason: "test".to_owned() };
    repair::run(repo, &options, &Tally::default()).unwrap()
}

fn pack_of(store: &MemoryStore, class: PackClass) -> ObjectName {
    let bytes = |name: &ObjectName| store.get(name, u64::MAX).unwrap();
    let of_class = |name: &ObjectName| PackHeader::from_bytes(&bytes(name)).unwrap().class == class;
    names(store, "packs/").into_iter().find(of_class).unwrap()
}

fn flip(store: &MemoryStore, name: &ObjectName, at: i64) {
    store.tamper(name, |bytes| {
        let at = if at < 0 { bytes.len() as i64 + at } else { at };
        bytes[at as usize] ^= 8;
    });
}

#[test]
fn nothing_to_do() {
    let bench = bench();
    let repo = open(&bench.store, None, &env());
    let before = bench.store.names();
    let report = repaired(&repo, false);
    assert_eq!((report.packs_named, report.frames_moved, report.snapshots.len()), (0, 0, 0));
    assert_eq!((report.runs_damaged, report.left), (0, vec![]));
    assert_eq!(bench.store.names(), before);
}

#[test]
fn lost_and_rotten_runs_come_back() {
    let bench = bench();
    for is_lost in [true, false] {
        let store = copy(&bench.store);
        for run in names(&store, "index/") {
            if is_lost { store.delete(&run).unwrap() } else { flip(&store, &run, 200) }
        }
        let repo = open(&store, None, &env());
        assert!(!check_with(&repo, &STRUCTURE).damages.is_empty());
        let before = store.names();
        let dry = repaired(&repo, true);
        assert_eq!(store.names(), before, "a dry run writes nothing");
        let report = repaired(&repo, false);
        assert_eq!(report.packs_named, names(&store, "packs/").len() as u64);
        assert_eq!((dry.packs_named, report.snapshots.len()), (report.packs_named, 0));
        assert_eq!((dry.snapshots.len(), dry.left), (0, vec![]));
        assert_eq!(report.runs_damaged == 0, is_lost);
        assert_eq!(check_with(&repo, &READ_DATA).damages, []);
        bench.assert_whole(&repo);
        // The next backup knows what is stored: the author was found out.
        let (report, _) = back_up_with(&repo, bench.source.path(), &Default::default());
        // Directories above the source may have changed meanwhile.
        assert_eq!(report.counts.files_unchanged, 35);
        assert!(report.counts.bytes_new < 10_000, "{report:?}");
        assert_eq!(repaired(&repo, false).packs_named, 0);
        // Rotten runs go with the next prune; then there is nothing to pass over.
        prune::run(&repo, &PruneOptions::default(), &Tally::default()).unwrap();
        assert_eq!(repaired(&repo, false).runs_damaged, 0);
        back_up(&repo, bench.source.path());
        bench.assert_whole(&repo);
    }
}

/// Rot beside the frames, or behind them: nothing is lost, whatever the source is now.
#[test]
fn good_frames_leave_rotten_packs() {
    let bench = bench();
    for class in [PackClass::Data, PackClass::Tree, PackClass::Refs] {
        // The directory, the trailer, and the end cut off.
        for at in [Some(-300), Some(-1), None] {
            let store = copy(&bench.store);
            let pack = pack_of(&store, class);
            let which = format!("{class:?} {at:?}");
            match at {
                Some(at) => flip(&store, &pack, at),
                None => store.tamper(&pack, |bytes| bytes.truncate(bytes.len() - 1)),
            }
            let repo = open(&store, None, &env());
            assert!(!check_with(&repo, &READ_DATA).damages.is_empty(), "{which}");
            let dry = repaired(&repo, true);
            assert_eq!((dry.snapshots.len(), &dry.left), (0, &vec![]), "{which}");
            let report = repaired(&repo, false);
            assert!(report.frames_moved > 0 && report.snapshots.is_empty(), "{which} {report:?}");
            assert_eq!(report.frames_moved, dry.frames_moved);
            assert_eq!(check_with(&repo, &READ_DATA).damages, [], "{which}");
            bench.assert_whole(&repo);
            // A pruner has sound copies to go by, and takes the rotten pack away.
            prune::run(&repo, &PruneOptions::default(), &Tally::default()).unwrap();
            assert!(store.len(&pack).is_err(), "{which}");
            bench.assert_whole(&repo);
            assert_eq!(repaired(&repo, false).frames_moved, 0);
        }
    }
}

#[test]
fn what_is_gone_is_dropped_and_named() {
    let bench = bench();
    let store = copy(&bench.store);
    let repo = open(&store, None, &env());
    let old = repo.find_snapshot("latest").unwrap();
    flip(&store, &pack_of(&store, PackClass::Data), 70);
    let found = check_with(&repo, &READ_DATA);
    let lost: Vec<Vec<u8>> = found.damages.iter().flat_map(|d| d.paths.clone()).collect();
    assert_eq!(lost.len(), 1);
    let dry = repaired(&repo, true);
    assert_eq!((dry.snapshots[0].lost.clone(), dry.snapshots[0].new), (lost.clone(), None));
    // Not even by the owner is a held one replaced.
    let held = hold::add(&repo, &old.id, "audit").unwrap();
    let report = repaired(&repo, false);
    assert!(report.left[0].1.contains("held"), "{report:?}");
    hold::release(&repo, &held, "over").unwrap();

    let report = repaired(&repo, false);
    assert_eq!((report.snapshots[0].lost.clone(), report.left), (lost.clone(), vec![]));
    let new = repo.find_snapshot("latest").unwrap();
    assert_eq!((report.snapshots[0].new, new.snapshot.parent), (Some(new.id), Some(old.id)));
    assert_eq!(new.snapshot.time_ns, old.snapshot.time_ns);
    assert_eq!(new.snapshot.roots, old.snapshot.roots);
    assert_eq!(repo.snapshots().unwrap().len(), 1, "the old one is forgotten");
    for options in [STRUCTURE, READ_DATA] {
        assert_eq!(check_with(&repo, &options).damages, []);
    }
    let target = tempfile::tempdir().unwrap();
    assert_eq!(restore_latest(&repo, target.path()).failed, 0);
    let mut wanted = bench.wanted.clone();
    let below = bench.source.path().canonicalize().unwrap();
    let gone = lost[0].strip_prefix([below.as_os_str().as_bytes(), b"/"].concat().as_slice());
    assert!(wanted.remove(gone.unwrap()).is_some());
    assert_same(&wanted, &picture(&bench.lands(target.path())));
    prune::run(&repo, &PruneOptions::default(), &Tally::default()).unwrap();
    assert_eq!(check_with(&repo, &READ_DATA).damages, []);
    assert_eq!(restore_latest(&repo, target.path()).failed, 0);
    assert_eq!(repaired(&repo, false).snapshots.len(), 0);
}

/// Names are lost, content is not: directories above the source are known by the snapshot's roots.
#[test]
fn lost_names_keep_what_hangs_below() {
    let bench = bench();
    let store = copy(&bench.store);
    let repo = open(&store, None, &env());
    flip(&store, &pack_of(&store, PackClass::Tree), 70);
    assert!(!check_with(&repo, &READ_DATA).damages.is_empty());
    let report = repaired(&repo, false);
    let [repaired] = &report.snapshots[..] else { panic!("{report:?}") };
    assert!(repaired.lost.contains(&b"/".to_vec()), "{:?}", repaired.lost);
    assert_eq!(check_with(&repo, &READ_DATA).damages, []);
    let target = tempfile::tempdir().unwrap();
    assert_eq!(restore_latest(&repo, target.path()).failed, 0);
    assert!(bench.lands(target.path()).is_dir(), "the way to the source is there");
    prune::run(&repo, &PruneOptions::default(), &Tally::default()).unwrap();
}

#[test]
fn who_may_do_what() {
    let bench = bench();
    let store = copy(&bench.store);
    let owner = open(&store, None, &env());
    let keys = [Role::Admin, Role::Auditor].map(|role| KeyFileSecret([role as u8 + 60; 32]));
    for (role, key) in [Role::Admin, Role::Auditor].into_iter().zip(&keys) {
        keys::add(&open(&store, None, &env()), role, "someone", Unlock::KeyFile(key)).unwrap();
    }
    let [admin, auditor] = keys.each_ref().map(|key| {
        Repo::open(Arc::new(store.clone()), Unlock::KeyFile(key), None, &env()).unwrap()
    });
    let refused = repair::run(&auditor, &RepairOptions::default(), &Tally::default());
    assert!(matches!(refused, Err(Error::Role { .. })));
    flip(&store, &pack_of(&store, PackClass::Data), 70);
    check_with(&owner, &READ_DATA);
    for run in names(&store, "index/") {
        store.delete(&run).unwrap();
    }
    let report = repaired(&admin, false);
    assert_eq!(report.packs_named, names(&store, "packs/").len() as u64);
    assert!(report.left[0].1.contains("owner"), "{:?}", report.left);
    assert_eq!(repaired(&open(&store, None, &env()), false).snapshots.len(), 1);
    assert_eq!(check_with(&open(&store, None, &env()), &READ_DATA).damages, []);
}

/// Sealed secrets stand in packs too.
#[test]
fn lost_seals_lose_nothing() {
    let bench = bench();
    let store = copy(&bench.store);
    let id = open(&store, None, &env()).find_snapshot("latest").unwrap().id;
    store.delete(&name(&format!("seals/{id}"))).unwrap();
    let repo = open(&store, None, &env());
    bench.assert_whole(&repo);
    assert!(check_with(&repo, &READ_DATA).damages.iter().all(|found| found.snapshots.is_empty()));
}
