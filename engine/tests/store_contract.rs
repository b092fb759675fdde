//! Holds every store to the MUSTs on the `Store` trait, and each kind to what it promises beyond.
//!
//! Not here: what the engine does when a store breaks them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use strongroom::store::{
    self, Fault, FaultyStore, FsKind, LocalStore, MemoryStore, NAME_BYTES_MAX, ObjectName, Op, Put,
    Staged, Store, StoreError,
};

/// Asserts a `Result`'s error variant and hands out the error.
macro_rules! assert_error {
    ($result:expr, $($pattern:tt)+) => {
        match $result {
            Err(error @ $($pattern)+) => error,
            other => panic!("expected {}, got {:?}", stringify!($($pattern)+), other.map(drop)),
        }
    };
}

// ---- the contract ----------------------------------------------------------------------------

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryStore::new());
}

#[test]
fn local_keeps_the_contract() {
    let place = Place::new();
    contract(&place.store);
    assert_eq!(place.temporaries(), 0);
}

#[test]
fn faulty_without_faults_keeps_the_contract() {
    contract(&FaultyStore::without_faults(Arc::new(MemoryStore::new())));
}

/// Wants an empty store.
fn contract(store: &dyn Store) {
    empty_lists_nothing(store);
    puts_once(store);
    absent_is_not_found(store);
    reads_ranges(store);
    limits_whole_reads(store);
    lists_in_order(store);
    folders_are_no_objects(store);
    deletes_any_number_of_times(store);
    stages(store);
    staging_drops_cleanly(store);
    makes_durable(store);
    for round in 0..20 {
        one_put_wins(store, round);
        one_commit_wins(store, round);
        shows_all_or_nothing(store, round);
    }
    store::probe(store, &name("probe/it")).unwrap();
    assert!(!store.describe().is_empty());
}

fn empty_lists_nothing(store: &dyn Store) {
    assert_eq!(listed(store, ""), []);
    assert_eq!(listed(store, "packs"), []);
}

fn puts_once(store: &dyn Store) {
    for (object, bytes) in [("put", &b"one"[..]), ("put2/a/b/c", b"two"), ("put2/empty", b"")] {
        let object = name(object);
        assert_eq!(store.put_if_absent(&object, bytes).unwrap(), Put::Created);
        assert_eq!(store.put_if_absent(&object, b"other").unwrap(), Put::Existed);
        assert_eq!(store.get(&object, 100).unwrap(), bytes);
        assert_eq!(store.len(&object).unwrap(), bytes.len() as u64);
        assert_eq!(listed(store, object.folder()).iter().filter(|o| o.0 == object).count(), 1);
    }
}

fn absent_is_not_found(store: &dyn Store) {
    for absent in [name("absent"), name("absent/folder/x"), name("put2/absent")] {
        let errors = [
            store.get(&absent, 1).map(drop),
            store.get_range(&absent, 0, &mut []),
            store.len(&absent).map(drop),
        ];
        for error in errors {
            let error = assert_error!(error, StoreError::NotFound { .. });
            assert!(error.to_string().contains(absent.as_str()));
        }
    }
}

fn reads_ranges(store: &dyn Store) {
    let object = name("range");
    let bytes: Vec<u8> = (0..100).collect();
    store.put_if_absent(&object, &bytes).unwrap();
    for (offset, len) in [(0, 0), (0, 1), (0, 100), (1, 99), (50, 7), (99, 1), (100, 0)] {
        let mut buf = vec![0xee; len];
        store.get_range(&object, offset as u64, &mut buf).unwrap();
        assert_eq!(buf, bytes[offset..offset + len], "at {offset}");
    }
    for (offset, len) in [(0, 101), (1, 100), (99, 2), (100, 1), (101, 0), (u64::MAX, 1)] {
        let read = store.get_range(&object, offset, &mut vec![0; len as usize]);
        match assert_error!(read, StoreError::Truncated { .. }) {
            StoreError::Truncated { name, offset: at, wanted, len: has } => {
                assert_eq!((&*name, at, wanted, has), ("range", offset, len, 100));
            }
            _ => unreachable!("just matched"),
        }
    }
}

