//! What a backup that died leaves to the next one: finished files are neither read nor stored again, whether or not an index run came
//! to name the packs they are in. What is not its own, or not as it was left, is not believed.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::slot::Unlock;
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, MemoryStore, ObjectName, Op, Store};
use strongroom::watch::{Problem, Tally};

use support::{FUTURE_NS, KEY, assert_same, new_store, noise, open, picture};

const MIB: u64 = 1 << 20;
const FILES: u64 = 200;
const FILE_BYTES: u64 = 150 << 10;
const TOTAL: u64 = FILES * FILE_BYTES;
/// A pack has 1 MiB here, so the whole has 30; a run is written after 16.
const KILLED_AT_PACK: u64 = 28;

fn many_files(dir: &Path) {
    for n in 0..FILES {
        let folder = dir.join((n / 50).to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(n.to_string()), noise(n, FILE_BYTES as usize)).unwrap();
    }
}

fn attempt(
    store: Arc<dyn Store>,
    cache: &Path,
    path: &Path,
) -> (Result<BackupReport, Error>, Vec<Problem>) {
    let env = Env::seeded(noise_seed(), FUTURE_NS);
    let repo = Repo::open(store, Unlock::KeyFile(&KEY), Some(cache), &env).unwrap();
    let (paths, watch) = ([PathBuf::from(path)], Tally::default());
    let report = backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &watch);
    (report, watch.problems())
}

/// Every run of a seeded `Env` must draw its own ids.
fn noise_seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(100);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The backup is killed as it gives the so many-th pack its name.
fn killed_at_pack(store: &MemoryStore, nth: u64, cache: &Path, path: &Path) {
    let packs = AtomicU64::new(0);
    let plan = move |_, op, _: &str| match op {
        Op::StageCommit if packs.fetch_add(1, Ordering::SeqCst) + 1 == nth => Fault::Kill,
        _ => Fault::None,
    };
    let faulty = FaultyStore::new(Arc::new(store.clone()), plan);
    attempt(Arc::new(faulty), cache, path).0.unwrap_err();
}

fn resumed(store: &MemoryStore, cache: &Path, path: &Path) -> BackupReport {
    let (report, problems) = attempt(Arc::new(store.clone()), cache, path);
    assert_eq!(problems, []);
    report.unwrap()
}

fn assert_restores(store: &MemoryStore, path: &Path) {
    let repo = open(store, None, &Env::seeded(1, FUTURE_NS));
    let info = repo.find_snapshot("latest").unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = path.canonicalize().unwrap();
    let root = path.as_os_str().as_encoded_bytes();
    let watch = Tally::default();
    restore::run(&repo, &info, Some(root), target.path(), &RestoreOptions::default(), &watch)
        .unwrap();
    let (mut wanted, mut found) = (picture(&path), picture(target.path()));
    wanted.remove(&b""[..]);
    found.remove(&b""[..]);
    assert_same(&wanted, &found);
}

fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with(folder)).collect()
}

#[test]
fn a_first_backup_killed_at_nine_tenths_goes_on_from_there() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    many_files(source.path());
    let store = new_store(&Env::seeded(1, FUTURE_NS));
    killed_at_pack(&store, KILLED_AT_PACK, cache.path(), source.path());
    assert_eq!(names(&store, "packs/").len() as u64, KILLED_AT_PACK - 1);
    assert_eq!(names(&store, "index/").len(), 1);
    let report = resumed(&store, cache.path(), source.path());
    // The lost pack and the frames on their way, and trees.
    let left = TOTAL - (KILLED_AT_PACK - 1) * MIB + MIB / 2;
    assert!(report.bytes_stored <= left + MIB / 2, "{report:?}");
    // Read again are files with a chunk in those, among them some whose last few bytes waited for company in a frame.
    assert!(report.bytes_read <= TOTAL / 4, "{report:?}");
    let finished = (TOTAL - report.bytes_read) / FILE_BYTES;
    assert!(report.counts.files_unchanged >= finished, "{report:?}");
    assert_restores(&store, source.path());
    // All of it has a run now, so that a client without a journal finds it, too.
    let (fresh, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    many_files(again.path());
    let report = resumed(&store, fresh.path(), again.path());
    assert!(report.bytes_stored < MIB / 2, "{report:?}");
}

