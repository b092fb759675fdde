//! The way in, seen from the public API: what is stored, what is taken over, what is reported. The way back is
//! `restore.rs`; here trees are read through the repository.

mod support;

use std::path::Path;

use strongroom::env::Env;

use support::{back_up, new_store, noise, open};

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
