//! What several tests share: a repository with small chunks and packs in memory, and pictures of directory trees that can be
//! compared.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod hand;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::slot::{KeyFileSecret, Unlock};
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::store::{MemoryStore, Store};
use strongroom::watch::{Problem, Tally};

pub const KEY: KeyFileSecret = KeyFileSecret([7; 32]);
/// 2100-01-01: whatever a test writes now counts as long unchanged.
pub const FUTURE_NS: i64 = 4_102_444_800_000_000_000;

pub fn small_options() -> InitOptions {
    InitOptions {
        chunker: ChunkerSpec::windowed_minimum(16 << 10),
        pack_bytes: 1 << 20,
        ..InitOptions::default()
    }
}

pub fn new_store(env: &Env) -> MemoryStore {
    let store = MemoryStore::new();
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &small_options(), env).unwrap();
    store
}

pub fn open(store: &(impl Store + Clone + 'static), cache: Option<&Path>, env: &Env) -> Repo {
    Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&KEY), cache, env).unwrap()
}

pub fn back_up_with(
    repo: &Repo,
    path: &Path,
    options: &BackupOptions,
) -> (BackupReport, Vec<Problem>) {
    let watch = Tally::default();
    let paths = [PathBuf::from(path)];
    let report = backup::run(repo, Source::Paths(&paths), options, &watch).unwrap();
    (report, watch.problems())
}

pub fn back_up(repo: &Repo, path: &Path) -> BackupReport {
    let (report, problems) = back_up_with(repo, path, &BackupOptions::default());
    assert_eq!(problems, []);
    report
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Does no other thread of this process run, or want to?
pub fn is_quiet() -> bool {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap()).filter(|task| Some(&*task.file_name()) != own.file_name()).all(
        |task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
        },
    )
}

/// Everything about an entry that a restore must bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Option<blake3::Hash>,
    pub target: Option<PathBuf>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path of its inode.
    pub linked_with: Vec<u8>,
    pub device: u64,
}

pub type Picture = BTreeMap<Vec<u8>, Facts>;

/// All entries below `root` by their path relative to it; the root itself is "".
pub fn picture(root: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).unwrap() {
                todo.push(relative.join(entry.unwrap().file_name()));
            }
        }
        picture.insert(relative.as_os_str().as_bytes().to_vec(), facts(&path, &meta));
    }
    let paths: Vec<Vec<u8>> = picture.keys().cloned().collect();
    for relative in paths {
        let meta = std::fs::symlink_metadata(root.join(OsStr::from_bytes(&relative))).unwrap();
        let facts = picture.get_mut(&relative).unwrap();
        if facts.kind != "directory" {
            let first = inodes.entry(meta.ino()).or_insert_with(|| relative.clone());
            facts.linked_with.clone_from(first);
        }
    }
    picture
}

fn facts(path: &Path, meta: &std::fs::Metadata) -> Facts {
    let kind = meta.file_type();
    let (kind, content) = if kind.is_file() {
        ("file", Some(blake3::hash(&std::fs::read(path).unwrap())))
    } else if kind.is_dir() {
        ("directory", None)
    } else if kind.is_symlink() {
        ("symlink", None)
    } else if kind.is_fifo() {
        ("fifo", None)
    } else {
        ("other", None)
    };
    // A fifo would keep whoever opens it waiting.
    let opens = matches!(kind, "file" | "directory");
    let names = if opens { list_xattrs(path) } else { Vec::new() };
    Facts {
        kind,
        // The mode of a symlink means nothing.
        mode: if kind == "symlink" { 0 } else { meta.mode() & 0o7777 },
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind == "file" { meta.size() } else { 0 },
        content,
        target: (kind == "symlink").then(|| std::fs::read_link(path).unwrap()),
        xattrs: names,
        linked_with: Vec::new(),
        device: meta.rdev(),
    }
}

fn list_xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    match std::fs::File::open(path) {
        Ok(file) => strongroom::sys::meta::xattrs_of(&file).unwrap(),
        Err(_) => Vec::new(),
    }
}