fn limits_whole_reads(store: &dyn Store) {
    let object = name("limit");
    store.put_if_absent(&object, b"12345").unwrap();
    assert_eq!(store.get(&object, 5).unwrap(), b"12345");
    assert_eq!(store.get(&object, u64::MAX).unwrap(), b"12345");
    assert_error!(store.get(&object, 4), StoreError::TooLarge { limit: 4, len: 5, .. });
    assert_error!(store.get(&object, 0), StoreError::TooLarge { limit: 0, len: 5, .. });
}

fn lists_in_order(store: &dyn Store) {
    // by bytes of the whole name, whatever the folders: '-' < '.' < '/' < '0' < '_' < 'a'
    let sorted = ["l/a-b", "l/a.b", "l/a/b/c", "l/a/b0", "l/a0", "l/a_", "l/pack/x", "l/packs/x"];
    for (len, object) in sorted.iter().enumerate().rev() {
        store.put_if_absent(&name(object), &vec![0; len]).unwrap();
    }
    let expected: Vec<_> = (0u64..).zip(sorted).map(|(len, object)| (name(object), len)).collect();
    assert_eq!(listed(store, "l"), expected);
    assert_eq!(listed(store, "l/pack"), expected[6..7]);
    assert_eq!(listed(store, "l/packs"), expected[7..]);
    assert_eq!(listed(store, "l/pac"), []);
    assert_eq!(listed(store, "l/a"), expected[2..4]);
    let all = listed(store, "");
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
    assert!(expected.iter().all(|object| all.contains(object)));
    for bad in ["/", "l/", "/l", "..", "l/../l", "tmp", "L"] {
        assert_error!(store.list(bad, &mut |_, _| ()), StoreError::BadName { .. });
    }
    // the callback may use the store
    let mut lens = Vec::new();
    store.list("l/a", &mut |object, _| lens.push(store.len(&object).unwrap())).unwrap();
    assert_eq!(lens, [2, 3]);
}

fn folders_are_no_objects(store: &dyn Store) {
    store.put_if_absent(&name("folder/x"), b"x").unwrap();
    let folder = name("folder");
    assert_error!(store.get(&folder, 1), StoreError::NotFound { .. });
    assert_error!(store.len(&folder), StoreError::NotFound { .. });
    store.delete(&folder).unwrap();
    assert_eq!(store.len(&name("folder/x")).unwrap(), 1);
}

fn deletes_any_number_of_times(store: &dyn Store) {
    let object = name("delete/x");
    store.delete(&object).unwrap();
    store.put_if_absent(&object, b"x").unwrap();
    store.delete(&object).unwrap();
    store.delete(&object).unwrap();
    assert_error!(store.len(&object), StoreError::NotFound { .. });
    assert_eq!(listed(store, "delete"), []);
    assert_eq!(store.put_if_absent(&object, b"again").unwrap(), Put::Created);
}

fn stages(store: &dyn Store) {
    let object = name("stage/aa/x");
    let mut staged = staged(store, b"one ");
    staged.write(b"").unwrap();
    staged.write(b"two").unwrap();
    assert_eq!(listed(store, "stage"), []);
    assert_eq!(staged.commit(&object).unwrap(), Put::Created);
    assert_eq!(store.get(&object, 7).unwrap(), b"one two");
    assert_eq!(self::staged(store, b"other").commit(&object).unwrap(), Put::Existed);
    assert_eq!(store.get(&object, 7).unwrap(), b"one two");
    let empty = name("stage/empty");
    assert_eq!(store.stage().unwrap().commit(&empty).unwrap(), Put::Created);
    assert_eq!(listed(store, "stage"), [(object, 7), (empty, 0)]);
}

