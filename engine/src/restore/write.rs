//! Into the target: chunks at their offsets, files and directories completed, links made. Whoever
//! does the last thing that an entry waited for completes it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use crate::error::Result;
use crate::format::tree::{Entry, EntryKind};
use crate::restore::target::{DirPlan, DirState};
use crate::restore::work::{Sum, Work};
use crate::sys::file::{punch_hole, set_len, write_all_at};
use crate::sys::meta::{Meta, set_meta_fd, xattrs_at, xattrs_of};
use crate::sys::place::PlaceDir;
use crate::sys::stat::{Kind, Stat, fstat};
use crate::watch::Counter;

/// A file on its way into the target. It is complete when the planner is through with it and every
/// piece is written, or found in place.
pub struct FilePlan {
    key: u64,
    pub dir: Arc<DirPlan>,
    pub name: Vec<u8>,
    size: u64,
    meta: Meta,
    /// It is there and is repaired; else it is made, in place of whatever has its name.
    existed: bool,
    /// Its other names.
    link: Option<Arc<Linked>>,
    pending: AtomicUsize,
    rewritten: AtomicBool,
    state: Mutex<FileState>,
}

struct FileState {
    made: bool,
    /// Why it is lost.
    cause: Option<String>,
}

/// The first entry of a hard-link group. The others become links to it when it is complete.
pub struct Linked {
    dir: Arc<DirPlan>,
    name: Vec<u8>,
    kind: EntryKind,
    state: Mutex<LinkState>,
}

enum LinkState {
    Waiting(Vec<(Arc<DirPlan>, Vec<u8>)>),
    Made,
    Lost,
}

impl FilePlan {
    /// The directory waits for it from now on. One piece is pending: the planner's own, until it
    /// has seen all.
    pub fn new(
        work: &Work,
        dir: &Arc<DirPlan>,
        entry: &Entry,
        existed: bool,
        link: Option<Arc<Linked>>,
    ) -> Arc<Self> {
        dir.hold();
        Arc::new(Self {
            key: work.target.key(),
            dir: dir.clone(),
            name: entry.name.clone(),
            size: entry.size.unwrap_or(0),
            meta: work.target.meta(entry),
            existed,
            link,
            pending: AtomicUsize::new(1),
            rewritten: AtomicBool::new(false),
            state: Mutex::new(FileState { made: existed, cause: None }),
        })
    }

    pub fn existed(&self) -> bool {
        self.existed
    }

    pub fn hold(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// It cannot be restored; the first cause counts.
    pub fn fail(&self, cause: impl ToString) {
        let mut state = self.state.lock().expect("no panic holds this lock");
        state.cause.get_or_insert_with(|| cause.to_string());
    }

    fn cause(&self) -> Option<String> {
        self.state.lock().expect("no panic holds this lock").cause.clone()
    }
}

impl Linked {
    pub fn new(dir: &Arc<DirPlan>, entry: &Entry) -> Arc<Self> {
        let state = Mutex::new(LinkState::Waiting(Vec::new()));
        Arc::new(Self { dir: dir.clone(), name: entry.name.clone(), kind: entry.kind, state })
    }

    pub fn kind(&self) -> EntryKind {
        self.kind
    }
}

impl Work<'_> {
    /// Writes one chunk of a file.
    pub fn write(&self, file: &Arc<FilePlan>, at: u64, bytes: &[u8]) -> Result<()> {
        let written = self.handle(file).and_then(|open| write_all_at(&open, at, bytes));
        self.piece(file, bytes.len() as u64, written)
    }

    /// Makes a piece of an existing file read as zeros.
    pub fn punch(&self, file: &Arc<FilePlan>, at: u64, len: u64) -> Result<()> {
        let punched = match self.options.dry_run {
            true => Ok(()),
            false => self.handle(file).and_then(|open| punch_hole(&open, at, len)),
        };
        self.piece(file, len, punched)
    }

    /// A dry run's writing.
    pub fn pretend(&self, file: &Arc<FilePlan>, len: u64) -> Result<()> {
        self.piece(file, len, Ok(()))
    }

    fn piece(&self, file: &Arc<FilePlan>, len: u64, written: io::Result<()>) -> Result<()> {
        match written {
            Ok(()) => {
                file.rewritten.store(true, Ordering::Relaxed);
                self.bytes(Sum::BytesRestored, len);
            }
            Err(error) => file.fail(self.of_entry(&file.dir, &file.name, error)?),
        }
        self.done(file)
    }

