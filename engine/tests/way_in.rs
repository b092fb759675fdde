//! The way in, seen from the public API: what is stored, what is taken over, what is reported. The way back is
//! `restore.rs`; here trees are read through the repository.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::repo::fetch::Fetcher;
use strongroom::repo::trees::{Piece, Trees};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::store::Store;
use strongroom::watch::{Counter, Problem, ProblemKind, Tally, Watch};

use support::{FUTURE_NS, back_up, back_up_with, new_store, noise, open};

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
        let store = new_store(&env);
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

/// Every path of a snapshot, with the plain bytes of its content.
fn content(repo: &Repo, info: &SnapshotInfo) -> BTreeMap<String, Vec<u8>> {
    let index = repo.index().unwrap();
    let fetcher = Fetcher::new(repo, &index);
    let trees = Trees::new(repo, &fetcher);
    let mut all = BTreeMap::new();
    let mut todo = vec![(String::new(), info.snapshot.root)];
    while let Some((path, dir)) = todo.pop() {
        trees
            .each(&dir, &mut |node| {
                let path = format!("{path}/{}", String::from_utf8_lossy(&node.entry.name));
                let mut bytes = Vec::new();
                trees.pieces(&node, &mut |piece| {
                    match piece {
                        Piece::Hole { len } => bytes.resize(bytes.len() + len as usize, 0),
                        Piece::Chunk { id, .. } => {
                            bytes.extend(fetcher.chunk(&id, repo.id_key()?)?);
                        }
                    }
                    Ok(())
                })?;
                all.insert(path.clone(), bytes);
                todo.extend(node.child.map(|child| (path, child)));
                Ok(())
            })
            .unwrap();
    }
    all
}

fn back_up_paths(
    repo: &Repo,
    paths: &[PathBuf],
    options: &BackupOptions,
) -> (BTreeMap<String, Vec<u8>>, BackupReport, Vec<Problem>) {
    let watch = Tally::default();
    let report = backup::run(repo, Source::Paths(paths), options, &watch).unwrap();
    let info = repo.find_snapshot(&report.snapshot.unwrap().to_string()).unwrap();
    (content(repo, &info), report, watch.problems())
}

/// Paths below `root`, relative to it.
fn below(all: &BTreeMap<String, Vec<u8>>, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.canonicalize().unwrap().display());
    all.keys().filter_map(|path| path.strip_prefix(&root).map(str::to_owned)).collect()
}

#[test]
fn roots_may_be_files_nested_missing_or_excluded() {
    let env = Env::system(2);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["one/a", "one/deep/b", "two/c", "two/skip/d", "three/e", "cache/f"] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    std::fs::write(
        root.join("cache/CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55\n# a cache",
    )
    .unwrap();
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    let options = BackupOptions {
        exclude: Some(Box::new(|path, is_dir| is_dir && path.ends_with(b"/skip"))),
        exclude_caches: true,
        ..BackupOptions::default()
    };
    let roots = ["one", "one/deep", "two", "three/e", "gone", "cache"].map(|name| root.join(name));
    let (all, report, problems) = back_up_paths(&repo, &roots, &options);
    let expected = [
        "cache",
        "cache/CACHEDIR.TAG",
        "one",
        "one/a",
        "one/deep",
        "one/deep/b",
        "three",
        "three/e",
        "two",
        "two/c",
    ];
    assert_eq!(below(&all, root), expected);
    assert_eq!(
        all[&format!("{}/one/deep/b", root.canonicalize().unwrap().display())],
        b"one/deep/b"
    );
    assert_eq!(report.counts.unread, 1);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].name, root.join("gone").as_os_str().as_encoded_bytes());
    let none = [root.join("gone")];
    let watch = Tally::default();
    let failed = backup::run(&repo, Source::Paths(&none), &BackupOptions::default(), &watch);
    assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
}

/// Does something to a file when the first bytes of it have been read.
struct Meddler<'m> {
    tally: Tally,
    meddle: &'m (dyn Fn(u64) + Sync),
}

