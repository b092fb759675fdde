//! Directories by handle, for the walk: names, stats, and opening what is found.
//!
//! Everything but [`Dir::open`] is relative to a handle and follows no symlink, so a tree of any
//! depth works and nothing that is moved during the walk leads out of it. Recursion, order and
//! exclusion are the walk's business.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Index;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, readlinkat, seek};
use rustix::io::{Errno, retry_on_intr};

use super::fault;
use super::stat::{Kind, Stat, fstat, stat_at};

/// Longest name of one entry, in bytes, on every file system we know.
pub const NAME_BYTES_MAX: usize = 255;

/// Room for a few hundred entries a `getdents`; larger buys nothing measurable.
const LISTING_BYTES: usize = 64 << 10;

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// What a directory holds. Names lie in one piece of memory, with 8 bytes more each, since a
/// directory may have millions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    start: u32,
    len: u16,
    kind: Option<Kind>,
}

impl Row {
    fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + usize::from(self.len)
    }
}

impl Names {
    /// `kind`: what the listing says; `None` where only a stat tells. Error: 4 GiB of names are the
    /// most that one directory may have.
    pub fn push(&mut self, name: &[u8], kind: Option<Kind>) -> io::Result<()> {
        let too_long = |_| io::Error::other("more names than fit into 4 GiB");
        let start = u32::try_from(self.bytes.len()).map_err(too_long)?;
        let len = u16::try_from(name.len()).map_err(too_long)?;
        self.bytes.extend_from_slice(name);
        self.rows.push(Row { start, len, kind });
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.rows.sort_unstable_by(|a, b| bytes[a.range()].cmp(&bytes[b.range()]));
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn kind(&self, place: usize) -> Option<Kind> {
        self.rows[place].kind
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| &self.bytes[row.range()])
    }

    /// Drops the names that `keep` is false for; it may tell kinds that the listing did not.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &mut Option<Kind>) -> bool) {
        let bytes = &self.bytes;
        self.rows.retain_mut(|row| keep(&bytes[row.range()], &mut row.kind));
    }

    /// What all this takes in memory, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<Row>()
    }
}

/// A name by its place.
impl Index<usize> for Names {
    type Output = [u8];

    fn index(&self, place: usize) -> &[u8] {
        &self.bytes[self.rows[place].range()]
    }
}

impl Dir {
    /// Opens a root that the user named; symlinks in `path` are followed.
    pub fn open(path: &Path) -> io::Result<Dir> {
        fault::pass("source open root")?;
        let fd = open_quietly(CWD, path, OFlags::DIRECTORY)?;
        Ok(Dir { fd })
    }

    /// Opens a child directory; a symlink or anything else is an error (`ENOTDIR`, `ELOOP`).
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Dir> {
        fault::pass("source open directory")?;
        let fd = open_quietly(&self.fd, checked(name)?, OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        Ok(Dir { fd })
    }

    /// All entries but `.` and `..`, sorted by bytes. The handle has one read position: two threads
    /// must not list the same handle at a time.
    pub fn names(&self) -> io::Result<Names> {
        fault::pass("source list")?;
        let mut buffer = [const { MaybeUninit::uninit() }; LISTING_BYTES];
        seek(&self.fd, SeekFrom::Start(0))?;
        let mut listing = RawDir::new(&self.fd, &mut buffer);
        let mut names = Names::default();
        while let Some(entry) = listing.next() {
            let entry = entry?;
            fault::pass("source list on")?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name, Kind::of(entry.file_type()))?;
            }
        }
        names.sort();
        Ok(names)
    }

    /// The entry itself, not what a symlink points to.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        fault::pass("source stat")?;
        stat_at(&self.fd, checked(name)?)
    }

    /// Opens for reading, leaving the access time alone where the owner allows. Never waits for the
    /// other end of a FIFO; the caller compares [`fstat`] with the stat it decided on, as the name
    /// may mean another object by now.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        fault::pass("source open")?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match open_quietly(&self.fd, checked(name)?, flags) {
            Err(Errno::AGAIN) => self.open_leased(name),
            other => Ok(other?.into()),
        }
    }

    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        fault::pass("source read link")?;
        Ok(readlinkat(&self.fd, checked(name)?, Vec::new())?.into_bytes())
    }

    /// A file that another process holds a lease on (Samba's oplocks) refuses a non-blocking open.
    /// Waits for the lease to break, which the kernel bounds (`/proc/sys/fs/lease-break-time`), but
    /// only once the object is pinned and known to be a file.
    fn open_leased(&self, name: &[u8]) -> io::Result<File> {
        let pinned = open_path(&self.fd, name)?;
        if fstat(&pinned)?.kind != Kind::File {
            return Err(Errno::AGAIN.into());
        }
        reopen(&pinned, OFlags::RDONLY | OFlags::NOATIME)
            .or_else(|_| reopen(&pinned, OFlags::RDONLY))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One component that can only mean an entry of its directory: not empty, `.` or `..`, without `/`
/// or NUL, at most [`NAME_BYTES_MAX`] bytes.
pub fn valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_BYTES_MAX
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// The name if it is valid, else `InvalidInput`.
pub(super) fn checked(name: &[u8]) -> io::Result<&[u8]> {
    if valid_name(name) {
        return Ok(name);
    }
    let shown = name.escape_ascii();
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("not a name of one entry: \"{shown}\""),
    ))
}

/// Pins whatever the name means now, without opening it: no device is touched, no symlink followed.
pub(super) fn open_path(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, checked(name)?, flags, Mode::empty())?)
}

/// Opens the very object that was pinned, whatever its name means by now. Needs `/proc`.
pub(super) fn reopen(pinned: &OwnedFd, access: OFlags) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let open = || openat(CWD, path.as_str(), access | OFlags::CLOEXEC, Mode::empty());
    Ok(retry_on_intr(open)?.into())
}

/// Opens read-only without touching the access time; only the owner and root may ask for that.
fn open_quietly<P: rustix::path::Arg + Copy>(
    dir: impl AsFd,
    path: P,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |flags| retry_on_intr(|| openat(&dir, path, flags, Mode::empty()));
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}
