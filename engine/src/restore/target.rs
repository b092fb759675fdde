//! The target as restore sees it: directories that are made when something first goes into them,
//! and a bounded number of open handles. Every name goes through `sys::place`, so nothing here can
//! lead outside.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::format::tree::Entry;
use crate::sys::host::{Owners, user_id};
use crate::sys::meta::{Meta, Xattrs};
use crate::sys::place::{PlaceDir, valid_name};
use crate::sys::stat::{Kind, Stat, Time, fstat};

/// Open directories, and open files, at most.
const HANDLES_MAX: usize = 256;

pub struct Target {
    path: PathBuf,
    /// `None`: a dry run, and it is not there.
    top: Option<Arc<PlaceDir>>,
    dirs: Handles<PlaceDir>,
    pub files: Handles<File>,
    owners: Owners,
    is_root: bool,
    keys: AtomicU64,
}

/// A directory of the snapshot on its way into the target. Its metadata is set when the planner is
/// through with it and the last of its entries is done.
pub struct DirPlan {
    key: u64,
    /// `None`: the topmost, which is the target itself.
    up: Option<Arc<DirPlan>>,
    /// Of the topmost, the path in the snapshot.
    name: Vec<u8>,
    pub meta: Option<Meta>,
    pending: AtomicUsize,
    state: Mutex<DirState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirState {
    /// Nothing has gone into it yet.
    Unmade,
    /// It was there.
    There,
    /// Made by us: what is in it, we put there.
    Fresh,
    /// A dry run would have made it.
    Absent,
    Failed,
}

/// A directory that could not be made.
pub struct NotMade {
    pub dir: Arc<DirPlan>,
    pub error: io::Error,
}

impl Target {
    pub fn open(path: &Path, dry_run: bool) -> Result<Self> {
        let top = match PlaceDir::open_root(path, !dry_run) {
            Ok(top) => Some(Arc::new(top)),
            Err(error) if dry_run && error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Target { path: path.to_owned(), source }),
        };
        Ok(Self {
            path: path.to_owned(),
            top,
            dirs: Handles::default(),
            files: Handles::default(),
            owners: Owners::new(),
            is_root: user_id() == 0,
            keys: AtomicU64::new(0),
        })
    }

    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// Names a handle for as long as this restore lasts.
    pub fn key(&self) -> u64 {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }

    /// The target itself, for what lies directly below `path` in the snapshot.
    pub fn top(&self, path: Vec<u8>) -> Arc<DirPlan> {
        let state = if self.top.is_some() { DirState::There } else { DirState::Absent };
        self.dir_plan(None, path, None, state)
    }

    /// A directory below another, which then waits for it.
    pub fn below(&self, up: &Arc<DirPlan>, entry: &Entry) -> Arc<DirPlan> {
        up.hold();
        let meta = Some(self.meta(entry));
        self.dir_plan(Some(up.clone()), entry.name.clone(), meta, DirState::Unmade)
    }

    fn dir_plan(
        &self,
        up: Option<Arc<DirPlan>>,
        name: Vec<u8>,
        meta: Option<Meta>,
        state: DirState,
    ) -> Arc<DirPlan> {
        // One for the planner, until it has seen all entries.
        let pending = AtomicUsize::new(1);
        Arc::new(DirPlan { key: self.key(), up, name, meta, pending, state: Mutex::new(state) })
    }

    /// Where an entry lands, for messages.
    pub fn path_of(&self, dir: &DirPlan, name: &[u8]) -> PathBuf {
        let mut path = self.path.clone();
        let names = dir.names();
        let below = names.iter().rev().skip(1).copied().chain([name]);
        path.extend(below.map(std::ffi::OsStr::from_bytes));
        path
    }

    /// What an entry's metadata is here: owners by name where this machine knows the name.
    pub fn meta(&self, entry: &Entry) -> Meta {
        let user = entry.user.as_deref().and_then(|name| self.owners.user_id(name));
        let group = entry.group.as_deref().and_then(|name| self.owners.group_id(name));
        Meta {
            owner: Some((user.unwrap_or(entry.uid), group.unwrap_or(entry.gid))),
            mode: entry.mode.into(),
            mtime: Time { secs: entry.mtime.secs, nanos: entry.mtime.nanos },
            atime: None,
            xattrs: Some(entry.xattrs.clone()),
        }
    }

