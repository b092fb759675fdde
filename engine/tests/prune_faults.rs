//! Every operation of a forget and a prune fails once: of the store as the engine sees it, and of a local store's calls into the file
//! system. Afterwards the repository checks clean, what is live restores, and the next prune frees the rest.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::error::{Error, Result};
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::prune::{self, PruneOptions, PruneReport};
use strongroom::repo::{InitOptions, Repo, SnapshotInfo, init};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, LocalStore, MemoryStore, Op, Store, StoreError};
use strongroom::sys::fault;
use strongroom::watch::Tally;

use support::{
    FUTURE_NS, KEY, Picture, Told, assert_honest, copy_folder, copy_objects, faults_of, memory_dir,
    noise, picture,
};

const NOW: PruneOptions = PruneOptions { dry_run: false, max_unused: 0.0, fence_after_ns: 0 };

/// Draws its own ids, a minute later than the one before.
fn fresh_env() -> Env {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    Env::seeded(seed, FUTURE_NS + seed as i64 * 60_000_000_000)
}

fn open(store: Arc<dyn Store>) -> Result<Repo> {
    open_with(store, None)
}

fn open_with(store: Arc<dyn Store>, cache: Option<&Path>) -> Result<Repo> {
    Repo::open(store, Unlock::KeyFile(&KEY), cache, &fresh_env())
}

fn back_up(store: Arc<dyn Store>, path: &Path) -> Result<()> {
    let paths = [path.to_owned()];
    let options = BackupOptions::default();
    backup::run(&open(store)?, Source::Paths(&paths), &options, &Tally::default()).map(drop)
}

/// Two snapshots that share half of their packs' content, and a session that died in between.
struct Garbage {
    folder: tempfile::TempDir,
    wanted: Picture,
}

impl Garbage {
    fn make(store: &(impl Store + Clone + 'static)) -> Self {
        let folder = memory_dir();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let options = InitOptions {
            chunker: ChunkerSpec::windowed_minimum(64 << 10),
            pack_bytes: 1 << 20,
            ..InitOptions::default()
        };
        let store: Arc<dyn Store> = Arc::new(store.clone());
        init(store.clone(), Unlock::KeyFile(&KEY), &options, &fresh_env()).unwrap();
        for n in 0..10 {
            std::fs::write(source.join(n.to_string()), noise(n, 200 << 10)).unwrap();
        }
        back_up(store.clone(), &source).unwrap();
        std::fs::write(source.join("never finished"), noise(20, 3 << 20)).unwrap();
        let packs = AtomicU64::new(0);
        let killing = FaultyStore::new(store.clone(), move |_, op, _| {
            let third = op == Op::StageCommit && packs.fetch_add(1, Ordering::SeqCst) == 2;
            if third { Fault::Kill } else { Fault::None }
        });
        back_up(Arc::new(killing), &source).unwrap_err();
        for gone in ["never finished", "1", "3", "5", "7", "9"] {
            std::fs::remove_file(source.join(gone)).unwrap();
        }
        std::fs::write(source.join("new"), noise(30, 150 << 10)).unwrap();
        back_up(store, &source).unwrap();
        Self { wanted: picture(&source), folder }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("source")
    }

    #[track_caller]
    fn assert_clean(&self, store: Arc<dyn Store>, context: &str) {
        let options = CheckOptions { read_data: true };
        let report = check::run(&open(store).unwrap(), &options, &Tally::default())
            .unwrap_or_else(|error| panic!("{context}: check: {error}"));
        assert_eq!(report.damages, [], "{context}");
    }

    #[track_caller]
    fn assert_restores(&self, store: Arc<dyn Store>, context: &str) {
        let repo = open(store).unwrap();
        let latest = repo.find_snapshot("latest").unwrap();
        let (target, watch, source) = (memory_dir(), Tally::default(), self.source());
        let root = source.as_os_str().as_encoded_bytes();
        let options = RestoreOptions::default();
        restore::run(&repo, &latest, Some(root), target.path(), &options, &watch)
            .unwrap_or_else(|error| panic!("{context}: restore: {error}"));
        assert_eq!(watch.problems(), [], "{context}");
        let all = Told { lost: &[], without_metadata: &[], finished: true };
        assert_honest(&self.wanted, &picture(target.path()), &all, context);
    }
}

/// Forgets all but the latest, then prunes.
fn clean_up(store: Arc<dyn Store>) -> Result<PruneReport> {
    clean_up_with(&open(store)?)
}

fn clean_up_with(repo: &Repo) -> Result<PruneReport> {
    let snapshots = repo.snapshots()?;
    let old: Vec<_> = snapshots.iter().rev().skip(1).map(|info: &SnapshotInfo| info.id).collect();
    if !old.is_empty() {
        let options = ForgetOptions { reason: "test".to_owned(), ..ForgetOptions::default() };
        forget::run(repo, &old, &options, &Tally::default())?;
    }
    prune::run(repo, &NOW, &Tally::default())
}

fn pack_bytes(store: &dyn Store) -> u64 {
    let mut sum = 0;
    store.list("packs", &mut |_, len| sum += len).unwrap();
    sum
}

/// Whoever prunes next ends where an untroubled prune does.
#[track_caller]
fn assert_finishes(store: Arc<dyn Store>, untroubled: u64, context: &str) {
    let enough = untroubled + untroubled / 20;
    let mut left = u64::MAX;
    for _ in 0..3 {
        clean_up(store.clone()).unwrap_or_else(|error| panic!("{context}: next prune: {error}"));
        left = pack_bytes(&*store);
        if left <= enough {
            break;
        }
    }
    assert!(left <= enough, "{context}: {left} bytes in packs, untroubled {untroubled}");
    assert_eq!(open(store).unwrap().snapshots().unwrap().len(), 1, "{context}");
}

fn told_as_full(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Full { .. }))
}

