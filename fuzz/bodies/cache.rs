//! The client's own files, spoilt at will: the journal of a finished backup and of a dead one, cached index runs, the chain. The next
//! backup with them ends well, the repository checks clean, and what was backed up restores exactly.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, MemoryStore, ObjectName, Op, Store};
use strongroom::watch::Tally;
use tempfile::TempDir;

use super::input::Input;
use super::mutated::change_bytes;
use super::scene::{FUTURE_NS, folder, manifest, new_store, noise, open};

const CHANGES_MAX: usize = 4;

/// A repository after one backup that ended and one that was killed, and the cache that they left.
struct Left {
    source: TempDir,
    objects: Vec<(ObjectName, Vec<u8>)>,
    cache: BTreeMap<PathBuf, Vec<u8>>,
}

fn root(source: &TempDir) -> PathBuf {
    source.path().canonicalize().unwrap()
}

fn back_up(store: Arc<dyn Store>, cache: &Path, source: &TempDir, seed: u64) -> bool {
    let env = Env::seeded(seed, FUTURE_NS + seed as i64 * 60_000_000_000);
    let (paths, options, watch) = ([root(source)], BackupOptions::default(), Tally::default());
    let repo = open(store, Some(cache), &env).unwrap();
    backup::run(&repo, Source::Paths(&paths), &options, &watch).is_ok()
}

/// Made once a thread, whose end removes its folder; that of a process would not.
fn left() -> Rc<Left> {
    thread_local!(static LEFT: Rc<Left> = Rc::new(Left::make()));
    LEFT.with(Rc::clone)
}

impl Left {
    fn make() -> Self {
        let (store, source, cache) = (new_store(&Env::seeded(1, FUTURE_NS)), folder(), folder());
        for n in 0..4 {
            std::fs::write(source.path().join(format!("{n}")), noise(n, 20_000)).unwrap();
        }
        assert!(back_up(Arc::new(store.clone()), cache.path(), &source, 2));
        // More than a mixed pack's worth, so that there are packs before the end.
        std::fs::write(source.path().join("large"), noise(9, 5 << 20)).unwrap();
        let packs = AtomicU64::new(0);
        let killing = FaultyStore::new(Arc::new(store.clone()), move |_, op, _| {
            let third = op == Op::StageCommit && packs.fetch_add(1, Ordering::SeqCst) == 2;
            if third { Fault::Kill } else { Fault::None }
        });
        assert!(!back_up(Arc::new(killing), cache.path(), &source, 3));
        std::fs::write(source.path().join("large"), noise(9, 300_000)).unwrap();
        let read = |name: ObjectName| {
            let bytes = store.get(&name, u64::MAX).unwrap();
            (name, bytes)
        };
        let objects = store.names().into_iter().map(read).collect();
        let files = manifest(cache.path()).into_iter();
        let cache = files.filter_map(|(path, content)| Some((path, content?))).collect();
        Self { source, objects, cache }
    }
}

pub fn run(bytes: &[u8]) {
    let left = left();
    let mut files = left.cache.clone();
    let mut input = Input(bytes);
    for _ in 0..CHANGES_MAX {
        if input.is_empty() || files.is_empty() {
            break;
        }
        let nth = |files: &BTreeMap<PathBuf, Vec<u8>>, place: usize| {
            files.keys().nth(place).expect("below their number").clone()
        };
        let one = nth(&files, input.below(files.len()));
        match input.byte() % 4 {
            0 => drop(files.remove(&one)),
            1 => {
                let other = files[&nth(&files, input.below(files.len()))].clone();
                files.insert(one, other);
            }
            _ => change_bytes(files.get_mut(&one).expect("it is there"), &mut input),
        }
    }
    let cache = folder();
    for (path, content) in files {
        let path = cache.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let store = MemoryStore::new();
    for (name, bytes) in &left.objects {
        store.put_if_absent(name, bytes).unwrap();
    }
    assert!(back_up(Arc::new(store.clone()), cache.path(), &left.source, 4));
    let repo = open(Arc::new(store), None, &Env::seeded(5, FUTURE_NS)).unwrap();
    let report = check::run(&repo, &CheckOptions { read_data: true }, &Tally::default()).unwrap();
    assert_eq!(report.damages, []);
    let (target, watch) = (folder(), Tally::default());
    let (info, from) = (repo.find_snapshot("latest").unwrap(), root(&left.source));
    let options = RestoreOptions::default();
    restore::run(&repo, &info, Some(from.as_os_str().as_bytes()), target.path(), &options, &watch)
        .unwrap();
    assert_eq!(watch.problems(), []);
    assert!(manifest(target.path()) == manifest(left.source.path()));
}
