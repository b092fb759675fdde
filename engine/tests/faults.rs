//! Every store operation of a small backup, restore or check fails once, in each way it can: with an error, a full disk, a short write,
//! applied but reported as failed, or with the process dying there. Afterwards nothing that was committed is lost, what a restore did
//! not report as lost is right, and the next run finishes. (`failing_calls.rs` does the same one layer below.)

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, MemoryStore, Op, Store, StoreError};
use strongroom::watch::{ProblemKind, Tally};

use support::{
    FUTURE_NS, KEY, Told, assert_honest, assert_same, back_up, copy_objects, memory_dir, new_store,
    noise, one_of_everything, open, picture, small_options,
};

/// Larger chunks than in other tests: each is an operation, and each operation a backup, a restore and a check.
fn store_of_large_chunks(env: &Env) -> MemoryStore {
    let store = MemoryStore::new();
    let chunker = ChunkerSpec::windowed_minimum(256 << 10);
    let options = InitOptions { chunker, ..small_options() };
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, env).unwrap();
    store
}

fn source() -> tempfile::TempDir {
    let dir = memory_dir();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/large"), noise(1, 4 << 20)).unwrap();
    for n in 0..20 {
        std::fs::write(dir.path().join(n.to_string()), noise(n, 5000)).unwrap();
    }
    dir
}

/// A backup through a store that may fail; opening may fail too.
fn attempt(store: Arc<dyn Store>, cache: &Path, path: &Path, env: &Env) -> Result<(), Error> {
    let repo = Repo::open(store, Unlock::KeyFile(&KEY), Some(cache), env)?;
    let paths = [PathBuf::from(path)];
    let options = BackupOptions::default();
    backup::run(&repo, Source::Paths(&paths), &options, &Tally::default()).map(|_| ())
}

fn assert_whole(store: &MemoryStore, env: &Env, path: &Path, context: &str) {
    let repo = open(store, None, env);
    let options = CheckOptions { read_data: true };
    let report = check::run(&repo, &options, &Tally::default()).unwrap();
    assert!(report.damages.is_empty(), "{context}: {:?}", report.damages);
    let info = repo.find_snapshot("latest").unwrap();
    let target = memory_dir();
    let path = path.canonicalize().unwrap();
    let root = path.as_os_str().as_encoded_bytes();
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    restore::run(&repo, &info, Some(root), target.path(), &options, &watch).unwrap();
    let (mut wanted, mut found) = (picture(&path), picture(target.path()));
    wanted.remove(&b""[..]);
    found.remove(&b""[..]);
    assert_same(&wanted, &found);
}

#[test]
fn every_store_operation_of_a_backup_fails_once() {
    let dir = source();
    let env = Env::seeded(3, FUTURE_NS);
    let counting = FaultyStore::without_faults(Arc::new(store_of_large_chunks(&env)));
    let cache = memory_dir();
    attempt(Arc::new(counting.clone()), cache.path(), dir.path(), &env).unwrap();
    let ops = counting.ops();
    assert!(ops > 30, "{ops}");
    let faults =
        [Fault::Fail, Fault::Full, Fault::AppliedButFailed, Fault::ShortWrite, Fault::Kill];
    // A snapshot that is there before must stay whole whatever happens.
    let template = store_of_large_chunks(&env);
    back_up(&open(&template, None, &env), &dir.path().join("sub"));
    let mut failed = 0;
    for (number, fault) in (0..=ops).map(|n| (n, faults[n as usize % faults.len()])) {
        // Later than the template's, so that its snapshot is the latest.
        let env = Env::seeded(100 + number, FUTURE_NS + 3_600_000_000_000);
        let (cache, store, before) = (memory_dir(), copy_objects(&template), 1);
        let faulty = FaultyStore::failing_at(Arc::new(store.clone()), number, fault);
        let context = format!("operation {number}, {fault:?}");
        if let Err(error) = attempt(Arc::new(faulty), cache.path(), dir.path(), &env) {
            failed += 1;
            let full = matches!(error, Error::Store(StoreError::Full { .. }));
            assert!(full || fault != Fault::Full, "{context}: {error}");
        }
        let after = open(&store, None, &env).snapshots().unwrap().len();
        assert!(after == before || after == before + 1, "{context}");
        attempt(Arc::new(store.clone()), cache.path(), dir.path(), &env)
            .unwrap_or_else(|error| panic!("{context}: the next backup: {error}"));
        assert_whole(&store, &env, dir.path(), &context);
    }
    assert!(failed > 20, "{failed} of {ops}");
}

const READ_FAULTS: [Fault; 4] =
    [Fault::Fail, Fault::ShortWrite, Fault::AppliedButFailed, Fault::Kill];

