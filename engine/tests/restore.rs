//! The way back: what comes back, what is left alone, what is repaired, and what is reported as
//! lost.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::keys;
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::MemoryStore;
use strongroom::watch::{Counter, Problem, Tally, Watch};
use tempfile::TempDir;

use support::{Picture, assert_same, back_up, new_store, noise, open, picture};

const THREADS: [usize; 2] = [1, 3];

/// A source that was backed up, and an empty target.
struct Case {
    source: TempDir,
    target: TempDir,
    store: MemoryStore,
    repo: Repo,
}

impl Case {
    fn new(threads: usize, fill: impl FnOnce(&Path)) -> Self {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(source.path());
        let env = Env::system(threads);
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        back_up(&repo, source.path());
        Self { source, target, store, repo }
    }

    fn latest(&self) -> SnapshotInfo {
        self.repo.find_snapshot("latest").unwrap()
    }

    /// The source as the snapshot names it, with something below it.
    fn path(&self, below: &str) -> Vec<u8> {
        let source = self.source.path().canonicalize().unwrap();
        [source.as_os_str().as_bytes(), below.as_bytes()].concat()
    }

    fn try_restore(
        &self,
        options: &RestoreOptions,
        watch: &dyn Watch,
    ) -> Result<RestoreReport, Error> {
        let path = self.path("");
        let (info, target) = (self.latest(), self.target.path());
        restore::run(&self.repo, &info, Some(&path), target, options, watch)
    }

    fn restore_with(&self, options: &RestoreOptions) -> (RestoreReport, Vec<Problem>) {
        let watch = Tally::default();
        let report = self.try_restore(options, &watch).unwrap();
        let lost = report.failed + report.warnings;
        assert_eq!(lost, watch.get(Counter::Problems), "{:?}", watch.problems());
        (report, watch.problems())
    }

    fn restore(&self) -> RestoreReport {
        let (report, problems) = self.restore_with(&RestoreOptions::default());
        assert_eq!(problems, []);
        report
    }

    fn assert_restored(&self) {
        assert_same(&below(self.source.path()), &below(self.target.path()));
    }
}

/// All but the root, which is the user's.
fn below(root: &Path) -> Picture {
    let mut picture = picture(root);
    picture.remove(&b""[..]);
    picture
}

/// Inode and time of change of everything: equal if nothing was touched.
fn touched(root: &Path) -> BTreeMap<Vec<u8>, (u64, i64, i64)> {
    let stat = |path: Vec<u8>| {
        let full = root.join(std::ffi::OsStr::from_bytes(&path));
        let meta = fs::symlink_metadata(full).unwrap();
        (path, (meta.ino(), meta.ctime(), meta.ctime_nsec()))
    };
    below(root).into_keys().map(stat).collect()
}

fn set_mtime(path: &Path, time: SystemTime) {
    OpenOptions::new().read(true).open(path).unwrap().set_modified(time).unwrap();
}

fn mtime(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Everything odd that a tree can have.
fn odd_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/deep/deeper")).unwrap();
    fs::create_dir(root.join("empty dir")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("large"), noise(1, 3 << 20)).unwrap();
    fs::write(root.join("dir/copy"), noise(1, 3 << 20)).unwrap();
    for n in 0..300 {
        fs::write(root.join(format!("dir/deep/{n}")), noise(n, 500)).unwrap();
        // The same chunks in all of them: more files are open at once than there are handles.
        fs::write(root.join(format!("dir/same {n}")), noise(7, 60_000)).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise(2, 100_000), 8 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    File::create(root.join("only a hole")).unwrap().set_len(5 << 20).unwrap();
    fs::hard_link(root.join("large"), root.join("dir/deep/link")).unwrap();
    fs::hard_link(root.join("empty"), root.join("z link")).unwrap();
    symlink("../nowhere", root.join("dir/symlink")).unwrap();
    fs::hard_link(root.join("dir/symlink"), root.join("linked symlink")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o620);
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), mode).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n")), b"odd name").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(root.join("dir/deep/1"), "user.study", b"CT", flags);
    let _ = rustix::fs::setxattr(root.join("dir"), "user.study", b"CT too", flags);
    let old = SystemTime::UNIX_EPOCH - Duration::new(1_000_000, 1);
    set_mtime(&root.join("dir/deep/2"), old);
    fs::set_permissions(root.join("dir/deep/3"), fs::Permissions::from_mode(0o4400)).unwrap();
    set_mtime(&root.join("dir/deep/deeper"), old);
    fs::set_permissions(root.join("dir/deep"), fs::Permissions::from_mode(0o555)).unwrap();
}

