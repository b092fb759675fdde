//! Owner, extended attributes, mode and times of one object: xattrs read, all of them written.
//!
//! POSIX ACLs are the xattrs `system.posix_acl_access` and `system.posix_acl_default` and are copied
//! as such. Writing goes on after an error and says what was refused. What a handle stands for,
//! and that it lies where it should, is the caller's affair ([`super::place`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    self, AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::dir::{checked, open_path};
use super::fault;
use super::stat::{Kind, Time, fstat};

/// Names and values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What was refused, and why; everything else was applied.
pub type Warnings = Vec<(Part, io::Error)>;

/// Linux's own limit on both a list of names and one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Fits nearly every list and value, so that nearly none is asked twice.
const XATTR_BYTES_USUAL: usize = 1024;

/// The metadata that a restored object gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Numeric user and group. `None` leaves the restoring user's, and then setuid and setgid are
    /// not applied, as they would hand out the wrong identity.
    pub owner: Option<(u32, u32)>,
    /// Permission bits, setuid, setgid, sticky. A symlink has none of its own.
    pub mode: u32,
    pub mtime: Time,
    /// `None` leaves it.
    pub atime: Option<Time>,
    /// All the object shall have, others are removed; `None` leaves them.
    pub xattrs: Option<Xattrs>,
}

/// A piece of metadata, for [`Warnings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Owner,
    /// One attribute, by name.
    Xattr(Vec<u8>),
    /// The list of attributes.
    Xattrs,
    Mode,
    Times,
}

/// What becomes of attributes that are there but not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    Keep,
    /// Labels that the security module keeps by itself stay all the same.
    Remove,
}

/// The attributes of an open file or directory; none where the file system has none.
pub fn xattrs_of(fd: impl AsFd) -> io::Result<Xattrs> {
    fault::pass("read attributes")?;
    let fd = fd.as_fd();
    read_xattrs(|list| fs::flistxattr(fd, list), |name, value| fs::fgetxattr(fd, name, value))
}

/// The attributes of an entry that need not be opened for it (a symlink's own, a FIFO's); one system
/// call if it has none. Needs `/proc`.
pub fn xattrs_at(dir: impl AsFd, name: &[u8]) -> io::Result<Xattrs> {
    fault::pass("read attributes")?;
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(checked(name)?);
    let path = path.as_slice();
    read_xattrs(|list| fs::llistxattr(path, list), |name, value| fs::lgetxattr(path, name, value))
}

/// Sets attributes of an open file or directory.
pub fn set_xattrs(fd: impl AsFd, wanted: &[(Vec<u8>, Vec<u8>)], others: Others) -> Warnings {
    let mut warnings = Warnings::new();
    Subject::Open(fd.as_fd()).set_xattrs(wanted, others, &mut warnings);
    warnings
}

/// Applies everything to an open file or directory. Call it after the last write (writing clears
/// setuid and changes mtime), for a directory after its last entry.
pub fn set_meta_fd(fd: impl AsFd, meta: &Meta) -> Warnings {
    Subject::Open(fd.as_fd()).set(meta, true)
}

/// Applies everything to an entry that is not opened: symlinks, devices, FIFOs, sockets. The entry
/// is pinned first, so all parts go to one object. Needs `/proc`.
pub(super) fn set_meta_at(dir: impl AsFd, name: &[u8], meta: &Meta) -> io::Result<Warnings> {
    fault::pass("target open to set")?;
    let pinned = open_path(dir, name)?;
    let has_mode = fstat(&pinned)?.kind != Kind::Symlink;
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    Ok(Subject::Pinned(pinned.as_fd(), &path).set(meta, has_mode))
}

/// An object to write to, however it is held.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// An `O_PATH` handle, which few calls take, and the `/proc` path that means the very same
    /// object: even a symlink is not followed any further from there.
    Pinned(BorrowedFd<'a>, &'a str),
}