fn staging_drops_cleanly(store: &dyn Store) {
    let before = listed(store, "");
    let staged = staged(store, b"never named");
    assert_eq!(listed(store, ""), before);
    drop(staged);
    assert_eq!(listed(store, ""), before);
}

fn makes_durable(store: &dyn Store) {
    let names = [name("durable"), name("durable2/a/x"), name("durable2/b/x"), name("durable2/a/y")];
    for object in &names {
        staged(store, b"x").commit(object).unwrap();
    }
    store.make_durable(&mut names.iter()).unwrap();
    store.make_durable(&mut [].iter()).unwrap();
}

fn one_put_wins(store: &dyn Store, round: u8) {
    let object = name(&format!("race{round}/put"));
    let put = |bytes: &[u8]| store.put_if_absent(&object, bytes).unwrap();
    one_wins(store, &object, &put);
}

fn one_commit_wins(store: &dyn Store, round: u8) {
    let object = name(&format!("race{round}/commit"));
    let commit = |bytes: &[u8]| staged(store, bytes).commit(&object).unwrap();
    one_wins(store, &object, &commit);
}

fn one_wins(store: &dyn Store, object: &ObjectName, put: &(dyn Fn(&[u8]) -> Put + Sync)) {
    let start = Barrier::new(8);
    let puts: Vec<_> = thread::scope(|scope| {
        let racers = (0..8u8).map(|racer| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                put(&[racer; 1000])
            })
        });
        let racers: Vec<_> = racers.collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let winners: Vec<_> = (0..8u8).filter(|&r| puts[r as usize] == Put::Created).collect();
    assert_eq!(winners.len(), 1, "{puts:?}");
    assert_eq!(store.get(object, 1000).unwrap(), [winners[0]; 1000]);
}

fn shows_all_or_nothing(store: &dyn Store, round: u8) {
    let object = name(&format!("whole{round}"));
    let bytes = vec![7; 300_000];
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            loop {
                match store.get(&object, u64::MAX) {
                    Ok(read) => return read,
                    Err(StoreError::NotFound { .. }) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        store.put_if_absent(&object, &bytes).unwrap();
        assert!(reader.join().unwrap() == bytes);
    });
}

// ---- names and errors ------------------------------------------------------------------------

#[test]
fn names_are_checked() {
    let longest = "a".repeat(NAME_BYTES_MAX);
    for good in ["a", "repo.cbor", "packs/0f/ab_c-d.e", "a/tmp", "tmp2", "a..b", "-", &longest] {
        assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
    }
    let too_long = "a".repeat(NAME_BYTES_MAX + 1);
    let bad =
        ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", ".a", "a/.b", "A", "a b", "ä", "a\0"];
    for bad in bad.into_iter().chain(["a\\b", "a\n", "tmp", "tmp/x", "a+b", &too_long]) {
        let error = assert_error!(ObjectName::new(bad), StoreError::BadName { .. });
        assert!(!error.to_string().contains(['\0', '\n']), "control characters are escaped");
    }
}

#[test]
fn names_come_apart() {
    for (whole, folder, last) in [("a", "", "a"), ("a/b", "a", "b"), ("a/b/c", "a/b", "c")] {
        let name = name(whole);
        assert_eq!((name.folder(), name.last()), (folder, last));
        assert_eq!((format!("{name}"), format!("{name:?}")), (whole.into(), whole.into()));
    }
}

// ---- local -----------------------------------------------------------------------------------

/// A local store in a folder of its own, removed at the end.
struct Place {
    store: LocalStore,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        Self { store: LocalStore::create(&path).unwrap(), path, _folder: folder }
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.path.join("tmp")).unwrap().count()
    }
}

