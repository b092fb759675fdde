//! Every call into the file system that a backup, a restore or a check makes fails once: of the source, of the target, of a local store
//! and of the client's cache. What cannot be read or written is reported by its path, everything else is right, nothing that was
//! committed is lost, and the next run finishes.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::error::{Error, Result};
use strongroom::format::slot::Unlock;
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::repo::{Repo, init};
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::{LocalStore, StoreError};
use strongroom::sys::fault::{Fault, with_plan};
use strongroom::watch::{Problem, ProblemKind, Tally};
use tempfile::TempDir;

use support::{
    FUTURE_NS, KEY, Picture, Told, assert_honest, copy_folder, faults_of, memory_dir, noise,
    one_of_everything, picture, small_options,
};

/// A source, a local repository with one snapshot of a part of it, and a cache.
struct Bench {
    folder: TempDir,
    source: PathBuf,
}

/// Draws its own ids, a minute later than the one before.
fn fresh_env() -> Env {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    Env::seeded(seed, FUTURE_NS + seed as i64 * 60_000_000_000)
}

impl Bench {
    fn new() -> Self {
        let folder = memory_dir();
        let source = folder.path().canonicalize().unwrap().join("source");
        one_of_everything(&source);
        let bench = Self { folder, source };
        let store = LocalStore::create(&bench.path("repo")).unwrap();
        init(Arc::new(store), Unlock::KeyFile(&KEY), &small_options(), &fresh_env()).unwrap();
        std::fs::create_dir(bench.path("cache")).unwrap();
        bench.back_up(&bench.source.join("sub/deep")).0.unwrap();
        std::fs::rename(bench.path("repo"), bench.path("repo as it was")).unwrap();
        bench.reset();
        bench
    }

    /// The repository is as it was in the beginning, and the cache empty, so that nothing is taken over.
    fn reset(&self) {
        for gone in ["repo", "cache"] {
            let _ = std::fs::remove_dir_all(self.path(gone));
        }
        copy_folder(&self.path("repo as it was"), &self.path("repo"));
        std::fs::create_dir(self.path("cache")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Result<Repo> {
        let store = LocalStore::open(&self.path("repo"))?;
        let cache = self.path("cache");
        Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), Some(&cache), &fresh_env())
    }

    fn back_up(&self, path: &Path) -> (Result<BackupReport>, Vec<Problem>) {
        let (watch, paths) = (Tally::default(), [path.to_owned()]);
        let report = self.open().and_then(|repo| {
            backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &watch)
        });
        (report, watch.problems())
    }

    fn restore(&self, snapshot: &str, target: &Path) -> (Result<RestoreReport>, Vec<Problem>) {
        let watch = Tally::default();
        let report = self.open().and_then(|repo| {
            let info = repo.find_snapshot(snapshot)?;
            let root = self.source.as_os_str().as_bytes();
            let options = RestoreOptions::default();
            restore::run(&repo, &info, Some(root), target, &options, &watch)
        });
        (report, watch.problems())
    }

    fn check(&self) -> Result<CheckReport> {
        let options = CheckOptions { read_data: true };
        check::run(&self.open()?, &options, &Tally::default())
    }

    fn snapshots(&self) -> usize {
        self.open().unwrap().snapshots().unwrap().len()
    }

    #[track_caller]
    fn assert_clean(&self, context: &str) {
        let report = self.check().unwrap_or_else(|error| panic!("{context}: check: {error}"));
        assert_eq!(report.damages, [], "{context}");
    }

    /// Paths of problems of one kind, relative to the source.
    fn paths(&self, problems: &[Problem], kinds: &[ProblemKind]) -> Vec<Vec<u8>> {
        let root = self.source.as_os_str().as_bytes();
        let of_kind = problems.iter().filter(|problem| kinds.contains(&problem.kind));
        of_kind
            .map(|problem| match problem.name.strip_prefix(root) {
                Some(rest) => rest.strip_prefix(b"/").unwrap_or(rest).to_vec(),
                // Above the source: all of it.
                None => Vec::new(),
            })
            .collect()
    }

    /// Restores the newest snapshot and holds it to the source.
    #[track_caller]
    fn assert_restores(&self, wanted: &Picture, told: &Told, context: &str) {
        let target = memory_dir();
        let (report, problems) = self.restore("latest", target.path());
        report.unwrap_or_else(|error| panic!("{context}: restore: {error}"));
        assert_eq!(problems, [], "{context}: restore");
        assert_honest(wanted, &picture(target.path()), told, context);
    }
}

const ALL: Told = Told { lost: &[], without_metadata: &[], finished: true };

