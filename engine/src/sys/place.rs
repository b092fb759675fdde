//! Writing below a target directory and never outside of it, for restore.
//!
//! Every call names one entry of an open directory. The name is checked ([`valid_name`]), handles are
//! opened with `O_NOFOLLOW` or `O_EXCL`, and nothing is ever looked up along a path, so neither a
//! hostile name in a repository nor a symlink planted in the target leads elsewhere. (`openat2` with
//! `RESOLVE_BENEATH` would add nothing: of a single component there is nothing to resolve.) A planted
//! hard link is caught where it would be written through, in [`PlaceDir::open_file_to_write`].
//!
//! What to write, in which order, and what may be overwritten is restore's business.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, renameat,
    symlinkat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use super::dir::{Dir, Names, checked, open_path, reopen};
use super::fault;
use super::meta::{self, Meta, Warnings};
use super::stat::{Kind, Stat, fstat};

pub use super::dir::valid_name;

/// How often something else may take a new directory's place before we give up.
const TAKEN_MAX: u32 = 4;

/// An open directory of the target.
#[derive(Debug)]
pub struct PlaceDir {
    dir: Dir,
}

impl PlaceDir {
    /// Opens the root that the user named, where symlinks are followed. With `create`, missing
    /// directories on the way are made (mode 0700).
    pub fn open_root(root: &Path, create: bool) -> io::Result<PlaceDir> {
        fault::pass("target open root")?;
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        }
        Ok(PlaceDir { dir: Dir::open(root)? })
    }

    /// Opens a directory that is there; a symlink or other object is an error.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<PlaceDir> {
        fault::pass("target open directory")?;
        Ok(PlaceDir { dir: self.dir.open_dir(name)? })
    }

    /// Opens a directory, made with mode 0700 if it is not there. A symlink or other object in its
    /// place is removed.
    pub fn make_dir(&self, name: &[u8]) -> io::Result<PlaceDir> {
        fault::pass("target make directory")?;
        let mut taken = 0;
        loop {
            match mkdirat(self, checked(name)?, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            match self.open_dir(name) {
                Err(error) if taken < TAKEN_MAX && is_in_the_way(&error) => {
                    match unlinkat(self, name, AtFlags::empty()) {
                        // a directory again, or nothing: someone else is at work here
                        Ok(()) | Err(Errno::ISDIR | Errno::NOENT) => taken += 1,
                        Err(error) => return Err(error.into()),
                    }
                }
                other => return other,
            }
        }
    }

    /// Sorted as in [`Dir::names`], with the same caveat.
    pub fn names(&self) -> io::Result<Names> {
        self.dir.names()
    }

    /// `None` if there is no such entry.
    pub fn stat(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match self.dir.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        fault::pass("target read link")?;
        self.dir.read_link(name)
    }

    /// Makes a new file, mode 0600, for reading and writing; `AlreadyExists` if the name is taken,
    /// even by a dangling symlink.
    pub fn create_file(&self, name: &[u8]) -> io::Result<File> {
        fault::pass("target create")?;
        // with O_EXCL no symlink is followed either
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let name = checked(name)?;
        Ok(retry_on_intr(|| openat(self, name, flags, Mode::RUSR | Mode::WUSR))?.into())
    }

    /// Opens a regular file that is there, for reading; anything else is `InvalidInput`, without
    /// having been opened (a device may act on that). Needs `/proc`.
    pub fn open_file(&self, name: &[u8]) -> io::Result<(File, Stat)> {
        self.open_existing(name, OFlags::RDONLY)
    }

    /// As [`PlaceDir::open_file`], for reading and writing. A file with several names is
    /// `TooManyLinks`: another one may lie outside the target. Replace it instead.
    pub fn open_file_to_write(&self, name: &[u8]) -> io::Result<(File, Stat)> {
        let (file, stat) = self.open_existing(name, OFlags::RDWR)?;
        match stat.nlink {
            0 | 1 => Ok((file, stat)),
            _ => Err(io::ErrorKind::TooManyLinks.into()),
        }
    }

    /// Removes an entry, a directory only if it is empty. True if there was one.
    pub fn remove(&self, name: &[u8]) -> io::Result<bool> {
        fault::pass("target remove")?;
        let name = checked(name)?;
        let outcome = match unlinkat(self, name, AtFlags::empty()) {
            // POSIX has EPERM for a directory; if it was not one, this says so
            Err(Errno::ISDIR | Errno::PERM) => match unlinkat(self, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTDIR) => Err(Errno::PERM),
                other => other,
            },
            other => other,
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a symlink; where it points to is nobody's business here, as nothing follows it.
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        fault::pass("target symlink")?;
        Ok(symlinkat(target, self, checked(name)?)?)
    }

    /// Gives an object a further name; a symlink itself, not what it points to.
    pub fn hard_link(&self, from_dir: &PlaceDir, from: &[u8], name: &[u8]) -> io::Result<()> {
        fault::pass("target hard link")?;
        Ok(linkat(from_dir, checked(from)?, self, checked(name)?, AtFlags::empty())?)
    }

    /// Makes a FIFO, socket or device node (`rdev` is its major and minor number), mode 0600.
    pub fn mknod(&self, name: &[u8], kind: Kind, rdev: (u32, u32)) -> io::Result<()> {
        fault::pass("target make node")?;
        let (file_type, device) = match kind {
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Socket => (FileType::Socket, 0),
            Kind::CharDevice => (FileType::CharacterDevice, makedev(rdev.0, rdev.1)),
            Kind::BlockDevice => (FileType::BlockDevice, makedev(rdev.0, rdev.1)),
            Kind::File | Kind::Dir | Kind::Symlink => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(mknodat(self, checked(name)?, file_type, mode, device)?)
    }

    /// Moves an entry, replacing whatever non-directory has the new name.
    pub fn rename(&self, name: &[u8], to: &PlaceDir, new_name: &[u8]) -> io::Result<()> {
        Ok(renameat(self, checked(name)?, to, checked(new_name)?)?)
    }

    /// Metadata of an entry that is not opened: symlink, FIFO, socket, device. For files and
    /// directories there is [`meta::set_meta_fd`].
    pub fn set_meta_at(&self, name: &[u8], meta: &Meta) -> io::Result<Warnings> {
        meta::set_meta_at(self, name, meta)
    }

    /// Makes what was created, renamed and removed in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }

    /// Looks at the object before it is opened, and opens what was looked at.
    fn open_existing(&self, name: &[u8], access: OFlags) -> io::Result<(File, Stat)> {
        fault::pass("target open")?;
        let pinned = open_path(self, name)?;
        let stat = fstat(&pinned)?;
        if stat.kind != Kind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((reopen(&pinned, access)?, stat))
    }
}

impl AsFd for PlaceDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// `O_DIRECTORY | O_NOFOLLOW` answers a symlink with either, by platform.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTDIR | Errno::LOOP))
}