#[test]
fn every_store_operation_of_a_forget_and_prune_fails_once() {
    let template = MemoryStore::new();
    let garbage = Garbage::make(&template);
    let untroubled = copy_objects(&template);
    let counting = FaultyStore::without_faults(Arc::new(untroubled.clone()));
    let report = clean_up(Arc::new(counting.clone())).unwrap();
    assert!(report.packs_moved > 0 && report.packs_deleted > 2, "{report:?}");
    assert!(!report.sessions_fenced.is_empty(), "{report:?}");
    let untroubled = pack_bytes(&untroubled);
    let kinds = [Fault::Fail, Fault::Full, Fault::AppliedButFailed, Fault::ShortWrite, Fault::Kill];
    let (mut failed, mut injected) = (0, 0);
    for number in 0..counting.ops() {
        for fault in faults_of(number as usize, 4, &kinds) {
            let store = copy_objects(&template);
            let faulty = FaultyStore::failing_at(Arc::new(store.clone()), number, fault);
            let op = &counting.log()[number as usize];
            let context = format!("{:?} {} ({number}), {fault:?}", op.op, op.name);
            if let Err(error) = clean_up(Arc::new(faulty)) {
                failed += 1;
                assert!(told_as_full(&error) || fault != Fault::Full, "{context}: {error}");
            }
            injected += 1;
            garbage.assert_clean(Arc::new(store.clone()), &context);
            assert_finishes(Arc::new(store.clone()), untroubled, &context);
            garbage.assert_restores(Arc::new(store), &context);
        }
    }
    println!("{} operations, {injected} faults, {failed} runs failed", counting.ops());
    assert!(failed * 2 > injected, "{failed} of {injected}");
}

#[test]
fn every_call_of_a_local_store_in_a_forget_and_prune_fails_once() {
    let folder = memory_dir();
    let (template, place) = (folder.path().join("template"), folder.path().join("repo"));
    let garbage = Garbage::make(&LocalStore::create(&template).unwrap());
    let fresh = || {
        let _ = std::fs::remove_dir_all(&place);
        copy_folder(&template, &place);
        LocalStore::open(&place).unwrap()
    };
    let store = fresh();
    let calls = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let log = calls.clone();
    let plan = move |call| {
        log.borrow_mut().push(call);
        fault::Fault::None
    };
    fault::with_plan(plan, || clean_up(Arc::new(store.clone()))).unwrap();
    let (calls, untroubled) = (calls.take(), pack_bytes(&store));
    let kinds = [
        fault::Fault::Fail(Errno::IO.raw_os_error()),
        fault::Fault::Fail(Errno::NOSPC.raw_os_error()),
        fault::Fault::Short,
    ];
    let mut injected = 0;
    for (number, call) in calls.iter().enumerate() {
        for fault in faults_of(number, 7, &kinds) {
            let (store, context) = (fresh(), format!("{call} (call {number}), {fault:?}"));
            let mut count = 0;
            let plan = move |_: &'static str| {
                count += 1;
                if count == number + 1 { fault } else { fault::Fault::None }
            };
            let done = fault::with_plan(plan, || clean_up(Arc::new(store.clone())));
            if let Err(error) = done {
                let full = fault == kinds[1];
                assert!(told_as_full(&error) || !full, "{context}: {error}");
            }
            injected += 1;
            garbage.assert_clean(Arc::new(store.clone()), &context);
            assert_finishes(Arc::new(store.clone()), untroubled, &context);
            garbage.assert_restores(Arc::new(store), &context);
        }
    }
    println!("{} calls, {injected} faults", calls.len());
}

/// Cuts every file below a folder to nothing.
fn cut_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
        match entry.file_type().unwrap().is_dir() {
            true => cut_all(&entry.path()),
            false => std::fs::write(entry.path(), "").unwrap(),
        }
    }
}

/// What was proven when it was opened may be gone when it is read again: nothing is deleted on such ground.
#[test]
fn the_cached_index_is_cut_short_in_the_middle_of_a_prune() {
    let template = MemoryStore::new();
    let garbage = Garbage::make(&template);
    let mut pruned = 0;
    for number in (0..).step_by(6) {
        let (store, cache) = (copy_objects(&template), memory_dir());
        let (runs, done) = (cache.path().to_owned(), Arc::new(AtomicU64::new(0)));
        let count = done.clone();
        let cutting = FaultyStore::new(Arc::new(store.clone()), move |_, _, _| {
            if count.fetch_add(1, Ordering::SeqCst) == number {
                cut_all(&runs);
            }
            Fault::None
        });
        let context = format!("operation {number}");
        let repo = open_with(Arc::new(cutting), Some(cache.path())).unwrap();
        pruned += u64::from(clean_up_with(&repo).is_ok());
        garbage.assert_clean(Arc::new(store.clone()), &context);
        garbage.assert_restores(Arc::new(store), &context);
        if done.load(Ordering::SeqCst) < number {
            println!("{number} operations, {pruned} prunes went through");
            return;
        }
    }
}
