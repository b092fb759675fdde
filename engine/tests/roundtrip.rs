//! Any tree of files backs up and restores identical in content and metadata, and any sequence of edits and backups restores every
//! snapshot identical. Trees and edits are generated; a failing case is printed and shrunk by proptest.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;
use strongroom::env::Env;
use strongroom::restore::{self, RestoreOptions};
use strongroom::watch::Tally;

use support::{FUTURE_NS, assert_same, back_up, new_store, noise, open, picture};

#[derive(Debug, Clone)]
enum Content {
    Noise(u64, usize),
    Text(usize),
    Zeros(usize),
    /// Length, and where a few bytes of data stand in the hole.
    Sparse(u64, Vec<u64>),
}

#[derive(Debug, Clone)]
enum Thing {
    File {
        content: Content,
        mode: u32,
        mtime: i64,
        xattr: Option<Vec<u8>>,
    },
    Symlink(Vec<u8>),
    Fifo,
    /// A hard link to some file made before.
    Link(usize),
    Dir(BTreeMap<Vec<u8>, Thing>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop_oneof![
        Just(b"new\nline".to_vec()),
        Just(b"\xff\xfe not utf-8".to_vec()),
        Just(b"-rf".to_vec()),
        Just(b" ".to_vec()),
        Just(b"...".to_vec()),
        Just(vec![b'x'; 255]),
        Just("ünïcode/".replace('/', "∕").into_bytes()),
        prop::collection::vec(1u8..=255, 1..20),
    ];
    prop_oneof![3 => "[a-z]{1,8}".prop_map(String::into_bytes), 1 => odd].prop_map(|mut name| {
        name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." { b"dots".to_vec() } else { name }
    })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => (any::<u64>(), 0usize..5000).prop_map(|(seed, len)| Content::Noise(seed, len)),
        2 => (0u64..4, 0usize..200_000).prop_map(|(seed, len)| Content::Noise(seed, len)),
        2 => (0usize..100_000).prop_map(Content::Text),
        1 => (0usize..200_000).prop_map(Content::Zeros),
        1 => (0u64..2_000_000, prop::collection::vec(0u64..2_000_000, 0..4))
            .prop_map(|(len, data)| Content::Sparse(len, data)),
    ]
}

fn file() -> impl Strategy<Value = Thing> {
    let mode = prop_oneof![Just(0o644), Just(0o600), Just(0o4755), Just(0o444), Just(0o000)];
    let mtime = prop_oneof![
        3 => -2_000_000_000_000_000_000i64..2_000_000_000_000_000_000i64,
        1 => Just(0),
        1 => Just(-1)
    ];
    let xattr = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..40));
    (content(), mode, mtime, xattr).prop_map(|(content, mode, mtime, xattr)| Thing::File {
        content,
        mode,
        mtime,
        xattr,
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let leaf = prop_oneof![
        8 => file(),
        1 => prop::collection::vec(1u8..=255, 1..60).prop_map(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => any::<usize>().prop_map(Thing::Link),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop::collection::btree_map(name(), inner, 0..8).prop_map(Thing::Dir)
    })
}

fn tree() -> impl Strategy<Value = BTreeMap<Vec<u8>, Thing>> {
    prop::collection::btree_map(name(), thing(), 0..10)
}

fn write(path: &Path, content: &Content) {
    let file = File::create(path).unwrap();
    match content {
        Content::Noise(seed, len) => file.write_all_at(&noise(*seed, *len), 0).unwrap(),
        Content::Text(len) => {
            let line = b"SUBJID,VISIT,TEST,RESULT\n";
            let text: Vec<u8> = line.iter().copied().cycle().take(*len).collect();
            file.write_all_at(&text, 0).unwrap();
        }
        Content::Zeros(len) => file.write_all_at(&vec![0; *len], 0).unwrap(),
        Content::Sparse(len, data) => {
            file.set_len(*len).unwrap();
            for at in data.iter().filter(|at| *at + 4 <= *len) {
                file.write_all_at(b"data", *at).unwrap();
            }
        }
    }
}

fn set_mtime(path: &Path, at_ns: i64) {
    let time = if at_ns >= 0 {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(at_ns as u64)
    } else {
        SystemTime::UNIX_EPOCH - Duration::from_nanos(at_ns.unsigned_abs())
    };
    OpenOptions::new().read(true).open(path).unwrap().set_modified(time).unwrap();
}

fn make(dir: &Path, tree: &BTreeMap<Vec<u8>, Thing>, files: &mut Vec<PathBuf>) {
    for (name, thing) in tree {
        let path = dir.join(OsStr::from_bytes(name));
        match thing {
            Thing::Dir(below) => {
                fs::create_dir(&path).unwrap();
                make(&path, below, files);
            }
            Thing::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Thing::Fifo => {
                let mode = rustix::fs::Mode::from_raw_mode(0o640);
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
            }
            Thing::Link(which) => match files.get(which % files.len().max(1)) {
                Some(file) => fs::hard_link(file, &path).unwrap(),
                None => fs::write(&path, b"no file to link to").unwrap(),
            },
            Thing::File { content, mode, mtime, xattr } => {
                write(&path, content);
                if let Some(value) = xattr {
                    // Not every file system has them: what is set is what must come back.
                    let flags = rustix::fs::XattrFlags::empty();
                    let _ = rustix::fs::setxattr(&path, "user.strongroom", value, flags);
                }
                set_mtime(&path, *mtime);
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path);
            }
        }
    }
}