/// The calls of a run, by name, in order.
fn calls(run: impl FnOnce()) -> Vec<&'static str> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    with_plan(
        move |call| {
            log.borrow_mut().push(call);
            Fault::None
        },
        run,
    );
    seen.take()
}

/// `fault` strikes the so many-th call among those that `counts`.
fn failing<T>(number: usize, fault: Fault, counts: fn(&str) -> bool, run: impl FnOnce() -> T) -> T {
    let mut left = number;
    let plan = move |call: &'static str| {
        if !counts(call) {
            return Fault::None;
        }
        left = left.wrapping_sub(1);
        if left == usize::MAX { fault } else { Fault::None }
    };
    with_plan(plan, run)
}

/// Everything from this call on fails.
fn dead_from<T>(number: usize, fault: Fault, run: impl FnOnce() -> T) -> T {
    let mut count = 0;
    let plan = move |_: &'static str| {
        count += 1;
        if count > number { fault } else { Fault::None }
    };
    with_plan(plan, run)
}

fn fail(errno: Errno) -> Fault {
    Fault::Fail(errno.raw_os_error())
}

/// The client's own files and the store's have names of their own; the rest of a backup's calls is for the source.
fn is_source(call: &str) -> bool {
    !call.starts_with("store ") && !call.starts_with("cache ")
}

/// Runs `each` with every call of `order` and every fault that is its turn.
fn each_fault(order: &[&str], kinds: &[Fault], each: &mut dyn FnMut(usize, Fault, &str)) {
    let mut injected = 0;
    for (number, call) in order.iter().enumerate() {
        for fault in faults_of(number, 1, kinds) {
            each(number, fault, &format!("{call} (call {number}), {fault:?}"));
            injected += 1;
        }
    }
    println!("{} calls, {injected} faults", order.len());
}

#[test]
fn every_source_call_of_a_backup_fails_once() {
    let bench = Bench::new();
    let wanted = picture(&bench.source);
    let back_up = || bench.back_up(&bench.source);
    let mut order = calls(|| drop(back_up()));
    order.retain(|call| is_source(call));
    assert!(order.len() > 80, "{order:?}");
    let kinds = [fail(Errno::IO), fail(Errno::ACCESS), fail(Errno::NOENT), Fault::Short];
    each_fault(&order, &kinds, &mut |number, fault, context| {
        bench.reset();
        let (report, problems) = failing(number, fault, is_source, back_up);
        let lost = bench.paths(&problems, &[ProblemKind::Unread, ProblemKind::Inconsistent]);
        let noticed = bench.paths(&problems, &[ProblemKind::Notice]);
        match report {
            Ok(report) => {
                let unread = report.counts.unread + report.counts.inconsistent;
                assert_eq!(unread as usize, lost.len(), "{context}: {problems:?}");
                // A directory above the source: all of it is reported as lost.
                if !lost.contains(&Vec::new()) {
                    let told = Told { lost: &lost, without_metadata: &noticed, finished: true };
                    bench.assert_restores(&wanted, &told, context);
                }
            }
            // Nothing to back up: the root of the file system, or the only source, cannot be opened.
            Err(error @ (Error::Source { .. } | Error::Cache { .. })) => {
                assert!(problems.len() <= 1, "{context}: {error}: {problems:?}");
                assert_eq!(bench.snapshots(), 1, "{context}");
            }
            Err(error) => panic!("{context}: {error}"),
        }
        bench.assert_clean(context);
    });
}

/// Of the store and of the cache. The one committed snapshot stays whole, and the next backup finishes.
#[test]
fn every_call_of_a_backup_for_the_store_or_the_cache_fails_once() {
    let bench = Bench::new();
    let (wanted, counts) = (picture(&bench.source), |call: &str| !is_source(call));
    let back_up = || bench.back_up(&bench.source);
    let mut order = calls(|| drop(back_up()));
    order.retain(|call| counts(call));
    assert!(order.len() > 100, "{order:?}");
    let mut failed = 0;
    let kinds = [fail(Errno::IO), fail(Errno::NOSPC), Fault::Short];
    each_fault(&order, &kinds, &mut |number, fault, context| {
        bench.reset();
        let (report, problems) = failing(number, fault, counts, back_up);
        failed += usize::from(report.is_err());
        if let Err(error) = report {
            let told =
                matches!(error, Error::Store(_) | Error::Cache { .. } | Error::WrongKey { .. });
            assert!(told, "{context}: {error}");
            let full = matches!(error, Error::Store(StoreError::Full { .. }) | Error::Cache { .. });
            assert!(full || fault != fail(Errno::NOSPC), "{context}: {error}");
        } else {
            // The snapshot is there; what could not be kept in the cache is worth a notice, a run that could not be
            // read is told as damage.
            let minor = [ProblemKind::Notice, ProblemKind::Damage];
            let told = problems.iter().all(|problem| minor.contains(&problem.kind));
            assert!(told, "{context}: {problems:?}");
            bench.assert_restores(&wanted, &ALL, context);
        }
        bench.assert_clean(context);
        let (report, problems) = back_up();
        report.unwrap_or_else(|error| panic!("{context}: the next backup: {error}"));
        assert_eq!(problems, [], "{context}: the next backup");
        bench.assert_clean(context);
        bench.assert_restores(&wanted, &ALL, context);
    });
    assert!(failed > order.len() / 2, "{failed} of {}", order.len());
}