#[test]
fn an_odd_tree_comes_back_and_is_then_left_alone() {
    for threads in THREADS {
        let case = Case::new(threads, odd_tree);
        let report = case.restore();
        case.assert_restored();
        assert_eq!((report.dirs, report.files_restored, report.others), (4, 608, 4), "{report:?}");
        let sparse = fs::metadata(case.target.path().join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 2 << 20, "holes stay holes: {sparse:?}");

        for verify_existing in [false, true] {
            let before = touched(case.target.path());
            let options = RestoreOptions { verify_existing, ..RestoreOptions::default() };
            let (report, problems) = case.restore_with(&options);
            assert_eq!(problems, []);
            assert_eq!((report.files_in_place, report.files_restored), (608, 0), "{report:?}");
            assert_eq!((report.files_repaired, report.bytes_restored), (0, 0), "{report:?}");
            assert_eq!(before, touched(case.target.path()));
        }
    }
}

#[test]
fn what_is_there_is_repaired_where_it_differs() {
    let fill = |root: &Path| {
        for name in ["flipped", "cut", "longer", "touched"] {
            fs::write(root.join(name), noise(1, 2 << 20)).unwrap();
        }
        let sparse = File::create(root.join("holed")).unwrap();
        sparse.write_all_at(&noise(2, 100_000), 4 << 20).unwrap();
        sparse.set_len(8 << 20).unwrap();
    };
    for threads in THREADS {
        let case = Case::new(threads, fill);
        case.restore();
        let open = |name: &str| {
            OpenOptions::new().write(true).open(case.target.path().join(name)).unwrap()
        };
        open("flipped").write_all_at(b"other", 1 << 20).unwrap();
        open("cut").set_len(2_000_000).unwrap();
        open("longer").write_all_at(b"beyond", 3 << 20).unwrap();
        open("touched").set_modified(SystemTime::now()).unwrap();
        open("holed").write_all_at(b"in the hole", 1 << 20).unwrap();
        let inode = |name: &str| fs::metadata(case.target.path().join(name)).unwrap().ino();
        let inodes = ["flipped", "cut", "longer", "touched", "holed"].map(inode);

        let report = case.restore();
        case.assert_restored();
        assert_eq!(inodes, ["flipped", "cut", "longer", "touched", "holed"].map(inode));
        assert_eq!((report.files_repaired, report.files_in_place), (4, 1), "{report:?}");
        // One chunk of 24 KiB at most, the cut-off rest, and a hole.
        let rest = (2 << 20) - 2_000_000;
        let chunks = report.bytes_restored - (4 << 20);
        assert!((rest..rest + 3 * (24 << 10)).contains(&chunks), "{report:?}");
        assert_eq!(report.bytes_restored + report.bytes_in_place, 16 << 20, "{report:?}");
    }
}

