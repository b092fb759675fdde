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