/// From one call on nothing works any more, neither store nor source nor cache: the process is gone, or the machine's disks.
#[test]
fn a_backup_dies_at_every_call() {
    let bench = Bench::new();
    let wanted = picture(&bench.source);
    let back_up = || bench.back_up(&bench.source);
    let order = calls(|| drop(back_up()));
    let faults = [fail(Errno::IO)];
    let sampled: Vec<&str> = order.iter().step_by(3).copied().collect();
    each_fault(&sampled, &faults, &mut |number, fault, context| {
        bench.reset();
        let (report, _) = dead_from(number * 3, fault, back_up);
        assert!(report.is_err() || bench.snapshots() == 2, "{context}");
        bench.assert_clean(context);
        back_up().0.unwrap_or_else(|error| panic!("{context}: the next backup: {error}"));
        bench.assert_restores(&wanted, &ALL, context);
    });
}

/// What of the target cannot be written is told, the rest is right, and another run completes it.
#[test]
fn every_call_of_a_restore_fails_once() {
    let bench = Bench::new();
    let wanted = picture(&bench.source);
    // By its id: "latest" is the one before if the newest is gone when it is looked at.
    let id = bench.back_up(&bench.source).0.unwrap().snapshot.unwrap().to_string();
    let fresh = || {
        let target = memory_dir();
        // Things in the way, and one file that differs.
        std::fs::write(target.path().join("sub"), b"in the way").unwrap();
        std::fs::write(target.path().join("small 0"), noise(99, 3000)).unwrap();
        target
    };
    let order = {
        let target = fresh();
        calls(|| drop(bench.restore(&id, target.path())))
    };
    let kinds = [
        fail(Errno::IO),
        fail(Errno::NOSPC),
        fail(Errno::ACCESS),
        Fault::Short,
        fail(Errno::NOENT),
    ];
    each_fault(&order, &kinds, &mut |number, fault, context| {
        let target = fresh();
        let (report, problems) =
            failing(number, fault, |_| true, || bench.restore(&id, target.path()));
        let lost = bench.paths(&problems, &[ProblemKind::NotRestored]);
        let without_metadata = bench.paths(&problems, &[ProblemKind::Metadata]);
        let told =
            Told { lost: &lost, without_metadata: &without_metadata, finished: report.is_ok() };
        assert_honest(&wanted, &picture(target.path()), &told, context);
        if let Ok(report) = report {
            let counted = (report.failed as usize, report.warnings as usize);
            assert_eq!(counted, (lost.len(), without_metadata.len()), "{context}: {problems:?}");
        }
        let (report, problems) = bench.restore(&id, target.path());
        report.unwrap_or_else(|error| panic!("{context}: the next restore: {error}"));
        assert_eq!(problems, [], "{context}: the next restore");
        assert_honest(&wanted, &picture(target.path()), &ALL, context);
    });
}

/// Whatever could not be read, the check says so; but sealed secrets stand in packs as well, what is listed may be gone when it is
/// looked at, and what the cache cannot keep is read again from the store.
#[test]
fn every_call_of_a_check_fails_once() {
    let bench = Bench::new();
    bench.back_up(&bench.source).0.unwrap();
    // What is remembered and cached from now on makes no calls any more.
    bench.assert_clean("in the beginning");
    let order = calls(|| drop(bench.check()));
    let (mut clean, mut calls_clean) = (Vec::new(), BTreeSet::new());
    each_fault(
        &order,
        &[fail(Errno::IO), fail(Errno::NOENT), Fault::Short],
        &mut |n, fault, context| {
            let report = failing(n, fault, |_| true, || bench.check());
            if report.is_ok_and(|report| report.damages.is_empty()) {
                clean.push(context.to_owned());
                calls_clean.insert(n);
            }
        },
    );
    let excused = |context: &&String| {
        ["store open", "store read", "map", "cache open"]
            .iter()
            .any(|call| context.starts_with(call))
    };
    assert_eq!(clean.iter().filter(excused).count(), clean.len(), "{clean:#?}");
    assert!(calls_clean.len() < order.len() / 6, "{clean:#?}");
    bench.assert_clean("in the end");
}