impl Watch for Meddler<'_> {
    fn add(&self, counter: Counter, n: u64) {
        self.tally.add(counter, n);
        if counter == Counter::BytesRead {
            (self.meddle)(self.tally.get(Counter::BytesRead));
        }
    }

    fn problem(&self, problem: Problem) {
        self.tally.problem(problem);
    }
}

#[test]
fn a_file_that_is_truncated_under_its_map_is_read_again() {
    for threads in [1, 2] {
        let env = Env::system(threads);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shrinks");
        std::fs::write(&path, noise(3, 8 << 20)).unwrap();
        let meddle = |read: u64| {
            if read < 100_000 {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(5 << 20).unwrap();
            }
        };
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        let watch = Meddler { tally: Tally::default(), meddle: &meddle };
        let paths = [dir.path().to_owned()];
        backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &watch).unwrap();
        assert_eq!(watch.tally.problems(), []);
        let all = content(&repo, &repo.find_snapshot("latest").unwrap());
        let name = path.canonicalize().unwrap().display().to_string();
        assert!(all[&name] == noise(3, 8 << 20)[..5 << 20]);
    }
}

#[test]
fn a_file_that_never_stops_growing_is_taken_and_marked() {
    for size in [100_000, 6 << 20] {
        let env = Env::seeded(1, FUTURE_NS);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grows");
        std::fs::write(&path, noise(4, size)).unwrap();
        let meddle = |_| {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"more").unwrap();
        };
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        let watch = Meddler { tally: Tally::default(), meddle: &meddle };
        let paths = [dir.path().to_owned()];
        let report =
            backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &watch).unwrap();
        assert_eq!(report.counts.inconsistent, 1);
        assert_eq!(watch.tally.problems()[0].kind, ProblemKind::Inconsistent);
        let all = content(&repo, &repo.find_snapshot("latest").unwrap());
        let name = path.canonicalize().unwrap().display().to_string();
        assert!(all[&name].starts_with(&noise(4, size)), "a consistent beginning is there");
    }
}

#[test]
fn unchanged_files_are_not_read_and_changed_ones_are() {
    for cached in [true, false] {
        // Long after the files were written, or they would count as perhaps still changing.
        let env = Env::seeded(1, FUTURE_NS);
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample(dir.path());
        let store = new_store(&env);
        let repo = || open(&store, cached.then_some(cache.path()), &env);
        assert_eq!(back_up(&repo(), dir.path()).counts.files_new, 304);
        let second = back_up(&repo(), dir.path());
        assert_eq!((second.counts.files_unchanged, second.bytes_read), (304, 0), "{second:?}");
        // At most the directories above, which other tests touch.
        assert!(second.bytes_stored < 10_000, "{second:?}");
        std::fs::write(dir.path().join("a/small"), b"edited").unwrap();
        let third = back_up(&repo(), dir.path());
        let counts = third.counts;
        assert_eq!((counts.files_unchanged, counts.files_changed), (303, 1), "{third:?}");
        assert_eq!(third.bytes_read, 6);
        // Same bytes, new mtime: read, and found to be unchanged.
        let large =
            std::fs::OpenOptions::new().append(true).open(dir.path().join("large")).unwrap();
        large.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let fourth = back_up(&repo(), dir.path());
        assert_eq!((fourth.counts.files_unchanged, fourth.bytes_read), (304, 9 << 20));
        let options = BackupOptions { rescan: true, ..BackupOptions::default() };
        let (rescan, _) = back_up_with(&repo(), dir.path(), &options);
        assert_eq!(rescan.bytes_read, rescan.counts.bytes);
        assert!(rescan.bytes_stored < 10_000, "{rescan:?}");
    }
}

