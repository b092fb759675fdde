//! Files in `tmp/` on their way to being objects: written, synced, then given their name at once.
//!
//! Deliberately absent: the sync of the folder that the name is in; whoever publishes decides when.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

#[cfg(test)]
use super::power_loss;
use super::{Root, path_error, refused};
use crate::store::{ObjectName, Put, Staged, StoreError, TEMPORARY_FOLDER};
use crate::sys::fault;
use crate::sys::file::{CacheAdvice, advise};

const OBJECT_MODE: Mode = Mode::RUSR;
const CREATE_TEMPORARY: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);
const SUFFIX: &str = ".part";
/// Smaller objects are records and index runs, which are soon read again.
const PACK_BYTES_MIN: u64 = 4 << 20;

/// A file in `tmp/` that becomes an object, or goes when dropped.
pub(super) struct Temporary {
    root: Arc<Root>,
    folder: OwnedFd,
    name: String,
    file: File,
}

impl Temporary {
    pub(super) fn new(root: &Arc<Root>) -> Result<Self, StoreError> {
        root.check_exists()?;
        let failed = |error| path_error(TEMPORARY_FOLDER, "create a temporary in", error);
        fault::pass("store create").map_err(|error| {
            StoreError::from_io(TEMPORARY_FOLDER, "create a temporary in", error)
        })?;
        let folder = root.make_folder(TEMPORARY_FOLDER).map_err(failed)?;
        loop {
            let name = unique() + SUFFIX;
            match rustix::fs::openat(&folder, name.as_str(), CREATE_TEMPORARY, OBJECT_MODE) {
                Ok(fd) => {
                    let root = Arc::clone(root);
                    return Ok(Self { root, folder, name, file: File::from(fd) });
                }
                Err(Errno::EXIST) => {} // another host or container with our process id
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Content first, name second; the folder's sync is the caller's.
    pub(super) fn publish(self, name: &ObjectName) -> Result<Put, StoreError> {
        if self.root.holds(name)? {
            return Ok(Put::Existed);
        }
        let failed = |op| move |error| StoreError::from_io(name.as_str(), op, error);
        fault::pass("store sync").and_then(|()| self.file.sync_data()).map_err(failed("write"))?;
        // Packs are not read again soon: they must not push out of the page cache what others work with.
        if self.file.metadata().is_ok_and(|now| now.len() >= PACK_BYTES_MIN) {
            advise(&self.file, 0, 0, CacheAdvice::DontNeed);
        }
        #[cfg(test)]
        power_loss::note(power_loss::Effect::SyncedContent(self.name.clone()));
        let folder = self.root.make_folder(name.folder());
        let folder = folder.map_err(|error| path_error(name.as_str(), "make the folder of", error));
        let named = self.give_name(&folder?, name.last());
        #[cfg(test)]
        power_loss::note(power_loss::Effect::Named(self.name.clone(), name.to_string()));
        match named {
            Ok(()) => Ok(Put::Created),
            Err(Errno::EXIST) => self.settle(name),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(StoreError::NotSuitable {
                place: self.root.path.display().to_string(),
                reason: "its file system has neither hard links nor exclusive renames".into(),
            }),
            Err(error) => Err(path_error(name.as_str(), "link", error)),
        }
    }

    fn give_name(&self, folder: &OwnedFd, last: &str) -> rustix::io::Result<()> {
        refused("store link")?;
        let from = self.name.as_str();
        match rustix::fs::linkat(&self.folder, from, folder, last, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => self.rename(folder, last),
            result => result,
        }
    }

    /// For file systems without hard links (exFAT, some FUSE).
    fn rename(&self, folder: &OwnedFd, last: &str) -> rustix::io::Result<()> {
        let from = self.name.as_str();
        rustix::fs::renameat_with(&self.folder, from, folder, last, RenameFlags::NOREPLACE)
    }

    /// The name was taken: by an object, or (when a network server answers a repeated request) by
    /// ourselves.
    fn settle(&self, name: &ObjectName) -> Result<Put, StoreError> {
        let failed = |error| path_error(name.as_str(), "examine", error);
        let ours = rustix::fs::fstat(&self.file).map_err(failed)?;
        match self.root.stat(name)? {
            Some(found) if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) => {
                Ok(Put::Created)
            }
            Some(found) if !FileType::from_raw_mode(found.st_mode).is_file() => {
                Err(StoreError::NotRegular { name: name.to_string() })
            }
            _ => Ok(Put::Existed), // or existed a moment ago
        }
    }
}

impl Staged for Temporary {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        #[cfg(test)]
        power_loss::note(power_loss::Effect::Wrote(self.name.clone()));
        fault::write("store write", bytes, |bytes| self.file.write_all(bytes)).map_err(|error| {
            StoreError::from_io(&format!("{TEMPORARY_FOLDER}/{}", self.name), "write", error)
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let synced = fault::pass("store sync").and_then(|()| self.file.sync_data());
        synced.map_err(|error| {
            StoreError::from_io(&format!("{TEMPORARY_FOLDER}/{}", self.name), "write", error)
        })
    }

    fn commit(self: Box<Self>, name: &ObjectName) -> Result<Put, StoreError> {
        self.publish(name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // what cannot be removed now is swept later
        let _ = rustix::fs::unlinkat(&self.folder, self.name.as_str(), AtFlags::empty());
    }
}

/// A stem for a name. Not secret, only unlikely to be taken: `O_EXCL` and link(2) decide.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{:x}-{now:x}-{count:x}", std::process::id())
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_suffix(SUFFIX)
        .is_some_and(|stem| stem.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::{LocalStore, names_in};
    use super::{Errno, ObjectName, Put, Staged, StoreError, Temporary};
    use crate::store::Store;

    /// No file system without hard links is at hand, so the way for those is called by itself.
    #[test]
    fn rename_puts_only_if_absent() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&place.path().join("store")).unwrap();
        let name = ObjectName::new("packs/a").unwrap();
        let folder = store.root.make_folder("packs").unwrap();
        let temporary = |bytes: &[u8]| {
            let mut temporary = Temporary::new(&store.root).unwrap();
            temporary.write(bytes).unwrap();
            temporary
        };
        assert_eq!(temporary(b"first").rename(&folder, name.last()), Ok(()));
        let second = temporary(b"second");
        assert_eq!(second.rename(&folder, name.last()), Err(Errno::EXIST));
        assert_eq!(second.settle(&name).unwrap(), Put::Existed);
        drop(second);
        assert_eq!(store.get(&name, 10).unwrap(), b"first");
        assert_eq!(names_in(&store.root.folder("tmp").unwrap()).unwrap(), [""; 0]);
    }

    /// How `benchmark` measures a disk: durable, and nobody ever sees it.
    #[test]
    fn synced_is_not_yet_published() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&place.path().join("store")).unwrap();
        let mut staged = store.stage().unwrap();
        staged.write(b"first").unwrap();
        staged.sync().unwrap();
        let mut names = Vec::new();
        store.list("", &mut |name, _| names.push(name)).unwrap();
        assert_eq!(names, []);
        staged.write(b", second").unwrap();
        let name = ObjectName::new("packs/a").unwrap();
        assert_eq!(staged.commit(&name).unwrap(), Put::Created);
        assert_eq!(store.get(&name, 20).unwrap(), b"first, second");
        let mut dropped = store.stage().unwrap();
        dropped.write(b"third").unwrap();
        dropped.sync().unwrap();
        drop(dropped);
        assert_eq!(names_in(&store.root.folder("tmp").unwrap()).unwrap(), [""; 0]);
    }

    /// A network server that repeats our link answers EEXIST to its own success.
    #[test]
    fn a_repeated_link_is_still_ours() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&place.path().join("store")).unwrap();
        let name = ObjectName::new("a").unwrap();
        let temporary = Temporary::new(&store.root).unwrap();
        let folder = store.root.folder("").unwrap();
        assert_eq!(temporary.give_name(&folder, "a"), Ok(()));
        assert_eq!(temporary.give_name(&folder, "a"), Err(Errno::EXIST));
        assert_eq!(temporary.settle(&name).unwrap(), Put::Created);
    }

    /// Planted between the first look and the link.
    #[test]
    fn a_link_at_the_name_is_no_object() {
        let place = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&place.path().join("store")).unwrap();
        let name = ObjectName::new("a").unwrap();
        let temporary = Temporary::new(&store.root).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("store/a")).unwrap();
        let put = temporary.give_name(&store.root.folder("").unwrap(), "a");
        assert_eq!(put, Err(Errno::EXIST));
        assert!(matches!(temporary.settle(&name), Err(StoreError::NotRegular { .. })));
    }
}