/// The journal has finished files only: the large one is read again, but nothing that was stored is stored again.
#[test]
fn a_large_file_is_read_again_but_not_stored_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("large"), noise(1, TOTAL as usize)).unwrap();
    let store = new_store(&Env::seeded(2, FUTURE_NS));
    killed_at_pack(&store, KILLED_AT_PACK, cache.path(), source.path());
    let report = resumed(&store, cache.path(), source.path());
    let left = TOTAL - (KILLED_AT_PACK - 1) * MIB + MIB / 2;
    assert_eq!(report.bytes_read, TOTAL);
    assert!(report.bytes_stored <= left + MIB / 2, "{report:?}");
    assert_restores(&store, source.path());
}

/// Killed again and again, each attempt gets further.
#[test]
fn every_attempt_stands_on_those_before() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    many_files(source.path());
    let store = new_store(&Env::seeded(3, FUTURE_NS));
    for attempt in 1..=4 {
        killed_at_pack(&store, 6, cache.path(), source.path());
        assert_eq!(names(&store, "packs/").len(), 5 * attempt);
    }
    let report = resumed(&store, cache.path(), source.path());
    assert!(report.bytes_stored <= TOTAL - 20 * MIB + 2 * MIB, "{report:?}");
    assert_restores(&store, source.path());
}

/// Whoever has the INDEX key can make a pack that looks like one of ours. Here the store puts one that is sound in itself in place of
/// another of the same length.
#[test]
fn a_pack_that_is_not_what_was_stored_is_not_adopted() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    many_files(source.path());
    let store = new_store(&Env::seeded(4, FUTURE_NS));
    let before = names(&store, "packs/");
    killed_at_pack(&store, 9, cache.path(), source.path());
    let packs = names(&store, "packs/");
    assert_eq!((before.len(), packs.len()), (0, 8));
    let other = store.get(&packs[1], 2 * MIB).unwrap();
    store.tamper(&packs[0], |bytes| bytes.clone_from(&other));
    store.tamper(&packs[2], |bytes| bytes.truncate(MIB as usize / 2));
    store.tamper(&packs[3], |bytes| {
        // In its directory, short of the trailer.
        let near_the_end = bytes.len() - 400;
        bytes[near_the_end] ^= 1;
    });
    store.delete(&packs[4]).unwrap();
    let report = resumed(&store, cache.path(), source.path());
    assert!(report.bytes_stored > TOTAL - 5 * MIB, "{report:?}");
    assert!(report.bytes_stored < TOTAL - 3 * MIB, "{report:?}");
    let index = open(&store, None, &Env::seeded(1, FUTURE_NS)).index().unwrap();
    let named: Vec<String> = index
        .segments()
        .iter()
        .flat_map(|run| run.run().packs().map(|pack| pack.id.to_string()).collect::<Vec<_>>())
        .collect();
    let adopted: Vec<bool> =
        packs.iter().map(|name| named.iter().any(|id| id == name.last())).collect();
    assert_eq!(adopted, [false, true, false, false, false, true, true, true]);
    assert_restores(&store, source.path());
}

/// Its journal is locked for as long as a backup runs: another one of the same paths neither adopts nor removes it.
#[test]
fn a_backup_that_runs_is_not_taken_for_dead() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    many_files(source.path());
    let store = new_store(&Env::seeded(5, FUTURE_NS));
    let packs = AtomicU64::new(0);
    let (inner, path, folder) = (store.clone(), source.path().to_owned(), cache.path().to_owned());
    let plan = move |_, op, _: &str| {
        if op == Op::StageCommit && packs.fetch_add(1, Ordering::SeqCst) == 20 {
            // Nothing of the first one is found but what its run names.
            let report = resumed(&inner, &folder, &path);
            assert!(report.bytes_stored > TOTAL - 17 * MIB, "{report:?}");
        }
        Fault::None
    };
    let faulty = FaultyStore::new(Arc::new(store.clone()), plan);
    let (report, problems) = attempt(Arc::new(faulty), cache.path(), source.path());
    assert_eq!(problems, []);
    report.unwrap();
    assert_eq!(names(&store, "snapshots/").len(), 2);
    // What both left is one finished journal.
    let report = resumed(&store, cache.path(), source.path());
    assert_eq!((report.bytes_read, report.counts.files_unchanged), (0, FILES));
    let journals = walk(cache.path());
    assert_eq!(journals.len(), 1, "{journals:?}");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else if name.starts_with("journal") {
                found.push(entry.path());
            }
        }
    }
    found
}