/// The first difference, in words.
pub fn assert_same(wanted: &Picture, found: &Picture) {
    for (path, facts) in wanted {
        let name = String::from_utf8_lossy(path);
        let other = found.get(path).unwrap_or_else(|| panic!("{name:?} was not restored"));
        assert_eq!(facts, other, "{name:?}");
    }
    for path in found.keys() {
        assert!(wanted.contains_key(path), "{:?} is too much", String::from_utf8_lossy(path));
    }
}

/// A folder in memory where there is one: nothing waits for a disk.
pub fn memory_dir() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// One of everything that a source can hold, small: what is sparse is read like what is large.
pub fn one_of_everything(dir: &Path) {
    std::fs::create_dir_all(dir.join("sub/deep")).unwrap();
    std::fs::create_dir(dir.join("empty")).unwrap();
    for n in 0..4 {
        std::fs::write(dir.join(format!("small {n}")), noise(n, 3000)).unwrap();
        std::fs::write(dir.join(format!("sub/deep/{n}")), noise(n + 10, 50_000)).unwrap();
    }
    let sparse = std::fs::File::create(dir.join("sub/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(20, 70_000), 300_000).unwrap();
    sparse.set_len(600_000).unwrap();
    std::fs::hard_link(dir.join("small 1"), dir.join("sub/another name")).unwrap();
    std::os::unix::fs::symlink("small 2", dir.join("sub/link")).unwrap();
    let fifo = dir.join("sub/fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // Where the file system has attributes.
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(dir.join("small 3"), "user.note", b"kept", flags);
}

/// How a restore ended, and what may be missing or incomplete for it: paths relative to the source's root.
pub struct Told<'t> {
    pub lost: &'t [Vec<u8>],
    pub without_metadata: &'t [Vec<u8>],
    pub finished: bool,
}

/// Whatever is not reported as lost is right; whatever is wrong does not look right by size and time, or a later run would leave it alone.
#[track_caller]
pub fn assert_honest(wanted: &Picture, found: &Picture, told: &Told, context: &str) {
    let below = |paths: &[Vec<u8>], path: &[u8]| {
        paths.iter().any(|lost| {
            path.strip_prefix(&lost[..])
                .is_some_and(|rest| lost.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
        })
    };
    for (path, facts) in wanted.iter().filter(|(path, _)| !path.is_empty()) {
        let name = String::from_utf8_lossy(path);
        let other = found.get(path);
        let passes = other.is_some_and(|other| {
            (other.kind, other.size, other.mtime) == (facts.kind, facts.size, facts.mtime)
        });
        if passes {
            assert_eq!(facts.content, other.unwrap().content, "{context}: {name:?} looks right");
        }
        if !told.finished || below(told.lost, path) {
            continue;
        }
        let other = other.unwrap_or_else(|| panic!("{context}: {name:?} is missing, untold"));
        let content = |facts: &Facts| (facts.kind, facts.content, facts.target.clone());
        if told.without_metadata.iter().any(|told| [path, &facts.linked_with].contains(&told)) {
            assert_eq!(content(facts), content(other), "{context}: {name:?}");
            continue;
        }
        let mut facts = facts.clone();
        if below(told.lost, &facts.linked_with) {
            facts.linked_with.clone_from(&other.linked_with);
        }
        assert_eq!(facts, *other, "{context}: {name:?}");
    }
}

/// Each operation meets every fault with `STRONGROOM_ALL_FAULTS` set, else one in `one_in` of them meets one by turns.
pub fn faults_of<T: Copy>(number: usize, one_in: usize, kinds: &[T]) -> Vec<T> {
    match std::env::var_os("STRONGROOM_ALL_FAULTS") {
        Some(_) => kinds.to_vec(),
        None if number.is_multiple_of(one_in) => vec![kinds[number % kinds.len()]],
        None => Vec::new(),
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A store of its own with the same objects.
pub fn copy_objects(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.put_if_absent(&name, &store.get(&name, u64::MAX).unwrap()).unwrap();
    }
    copy
}