#[test]
fn local_creates_only_in_empty_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let missing = assert_error!(LocalStore::open(&path), StoreError::NoStore { .. });
    assert!(missing.to_string().contains(path.to_str().unwrap()));
    let store = LocalStore::create(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    // a first attempt died: a second one may go on
    std::mem::forget(store.stage().unwrap());
    fs::create_dir(path.join("lost+found")).unwrap();
    LocalStore::create(&path).unwrap();
    store.put_if_absent(&name("repo.cbor"), b"x").unwrap();
    assert_error!(LocalStore::create(&path), StoreError::NotSuitable { .. });
    assert_eq!(LocalStore::open(&path).unwrap().get(&name("repo.cbor"), 1).unwrap(), b"x");

    let foreign = folder.path().join("foreign");
    fs::create_dir_all(foreign.join("tmp")).unwrap();
    fs::write(foreign.join("tmp/thesis.txt"), "").unwrap();
    assert_error!(LocalStore::create(&foreign), StoreError::NotSuitable { .. });

    let file = path.join("repo.cbor");
    assert_error!(LocalStore::open(&file), StoreError::NoStore { .. });
    assert_error!(LocalStore::open(&file.join("x")), StoreError::NoStore { .. });
    assert_error!(LocalStore::create(&file.join("x")), StoreError::Io { .. });
    assert_error!(LocalStore::create(&folder.path().join("no/parent")), StoreError::Io { .. });
}

#[test]
fn local_opens_through_the_users_own_link() {
    let place = Place::new();
    let link = place.path.with_file_name("link");
    symlink(&place.path, &link).unwrap();
    LocalStore::open(&link).unwrap().probe().unwrap();
}

#[test]
fn local_files_are_private_and_read_only() {
    let place = Place::new();
    place.store.put_if_absent(&name("a/b/put"), b"x").unwrap();
    staged(&place.store, b"x").commit(&name("a/c/staged")).unwrap();
    for file in ["a/b/put", "a/c/staged"] {
        assert_eq!(mode(&place.path.join(file)), 0o400, "{file}");
    }
    for folder in ["a", "a/b", "a/c", "tmp"] {
        assert_eq!(mode(&place.path.join(folder)), 0o700, "{folder}");
    }
}

#[test]
fn local_sees_truncation() {
    let place = Place::new();
    let object = name("packs/x");
    place.store.put_if_absent(&object, &[7; 100]).unwrap();
    fs::set_permissions(place.path.join("packs/x"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(place.path.join("packs/x")).unwrap();
    file.set_len(60).unwrap();
    assert_error!(
        place.store.get_range(&object, 50, &mut [0; 20]),
        StoreError::Truncated { offset: 50, wanted: 20, len: 60, .. }
    );
    assert_eq!(listed(&place.store, "packs"), [(object, 60)]);
}

/// What an intruder may plant at the name of an object, or of its folder.
#[test]
fn local_rejects_what_is_no_plain_file() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 4] = [
        ("packs/x", |at| symlink("/etc/passwd", at).unwrap()),
        ("packs/x", |at| symlink("dangling", at).unwrap()),
        ("packs/x", |at| assert!(Command::new("mkfifo").arg(at).status().unwrap().success())),
        ("packs/x", |at| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
    ];
    for (number, (at, plant)) in plants.into_iter().enumerate() {
        let place = Place::new();
        fs::create_dir(place.path.join("packs")).unwrap();
        plant(&place.path.join(at));
        rejects(&place.store, number);
        place.store.delete(&name("packs/x")).unwrap();
        assert_eq!(listed(&place.store, ""), [], "the plant can be weeded");
        assert!(fs::exists("/etc/passwd").unwrap());
    }

    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("x"), "planted").unwrap();
    let place = Place::new();
    symlink(elsewhere.path(), place.path.join("packs")).unwrap();
    rejects(&place.store, 98);
    assert_error!(place.store.delete(&name("packs/x")), StoreError::NotRegular { .. });
    assert!(elsewhere.path().join("x").exists());

    let place = Place::new();
    fs::write(place.path.join("packs"), "a file where a folder belongs").unwrap();
    for result in [
        place.store.put_if_absent(&name("packs/x"), b"x").map(drop),
        place.store.len(&name("packs/x")).map(drop),
        place.store.make_durable(&mut [name("packs/x")].iter()),
    ] {
        assert_error!(result, StoreError::NotRegular { .. });
    }
}