    /// Does metadata have to be set? What this user may not change does not count.
    pub fn differs(
        &self,
        meta: &Meta,
        found: &Stat,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> bool {
        let owned = meta.owner == Some((found.uid, found.gid));
        let allowed = if owned { 0o7777 } else { 0o1777 };
        let mode = found.kind == Kind::Symlink || (found.mode ^ meta.mode) & allowed == 0;
        if !mode || found.mtime != meta.mtime || (self.is_root && !owned) {
            return true;
        }
        let wanted = meta.xattrs.as_deref().unwrap_or_default();
        match xattrs() {
            Ok(found) => {
                // Labels that the security module gives by itself stay.
                let ours = |name: &[u8]| {
                    !name.starts_with(b"security.")
                        || wanted.iter().any(|(wanted, _)| wanted == name)
                };
                !found.iter().filter(|(name, _)| ours(name)).eq(wanted)
            }
            Err(_) => !wanted.is_empty(),
        }
    }

    /// Makes a directory, and those above it, unless that is done or has failed. A failure is told
    /// once.
    pub fn make(&self, dir: &Arc<DirPlan>, dry_run: bool) -> Result<DirState, NotMade> {
        let mut unmade = Vec::new();
        let mut at = dir;
        let mut state = loop {
            match (at.state(), &at.up) {
                (DirState::Unmade, Some(up)) => {
                    unmade.push(at);
                    at = up;
                }
                (state, _) => break state,
            }
        };
        for dir in unmade.into_iter().rev() {
            state = match state {
                DirState::Failed => DirState::Failed,
                above => match self.make_one(dir, above, dry_run) {
                    Ok(state) => state,
                    Err(error) => {
                        dir.set_state(DirState::Failed);
                        return Err(NotMade { dir: dir.clone(), error });
                    }
                },
            };
            dir.set_state(state);
        }
        Ok(state)
    }

    fn make_one(&self, dir: &DirPlan, above: DirState, dry_run: bool) -> io::Result<DirState> {
        if !valid_name(&dir.name) {
            let what = "not a name that a directory can have here";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if above == DirState::Absent {
            return Ok(DirState::Absent);
        }
        let up = dir.up.as_ref().expect("the topmost is never made");
        let found = match above {
            DirState::Fresh => None,
            _ => self.place(up)?.stat(&dir.name)?,
        };
        let there = found.is_some_and(|stat| stat.kind == Kind::Dir);
        if dry_run {
            return Ok(if there { DirState::There } else { DirState::Absent });
        }
        let made = self.within(up, |place| place.make_dir(&dir.name))?;
        self.dirs.put(dir.key, made);
        Ok(if there { DirState::There } else { DirState::Fresh })
    }

    /// The open directory. It is opened again, name by name from the nearest one that is open, if
    /// it was closed.
    pub fn place(&self, dir: &DirPlan) -> io::Result<Arc<PlaceDir>> {
        let mut below = Vec::new();
        let mut at = dir;
        let mut place = loop {
            if let Some(open) = self.dirs.get(at.key) {
                break open;
            }
            match &at.up {
                Some(up) => {
                    below.push(at);
                    at = up;
                }
                None => break self.top.clone().ok_or(io::ErrorKind::NotFound)?,
            }
        };
        for dir in below.into_iter().rev() {
            place = self.dirs.put(dir.key, place.open_dir(&dir.name)?);
        }
        Ok(place)
    }

    /// Changes something in a directory. One of ours that its own mode closes to us (it is from an
    /// earlier restore) is opened up; it gets its mode again when it is done.
    pub fn within<T>(
        &self,
        dir: &DirPlan,
        change: impl Fn(&PlaceDir) -> io::Result<T>,
    ) -> io::Result<T> {
        let place = self.place(dir)?;
        match change(&place) {
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && !(self.is_root || dir.is_top())
                    && open_up(&place) =>
            {
                change(&place)
            }
            outcome => outcome,
        }
    }

    /// Makes an entry in place of whatever has its name; only a directory that is not empty stays,
    /// and is the error.
    pub fn create<T>(
        &self,
        dir: &DirPlan,
        name: &[u8],
        make: impl Fn(&PlaceDir) -> io::Result<T>,
    ) -> io::Result<T> {
        self.within(dir, |place| match make(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                place.remove(name)?;
                make(place)
            }
            outcome => outcome,
        })
    }

    /// What is there under a name; nothing in a directory that we made.
    pub fn stat(&self, dir: &DirPlan, name: &[u8]) -> io::Result<Option<Stat>> {
        match dir.state() {
            DirState::There => self.place(dir)?.stat(name),
            _ => Ok(None),
        }
    }

    pub fn close(&self, dir: &DirPlan) {
        self.dirs.take(dir.key);
    }
}

/// Gives its owner, if that is us, the right to change a directory.
fn open_up(place: &PlaceDir) -> bool {
    let Ok(stat) = fstat(place) else { return false };
    if stat.uid != user_id() || stat.mode & 0o700 == 0o700 {
        return false;
    }
    let Ok(handle) = place.as_fd().try_clone_to_owned() else { return false };
    File::from(handle).set_permissions(Permissions::from_mode(stat.mode | 0o700)).is_ok()
}

impl DirPlan {
    pub fn is_top(&self) -> bool {
        self.up.is_none()
    }