#[test]
fn silent_corruption_is_found_by_verifying() {
    for threads in THREADS {
        let case = Case::new(threads, |root| {
            fs::write(root.join("a"), noise(1, 1 << 20)).unwrap();
            fs::write(root.join("b"), noise(2, 1 << 20)).unwrap();
            fs::write(root.join("linked"), noise(3, 1 << 20)).unwrap();
            fs::hard_link(root.join("linked"), root.join("too")).unwrap();
        });
        case.restore();
        for name in ["a", "linked"] {
            let path = case.target.path().join(name);
            let time = mtime(&path);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"rot", 500_000).unwrap();
            file.set_modified(time).unwrap();
        }
        assert_eq!(case.restore().files_in_place, 4);
        let options = RestoreOptions { verify_existing: true, ..RestoreOptions::default() };
        let (report, _) = case.restore_with(&options);
        // The one with two names is replaced, as the other name might have been outside.
        assert_eq!((report.files_repaired, report.files_in_place), (1, 1), "{report:?}");
        assert_eq!(report.files_restored, 2, "{report:?}");
        case.assert_restored();
    }
}

#[test]
fn hard_links_are_made_again_and_never_written_through() {
    for threads in THREADS {
        let case = Case::new(threads, |root| {
            fs::write(root.join("a"), noise(1, 200_000)).unwrap();
            fs::hard_link(root.join("a"), root.join("b")).unwrap();
            fs::hard_link(root.join("a"), root.join("c")).unwrap();
            fs::write(root.join("single"), noise(2, 200_000)).unwrap();
        });
        case.restore();
        let target = case.target.path();
        // A link that became a file of its own, content and time as they were.
        let time = mtime(&target.join("a"));
        fs::remove_file(target.join("b")).unwrap();
        fs::copy(target.join("a"), target.join("b")).unwrap();
        set_mtime(&target.join("b"), time);
        // A file outside that shares the inode of one that has to change.
        let outside = tempfile::tempdir_in(target.parent().unwrap()).unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, b"not to be changed").unwrap();
        fs::remove_file(target.join("single")).unwrap();
        fs::hard_link(&victim, target.join("single")).unwrap();
        let report = case.restore();
        case.assert_restored();
        assert_eq!(fs::read(&victim).unwrap(), b"not to be changed");
        assert_eq!((report.files_restored, report.files_in_place), (2, 2), "{report:?}");
        // Nor is its mode changed when only that differs.
        let single = target.join("single");
        fs::hard_link(&single, outside.path().join("other")).unwrap();
        fs::set_permissions(&single, fs::Permissions::from_mode(0o777)).unwrap();
        case.restore();
        case.assert_restored();
        let other = fs::metadata(outside.path().join("other")).unwrap();
        assert_eq!(other.mode() & 0o777, 0o777);
    }
}

#[test]
fn what_is_in_the_way_goes_unless_it_is_a_full_directory() {
    for threads in THREADS {
        let case = Case::new(threads, |root| {
            fs::create_dir(root.join("dir")).unwrap();
            for name in ["dir/x", "file", "fifo", "link"] {
                fs::write(root.join(name), noise(1, 100_000)).unwrap();
            }
            fs::write(root.join("full"), b"").unwrap();
            fs::hard_link(root.join("full"), root.join("full too")).unwrap();
            symlink("/etc", root.join("symlink")).unwrap();
        });
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x"), b"not to be changed").unwrap();
        let target = case.target.path();
        // Symlinks that lead out of the target, to a directory, a file and nothing.
        symlink(outside.path(), target.join("dir")).unwrap();
        symlink(outside.path().join("x"), target.join("file")).unwrap();
        symlink(outside.path().join("made"), target.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, target.join("fifo"), 0o600.into()).unwrap();
        fs::create_dir(target.join("symlink")).unwrap();
        fs::create_dir_all(target.join("full/of")).unwrap();
        let (report, problems) = case.restore_with(&RestoreOptions::default());
        assert_eq!((report.failed, report.files_restored, report.others), (2, 4, 1), "{report:?}");
        assert_eq!(problems[0].name, case.path("/full"));
        assert!(problems[0].cause.contains("not empty"), "{problems:?}");
        // What is lost is not linked to either.
        assert_eq!(problems[1].name, case.path("/full too"));
        assert!(problems[1].cause.starts_with("it is a link to"), "{problems:?}");
        assert!(target.join("full/of").is_dir());
        assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"not to be changed");
        assert!(!outside.path().join("made").exists());
        fs::remove_dir_all(target.join("full")).unwrap();
        assert_eq!(case.restore().files_in_place, 4);
        case.assert_restored();
    }
}