fn rejects(store: &LocalStore, plant: usize) {
    let object = name("packs/x");
    let results = [
        store.get(&object, 1 << 20).map(drop),
        store.get_range(&object, 0, &mut [0; 1]),
        store.len(&object).map(drop),
        store.put_if_absent(&object, b"x").map(drop),
        staged(store, b"x").commit(&object).map(drop),
        store.list("", &mut |_, _| ()),
    ];
    for (call, result) in results.into_iter().enumerate() {
        match result {
            Err(StoreError::NotRegular { .. }) => {}
            other => panic!("plant {plant}, call {call}: {other:?}"),
        }
    }
}

#[test]
fn local_put_on_a_folder_does_not_exist() {
    let place = Place::new();
    fs::create_dir_all(place.path.join("snapshots/x")).unwrap();
    let put = place.store.put_if_absent(&name("snapshots/x"), b"x");
    assert_error!(put, StoreError::NotRegular { .. });
}

#[test]
fn local_lists_no_junk() {
    let place = Place::new();
    place.store.put_if_absent(&name("packs/x"), b"x").unwrap();
    for junk in [".nfs0001", "packs/X", "packs/x~", "packs/.x", "Thumbs.db"] {
        fs::write(place.path.join(junk), "junk").unwrap();
    }
    fs::create_dir_all(place.path.join("lost+found/packs")).unwrap();
    fs::write(place.path.join("lost+found/packs/x"), "junk").unwrap();
    std::mem::forget(staged(&place.store, b"killed"));
    assert_eq!(listed(&place.store, ""), [(name("packs/x"), 1)]);
}