    /// One thing that a file waited for is done. If it was the last, completes it.
    pub fn done(&self, file: &Arc<FilePlan>) -> Result<()> {
        if file.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        if file.cause().is_none()
            && let Err(error) = self.complete(file)
        {
            file.fail(self.of_entry(&file.dir, &file.name, error)?);
        }
        let cause = file.cause();
        if cause.is_some() && !self.options.dry_run {
            self.keep_from_passing(file);
        }
        self.target.files.take(file.key);
        let made = cause.is_none();
        match cause {
            Some(cause) => self.lost(file.dir.path_of(&file.name), cause),
            None => self.file_done(match (file.existed, file.rewritten.load(Ordering::Relaxed)) {
                (false, _) => Sum::FilesRestored,
                (true, true) => Sum::FilesRepaired,
                (true, false) => Sum::FilesInPlace,
            }),
        }
        if let Some(link) = &file.link {
            self.settle(link, made)?;
        }
        self.leave(&file.dir)
    }

    pub fn file_done(&self, sum: Sum) {
        self.sum(sum, 1);
        self.count(Counter::FilesDone, 1);
    }

    /// Length and metadata, once the content is there.
    fn complete(&self, file: &FilePlan) -> io::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let open = self.handle(file)?;
        let found = fstat(&*open)?;
        if found.size != file.size {
            set_len(&open, file.size)?;
            file.rewritten.store(true, Ordering::Relaxed);
        }
        let written = !file.existed || file.rewritten.load(Ordering::Relaxed);
        if written || self.target.differs(&file.meta, &found, || xattrs_of(&*open)) {
            self.warn(&file.dir, Some(&file.name), set_meta_fd(&*open, &file.meta));
        }
        Ok(())
    }

    /// A file that is not as the snapshot has it must not look so by size and time.
    fn keep_from_passing(&self, file: &FilePlan) {
        if !file.state.lock().expect("no panic holds this lock").made {
            return;
        }
        let Ok(open) = self.handle(file) else { return };
        if fstat(&*open).is_ok_and(|found| found.mtime == file.meta.mtime) {
            let now = Duration::from_nanos(self.repo.env().now().unsigned_abs());
            let _ = open.set_modified(UNIX_EPOCH + now);
        }
    }

    /// The open file: made at its first piece, opened again if too many were open.
    fn handle(&self, file: &FilePlan) -> io::Result<Arc<File>> {
        if let Some(open) = self.target.files.get(file.key) {
            return Ok(open);
        }
        let mut state = file.state.lock().expect("no panic holds this lock");
        // Another worker may have been faster.
        if let Some(open) = self.target.files.get(file.key) {
            return Ok(open);
        }
        let open = if state.made {
            self.target.place(&file.dir)?.open_file_to_write(&file.name)?.0
        } else {
            let make = |place: &PlaceDir| place.create_file(&file.name);
            self.target.create(&file.dir, &file.name, make)?
        };
        state.made = true;
        Ok(self.target.files.put(file.key, open))
    }

    /// Metadata of an entry whose content is in place. `false`: it would have to be changed, but
    /// has names that may lie elsewhere.
    pub fn refresh(&self, dir: &DirPlan, entry: &Entry, found: &Stat) -> io::Result<bool> {
        let meta = self.target.meta(entry);
        let place = self.target.place(dir)?;
        if !self.target.differs(&meta, found, || xattrs_at(&*place, &entry.name)) {
            return Ok(true);
        }
        if found.nlink > 1 {
            return Ok(false);
        }
        if !self.options.dry_run {
            self.warn(dir, Some(&entry.name), place.set_meta_at(&entry.name, &meta)?);
        }
        Ok(true)
    }

    /// A symlink, fifo, socket or device.
    pub fn other(&self, dir: &Arc<DirPlan>, entry: &Entry) -> io::Result<()> {
        if let Some(found) = self.target.stat(dir, &entry.name)? {
            let place = self.target.place(dir)?;
            let same = found.kind == kind_of(entry.kind)
                && match entry.kind {
                    EntryKind::Symlink => Some(place.read_link(&entry.name)?) == entry.target,
                    EntryKind::CharDevice | EntryKind::BlockDevice => {
                        Some(found.rdev) == entry.device
                    }
                    _ => true,
                };
            if same && self.refresh(dir, entry, &found)? {
                return Ok(());
            }
        }
        if self.options.dry_run {
            return Ok(());
        }
        let target = entry.target.as_deref().unwrap_or_default();
        let device = entry.device.unwrap_or_default();
        self.target.create(dir, &entry.name, |place| match entry.kind {
            EntryKind::Symlink => place.symlink(target, &entry.name),
            kind => place.mknod(&entry.name, kind_of(kind), device),
        })?;
        let meta = self.target.meta(entry);
        let place = self.target.place(dir)?;
        self.warn(dir, Some(&entry.name), place.set_meta_at(&entry.name, &meta)?);
        Ok(())
    }

    /// A further name of what `link` stands for: now, or when that is complete.
    pub fn link(&self, link: &Linked, dir: &Arc<DirPlan>, name: Vec<u8>) -> Result<()> {
        let mut state = link.state.lock().expect("no panic holds this lock");
        let made = match &mut *state {
            LinkState::Waiting(waiting) => {
                dir.hold();
                waiting.push((dir.clone(), name));
                return Ok(());
            }
            LinkState::Made => true,
            LinkState::Lost => false,
        };
        drop(state);
        self.link_now(link, dir, &name, made)
    }

    /// What `link` stands for is complete, or lost.
    pub fn settle(&self, link: &Linked, made: bool) -> Result<()> {
        let mut state = link.state.lock().expect("no panic holds this lock");
        let settled = if made { LinkState::Made } else { LinkState::Lost };
        let LinkState::Waiting(waiting) = std::mem::replace(&mut *state, settled) else {
            unreachable!("a group is settled once");
        };
        drop(state);
        for (dir, name) in waiting {
            self.link_now(link, &dir, &name, made)?;
            self.leave(&dir)?;
        }
        Ok(())
    }

    fn link_now(&self, link: &Linked, dir: &DirPlan, name: &[u8], made: bool) -> Result<()> {
        let first = || link.dir.path_of(&link.name);
        if !made {
            let cause = format!("it is a link to {}", String::from_utf8_lossy(&first()));
            self.lost(dir.path_of(name), cause);
            return Ok(());
        }
        match (self.try_link(link, dir, name), link.kind) {
            (Ok(true), EntryKind::File) => self.file_done(Sum::FilesRestored),
            (Ok(false), EntryKind::File) => self.file_done(Sum::FilesInPlace),
            (Ok(_), _) => self.sum(Sum::Others, 1),
            (Err(error), _) => {
                // Not every file system has links, and not every file may be linked to.
                let refused = error.kind() == io::ErrorKind::PermissionDenied;
                let error = if refused { error } else { self.of_entry(dir, name, error)? };
                let first = String::from_utf8_lossy(&first()).into_owned();
                self.lost(dir.path_of(name), format!("cannot be linked to {first}: {error}"));
            }
        }
        Ok(())
    }

    /// `false`: it is a link already.
    fn try_link(&self, link: &Linked, dir: &DirPlan, name: &[u8]) -> io::Result<bool> {
        let first = self.target.stat(&link.dir, &link.name)?;
        let found = self.target.stat(dir, name)?;
        let inode = |stat: Stat| (stat.dev, stat.ino);
        if found.is_some() && found.map(inode) == first.map(inode) {
            return Ok(false);
        }
        if !self.options.dry_run {
            let from = self.target.place(&link.dir)?;
            self.target.create(dir, name, |place| place.hard_link(&from, &link.name, name))?;
        }
        Ok(true)
    }

    /// Something that a directory waited for is done. Completes it, and those above it, if it was
    /// the last.
    pub fn leave(&self, dir: &Arc<DirPlan>) -> Result<()> {
        let mut dir = dir.clone();
        while dir.count_down() {
            if let Err(error) = self.complete_dir(&dir) {
                self.lost(dir.path(), error);
            }
            self.target.close(&dir);
            let Some(up) = dir.up().cloned() else { return Ok(()) };
            dir = up;
        }
        Ok(())
    }

    fn complete_dir(&self, dir: &DirPlan) -> io::Result<()> {
        let state = dir.state();
        let Some(meta) = &dir.meta else { return Ok(()) };
        if matches!(state, DirState::Unmade | DirState::Failed) {
            return Ok(());
        }
        if state != DirState::Absent && !self.options.dry_run {
            let place = self.target.place(dir)?;
            let found = fstat(&*place)?;
            if state == DirState::Fresh || self.target.differs(meta, &found, || xattrs_of(&*place))
            {
                self.warn(dir, None, set_meta_fd(&*place, meta));
            }
        }
        self.sum(Sum::Dirs, 1);
        Ok(())
    }
}

fn kind_of(kind: EntryKind) -> Kind {
    match kind {
        EntryKind::File => Kind::File,
        EntryKind::Directory => Kind::Dir,
        EntryKind::Symlink => Kind::Symlink,
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
        EntryKind::CharDevice => Kind::CharDevice,
        EntryKind::BlockDevice => Kind::BlockDevice,
    }
}