#[test]
fn every_store_operation_of_a_restore_fails_once() {
    let (dir, env) = (memory_dir(), Env::seeded(4, FUTURE_NS));
    let source = dir.path().canonicalize().unwrap().join("source");
    one_of_everything(&source);
    let wanted = picture(&source);
    let store = new_store(&env);
    back_up(&open(&store, None, &env), &source);
    let root = source.as_os_str().as_encoded_bytes();
    let restore = |store: Arc<dyn Store>, target: &Path| {
        let watch = Tally::default();
        let report = Repo::open(store, Unlock::KeyFile(&KEY), None, &env).and_then(|repo| {
            let info = repo.find_snapshot("latest")?;
            let options = RestoreOptions::default();
            restore::run(&repo, &info, Some(root), target, &options, &watch)
        });
        (report, watch.problems())
    };
    let counting = FaultyStore::without_faults(Arc::new(store.clone()));
    restore(Arc::new(counting.clone()), memory_dir().path()).0.unwrap();
    assert!(counting.ops() > 15, "{}", counting.ops());
    let (mut failed, mut lossy) = (0, 0);
    for (number, fault) in (0..counting.ops()).flat_map(|n| READ_FAULTS.map(|fault| (n, fault))) {
        let context = format!("operation {number}, {fault:?}");
        let target = memory_dir();
        let faulty = FaultyStore::failing_at(Arc::new(store.clone()), number, fault);
        let (report, problems) = restore(Arc::new(faulty), target.path());
        let lost: Vec<Vec<u8>> = problems
            .iter()
            .filter(|problem| problem.kind == ProblemKind::NotRestored)
            .map(|problem| problem.name.strip_prefix(root).unwrap().to_vec())
            .map(|path| path.strip_prefix(b"/").unwrap_or(&path).to_vec())
            .collect();
        let told = Told { lost: &lost, without_metadata: &[], finished: report.is_ok() };
        assert_honest(&wanted, &picture(target.path()), &told, &context);
        failed += usize::from(report.is_err());
        lossy += usize::from(!lost.is_empty());
        if let Ok(report) = report {
            assert_eq!(report.failed as usize, lost.len(), "{context}");
        }
        let (report, problems) = restore(Arc::new(store.clone()), target.path());
        assert_eq!((report.unwrap().failed, problems), (0, Vec::new()), "{context}");
        let all = Told { lost: &[], without_metadata: &[], finished: true };
        assert_honest(&wanted, &picture(target.path()), &all, &context);
    }
    assert!(failed > 10 && lossy > 0, "{failed} failed, {lossy} lost something");
}

#[test]
fn every_store_operation_of_a_check_fails_once() {
    let (dir, env) = (memory_dir(), Env::seeded(5, FUTURE_NS));
    one_of_everything(dir.path());
    let store = new_store(&env);
    back_up(&open(&store, None, &env), &dir.path().join("sub"));
    back_up(&open(&store, None, &env), dir.path());
    let check = |store: Arc<dyn Store>| {
        let repo = Repo::open(store, Unlock::KeyFile(&KEY), None, &env)?;
        check::run(&repo, &CheckOptions { read_data: true }, &Tally::default())
    };
    let counting = FaultyStore::without_faults(Arc::new(store.clone()));
    assert_eq!(check(Arc::new(counting.clone())).unwrap().damages, []);
    let log = counting.log();
    let mut clean = Vec::new();
    for (number, fault) in (0..counting.ops()).flat_map(|n| READ_FAULTS.map(|fault| (n, fault))) {
        let faulty = FaultyStore::failing_at(Arc::new(store.clone()), number, fault);
        if check(Arc::new(faulty)).is_ok_and(|report| report.damages.is_empty()) {
            clean.push(&log[number as usize]);
        }
    }
    // Opening makes the roster durable, for those who write.
    clean.retain(|logged| logged.op != Op::MakeDurable);
    let mut clean: Vec<&str> = clean.iter().map(|logged| logged.name.as_str()).collect();
    // Sealed secrets that cannot be read stand in the packs, too; the objects themselves were checked before.
    clean.retain(|name| !name.starts_with("seals/"));
    assert_eq!(clean, [""; 0]);
}

#[test]
fn a_repository_of_a_newer_version_is_refused_by_name() {
    let env = Env::seeded(1, FUTURE_NS);
    let store = new_store(&env);
    let name = strongroom::store::ObjectName::new("repo.cbor").unwrap();
    store.tamper(&name, |bytes| {
        // The version in the header; the end hash is made to fit.
        bytes[9] = 2;
        let end = bytes.len() - 32;
        let hash = *blake3::hash(&bytes[..end]).as_bytes();
        bytes[end..].copy_from_slice(&hash);
    });
    let opened = Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), None, &env);
    let Err(error) = opened else { panic!("it was opened") };
    let text = error.to_string();
    assert!(text.contains("repo.cbor") && text.contains("version 2"), "{text}");
}
