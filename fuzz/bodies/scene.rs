//! What both bodies need: a repository in memory, folders in memory, and what stands in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::error::Result;
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::slot::{KeyFileSecret, Unlock};
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::store::{MemoryStore, Store};
use tempfile::TempDir;

pub const KEY: KeyFileSecret = KeyFileSecret([7; 32]);
/// 2100-01-01: whatever is written now counts as long unchanged.
pub const FUTURE_NS: i64 = 4_102_444_800_000_000_000;

/// Relative path → content; directories have none.
pub type Manifest = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub fn new_store(env: &Env) -> MemoryStore {
    let options = InitOptions {
        chunker: ChunkerSpec::windowed_minimum(4 << 10),
        pack_bytes: 1 << 20,
        ..InitOptions::default()
    };
    let store = MemoryStore::new();
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, env).unwrap();
    store
}

pub fn open(store: Arc<dyn Store>, cache: Option<&Path>, env: &Env) -> Result<Repo> {
    Repo::open(store, Unlock::KeyFile(&KEY), cache, env)
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn manifest(root: &Path) -> Manifest {
    let mut manifest = Manifest::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.strip_prefix(root).unwrap().to_owned();
            let content = entry.is_file().then(|| std::fs::read(&entry).unwrap());
            if content.is_none() {
                todo.push(entry);
            }
            manifest.insert(name, content);
        }
    }
    manifest
}