fn restore_all(repo: &strongroom::repo::Repo, snapshot: &str, source: &Path, target: &Path) {
    let info = repo.find_snapshot(snapshot).unwrap();
    let watch = Tally::default();
    let path = fs::canonicalize(source).unwrap();
    let path = path.as_os_str().as_bytes();
    let options = RestoreOptions::default();
    let report = restore::run(repo, &info, Some(path), target, &options, &watch).unwrap();
    assert_eq!(watch.problems(), []);
    assert_eq!((report.failed, report.warnings), (0, 0));
}

fn without_root(mut picture: support::Picture) -> support::Picture {
    // `:PATH` restores the contents of PATH; the target folder itself is the user's.
    picture.remove(&b""[..]);
    picture
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Content),
    Append(usize, u64),
    Insert(usize, u64),
    Truncate(usize),
    Touch(usize, i64),
    Chmod(usize, u32),
    Delete(usize),
    Rename(usize, Vec<u8>),
    New(Vec<u8>, Content),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<usize>;
    prop_oneof![
        (at(), content()).prop_map(|(at, content)| Edit::Write(at, content)),
        (at(), any::<u64>()).prop_map(|(at, seed)| Edit::Append(at, seed)),
        (at(), any::<u64>()).prop_map(|(at, seed)| Edit::Insert(at, seed)),
        at().prop_map(Edit::Truncate),
        (at(), 0i64..2_000_000_000_000_000_000).prop_map(|(at, time)| Edit::Touch(at, time)),
        (at(), prop_oneof![Just(0o600), Just(0o755)]).prop_map(|(at, mode)| Edit::Chmod(at, mode)),
        at().prop_map(Edit::Delete),
        (at(), name()).prop_map(|(at, name)| Edit::Rename(at, name)),
        (name(), content()).prop_map(|(name, content)| Edit::New(name, content)),
    ]
}

fn regular_files(root: &Path) -> Vec<PathBuf> {
    let all = picture(root);
    let files = all.iter().filter(|(_, facts)| facts.kind == "file");
    files.map(|(path, _)| root.join(OsStr::from_bytes(path))).collect()
}

fn apply(root: &Path, edit: &Edit) {
    let files = regular_files(root);
    let pick = |at: &usize| files.get(at % files.len().max(1)).cloned();
    match edit {
        Edit::New(name, content) => {
            let path = root.join(OsStr::from_bytes(name));
            if fs::symlink_metadata(&path).is_err() {
                write(&path, content);
            }
        }
        Edit::Write(at, content) => {
            if let Some(path) = pick(at) {
                write(&path, content);
            }
        }
        Edit::Append(at, seed) | Edit::Insert(at, seed) => {
            let Some(path) = pick(at) else { return };
            let mut bytes = fs::read(&path).unwrap();
            let end = matches!(edit, Edit::Append(..));
            let place = if end { bytes.len() } else { *seed as usize % (bytes.len() + 1) };
            bytes.splice(place..place, noise(*seed, 100));
            fs::write(&path, bytes).unwrap();
        }
        Edit::Truncate(at) => {
            let Some(path) = pick(at) else { return };
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        Edit::Touch(at, time) => {
            if let Some(path) = pick(at) {
                set_mtime(&path, *time);
            }
        }
        Edit::Chmod(at, mode) => {
            if let Some(path) = pick(at) {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        Edit::Delete(at) => {
            if let Some(path) = pick(at) {
                fs::remove_file(path).unwrap();
            }
        }
        Edit::Rename(at, name) => {
            let Some(path) = pick(at) else { return };
            let to = root.join(OsStr::from_bytes(name));
            if fs::symlink_metadata(&to).is_err() {
                fs::rename(path, to).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_tree_comes_back_identical(tree in tree(), threads in 1usize..4) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(source.path(), &tree, &mut Vec::new());
        let wanted = without_root(picture(source.path()));
        let env = Env::system(threads);
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        back_up(&repo, source.path());
        restore_all(&repo, "latest", source.path(), target.path());
        assert_same(&wanted, &without_root(picture(target.path())));
    }

    #[test]
    fn every_snapshot_of_any_history_comes_back_identical(
        tree in tree(),
        history in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..5),
        cached in any::<bool>(),
    ) {
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(source.path(), &tree, &mut Vec::new());
        let env = Env::seeded(1, FUTURE_NS);
        let store = new_store(&env);
        let mut wanted = Vec::new();
        for edits in std::iter::once(&Vec::new()).chain(&history) {
            edits.iter().for_each(|edit| apply(source.path(), edit));
            let repo = open(&store, cached.then_some(cache.path()), &env);
            let report = back_up(&repo, source.path());
            wanted.push((report.snapshot.unwrap(), without_root(picture(source.path()))));
        }
        let repo = open(&store, None, &env);
        for (snapshot, wanted) in &wanted {
            let target = tempfile::tempdir().unwrap();
            restore_all(&repo, &snapshot.to_string(), source.path(), target.path());
            assert_same(wanted, &without_root(picture(target.path())));
        }
    }
}

#[test]
fn a_huge_directory_and_a_long_file_come_back() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = source.path().join("huge");
    fs::create_dir(&dir).unwrap();
    for n in 0..12_000 {
        File::create(dir.join(format!("{n:x}"))).unwrap();
    }
    // More than 1,024 chunks: their list has nodes of its own.
    fs::write(source.path().join("long"), noise(5, 30 << 20)).unwrap();
    let wanted = without_root(picture(source.path()));
    let env = Env::system(2);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    let report = back_up(&repo, source.path());
    assert_eq!(report.counts.files, 12_001);
    restore_all(&repo, "latest", source.path(), target.path());
    assert_same(&wanted, &without_root(picture(target.path())));
}