#[test]
fn local_sweeps_old_temporaries_only() {
    let place = Place::new();
    assert_eq!(place.store.sweep_temporaries(Duration::ZERO).unwrap(), 0);
    std::mem::forget(staged(&place.store, b"killed"));
    let live = staged(&place.store, b"live");
    fs::write(place.path.join("tmp/thesis.txt"), "not ours").unwrap();
    assert_eq!(place.store.sweep_temporaries(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(place.temporaries(), 3);
    assert_eq!(place.store.sweep_temporaries(Duration::ZERO).unwrap(), 2);
    assert_eq!(place.temporaries(), 1);
    assert_error!(live.commit(&name("x")), StoreError::Io { .. });
    assert_eq!(listed(&place.store, ""), []);
}

#[test]
fn local_leaves_no_temporaries() {
    let place = Place::new();
    let object = name("x");
    place.store.put_if_absent(&object, b"x").unwrap();
    place.store.put_if_absent(&object, b"x").unwrap();
    staged(&place.store, b"x").commit(&object).unwrap();
    staged(&place.store, b"x").commit(&name("y")).unwrap();
    let live = staged(&place.store, b"x");
    assert_eq!(place.temporaries(), 1);
    drop(live);
    assert_eq!(place.temporaries(), 0);
}

#[test]
fn local_notices_that_its_folder_is_gone() {
    let place = Place::new();
    fs::remove_dir_all(&place.path).unwrap();
    for result in [
        place.store.get(&name("x"), 1).map(drop),
        place.store.list("packs", &mut |_, _| ()),
        place.store.put_if_absent(&name("x"), b"x").map(drop),
    ] {
        assert_error!(result, StoreError::NoStore { .. });
    }
}

#[test]
fn local_refuses_clearly_where_it_may_not_write() {
    // sysfs lets not even root make folders
    let Ok(store) = LocalStore::open(Path::new("/sys")) else { return };
    match store.put_if_absent(&name("x"), b"x") {
        Err(StoreError::Permission { name, .. } | StoreError::ReadOnly { name, .. }) => {
            assert_eq!(name, "tmp");
        }
        other => panic!("{other:?}"),
    }
}

/// Mounts a 256 KiB tmpfs in a mount namespace of its own and runs `in_small_file_system` there.
/// Where the system forbids that, nothing is tested.
#[test]
fn local_survives_a_full_and_a_read_only_disk() {
    let folder = tempfile::tempdir().unwrap();
    let namespaced = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        unshare.arg(format!("mount -t tmpfs -o size=256k none \"$1\" && {script}")).arg("sh");
        unshare.arg(folder.path()).arg(std::env::current_exe().unwrap()).env(SMALL, folder.path());
        unshare.output()
    };
    if !namespaced("mount -o remount,ro \"$1\"").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no user and mount namespaces here");
        return;
    }
    let output = namespaced("\"$2\" --exact in_small_file_system --ignored").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const SMALL: &str = "STRONGROOM_TEST_SMALL_FILE_SYSTEM";

#[test]
#[ignore = "run by local_survives_a_full_and_a_read_only_disk"]
fn in_small_file_system() {
    let mount = PathBuf::from(std::env::var_os(SMALL).expect("run by the other test"));
    let store = LocalStore::create(&mount.join("store")).unwrap();
    assert_eq!(store.fs_kind().unwrap(), FsKind::Local);
    let temporaries = || fs::read_dir(mount.join("store/tmp")).unwrap().count();
    store.put_if_absent(&name("packs/kept"), b"kept").unwrap();
    let big = vec![7; 1 << 20];
    let full = assert_error!(store.put_if_absent(&name("x"), &big), StoreError::Full { .. });
    assert!(std::error::Error::source(&full).is_some());
    let mut stage = store.stage().unwrap();
    assert_error!(stage.write(&big), StoreError::Full { .. });
    drop(stage);
    assert_eq!((temporaries(), listed(&store, "")), (0, vec![(name("packs/kept"), 4)]));
    assert_eq!(store.put_if_absent(&name("y"), b"room again").unwrap(), Put::Created);

    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&mount).status().unwrap();
    assert!(remount.success());
    let store = LocalStore::open(&mount.join("store")).unwrap();
    assert_eq!(store.get(&name("packs/kept"), 4).unwrap(), b"kept");
    assert_eq!(store.put_if_absent(&name("packs/kept"), b"").unwrap(), Put::Existed);
    assert_error!(store.put_if_absent(&name("z"), b""), StoreError::ReadOnly { .. });
    assert_error!(store.stage(), StoreError::ReadOnly { .. });
    assert_error!(store.delete(&name("packs/kept")), StoreError::ReadOnly { .. });
    assert_error!(LocalStore::create(&mount.join("new")), StoreError::ReadOnly { .. });
}

/// What a power loss would show is seen in the order of the system calls. Where strace is missing
/// or forbidden, nothing is tested.
#[test]
fn local_syncs_content_then_name_then_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=openat,fdatasync,linkat,fsync", "-e", "signal=none"]);
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", "in_trace", "--ignored"]);
    let output = strace.env(TRACED, folder.path()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no strace here");
        return;
    };
    let trace = String::from_utf8_lossy(&output.stderr);
    let calls: Vec<_> = trace
        .lines()
        .skip_while(|line| !line.contains(".part"))
        .filter_map(|line| {
            ["fdatasync(", "linkat(", "fsync("].into_iter().find(|c| line.contains(c))
        })
        .collect();
    // the folders are packs/aa, packs and the store's own; staged objects leave them for later
    let put = ["fdatasync(", "linkat(", "fsync(", "fsync(", "fsync("];
    let expected = [&put[..], &put[..2], &put[2..]].concat();
    assert_eq!(calls, expected, "{trace}");
}

const TRACED: &str = "STRONGROOM_TEST_TRACED";

#[test]
#[ignore = "run by local_syncs_content_then_name_then_folders"]
fn in_trace() {
    let place = PathBuf::from(std::env::var_os(TRACED).expect("run by the other test"));
    let store = LocalStore::open(&place).unwrap();
    store.put_if_absent(&name("packs/aa/put"), b"x").unwrap();
    staged(&store, b"x").commit(&name("packs/aa/staged")).unwrap();
    store.make_durable(&mut [name("packs/aa/staged"), name("packs/aa/put")].iter()).unwrap();
}

