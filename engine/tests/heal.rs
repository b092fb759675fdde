//! Healing: one bad byte anywhere in a pack, a pack cut short or gone: check or restore records
//! what is bad, the next backup of the good source stores it again, old snapshots are whole again
//! bit for bit, and check has nothing left to complain of.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::format::pack::{PackClass, PackHeader};
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::maintain::keys;
use strongroom::repo::Repo;
use strongroom::repo::SnapshotInfo;
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::{Fault, FaultyStore, MemoryStore, ObjectName, Op, Store};
use strongroom::watch::{ProblemKind, Tally};

use support::{assert_same, back_up, new_store, noise, open, picture};

const STRUCTURE: CheckOptions = CheckOptions { read_data: false };
const READ_DATA: CheckOptions = CheckOptions { read_data: true };

fn env() -> Env {
    Env::system(2)
}

/// Two sources, each with its snapshot: one large enough for packs of each class, one small that
/// ends in a mixed pack.
struct Original {
    store: MemoryStore,
    base: tempfile::TempDir,
}

impl Original {
    /// Directories above a source are in its snapshots too: `below` must not change meanwhile.
    fn new(below: &Path) -> Self {
        let base = tempfile::tempdir_in(below).unwrap();
        let (large, small) = (base.path().join("large"), base.path().join("small"));
        std::fs::create_dir_all(large.join("study/series")).unwrap();
        std::fs::create_dir_all(&small).unwrap();
        for i in 0..5 {
            let path = large.join(format!("study/series/{i}.bin"));
            std::fs::write(path, noise(i, 900_000)).unwrap();
        }
        for i in 0..40 {
            std::fs::write(large.join(format!("study/small{i}.txt")), format!("file {i}\n"))
                .unwrap();
        }
        std::fs::write(small.join("late.bin"), noise(99, 50_000)).unwrap();
        let store = new_store(&env());
        let original = Self { store, base };
        original.back_up(&open(&original.store, None, &env()));
        original
    }

    fn sources(&self) -> [PathBuf; 2] {
        ["large", "small"].map(|name| self.base.path().canonicalize().unwrap().join(name))
    }

    fn back_up(&self, repo: &Repo) {
        for source in self.sources() {
            back_up(repo, &source);
        }
    }

    /// Every snapshot, old and new, comes back bit for bit.
    fn assert_all_restores(&self, repo: &Repo) {
        let sources = self.sources();
        let wanted = sources.each_ref().map(|source| picture(source));
        for info in repo.snapshots().unwrap() {
            let target = tempfile::tempdir().unwrap();
            let report = restore(repo, &info, target.path());
            assert_eq!((report.failed, report.recorded), (0, 0), "{report:?}");
            let root = info.snapshot.roots[0].as_slice();
            let of = sources.iter().position(|source| source.as_os_str().as_bytes() == root);
            let path = sources[of.unwrap()].strip_prefix("/").unwrap();
            assert_same(&wanted[of.unwrap()], &picture(&target.path().join(path)));
        }
    }
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.put_if_absent(&name, &store.get(&name, u64::MAX).unwrap()).unwrap();
    }
    copy
}

fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with(folder)).collect()
}

fn pack_of(store: &MemoryStore, class: PackClass) -> ObjectName {
    let bytes = |name: &ObjectName| store.get(name, u64::MAX).unwrap();
    let of_class = |name: &ObjectName| PackHeader::from_bytes(&bytes(name)).unwrap().class == class;
    names(store, "packs/").into_iter().find(of_class).unwrap()
}

fn check_with(repo: &Repo, options: &CheckOptions) -> (CheckReport, Tally) {
    let watch = Tally::default();
    (check::run(repo, options, &watch).unwrap(), watch)
}

fn restore(repo: &Repo, info: &SnapshotInfo, target: &Path) -> RestoreReport {
    restore::run(repo, info, None, target, &RestoreOptions::default(), &Tally::default()).unwrap()
}

/// A byte, as a place in the pack; from the end if negative. Or all of it.
#[derive(Clone, Copy, Debug)]
enum Action {
    Flip(i64),
    Truncate,
    Delete,
}

fn damage(store: &MemoryStore, name: &ObjectName, action: Action) {
    match action {
        Action::Flip(at) => store.tamper(name, |bytes| {
            let at = if at < 0 { bytes.len() as i64 + at } else { at };
            bytes[at as usize] ^= 0x20;
        }),
        Action::Truncate => store.tamper(name, |bytes| bytes.truncate(bytes.len() / 2)),
        Action::Delete => store.delete(name).unwrap(),
    }
}