#[test]
fn a_closed_directory_is_opened_and_closed_again() {
    for threads in THREADS {
        let case = Case::new(threads, |root| {
            fs::create_dir(root.join("closed")).unwrap();
            for name in ["gone", "changed"] {
                fs::write(root.join("closed").join(name), noise(1, 100_000)).unwrap();
                let mode = fs::Permissions::from_mode(0o444);
                fs::set_permissions(root.join("closed").join(name), mode).unwrap();
            }
            fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
        });
        case.restore();
        let closed = case.target.path().join("closed");
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&closed, 0o755);
        fs::remove_file(closed.join("gone")).unwrap();
        set_mode(&closed.join("changed"), 0o644);
        fs::write(closed.join("changed"), b"other").unwrap();
        set_mode(&closed.join("changed"), 0o444);
        set_mode(&closed, 0o555);
        case.restore();
        case.assert_restored();
    }
}

#[test]
fn a_path_restores_its_content_or_itself() {
    let case = Case::new(2, odd_tree);
    let restored = |path: &str| {
        let target = tempfile::tempdir().unwrap();
        let (info, path) = (case.latest(), case.path(path));
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let into = target.path().join("not/there/yet");
        restore::run(&case.repo, &info, Some(&path), &into, &options, &watch).map(|report| {
            assert_eq!(watch.problems(), []);
            (report, below(&into))
        })
    };
    for (path, entries) in [("/dir/deep", 302), ("/dir/deep/", 302), ("//empty dir", 0)] {
        let (_, found) = restored(path).unwrap();
        assert_eq!(found.len(), entries);
        let mut wanted = below(&case.source.path().join(path.trim_matches('/')));
        // What it is linked with is not restored.
        wanted.remove(&b"link"[..]);
        let mut found = found;
        found.remove(&b"link"[..]);
        assert_same(&wanted, &found);
    }
    for name in ["large", "sparse", "fifo", "linked symlink"] {
        let (_, found) = restored(&format!("/{name}")).unwrap();
        let mut wanted = below(case.source.path());
        wanted.retain(|path, _| path == name.as_bytes());
        wanted.values_mut().for_each(|facts| facts.linked_with = name.into());
        assert_same(&wanted, &found);
    }
    for path in ["/nothing", "/large/x", "/dir/symlink/x", "/dir/.."] {
        assert!(matches!(restored(path), Err(Error::NoPath { .. })), "{path}");
    }
    // A whole snapshot: absolute paths below the target.
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    let target = case.target.path();
    restore::run(&case.repo, &case.latest(), None, target, &options, &watch).unwrap();
    let source = case.source.path().canonicalize().unwrap();
    let lands = target.join(source.strip_prefix("/").unwrap());
    assert_same(&picture(&source), &picture(&lands));
}

#[test]
fn filters_choose() {
    for threads in THREADS {
        let case = Case::new(threads, odd_tree);
        let wanted = [case.path("/dir/deep"), case.path("/large")];
        let unwanted = case.path("/dir/deep/deeper");
        let options = RestoreOptions {
            include: Some(Box::new(move |path, _| wanted.iter().any(|wanted| wanted == path))),
            exclude: Some(Box::new(move |path, is_dir| is_dir && path == unwanted)),
            ..RestoreOptions::default()
        };
        let (report, problems) = case.restore_with(&options);
        assert_eq!(problems, []);
        assert_eq!((report.dirs, report.files_restored), (2, 302), "{report:?}");
        let mut wanted = below(case.source.path());
        wanted.retain(|path, _| {
            let deep = path.starts_with(b"dir/deep") && path != b"dir/deep/deeper";
            deep || path == b"large" || path == b"dir"
        });
        assert_same(&wanted, &below(case.target.path()));
    }
}