/// What the snapshot says of the directories above a path: other processes may touch them.
fn above(path: &Path) -> Vec<(i64, i64)> {
    let mtime = |dir: &Path| {
        let meta = std::fs::metadata(dir).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    path.canonicalize().unwrap().ancestors().skip(1).map(mtime).collect()
}

#[test]
fn seeded_runs_are_equal_byte_for_byte() {
    // Not in the usual place, where every other test makes and removes folders all the time.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    sample(dir.path());
    let run = || {
        let env = Env::seeded(9, FUTURE_NS);
        let store = new_store(&env);
        back_up(&open(&store, None, &env), dir.path());
        back_up(&open(&store, None, &env), dir.path());
        store
    };
    for _ in 0..20 {
        let before = above(dir.path());
        let (first, second) = (run(), run());
        if above(dir.path()) != before {
            continue;
        }
        assert_eq!(first.names(), second.names());
        for name in first.names() {
            assert!(first.get(&name, u64::MAX).unwrap() == second.get(&name, u64::MAX).unwrap());
        }
        return;
    }
    panic!("the directories above {} never stay as they are", dir.path().display());
}

#[test]
fn standard_input_is_one_file_and_commits_only_at_its_end() {
    for (threads, len) in [(1, 0), (2, 100), (3, 40 << 20)] {
        let env = Env::system(threads);
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        let bytes = noise(8, len);
        let stream = |finish: &mut dyn FnMut() -> Result<Option<u32>, Error>| {
            let mut reader = &bytes[..];
            let source = Source::Stream { name: b"dump.sql", reader: &mut reader, finish };
            backup::run(&repo, source, &BackupOptions::default(), &Tally::default())
        };
        let failed =
            stream(&mut || Err(Error::Command { what: "it failed".into(), code: Some(3) }));
        assert!(matches!(failed, Err(Error::Command { .. })));
        assert_eq!(repo.snapshots().unwrap().len(), 0);
        stream(&mut || Ok(Some(0))).unwrap();
        let info = repo.find_snapshot("latest").unwrap();
        assert_eq!(info.snapshot.exit_code, Some(0));
        let all = content(&repo, &info);
        assert_eq!(all.len(), 1);
        assert!(all["/dump.sql"] == bytes);
    }
}

#[test]
fn a_cancelled_backup_goes_on_from_where_it_was() {
    struct Cancel(Tally);
    impl Watch for Cancel {
        fn add(&self, counter: Counter, n: u64) {
            self.0.add(counter, n);
        }
        fn problem(&self, problem: Problem) {
            self.0.problem(problem);
        }
        fn cancelled(&self) -> bool {
            self.0.get(Counter::FilesDone) >= 250
        }
    }
    let env = Env::seeded(1, FUTURE_NS);
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..300 {
        std::fs::write(dir.path().join(n.to_string()), noise(n, 100_000)).unwrap();
    }
    let store = new_store(&env);
    let repo = || open(&store, Some(cache.path()), &env);
    let paths = [dir.path().to_owned()];
    let options = BackupOptions::default();
    let watch = Cancel(Tally::default());
    let stopped = backup::run(&repo(), Source::Paths(&paths), &options, &watch);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let report = back_up(&repo(), dir.path());
    // What a finished index run names is neither read nor stored again: 16 packs of about 1 MiB.
    assert!(report.counts.files_unchanged > 120, "{report:?}");
    assert!(report.bytes_read < 18_000_000, "{report:?}");
    assert_eq!(content(&repo(), &repo().find_snapshot("latest").unwrap()).len(), 300 + 2);
}

#[test]
fn a_file_that_changed_just_before_is_read_again() {
    // The clock of the backups is the real one, so what was just written may change again within its file system's tick.
    for cached in [true, false] {
        let env = Env::system(1);
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("fresh"), noise(1, 1000)).unwrap();
        let store = new_store(&env);
        let repo = || open(&store, cached.then_some(cache.path()), &env);
        back_up(&repo(), dir.path());
        let second = back_up(&repo(), dir.path());
        assert_eq!((second.counts.files_unchanged, second.bytes_read), (1, 1000), "{second:?}");
    }
}
