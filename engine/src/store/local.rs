//! A store in a folder of a local (or mounted) file system.
//!
//! An object is written to `tmp/`, synced, and only then linked to its name: link(2) is an atomic
//! put-if-absent, and a full disk or a killed process leaves nothing but a temporary. No path is
//! followed through a symbolic link below the store's own folder.
//!
//! Deliberately absent: locks, caches of open files, removal of emptied folders, and durable
//! deletion.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

#[cfg(test)]
mod power_loss;
mod temporary;

use self::temporary::{Temporary, is_temporary, unique};
use super::{
    ObjectName, Put, Staged, Store, StoreError, TEMPORARY_FOLDER, check_folder, check_range, probe,
};
use crate::sys::fault;

const FOLDER_MODE: Mode = Mode::RWXU;
const OPEN_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// `NONBLOCK`: a planted pipe must not hang the reader.
const OPEN_OBJECT: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Clones share the opened folder.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<Root>,
}

/// What is known of the file system below a store, as far as several hosts are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Served by this host.
    Local,
    /// On the network, but all hosts see the same at once.
    Cluster(&'static str),
    /// Another host may see an old state from its attribute cache, or it is unknown.
    Cached(&'static str),
}

impl FsKind {
    /// Whether several hosts may mount it and use the store side by side.
    pub fn suits_several_hosts(self) -> bool {
        !matches!(self, Self::Cached(_))
    }
}

impl LocalStore {
    /// Makes the folder (not its parents). One that exists must be empty; a `lost+found` and
    /// temporaries that an earlier attempt left do not count.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let made = match DirBuilder::new().mode(FOLDER_MODE.bits()).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(StoreError::from_io(&place, "create the folder", error)),
        };
        let store = Self::open(path)?;
        let failed = |op| move |error: Errno| StoreError::from_io(&place, op, error.into());
        if made {
            let parent = store.root.open_at("..", OPEN_FOLDER);
            parent.and_then(rustix::fs::fsync).map_err(failed("make durable"))?;
        } else if !store.root.is_unused().map_err(failed("list"))? {
            let reason = "the folder is not empty".into();
            return Err(StoreError::NotSuitable { place: store.describe(), reason });
        }
        Ok(store)
    }

    /// Opens the folder, whatever is in it. Writes nothing, so a read-only medium will do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        // the user's own path to the store may lead through links
        match rustix::fs::open(path, OPEN_FOLDER - OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Self { root: Arc::new(Root { path: path.into(), fd }) }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(StoreError::NoStore { place }),
            Err(error) => Err(StoreError::from_io(&place, "open", error.into())),
        }
    }

    /// Tries on a real object what a store must give; `NotSuitable` if it does not. Says nothing
    /// about several hosts: ask [`Self::fs_kind`].
    pub fn probe(&self) -> Result<(), StoreError> {
        probe(self, &ObjectName::new(&format!("probe-{}", unique()))?)
    }

    #[cfg(target_os = "linux")]
    pub fn fs_kind(&self) -> Result<FsKind, StoreError> {
        let stat = rustix::fs::fstatfs(&self.root.fd)
            .map_err(|error| StoreError::from_io(&self.describe(), "examine", error.into()))?;
        Ok(fs_kind_of(stat.f_type as u32))
    }

    /// Only Linux tells; elsewhere nothing is assumed.
    #[cfg(not(target_os = "linux"))]
    pub fn fs_kind(&self) -> Result<FsKind, StoreError> {
        Ok(FsKind::Cached("unknown file system"))
    }

    /// Deletes temporaries not written to for `older_than`, and says how many. Files that this
    /// store did not name stay. A writer that is swept nevertheless fails cleanly at its commit.
    pub fn sweep_temporaries(&self, older_than: Duration) -> Result<u64, StoreError> {
        let failed = |error: Errno| StoreError::from_io(TEMPORARY_FOLDER, "sweep", error.into());
        let folder = match self.root.folder(TEMPORARY_FOLDER) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let now = SystemTime::now();
        let mut swept = 0;
        for name in names_in(&folder).map_err(failed)? {
            if !is_temporary(&name) {
                continue;
            }
            let Some(stat) = stat_at(&folder, &name).map_err(failed)? else { continue };
            let age = now.duration_since(modified(&stat)).unwrap_or_default();
            if age < older_than {
                continue;
            }
            match rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty()) {
                Ok(()) => swept += 1,
                Err(Errno::NOENT) => {} // its writer ended, or another sweeper was faster
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(swept)
    }

    /// The opened object and its length.
    fn open_object(&self, name: &ObjectName) -> Result<(File, u64), StoreError> {
        let failed = |error| self.root.read_error(name, "open", error);
        refused("store open").map_err(failed)?;
        let folder = self.root.folder(name.folder()).map_err(failed)?;
        let fd = rustix::fs::openat(&folder, name.last(), OPEN_OBJECT, Mode::empty());
        let fd = fd.map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        Ok((File::from(fd), self.root.object_len(name, &stat)?))
    }
}

