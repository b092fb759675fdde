//! Names → entries with content. Small files are read into a buffer here, large ones are `large`'s
//! affair. A file that changes while it is read is read again, then taken as it was and marked.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::backup::cut::{Cut, Cutter};
use crate::backup::identify::About;
use crate::backup::large::{Large, is_cold, is_sparse};
use crate::backup::old::Old;
use crate::backup::unchanged::Was;
use crate::backup::walk::{DirNode, Done};
use crate::backup::work::{Work, Worker};
use crate::error::Result;
use crate::format::seal::Recipient;
use crate::format::tree::{CHANGED_WHILE_READ, Entry, EntryKind, TimeSpec};
use crate::repo::journal::{Record, Signature};
use crate::repo::trees::Piece;
use crate::sys::dir::Dir;
use crate::sys::file::{CacheAdvice, advise, read_full_at};
use crate::sys::meta::{Xattrs, xattrs_at, xattrs_of};
use crate::sys::stat::{Kind, Stat, Time, fstat};
use crate::watch::{Counter, ProblemKind};

/// Files from here on are mapped and shared between workers; smaller ones, too, if there are many.
pub const LARGE_BYTES: u64 = 4 << 20;
/// Files below this stay in the page cache, whoever brought them in: asking costs as much as reading.
const COLD_BYTES: u64 = 32 << 10;
/// How often a file is read that changes while it is read.
pub const ATTEMPTS: u32 = 3;

impl Work<'_> {
    pub fn entry(&self, name: &[u8], stat: &Stat, xattrs: Xattrs) -> Entry {
        Entry {
            name: name.to_vec(),
            kind: entry_kind(stat.kind),
            mode: stat.mode as u16,
            uid: stat.uid,
            gid: stat.gid,
            user: self.owners.user_name(stat.uid).map(|name| name.to_string()),
            group: self.owners.group_name(stat.gid).map(|name| name.to_string()),
            mtime: time(stat.mtime),
            ctime: Some(time(stat.ctime)),
            btime: stat.btime.map(time),
            size: (stat.kind == Kind::File).then_some(stat.size),
            hard_link: None,
            xattrs,
            target: None,
            flags: 0,
            content: Vec::new(),
            device: matches!(stat.kind, Kind::CharDevice | Kind::BlockDevice).then_some(stat.rdev),
            child: None,
        }
    }

    /// Unreadable attributes are reported; the entry goes without.
    pub fn xattrs(&self, dir: &Dir, path: &[u8]) -> Xattrs {
        self.or_report(xattrs_of(dir), path)
    }

    fn or_report(&self, read: io::Result<Xattrs>, path: &[u8]) -> Xattrs {
        read.unwrap_or_else(|error| {
            let cause = format!("its extended attributes cannot be read: {error}");
            self.problem(ProblemKind::Notice, path, cause);
            Vec::new()
        })
    }

    pub fn count_found(&self, n: usize) {
        self.count(Counter::EntriesFound, n as u64);
    }
}