// ---- memory ----------------------------------------------------------------------------------

#[test]
fn memory_is_shared_and_can_be_tampered_with() {
    let store = MemoryStore::new();
    store.put_if_absent(&name("b"), b"12").unwrap();
    store.clone().put_if_absent(&name("a/x"), b"12").unwrap();
    assert_eq!(store.names(), [name("a/x"), name("b")]);
    store.clone().tamper(&name("b"), |bytes| bytes[0] ^= 1);
    assert_eq!(store.get(&name("b"), 2).unwrap(), b"02");
}

// ---- faulty ----------------------------------------------------------------------------------

/// One of each operation, in the order of `Op`.
fn all_ops(store: &dyn Store) -> Vec<Result<(), StoreError>> {
    let mut buf = [0; 4];
    let mut results = vec![store.put_if_absent(&name("put"), b"1234").map(drop)];
    match store.stage() {
        Ok(mut staged) => {
            results.push(Ok(()));
            results.push(staged.write(b"1234"));
            results.push(staged.commit(&name("staged")).map(drop));
        }
        Err(error) => results.push(Err(error)),
    }
    results.push(store.get(&name("kept"), 4).map(drop));
    results.push(store.get_range(&name("kept"), 0, &mut buf));
    results.push(store.len(&name("kept")).map(drop));
    results.push(store.list("", &mut |_, _| ()));
    results.push(store.delete(&name("gone")));
    results.push(store.make_durable(&mut [name("kept"), name("put")].iter()));
    results
}

fn kept_and_gone() -> MemoryStore {
    let memory = MemoryStore::new();
    memory.put_if_absent(&name("kept"), b"1234").unwrap();
    memory.put_if_absent(&name("gone"), b"").unwrap();
    memory
}

#[test]
fn faulty_counts_and_logs_every_operation() {
    let store = FaultyStore::without_faults(Arc::new(kept_and_gone()));
    assert!(all_ops(&store).iter().all(Result::is_ok));
    assert_eq!(store.ops(), 10);
    let log: Vec<_> = store.log().into_iter().map(|met| (met.number, met.op, met.name)).collect();
    let expected = [
        (Op::Put, "put"),
        (Op::Stage, ""),
        (Op::StageWrite, ""),
        (Op::StageCommit, "staged"),
        (Op::Get, "kept"),
        (Op::GetRange, "kept"),
        (Op::Len, "kept"),
        (Op::List, ""),
        (Op::Delete, "gone"),
        (Op::MakeDurable, "kept put"),
    ];
    let expected = (0u64..).zip(expected).map(|(n, (op, name))| (n, op, name.to_owned()));
    assert_eq!(log, expected.collect::<Vec<_>>());
}

#[test]
fn faulty_fails_each_operation_once() {
    for fault in [Fault::Fail, Fault::Full, Fault::AppliedButFailed, Fault::ShortWrite] {
        for number in 0..10 {
            let memory = kept_and_gone();
            let store = FaultyStore::failing_at(Arc::new(memory.clone()), number, fault);
            let results = all_ops(&store);
            let failures: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
            assert_eq!(failures.len(), 1, "{fault:?} at {number}");
            assert_eq!(matches!(failures[0], StoreError::Full { .. }), fault == Fault::Full);

            let names: HashSet<_> = memory.names().iter().map(ToString::to_string).collect();
            let applied = fault == Fault::AppliedButFailed;
            assert_eq!(names.contains("put"), number != 0 || applied, "{fault:?} at {number}");
            let staged = number == 2 || ![1, 3].contains(&number) || (applied && number == 3);
            assert_eq!(names.contains("staged"), staged, "{fault:?} at {number}");
            assert_eq!(names.contains("gone"), number == 8 && !applied, "{fault:?} at {number}");
            if number == 2 {
                let len = match fault {
                    Fault::AppliedButFailed => 4,
                    Fault::ShortWrite => 2,
                    _ => 0,
                };
                assert_eq!(memory.len(&name("staged")).unwrap(), len, "{fault:?}");
            }
        }
    }
}