#[test]
fn the_next_backup_heals() {
    let original = Original::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let classes = [PackClass::Data, PackClass::Tree, PackClass::Refs, PackClass::Mixed];
    // Header, first frame, directory or padding, trailer.
    let everywhere = [0, 20, 36, 70, -300, -160, -1].map(Action::Flip);
    for class in classes {
        let flips = if class == PackClass::Data { &everywhere[..] } else { &everywhere[3..5] };
        for action in flips.iter().copied().chain([Action::Truncate, Action::Delete]) {
            let which = format!("{class:?} {action:?}");
            let store = copy(&original.store);
            let repo = open(&store, None, &env());
            damage(&store, &pack_of(&store, class), action);
            let (report, _) = check_with(&repo, &READ_DATA);
            assert!(!report.damages.is_empty(), "{which}");
            let gone = matches!(action, Action::Truncate | Action::Delete);
            assert_eq!(report.recorded == 0, gone, "{which}: {report:?}");
            assert_eq!(names(&store, "damaged/").is_empty(), gone, "{which}");
            // Nothing is recorded twice, and nothing is hidden by being recorded.
            let (again, _) = check_with(&repo, &READ_DATA);
            assert_eq!((again.recorded, &again.damages), (0, &report.damages), "{which}");

            original.back_up(&repo);
            for options in [READ_DATA, STRUCTURE] {
                let (report, watch) = check_with(&repo, &options);
                assert_eq!(report.damages, [], "{which}");
                assert_eq!(report.recorded, 0, "{which}");
                let notices = watch.problems();
                assert!(notices.iter().all(|p| p.kind == ProblemKind::Notice), "{notices:?}");
            }
            original.assert_all_restores(&repo);
        }
    }
    a_check_of_the_structure_heals_what_it_meets(&original);
}

/// Without reading data, what is met in trees and directories heals as well.
fn a_check_of_the_structure_heals_what_it_meets(original: &Original) {
    for (class, at) in [(PackClass::Tree, 70), (PackClass::Refs, 70), (PackClass::Data, -1)] {
        let store = copy(&original.store);
        let repo = open(&store, None, &env());
        damage(&store, &pack_of(&store, class), Action::Flip(at));
        let (report, _) = check_with(&repo, &STRUCTURE);
        assert!(!report.damages.is_empty() && report.recorded > 0, "{class:?}: {report:?}");
        original.back_up(&repo);
        assert_eq!(check_with(&repo, &STRUCTURE).0.damages, []);
        assert_eq!(check_with(&repo, &READ_DATA).0.damages, []);
        original.assert_all_restores(&repo);
    }
}

/// With a journal too: the file looks unchanged, and is read again all the same.
#[test]
fn restore_records_and_an_unchanged_file_is_read_again() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..3 {
        std::fs::write(source.path().join(format!("{i}")), noise(i, 1 << 20)).unwrap();
    }
    // Late enough that nothing counts as just changed.
    let env = Env::seeded(1, support::FUTURE_NS);
    let store = new_store(&env);
    let repo = open(&store, Some(cache.path()), &env);
    back_up(&repo, source.path());
    // Now: the next backup has a pack of its own if another test has touched the folder above.
    let pack = pack_of(&store, PackClass::Mixed);
    assert_eq!(back_up(&repo, source.path()).counts.files_unchanged, 3);
    damage(&store, &pack, Action::Flip(100));

    let info = repo.snapshots().unwrap().remove(0);
    let target = tempfile::tempdir().unwrap();
    let dry = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    restore::run(&repo, &info, None, target.path(), &dry, &Tally::default()).unwrap();
    assert_eq!(names(&store, "damaged/").len(), 0, "a dry run writes nothing");
    let report = restore(&repo, &info, target.path());
    assert_eq!((report.failed, report.recorded), (1, 1), "{report:?}");
    assert_eq!(names(&store, "damaged/").len(), 1);

    let healing = back_up(&repo, source.path());
    assert_eq!((healing.bytes_read, healing.counts.files_unchanged), (1 << 20, 3));
    assert!(healing.chunks_new > 0, "{healing:?}");
    let report = restore(&repo, &info, target.path());
    assert_eq!((report.failed, report.recorded, report.files_repaired), (0, 0, 1), "{report:?}");
    let path = source.path().canonicalize().unwrap();
    let lands = target.path().join(path.strip_prefix("/").unwrap());
    assert_same(&picture(source.path()), &picture(&lands));
    assert_eq!(check_with(&repo, &READ_DATA).0.damages, []);
}