impl Subject<'_> {
    /// In this order: a new owner clears setuid and capabilities, an ACL changes the mode.
    fn set(self, meta: &Meta, has_mode: bool) -> Warnings {
        let mut warnings = Warnings::new();
        let owned = match meta.owner.map(|(uid, gid)| self.set_owner(uid, gid)) {
            Some(outcome) => note(&mut warnings, Part::Owner, outcome),
            None => false,
        };
        if let Some(wanted) = &meta.xattrs {
            self.set_xattrs(wanted, Others::Remove, &mut warnings);
        }
        if has_mode {
            let allowed = if owned { 0o7777 } else { 0o1777 };
            note(&mut warnings, Part::Mode, self.set_mode(meta.mode & allowed));
        }
        note(&mut warnings, Part::Times, self.set_times(meta.mtime, meta.atime));
        warnings
    }

    /// If the user is refused, the group is still tried: a member may give to their group.
    fn set_owner(self, uid: u32, gid: u32) -> io::Result<()> {
        // all ones means "leave it" to the kernel, which would pass for success
        if uid == u32::MAX || gid == u32::MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fault::pass("target set owner")?;
        let (Subject::Open(fd) | Subject::Pinned(fd, _)) = self;
        let change =
            |user| fs::chownat(fd, "", user, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH);
        let outcome = change(Some(Uid::from_raw(uid)));
        if outcome.is_err() {
            let _ = change(None);
        }
        Ok(outcome?)
    }

    fn set_mode(self, mode: u32) -> io::Result<()> {
        fault::pass("target set mode")?;
        let mode = Mode::from_raw_mode(mode);
        Ok(match self {
            Subject::Open(fd) => fs::fchmod(fd, mode),
            Subject::Pinned(_, path) => fs::chmod(path, mode),
        }?)
    }

    fn set_times(self, mtime: Time, atime: Option<Time>) -> io::Result<()> {
        fault::pass("target set times")?;
        let last_access = match atime {
            Some(atime) => timespec(atime)?,
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        let times = Timestamps { last_access, last_modification: timespec(mtime)? };
        Ok(match self {
            Subject::Open(fd) => fs::futimens(fd, &times),
            Subject::Pinned(_, path) => fs::utimensat(CWD, path, &times, AtFlags::empty()),
        }?)
    }

    fn set_xattrs(self, wanted: &[(Vec<u8>, Vec<u8>)], others: Others, warnings: &mut Warnings) {
        if others == Others::Remove {
            match xattr_names(|list| self.list(list)) {
                Err(error) => warnings.push((Part::Xattrs, error)),
                Ok(present) => {
                    let stays = |name: &[u8]| wanted.iter().any(|(wanted, _)| wanted == name);
                    for name in present.into_iter().filter(|name| removable(name) && !stays(name)) {
                        let outcome = self.remove(&name);
                        note(warnings, Part::Xattr(name), outcome);
                    }
                }
            }
        }
        for (name, value) in wanted {
            note(warnings, Part::Xattr(name.clone()), self.set_xattr(name, value));
        }
    }

    fn list(self, list: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Subject::Open(fd) => fs::flistxattr(fd, list),
            Subject::Pinned(_, path) => fs::listxattr(path, list),
        }
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> io::Result<()> {
        fault::pass("target set attribute")?;
        Ok(match self {
            Subject::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Subject::Pinned(_, path) => fs::setxattr(path, name, value, XattrFlags::empty()),
        }?)
    }

    fn remove(self, name: &[u8]) -> io::Result<()> {
        fault::pass("target remove attribute")?;
        Ok(match self {
            Subject::Open(fd) => fs::fremovexattr(fd, name),
            Subject::Pinned(_, path) => fs::removexattr(path, name),
        }?)
    }
}

/// Keeps an error; true if there was none.
fn note(warnings: &mut Warnings, part: Part, outcome: io::Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            warnings.push((part, error));
            false
        }
    }
}

/// SELinux, IMA and the like label every object by themselves, and refuse to be told otherwise.
fn removable(name: &[u8]) -> bool {
    !name.starts_with(b"security.") || name == b"security.capability"
}

/// Nanoseconds from 10^9 on mean "now" or "leave it" to the kernel.
fn timespec(time: Time) -> io::Result<Timespec> {
    if time.nanos >= 1_000_000_000 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() })
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let mut xattrs = Xattrs::new();
    for name in xattr_names(list)? {
        match fill(|value| get(&name, value)) {
            Ok(value) => xattrs.push((name, value)),
            // gone since, or listed by a file system that does not serve it
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn xattr_names(list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<Vec<u8>>> {
    match fill(list) {
        Ok(names) => {
            let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(<[u8]>::to_vec).collect())
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Asks with the usual room, then with all the room there can be a need for.
fn fill(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut usual = [0; XATTR_BYTES_USUAL];
    match ask(&mut usual) {
        Ok(bytes) => Ok(usual[..bytes].to_vec()),
        Err(Errno::RANGE) => {
            let mut most = vec![0; XATTR_BYTES_MAX];
            let bytes = ask(&mut most)?;
            most.truncate(bytes);
            Ok(most)
        }
        Err(error) => Err(error),
    }
}