impl Store for LocalStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        if self.root.holds(name)? {
            return Ok(Put::Existed);
        }
        let mut temporary = Temporary::new(&self.root)?;
        temporary.write(bytes)?;
        let put = temporary.publish(name)?;
        if put == Put::Created {
            self.make_durable(&mut std::iter::once(name))?;
        }
        Ok(put)
    }

    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        Ok(Box::new(Temporary::new(&self.root)?))
    }

    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let (file, len) = self.open_object(name)?;
        if len > max_bytes {
            return Err(StoreError::TooLarge { name: name.to_string(), limit: max_bytes, len });
        }
        let failed = |error| StoreError::from_io(name.as_str(), "read", error);
        let capacity = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity).map_err(|error| failed(io::Error::other(error)))?;
        let arriving = fault::pass_bytes("store read", capacity).map_err(failed)? as u64;
        file.take(arriving).read_to_end(&mut bytes).map_err(failed)?;
        check_range(name, 0, len, bytes.len() as u64)?; // it shrank while it was read
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let (file, len) = self.open_object(name)?;
        check_range(name, offset, buf.len() as u64, len)?;
        let read = fault::pass_bytes("store read", buf.len()).and_then(|arriving| {
            file.read_exact_at(&mut buf[..arriving], offset)?;
            if arriving < buf.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
        });
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::Truncated {
                name: name.to_string(),
                offset,
                wanted: buf.len() as u64,
                len: file.metadata().map_or(0, |now| now.len()),
            },
            _ => StoreError::from_io(name.as_str(), "read", error),
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        match self.root.stat(name)? {
            Some(stat) => self.root.object_len(name, &stat),
            None => Err(self.root.missing(name)),
        }
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        check_folder(folder)?;
        self.root.check_exists()?;
        match self.root.folder(folder) {
            Ok(fd) => list_below(&fd, folder, each),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(path_error(folder, "list", error)),
        }
    }

    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError> {
        // All folders above, not only the nearest: whoever made one may have died before its sync.
        let mut folders = BTreeSet::new();
        for name in names {
            let mut above = name.folder();
            while !above.is_empty() && folders.insert(above.to_owned()) {
                above = above.rsplit_once('/').map_or("", |(above, _)| above);
            }
            folders.insert(String::new());
        }
        for folder in &folders {
            let synced = refused("store sync folder")
                .and_then(|()| self.root.folder(folder))
                .and_then(rustix::fs::fsync);
            synced.map_err(|error| path_error(folder, "make durable", error))?;
            #[cfg(test)]
            power_loss::note(power_loss::Effect::SyncedFolder(folder.clone()));
        }
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let unlinked = refused("store unlink").and_then(|()| self.root.folder(name.folder()));
        let unlinked = unlinked.and_then(|folder| {
            match rustix::fs::unlinkat(&folder, name.last(), AtFlags::empty()) {
                // POSIX lets unlink(2) of a folder say EPERM; a folder is no object
                Err(Errno::ISDIR | Errno::PERM) if is_folder(&folder, name.last()) => Ok(()),
                result => result,
            }
        });
        match unlinked {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(path_error(name.as_str(), "delete", error)),
        }
    }

    fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.sweep_temporaries(older_than)
    }

    fn describe(&self) -> String {
        self.root.path.display().to_string()
    }
}