    pub fn up(&self) -> Option<&Arc<DirPlan>> {
        self.up.as_ref()
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn state(&self) -> DirState {
        *self.state.lock().expect("no panic holds this lock")
    }

    fn set_state(&self, state: DirState) {
        *self.state.lock().expect("no panic holds this lock") = state;
    }

    /// One more thing to wait for.
    pub fn hold(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// `true`: that was the last thing this directory waited for.
    pub fn count_down(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// From here up to the topmost, whose name is a path.
    fn names(&self) -> Vec<&[u8]> {
        let mut names = vec![&self.name[..]];
        let mut at = self;
        while let Some(up) = &at.up {
            names.push(&up.name);
            at = up;
        }
        names
    }

    /// In the snapshot.
    pub fn path(&self) -> Vec<u8> {
        let names = self.names();
        let (top, below) = names.split_last().expect("at least its own name");
        below.iter().rev().fold(top.to_vec(), |path, name| join(&path, name))
    }

    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path(), name)
    }
}

pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
    [path, slash, name].concat()
}

/// Open handles by key; the one that was not used for longest is let go when there are too many.
/// Who holds one goes on holding it.
pub struct Handles<T> {
    open: Mutex<Open<T>>,
}

struct Open<T> {
    /// With the time of its last use.
    by_key: HashMap<u64, (u64, Arc<T>)>,
    time: u64,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { open: Mutex::new(Open { by_key: HashMap::new(), time: 0 }) }
    }
}

impl<T> Handles<T> {
    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        let mut open = self.open.lock().expect("no panic holds this lock");
        open.time += 1;
        let now = open.time;
        let (used, handle) = open.by_key.get_mut(&key)?;
        *used = now;
        Some(handle.clone())
    }

    pub fn put(&self, key: u64, handle: T) -> Arc<T> {
        let handle = Arc::new(handle);
        let mut open = self.open.lock().expect("no panic holds this lock");
        open.time += 1;
        let now = open.time;
        open.by_key.insert(key, (now, handle.clone()));
        if open.by_key.len() > HANDLES_MAX {
            let oldest = open.by_key.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = *oldest.expect("more than none").0;
            open.by_key.remove(&oldest);
        }
        handle
    }

    pub fn take(&self, key: u64) -> Option<Arc<T>> {
        let mut open = self.open.lock().expect("no panic holds this lock");
        open.by_key.remove(&key).map(|(_, handle)| handle)
    }
}
