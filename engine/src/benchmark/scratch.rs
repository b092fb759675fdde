//! A folder for what is measured on files, which goes away with all in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::format::id::to_hex;
use crate::format::slot::Unlock;
use crate::repo::{InitOptions, KeyFileSecret, Repo, init};
use crate::store::{MemoryStore, Store};

#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(below: &Path, env: &Env) -> Result<Self> {
        let path = below.join(format!(".strongroom-benchmark-{}", to_hex(&env.random::<8>())));
        let failed = |source| Error::Target { path: below.to_owned(), source };
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path })
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(self.failed())?;
        Ok(path)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        File::create(&path).and_then(|mut file| file.write_all(bytes)).map_err(self.failed())?;
        Ok(path)
    }

    pub fn failed(&self) -> impl Fn(io::Error) -> Error {
        |source| Error::Target { path: self.path.clone(), source }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed has a name that says what it is.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A repository in memory, whose secrets nobody keeps.
pub fn memory_repo(options: &InitOptions, cache: Option<&Path>, env: &Env) -> Result<Repo> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let key = KeyFileSecret(env.random());
    init(store.clone(), Unlock::KeyFile(&key), options, env)?;
    Repo::open(store, Unlock::KeyFile(&key), cache, env)
}
