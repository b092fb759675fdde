//! What the file system says about one object, by one `statx`: kind, owner, size, times.
//!
//! Does not open anything and follows no symlink.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, makedev, statx};

use super::fault;

/// The type of a file-system object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A point in time: seconds since 1970 (negative before) plus nanoseconds, which always count
/// forward and are below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// One object's metadata. Two stats are equal if and only if nothing in them changed, access time
/// excepted, which is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; for a symlink the length of its target.
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    /// Birth, where the file system keeps it.
    pub btime: Option<Time>,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Allocated units of 512 bytes, whatever the file system's block size.
    pub blocks: u64,
}

/// Stats an open file, directory or `O_PATH` handle.
pub fn fstat(fd: impl AsFd) -> io::Result<Stat> {
    fault::pass("stat open")?;
    read(fd, b"", AtFlags::EMPTY_PATH)
}

/// Stats one name in a directory, never what a symlink points to.
pub(super) fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    read(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

fn read(dir: impl AsFd, name: &[u8], flags: AtFlags) -> io::Result<Stat> {
    Stat::from_statx(&statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

impl Kind {
    /// `None` where the directory entry does not tell (some file systems never do).
    pub(super) fn of(file_type: FileType) -> Option<Kind> {
        match file_type {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Dir),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Fifo => Some(Kind::Fifo),
            FileType::Socket => Some(Kind::Socket),
            FileType::CharacterDevice => Some(Kind::CharDevice),
            FileType::BlockDevice => Some(Kind::BlockDevice),
            FileType::Unknown => None,
        }
    }
}

impl Stat {
    fn from_statx(raw: &Statx) -> io::Result<Stat> {
        let mode = u32::from(raw.stx_mode);
        let has_btime = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Stat {
            kind: Kind::of(FileType::from_raw_mode(mode)).ok_or(io::ErrorKind::Unsupported)?,
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            mtime: Time::of(&raw.stx_mtime),
            ctime: Time::of(&raw.stx_ctime),
            btime: has_btime.then(|| Time::of(&raw.stx_btime)),
            dev: makedev(raw.stx_dev_major, raw.stx_dev_minor),
            ino: raw.stx_ino,
            nlink: u64::from(raw.stx_nlink),
            rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
            blocks: raw.stx_blocks,
        })
    }
}

impl Time {
    fn of(raw: &StatxTimestamp) -> Time {
        Time { secs: raw.tv_sec, nanos: raw.tv_nsec }
    }
}