/// A store that cannot be written to, and reads that fail: what is found is told, and no more is
/// recorded than what is true.
#[test]
fn only_what_is_proven_is_recorded() {
    let original = Original::new(&std::env::temp_dir());
    let store = copy(&original.store);
    let pack = pack_of(&store, PackClass::Data);
    damage(&store, &pack, Action::Flip(70));
    let read_only = FaultyStore::new(Arc::new(store.clone()), |_, op, name| {
        let strikes = op == Op::Put && name.starts_with("damaged/");
        if strikes { Fault::Fail } else { Fault::None }
    });
    let repo = open(&read_only, None, &env());
    let (report, watch) = check_with(&repo, &READ_DATA);
    assert!(!report.damages.is_empty() && report.recorded == 0, "{report:?}");
    assert!(watch.problems().iter().any(|p| p.cause.contains("could not be recorded")));
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repo, &repo.snapshots().unwrap()[0], target.path());
    assert!(report.failed > 0 && report.recorded == 0, "{report:?}");

    // Reads that fail prove nothing.
    damage(&store, &pack, Action::Flip(70));
    let unreadable = FaultyStore::new(Arc::new(store.clone()), |_, op, name| {
        let strikes = op == Op::GetRange && name.starts_with("packs/");
        if strikes { Fault::Fail } else { Fault::None }
    });
    let repo = open(&unreadable, None, &env());
    let (report, _) = check_with(&repo, &READ_DATA);
    assert!(!report.damages.is_empty() && report.recorded == 0, "{report:?}");
    assert_eq!(names(&store, "damaged/").len(), 0);
    assert_eq!(check_with(&open(&store, None, &env()), &READ_DATA).0.damages, []);
}

/// A bad read that was good the second time is not recorded; one that was recorded and is good
/// again is no damage.
#[test]
fn damage_that_went_away() {
    let original = Original::new(&std::env::temp_dir());
    let store = copy(&original.store);
    let repo = open(&store, None, &env());
    let pack = pack_of(&store, PackClass::Data);
    damage(&store, &pack, Action::Flip(70));
    assert_eq!(check_with(&repo, &READ_DATA).0.recorded, 1);
    damage(&store, &pack, Action::Flip(70));
    for options in [STRUCTURE, READ_DATA] {
        assert_eq!(check_with(&repo, &options).0.damages, []);
    }
    original.assert_all_restores(&repo);
}

/// Whoever cannot open a frame takes the word of the record, and sees that it healed.
#[test]
fn every_role_sees_what_is_recorded_and_what_is_healed() {
    let original = Original::new(&std::env::temp_dir());
    let store = copy(&original.store);
    let owner = open(&store, None, &env());
    let roles = [Role::Backup, Role::Restore, Role::Auditor, Role::Admin];
    let keys = roles.map(|role| KeyFileSecret([50 + role as u8; 32]));
    for (role, key) in roles.into_iter().zip(&keys) {
        keys::add(&owner, role, "someone", Unlock::KeyFile(key)).unwrap();
    }
    damage(&store, &pack_of(&store, PackClass::Data), Action::Flip(70));
    assert_eq!(check_with(&owner, &READ_DATA).0.recorded, 1);
    let found = |options: &CheckOptions| {
        keys.each_ref().map(|key| {
            let unlock = Unlock::KeyFile(key);
            let repo = Repo::open(Arc::new(store.clone()), unlock, None, &env()).unwrap();
            check_with(&repo, options).0.damages
        })
    };
    for (role, damages) in roles.into_iter().zip(found(&STRUCTURE)) {
        let [damage] = &damages[..] else { panic!("{role}: {damages:?}") };
        assert!(damage.what.contains("frame at 64"), "{damage:?}");
        assert_eq!(damage.snapshots.len(), usize::from(role != Role::Backup), "{role}");
        assert_eq!(damage.paths.is_empty(), role != Role::Restore, "{role}");
    }
    original.back_up(&owner);
    for options in [STRUCTURE, READ_DATA] {
        assert_eq!(found(&options), [const { Vec::new() }; 4]);
    }
}

#[test]
fn paths_are_named_until_healed() {
    let original = Original::new(&std::env::temp_dir());
    let store = copy(&original.store);
    let repo = open(&store, None, &env());
    damage(&store, &pack_of(&store, PackClass::Data), Action::Delete);
    let (report, _) = check_with(&repo, &STRUCTURE);
    let [damage] = &report.damages[..] else { panic!("{:?}", report.damages) };
    assert_eq!(damage.snapshots.len(), 1);
    let below = original.sources()[0].join("study");
    let below = below.as_os_str().as_bytes();
    assert!(!damage.paths.is_empty());
    assert!(damage.paths.iter().all(|path| path.starts_with(below)), "{damage:?}");
    // A source that no longer has it all: what is left is named still.
    let lost = std::str::from_utf8(&damage.paths[0]).unwrap().to_owned();
    let partial = tempfile::tempdir().unwrap();
    let name = Path::new(&lost).file_name().unwrap();
    std::fs::copy(&lost, partial.path().join(name)).unwrap();
    back_up(&repo, partial.path());
    let (report, _) = check_with(&repo, &STRUCTURE);
    let left: Vec<_> = report.damages.iter().flat_map(|damage| &damage.paths).collect();
    assert_eq!(left.len(), damage.paths.len() - 1);
    assert!(!left.contains(&&damage.paths[0]), "{left:?}");
}