impl Worker<'_> {
    /// Names `from..to` of a directory.
    pub fn entries(&mut self, dir: &Arc<DirNode>, from: usize, to: usize) -> Result<()> {
        for place in from..to {
            self.work.go_on()?;
            self.one_entry(dir, place)?;
        }
        Ok(())
    }

    fn one_entry(&mut self, dir: &Arc<DirNode>, place: usize) -> Result<()> {
        let work = self.work;
        let name = &dir.names[place];
        let path = dir.path_of(name);
        let handle = dir.dir.as_ref().expect("its names were listed");
        if work.before.is_empty() && dir.names.kind(place) == Some(Kind::File) {
            // There is nothing to compare it with. Whatever else it has become is told below.
            let opened = opened(handle, name);
            if let Some((file, stat)) = opened.ok().filter(|(_, stat)| stat.kind == Kind::File) {
                work.current(&path);
                work.count(Counter::BytesFound, stat.size);
                return self.open_file(dir, place, path, file, stat, None);
            }
        }
        let stat = match handle.stat(name) {
            Ok(stat) if stat.kind == Kind::File => return self.file(dir, place, path, stat),
            Ok(stat) if stat.kind == Kind::Dir => {
                let cause = "it became a directory while it was backed up";
                return self.unread(dir, place, &path, cause);
            }
            Ok(stat) => stat,
            Err(error) => return self.unread(dir, place, &path, error),
        };
        let xattrs = work.or_report(xattrs_at(handle, name), &path);
        let mut entry = work.entry(name, &stat, xattrs);
        if stat.kind == Kind::Symlink {
            match handle.read_link(name) {
                Ok(target) => entry.target = Some(target),
                Err(error) => return self.unread(dir, place, &path, error),
            }
        }
        if stat.nlink > 1 {
            entry.hard_link = Some(work.links.group(&stat, None, &path));
        }
        work.count(Counter::Others, 1);
        let signature = Signature { dev: stat.dev, ino: stat.ino, unsure: true };
        self.done(dir, place, Some(Done::Leaf(Record { signature, entry, pieces: Vec::new() })))
    }

    pub fn unread(
        &mut self,
        dir: &Arc<DirNode>,
        place: usize,
        path: &[u8],
        cause: impl ToString,
    ) -> Result<()> {
        self.work.problem(ProblemKind::Unread, path, cause);
        self.done(dir, place, None)
    }

    fn done(&mut self, dir: &Arc<DirNode>, place: usize, done: Option<Done>) -> Result<()> {
        self.entry_done(dir, place, done)
    }

    fn file(&mut self, dir: &Arc<DirNode>, place: usize, path: Vec<u8>, stat: Stat) -> Result<()> {
        let work = self.work;
        let name = &dir.names[place];
        work.current(&path);
        work.count(Counter::BytesFound, stat.size);
        let was = match work.was(dir, name, &path, &stat, &mut self.recall)? {
            Was::Same(record) => return self.take_over(dir, place, &path, &stat, record),
            Was::Other(record) => Some(record),
            Was::Absent => None,
        };
        let handle = dir.dir.as_ref().expect("its names were listed");
        match opened(handle, name) {
            Ok((file, stat)) if stat.kind == Kind::File => {
                self.open_file(dir, place, path, file, stat, was)
            }
            Ok(_) => self.unread(dir, place, &path, "it was replaced while it was backed up"),
            Err(error) => self.unread(dir, place, &path, error),
        }
    }

    fn open_file(
        &mut self,
        dir: &Arc<DirNode>,
        place: usize,
        path: Vec<u8>,
        file: File,
        stat: Stat,
        was: Option<Record>,
    ) -> Result<()> {
        let work = self.work;
        let xattrs = work.or_report(xattrs_of(&file), &path);
        let mut entry = work.entry(&dir.names[place], &stat, xattrs);
        if stat.nlink > 1 {
            let group = was.as_ref().and_then(|was| was.entry.hard_link);
            entry.hard_link = Some(work.links.group(&stat, group, &path));
        }
        if stat.size >= work.large_bytes || is_sparse(&stat) {
            let old = work.old(was.as_ref());
            let file = Some(Arc::new(file));
            let large = Large::new(dir.clone(), place, file, stat, entry, was, old);
            return self.scan(Arc::new(large));
        }
        let old = work.old(was.as_ref());
        match self.small(&file, stat, &mut entry, old.as_ref()) {
            Ok(Ok(pieces)) => self.file_done(dir, place, &path, &stat, entry, pieces, was),
            Ok(Err(error)) => self.unread(dir, place, &path, error),
            Err(error) => Err(error),
        }
    }

    fn take_over(
        &mut self,
        dir: &Arc<DirNode>,
        place: usize,
        path: &[u8],
        stat: &Stat,
        mut record: Record,
    ) -> Result<()> {
        let work = self.work;
        if work.options.ignore_ctime {
            let xattrs = std::mem::take(&mut record.entry.xattrs);
            let group = record.entry.hard_link;
            record.entry = work.entry(&dir.names[place], stat, xattrs);
            record.entry.hard_link = group;
        }
        let group = (stat.nlink > 1).then(|| work.links.group(stat, record.entry.hard_link, path));
        record.entry.hard_link = group;
        record.signature = Signature { dev: stat.dev, ino: stat.ino, unsure: false };
        work.count(Counter::Files, 1);
        work.count(Counter::FilesUnchanged, 1);
        work.count(Counter::FilesDone, 1);
        work.count(Counter::BytesDone, stat.size);
        if let Some(journal) = work.journal {
            journal.append(path, &mut record);
        }
        self.done(dir, place, Some(Done::Leaf(record)))
    }

    /// Reads a small file, again if it changed meanwhile. The outer error stops the backup, the
    /// inner one is the file's.
    fn small(
        &mut self,
        file: &File,
        mut stat: Stat,
        entry: &mut Entry,
        old: Option<&Old>,
    ) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.file);
        let mut size = 0;
        let cold = stat.size >= COLD_BYTES && is_cold(file, &(0..stat.size));
        for attempt in 1..=ATTEMPTS {
            // Whether it grew is seen by its size afterwards; files of /proc say that they have none.
            let room = buffer.room((stat.size as usize).max(1));
            let read = read_full_at(file, 0, room).and_then(|n| {
                self.work.count(Counter::BytesRead, n as u64);
                Ok((n, fstat(file)?))
            });
            let (n, after) = match read {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            size = n;
            let steady = n as u64 == stat.size && unmoved(&stat, &after);
            if steady || attempt == ATTEMPTS || after.size >= self.work.large_bytes {
                if !steady {
                    entry.flags |= CHANGED_WHILE_READ;
                }
                break;
            }
            stat = after;
            entry.mtime = time(after.mtime);
            entry.ctime = Some(time(after.ctime));
        }
        if cold {
            advise(file, 0, 0, CacheAdvice::DontNeed);
        }
        entry.size = Some(size as u64);
        let mut pieces = Vec::new();
        let mut rest = &*buffer.room(size);
        let mut cutter = Cutter::new(self.work.chunker, rest);
        while let Some(Cut { len, samples }) = cutter.next(rest, true) {
            let old = old.map(|old| (old, (size - rest.len()) as u64));
            let (chunk, after) = rest.split_at(len);
            let id = self.store(Recipient::Data, chunk, About { samples, old, private: true })?;
            pieces.push(Piece::Chunk { id, len: len as u32 });
            rest = after;
        }
        self.file = buffer;
        Ok(Ok(pieces))
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a file at its end")]
    pub fn file_done(
        &mut self,
        dir: &Arc<DirNode>,
        place: usize,
        path: &[u8],
        stat: &Stat,
        entry: Entry,
        pieces: Vec<Piece>,
        was: Option<Record>,
    ) -> Result<()> {
        let work = self.work;
        if entry.flags & CHANGED_WHILE_READ != 0 {
            let cause =
                "it kept changing while it was read; what was read is in the snapshot, marked";
            work.problem(ProblemKind::Inconsistent, path, cause);
        }
        work.count(Counter::Files, 1);
        work.count(Counter::FilesDone, 1);
        work.count(Counter::BytesDone, entry.size.unwrap_or(0));
        work.count(
            match &was {
                None => Counter::FilesNew,
                Some(was) if was.pieces == pieces => Counter::FilesUnchanged,
                Some(_) => Counter::FilesChanged,
            },
            1,
        );
        let unsure = work.unsure(&entry) || entry.flags != 0;
        let signature = Signature { dev: stat.dev, ino: stat.ino, unsure };
        let mut record = Record { signature, entry, pieces };
        if let Some(journal) = work.journal {
            journal.append(path, &mut record);
        }
        self.done(dir, place, Some(Done::Leaf(record)))
    }
}

/// With what it is now: the name may mean something else than when it was listed.
fn opened(dir: &Dir, name: &[u8]) -> io::Result<(File, Stat)> {
    let file = dir.open_file(name)?;
    let stat = fstat(&file)?;
    Ok((file, stat))
}

pub fn time(time: Time) -> TimeSpec {
    TimeSpec { secs: time.secs, nanos: time.nanos }
}

fn entry_kind(kind: Kind) -> EntryKind {
    match kind {
        Kind::File => EntryKind::File,
        Kind::Dir => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => EntryKind::Socket,
        Kind::CharDevice => EntryKind::CharDevice,
        Kind::BlockDevice => EntryKind::BlockDevice,
    }
}

/// The file is as it was: same length, same times.
pub fn unmoved(before: &Stat, after: &Stat) -> bool {
    (before.size, before.mtime, before.ctime) == (after.size, after.mtime, after.ctime)
}
