//! The way in, seen from the public API: what is stored, what is taken over, what is reported. The way back is
//! `restore.rs`; here trees are read through the repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::slot::{KeyFileSecret, Unlock};
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::store::MemoryStore;
use strongroom::watch::Tally;

const KEY: KeyFileSecret = KeyFileSecret([7; 32]);

fn new_repo(env: &Env) -> MemoryStore {
    let store = MemoryStore::new();
    let options = InitOptions {
        chunker: ChunkerSpec::windowed_minimum(16 << 10),
        pack_bytes: 1 << 20,
        ..InitOptions::default()
    };
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, env).unwrap();
    store
}

fn open(store: &MemoryStore, cache: Option<&Path>, env: &Env) -> Repo {
    Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&KEY), cache, env).unwrap()
}

fn back_up(repo: &Repo, path: &Path) -> BackupReport {
    let watch = Tally::default();
    let paths = [PathBuf::from(path)];
    let report =
        backup::run(repo, Source::Paths(&paths), &BackupOptions::default(), &watch).unwrap();
    assert_eq!(watch.problems(), []);
    report
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn sample(dir: &Path) {
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("large"), noise(1, 9 << 20)).unwrap();
    std::fs::write(dir.join("a/copy of large"), noise(1, 9 << 20)).unwrap();
    std::fs::write(dir.join("a/small"), b"small").unwrap();
    std::fs::write(dir.join("a/b/empty"), b"").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
    for n in 0..300 {
        std::fs::write(dir.join(format!("a/b/{n}")), noise(n, 3000)).unwrap();
    }
}

#[test]
fn first_second_and_edited_backup() {
    for threads in [1, 3] {
        let env = Env::system(threads);
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample(source.path());
        let store = new_repo(&env);
        for cache in [None, Some(cache.path())] {
            let repo = open(&store, cache, &env);
            let report = back_up(&repo, source.path());
            assert_eq!((report.counts.files, report.counts.others), (304, 1), "{report:?}");
            assert_eq!(report.counts.bytes, (18 << 20) + 5 + 300 * 3000);
        }
        let repo = open(&store, None, &env);
        let snapshots = repo.snapshots().unwrap();
        assert_eq!(snapshots.len(), 2);
        let first = snapshots[0].snapshot.counts;
        assert_eq!(first.files_new, 304);
        // Both copies of the large file are one, and nothing of it compresses.
        let plain = (9 << 20) + 5 + 300 * 3000;
        assert!((plain..plain + (1 << 20)).contains(&first.bytes_new), "{first:?}");
        assert!(first.bytes_stored > plain, "{first:?}");
        // Nothing new the second time but what says when.
        let second = snapshots[1].snapshot.counts;
        assert!(second.bytes_new < 40_000, "{second:?}");
    }
}