#[test]
fn a_dry_run_writes_nothing_and_tells_what_would_be_done() {
    for threads in THREADS {
        let case = Case::new(threads, odd_tree);
        let dry = || RestoreOptions { dry_run: true, ..RestoreOptions::default() };
        let absent = case.target.path().join("absent");
        let (info, path, watch) = (case.latest(), case.path(""), Tally::default());
        let would = restore::run(&case.repo, &info, Some(&path), &absent, &dry(), &watch).unwrap();
        assert!(!absent.exists());
        let (empty, _) = case.restore_with(&dry());
        assert!(below(case.target.path()).is_empty());
        let done = case.restore();
        for would in [would, empty] {
            assert_eq!(RestoreReport { seconds: done.seconds, ..would }, done);
        }
        let changed = case.target.path().join("dir/copy");
        OpenOptions::new().write(true).open(&changed).unwrap().write_all_at(b"x", 9).unwrap();
        let deep = case.target.path().join("dir/deep");
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(deep.join("5")).unwrap();
        let before = touched(case.target.path());
        let (would, _) = case.restore_with(&dry());
        assert_eq!(before, touched(case.target.path()));
        assert_eq!((would.files_repaired, would.files_restored), (1, 1), "{would:?}");
        let done = case.restore();
        assert_eq!(RestoreReport { seconds: done.seconds, ..would }, done);
    }
}

#[test]
fn a_target_that_cannot_be_used_is_an_error() {
    let case = Case::new(2, odd_tree);
    let file = case.target.path().join("file");
    fs::write(&file, b"").unwrap();
    for target in [file.clone(), file.join("below"), PathBuf::from("/proc/strongroom")] {
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let done = restore::run(&case.repo, &case.latest(), None, &target, &options, &watch);
        assert!(matches!(done, Err(Error::Target { path, .. }) if path == target));
    }
    // Root may write where it is not allowed to.
    if !rustix::process::geteuid().is_root() {
        let target = case.target.path().join("read-only");
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o555)).unwrap();
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let done = restore::run(&case.repo, &case.latest(), None, &target, &options, &watch);
        assert!(matches!(done, Err(Error::Target { .. })), "{done:?}");
    }
}

#[test]
fn only_roles_that_read_restore() {
    let case = Case::new(1, odd_tree);
    for (number, role) in
        [Role::Backup, Role::Restore, Role::Auditor, Role::Admin].iter().enumerate()
    {
        let key = KeyFileSecret([number as u8; 32]);
        keys::add(&case.repo, *role, "somebody", Unlock::KeyFile(&key)).unwrap();
        let store = Arc::new(case.store.clone());
        let repo = Repo::open(store, Unlock::KeyFile(&key), None, case.repo.env()).unwrap();
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let target = case.target.path().join(role.name());
        let done = restore::run(&repo, &case.latest(), None, &target, &options, &watch);
        match role {
            Role::Restore => assert_eq!(done.unwrap().files_restored, 608),
            _ => assert!(matches!(done, Err(Error::Role { .. })), "{role}: {done:?}"),
        }
    }
}

/// Cancels after it was asked so often.
struct Impatient {
    left: AtomicU64,
    tally: Tally,
}

impl Watch for Impatient {
    fn add(&self, counter: Counter, n: u64) {
        self.tally.add(counter, n);
    }

    fn problem(&self, problem: Problem) {
        self.tally.problem(problem);
    }

    fn cancelled(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_err()
    }
}

#[test]
fn an_interrupted_restore_goes_on() {
    for threads in THREADS {
        let case = Case::new(threads, odd_tree);
        let mut times = 0;
        for left in (0..20_000).step_by(101) {
            let watch = Impatient { left: AtomicU64::new(left), tally: Tally::default() };
            match case.try_restore(&RestoreOptions::default(), &watch) {
                Err(Error::Interrupted) => times += 1,
                done => {
                    let report = done.unwrap();
                    assert!(report.files_in_place > 0, "{report:?}");
                    break;
                }
            }
        }
        assert!(times > 2);
        case.restore();
        case.assert_restored();
    }
}