/// The store's own folder, held open: all paths are relative to it.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.fd, path, flags, Mode::empty())
    }

    /// Opens a folder segment by segment, since `NOFOLLOW` speaks only of the last one.
    fn folder(&self, folder: &str) -> rustix::io::Result<OwnedFd> {
        let mut fd = self.open_at(".", OPEN_FOLDER)?;
        for segment in folder.split_terminator('/') {
            fd = rustix::fs::openat(&fd, segment, OPEN_FOLDER, Mode::empty())?;
        }
        Ok(fd)
    }

    /// The same, making what is missing.
    fn make_folder(&self, folder: &str) -> rustix::io::Result<OwnedFd> {
        match self.folder(folder) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        refused("store make folder")?;
        let mut fd = self.open_at(".", OPEN_FOLDER)?;
        for segment in folder.split_terminator('/') {
            match rustix::fs::mkdirat(&fd, segment, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            fd = rustix::fs::openat(&fd, segment, OPEN_FOLDER, Mode::empty())?;
        }
        Ok(fd)
    }

    /// What is at the name, if anything.
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>, StoreError> {
        match self.folder(name.folder()).and_then(|folder| stat_at(&folder, name.last())) {
            Err(Errno::NOENT) => Ok(None),
            result => result.map_err(|error| path_error(name.as_str(), "examine", error)),
        }
    }

    /// Whether there is an object of that name: "exists" must never be said of anything else.
    fn holds(&self, name: &ObjectName) -> Result<bool, StoreError> {
        match self.stat(name)? {
            None => Ok(false),
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => Ok(true),
            Some(_) => Err(StoreError::NotRegular { name: name.to_string() }),
        }
    }

    fn object_len(&self, name: &ObjectName, stat: &Stat) -> Result<u64, StoreError> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stat.st_size.cast_unsigned()),
            FileType::Directory => Err(self.missing(name)), // a folder is no object
            _ => Err(StoreError::NotRegular { name: name.to_string() }),
        }
    }

    fn read_error(&self, name: &ObjectName, op: &'static str, error: Errno) -> StoreError {
        match error {
            Errno::NOENT => self.missing(name),
            error => path_error(name.as_str(), op, error),
        }
    }

    fn missing(&self, name: &ObjectName) -> StoreError {
        let not_found = StoreError::NotFound { name: name.to_string() };
        self.check_exists().err().unwrap_or(not_found)
    }

    /// Our folder may have been removed since it was opened; then nothing is "not found".
    fn check_exists(&self) -> Result<(), StoreError> {
        match rustix::fs::fstat(&self.fd) {
            Ok(stat) if stat.st_nlink == 0 => {
                Err(StoreError::NoStore { place: self.path.display().to_string() })
            }
            _ => Ok(()),
        }
    }

    fn is_unused(&self) -> rustix::io::Result<bool> {
        for name in names_in(&self.fd)? {
            let tolerated = match name.as_str() {
                "lost+found" => true,
                TEMPORARY_FOLDER => {
                    let folder = self.folder(TEMPORARY_FOLDER)?;
                    names_in(&folder)?.iter().all(|name| is_temporary(name))
                }
                _ => false,
            };
            if !tolerated {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn list_below(
    folder_fd: &OwnedFd,
    folder: &str,
    each: &mut dyn FnMut(ObjectName, u64),
) -> Result<(), StoreError> {
    let failed = |error| path_error(folder, "list", error);
    let mut entries = Vec::new();
    for last in names_in(folder_fd).map_err(failed)? {
        let path = if folder.is_empty() { last.clone() } else { format!("{folder}/{last}") };
        let Ok(name) = ObjectName::new(&path) else { continue };
        let Some(stat) = stat_at(folder_fd, &last).map_err(failed)? else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => entries.push((path, name, Some(stat.st_size.cast_unsigned()))),
            // sorts where the names below it belong: "a-b" < "a/b" < "ab"
            FileType::Directory => entries.push((path + "/", name, None)),
            // skipped silently it would hide objects, say if an admin moved packs/ behind a link
            _ => return Err(StoreError::NotRegular { name: path }),
        }
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (_, name, len) in entries {
        match len {
            Some(len) => each(name, len),
            None => {
                let below = rustix::fs::openat(folder_fd, name.last(), OPEN_FOLDER, Mode::empty());
                let below = below.map_err(|error| path_error(name.as_str(), "list", error))?;
                list_below(&below, name.as_str(), each)?;
            }
        }
    }
    Ok(())
}

/// Names in a folder that are UTF-8, without "." and "..".
fn names_in(folder: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    refused("store list")?;
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

fn stat_at(folder: &OwnedFd, last: &str) -> rustix::io::Result<Option<Stat>> {
    refused("store stat")?;
    match rustix::fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// May this call be made? (Tests say no; see `sys::fault`.)
fn refused(call: &'static str) -> rustix::io::Result<()> {
    fault::pass(call).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn is_folder(folder: &OwnedFd, last: &str) -> bool {
    let stat = stat_at(folder, last);
    stat.is_ok_and(|stat| stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode).is_dir()))
}

fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// An error on the way to a name; `NOENT` has been dealt with where it means absence.
fn path_error(name: &str, op: &'static str, error: Errno) -> StoreError {
    let name = if name.is_empty() { "the store's folder" } else { name };
    match error {
        // a link or a file in place of a folder, a link or a socket in place of a file
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO => StoreError::NotRegular { name: name.into() },
        error => StoreError::from_io(name, op, error.into()),
    }
}

/// Magic numbers: linux/magic.h, and the file systems' own sources for Lustre, GPFS and CIFS.
#[cfg(target_os = "linux")]
fn fs_kind_of(magic: u32) -> FsKind {
    match magic {
        0x0000_6969 => FsKind::Cached("NFS"),
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => FsKind::Cached("SMB"),
        0x0102_1997 => FsKind::Cached("9P"),
        0x5346_414f | 0x6b41_4653 => FsKind::Cached("AFS"),
        0x7375_7245 => FsKind::Cached("Coda"),
        0x6573_5546 => FsKind::Cached("FUSE"), // sshfs, rclone, …: who knows
        0x00c3_6400 => FsKind::Cluster("CephFS"),
        0x0bd0_0bd0 => FsKind::Cluster("Lustre"),
        0x4750_4653 => FsKind::Cluster("GPFS"),
        0x0116_1970 => FsKind::Cluster("GFS2"),
        0x7461_636f => FsKind::Cluster("OCFS2"),
        _ => FsKind::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::fs_kind_of;

    #[cfg(target_os = "linux")]
    #[test]
    fn cached_file_systems_do_not_suit_several_hosts() {
        assert!(!fs_kind_of(rustix::fs::NFS_SUPER_MAGIC as u32).suits_several_hosts());
        assert!(!fs_kind_of(0xff53_4d42).suits_several_hosts());
        assert!(fs_kind_of(0x0000_ef53).suits_several_hosts());
    }
}