#[test]
fn faulty_reads_half_a_range() {
    let store = FaultyStore::failing_at(Arc::new(kept_and_gone()), 0, Fault::ShortWrite);
    let mut buf = *b"....";
    assert_error!(store.get_range(&name("kept"), 0, &mut buf), StoreError::Io { .. });
    assert_eq!(&buf, b"12..");
}

#[test]
fn faulty_stays_killed() {
    for number in 0..10 {
        let memory = kept_and_gone();
        let store = FaultyStore::failing_at(Arc::new(memory.clone()), number, Fault::Kill);
        let results = all_ops(&store);
        let dead = results.iter().position(Result::is_err).unwrap();
        assert_eq!(dead as u64, number);
        assert!(results[dead..].iter().all(Result::is_err), "killed at {number}");
        assert!(memory.names().contains(&name("gone")) == (number <= 8));
    }
}

// ---- probing ---------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Replaces,
    ClaimsExisted,
    Garbles,
    ListsLate,
    DeletesNothing,
    ListsDeleted,
}

/// A store that breaks one promise.
#[derive(Debug)]
struct Liar(MemoryStore, Lie);

impl Store for Liar {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        match self.1 {
            Lie::Replaces => {
                self.0.delete(name)?;
                self.0.put_if_absent(name, bytes)
            }
            Lie::ClaimsExisted => self.0.put_if_absent(name, bytes).map(|_| Put::Existed),
            _ => self.0.put_if_absent(name, bytes),
        }
    }
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        self.0.stage()
    }
    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = self.0.get(name, max_bytes)?;
        bytes[0] ^= u8::from(self.1 == Lie::Garbles);
        Ok(bytes)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.0.get_range(name, offset, buf)
    }
    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.0.len(name)
    }
    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        match self.1 {
            Lie::ListsLate => Ok(()),
            Lie::ListsDeleted => {
                each(name("probe"), 0);
                Ok(())
            }
            _ => self.0.list(folder, each),
        }
    }
    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError> {
        self.0.make_durable(names)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        if self.1 == Lie::DeletesNothing { Ok(()) } else { self.0.delete(name) }
    }
    fn describe(&self) -> String {
        "a liar".into()
    }
}

#[test]
fn probe_finds_every_lie() {
    let lies = [
        Lie::Replaces,
        Lie::ClaimsExisted,
        Lie::Garbles,
        Lie::ListsLate,
        Lie::DeletesNothing,
        Lie::ListsDeleted,
    ];
    let mut reasons = HashSet::new();
    for lie in lies {
        let liar = Liar(MemoryStore::new(), lie);
        match store::probe(&liar, &name("probe")) {
            Err(StoreError::NotSuitable { reason, .. }) => assert!(reasons.insert(reason)),
            other => panic!("{lie:?}: {other:?}"),
        }
        assert_eq!(liar.0.names().is_empty(), lie != Lie::DeletesNothing, "{lie:?}");
    }
}

#[test]
fn probe_leaves_nothing() {
    let place = Place::new();
    place.store.probe().unwrap();
    let left: Vec<_> = fs::read_dir(&place.path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tmp"]);
    assert_eq!(place.temporaries(), 0);
}

// ---- helpers ---------------------------------------------------------------------------------

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn listed(store: &dyn Store, folder: &str) -> Vec<(ObjectName, u64)> {
    let mut objects = Vec::new();
    store.list(folder, &mut |name, len| objects.push((name, len))).unwrap();
    objects
}

fn staged(store: &dyn Store, bytes: &[u8]) -> Box<dyn Staged> {
    let mut staged = store.stage().unwrap();
    staged.write(bytes).unwrap();
    staged
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}
