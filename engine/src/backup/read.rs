//! Names → entries with content. Small files are read into a buffer, large ones mapped in windows
//! whose chunks go to all workers. A file that changes while it is read is read again, then taken
//! as it was and marked; one that is truncated under its map is noticed and costs nobody their
//! life.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::TrySendError;

use crate::backup::unchanged::Was;
use crate::backup::walk::{DirNode, Done};
use crate::backup::work::{Work, Worker};
use crate::env::TimeNs;
use crate::error::{Error, Result};
use crate::format::seal::Recipient;
use crate::format::tree::{CHANGED_WHILE_READ, Entry, EntryKind, TimeSpec};
use crate::repo::journal::{Record, Signature};
use crate::repo::trees::Piece;
use crate::sys::dir::Dir;
use crate::sys::file::{data_ranges, read_full_at};
use crate::sys::host::{group_id, user_id};
use crate::sys::map::GuardedMap;
use crate::sys::meta::{Xattrs, xattrs_at, xattrs_of};
use crate::sys::stat::{Kind, Stat, Time, fstat};
use crate::watch::{Counter, ProblemKind};

/// Files from here on are mapped and shared between workers.
const LARGE_BYTES: u64 = 4 << 20;
/// Holes below this are stored as zeros.
const HOLE_BYTES: u64 = 64 << 10;
/// Bytes mapped at a time; several of the largest chunks.
const WINDOW_BYTES: usize = 64 << 20;
const STREAM_WINDOW_BYTES: usize = 16 << 20;
/// How often a file is read that changes while it is read.
const ATTEMPTS: u32 = 3;

/// A file whose chunks are spread over the workers.
pub struct Large {
    dir: Arc<DirNode>,
    place: usize,
    /// `None`: standard input.
    file: Option<Arc<File>>,
    stat: Stat,
    entry: Entry,
    was: Option<Record>,
    attempt: u32,
    pieces: Mutex<Vec<Option<Piece>>>,
    /// Chunks under way, and one for the scan.
    pending: AtomicUsize,
    /// A map of it lost its file.
    torn: AtomicBool,
}

/// One chunk of a large file.
pub struct LargeChunk {
    large: Arc<Large>,
    window: Arc<Window>,
    range: Range<usize>,
    at: usize,
}

enum Window {
    Mapped(GuardedMap),
    Held(Vec<u8>),
}

impl Window {
    fn bytes(&self) -> &[u8] {
        match self {
            Window::Mapped(map) => map,
            Window::Held(bytes) => bytes,
        }
    }
}

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

    fn unread(
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
        dir.set(place, done);
        self.one_done(dir)
    }

    fn file(&mut self, dir: &Arc<DirNode>, place: usize, path: Vec<u8>, stat: Stat) -> Result<()> {
        let work = self.work;
        let name = &dir.names[place];
        work.current(&path);
        work.count(Counter::BytesFound, stat.size);
        let was = match work.was(dir, name, &path, &stat)? {
            Was::Same(record) => return self.take_over(dir, place, &path, &stat, record),
            Was::Other(record) => Some(record),
            Was::Absent => None,
        };
        let handle = dir.dir.as_ref().expect("its names were listed");
        let opened = handle.open_file(name).and_then(|file| {
            let stat = fstat(&file)?;
            if stat.kind != Kind::File {
                return Err(io::Error::other("it was replaced while it was backed up"));
            }
            let xattrs = work.or_report(xattrs_of(&file), &path);
            Ok((file, stat, xattrs))
        });
        let (file, stat, xattrs) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unread(dir, place, &path, error),
        };
        let mut entry = work.entry(name, &stat, xattrs);
        if stat.nlink > 1 {
            let group = was.as_ref().and_then(|was| was.entry.hard_link);
            entry.hard_link = Some(work.links.group(&stat, group, &path));
        }
        if stat.size >= LARGE_BYTES || is_sparse(&stat) {
            let large = Large::new(dir.clone(), place, Some(Arc::new(file)), stat, entry, was);
            return self.scan(Arc::new(large));
        }
        match self.small(&file, stat, &mut entry) {
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
            journal.append(path, &record)?;
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
    ) -> Result<io::Result<Vec<Piece>>> {
        let mut buffer = std::mem::take(&mut self.file);
        for attempt in 1..=ATTEMPTS {
            // One byte more than expected, to see whether it grew.
            buffer.resize(stat.size as usize + 1, 0);
            let read = read_full_at(file, 0, &mut buffer).and_then(|n| {
                self.work.count(Counter::BytesRead, n as u64);
                Ok((n, fstat(file)?))
            });
            let (n, after) = match read {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            buffer.truncate(n);
            let steady = n as u64 == stat.size && unmoved(&stat, &after);
            if steady || attempt == ATTEMPTS || after.size >= LARGE_BYTES {
                if !steady {
                    entry.flags |= CHANGED_WHILE_READ;
                }
                break;
            }
            stat = after;
            entry.mtime = time(after.mtime);
            entry.ctime = Some(time(after.ctime));
        }
        entry.size = Some(buffer.len() as u64);
        let mut pieces = Vec::new();
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let cut = self.work.chunker.first_cut(rest, true).expect("the end is in sight");
            let id = self.store(Recipient::Data, &rest[..cut])?;
            pieces.push(Piece::Chunk { id, len: cut as u32 });
            rest = &rest[cut..];
        }
        self.file = buffer;
        Ok(Ok(pieces))
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a file at its end")]
    fn file_done(
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
        let record =
            Record { signature: Signature { dev: stat.dev, ino: stat.ino, unsure }, entry, pieces };
        if let Some(journal) = work.journal {
            journal.append(path, &record)?;
        }
        self.done(dir, place, Some(Done::Leaf(record)))
    }
}

impl Large {
    fn new(
        dir: Arc<DirNode>,
        place: usize,
        file: Option<Arc<File>>,
        stat: Stat,
        entry: Entry,
        was: Option<Record>,
    ) -> Self {
        Self {
            dir,
            place,
            file,
            stat,
            entry,
            was,
            attempt: 1,
            pieces: Mutex::default(),
            pending: AtomicUsize::new(1),
            torn: AtomicBool::new(false),
        }
    }

    fn push(&self, piece: Option<Piece>) -> usize {
        let mut pieces = self.pieces.lock().expect("no panic holds this lock");
        pieces.push(piece);
        pieces.len() - 1
    }
}

impl Worker<'_> {
    /// Finds the cuts of a large file and sends its chunks out; what no queue takes is done here.
    fn scan(&mut self, large: Arc<Large>) -> Result<()> {
        let size = large.stat.size;
        let file = large.file.as_ref().expect("a file is scanned");
        let ranges = if is_sparse(&large.stat) {
            match data_ranges(file, size) {
                Ok(ranges) => merge_small_holes(ranges),
                Err(error) => return self.large_failed(&large, error),
            }
        } else {
            std::iter::once(0..size).collect()
        };
        let mut at = 0;
        for range in ranges {
            if range.start > at {
                large.push(Some(Piece::Hole { len: range.start - at }));
            }
            at = range.end;
            if let Err(error) = self.scan_range(&large, range)? {
                return self.large_failed(&large, error);
            }
        }
        if at < size {
            large.push(Some(Piece::Hole { len: size - at }));
        }
        self.large_part_done(large)
    }

    fn scan_range(&mut self, large: &Arc<Large>, range: Range<u64>) -> Result<io::Result<()>> {
        let file = large.file.as_ref().expect("a file is scanned");
        let window_bytes = WINDOW_BYTES.max(4 * self.work.chunker.max_bytes()) as u64;
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(window_bytes);
            let map = match GuardedMap::map(file, at, len as usize) {
                Ok(map) => map,
                Err(error) => return Ok(Err(error)),
            };
            let window = Arc::new(Window::Mapped(map));
            at += self.cut_window(large, &window, at + len == range.end)?;
            if large.torn.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(Ok(()))
    }

    /// Sends out the chunks of a window; how many of its bytes they cover.
    fn cut_window(&mut self, large: &Arc<Large>, window: &Arc<Window>, last: bool) -> Result<u64> {
        let bytes = window.bytes();
        let mut from = 0;
        while from < bytes.len() {
            let Some(cut) = self.work.chunker.first_cut(&bytes[from..], last) else { break };
            let at = large.push(None);
            large.pending.fetch_add(1, Ordering::Relaxed);
            let range = from..from + cut;
            let chunk = LargeChunk { large: large.clone(), window: window.clone(), range, at };
            let left = match &self.queues {
                Some(queues) => queues.chunks.try_send(chunk).err().map(TrySendError::into_inner),
                None => Some(chunk),
            };
            if let Some(chunk) = left {
                self.large_chunk(chunk)?;
            }
            from += cut;
        }
        Ok(from as u64)
    }

    pub fn large_chunk(&mut self, chunk: LargeChunk) -> Result<()> {
        self.work.go_on()?;
        let LargeChunk { large, window, range, at } = chunk;
        let bytes = &window.bytes()[range];
        let id = self.store(Recipient::Data, bytes)?;
        self.work.count(Counter::BytesRead, bytes.len() as u64);
        let piece = Piece::Chunk { id, len: bytes.len() as u32 };
        if matches!(&*window, Window::Mapped(map) if map.faulted()) {
            large.torn.store(true, Ordering::Relaxed);
        }
        drop(window);
        large.pieces.lock().expect("no panic holds this lock")[at] = Some(piece);
        self.large_part_done(large)
    }

    fn large_part_done(&mut self, large: Arc<Large>) -> Result<()> {
        if large.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        self.large_done(&large)
    }

    /// Every chunk of it is stored. Other workers may still be letting go of their share of `large`.
    fn large_done(&mut self, large: &Large) -> Result<()> {
        let mut entry = large.entry.clone();
        let torn = large.torn.load(Ordering::Relaxed);
        let path = large.dir.path_of(&large.dir.names[large.place]);
        if let Some(file) = &large.file {
            let after = match fstat(file) {
                Ok(after) => after,
                Err(error) => return self.unread(&large.dir, large.place, &path, error),
            };
            let moved = !unmoved(&large.stat, &after);
            if torn && !moved {
                let cause = "a part of it cannot be read (input/output error)";
                return self.unread(&large.dir, large.place, &path, cause);
            }
            if (torn || moved) && large.attempt < ATTEMPTS {
                entry.size = Some(after.size);
                entry.mtime = time(after.mtime);
                entry.ctime = Some(time(after.ctime));
                let (dir, file, was) = (large.dir.clone(), large.file.clone(), large.was.clone());
                let mut again = Large::new(dir, large.place, file, after, entry, was);
                again.attempt = large.attempt + 1;
                return self.scan(Arc::new(again));
            }
            if torn || moved {
                entry.flags |= CHANGED_WHILE_READ;
            }
        }
        let pieces = std::mem::take(&mut *large.pieces.lock().expect("no panic holds this lock"));
        let done = |piece: Option<Piece>| piece.expect("every chunk is done");
        let pieces: Vec<Piece> = pieces.into_iter().map(done).collect();
        entry.size = Some(pieces.iter().map(Piece::bytes).sum());
        let was = large.was.clone();
        self.file_done(&large.dir, large.place, &path, &large.stat, entry, pieces, was)
    }

    /// The scan met an error: the file counts as unread once its chunks under way are done.
    fn large_failed(&mut self, large: &Arc<Large>, error: io::Error) -> Result<()> {
        // The scan's own count is never taken off, so that the file is not completed twice.
        let path = large.dir.path_of(&large.dir.names[large.place]);
        self.unread(&large.dir, large.place, &path, error)
    }

    /// Standard input as the only file of the snapshot.
    pub fn stream(&mut self, name: &[u8], reader: &mut (dyn Read + Send)) -> Result<()> {
        let dir = DirNode::new(b"/".to_vec(), None, vec![name.into()], None, None, None);
        let stat = stream_stat(self.work.started);
        let entry = self.work.entry(name, &stat, Vec::new());
        let large = Arc::new(Large::new(dir.clone(), 0, None, stat, entry, None));
        let window_bytes = STREAM_WINDOW_BYTES.max(4 * self.work.chunker.max_bytes());
        let mut rest = Vec::new();
        loop {
            let mut bytes = rest;
            let wanted = (window_bytes - bytes.len()) as u64;
            let failed = |source| Error::Source { path: "standard input".into(), source };
            let n = reader.take(wanted).read_to_end(&mut bytes).map_err(failed)? as u64;
            let last = n < wanted;
            let window = Arc::new(Window::Held(bytes));
            let covered = self.cut_window(&large, &window, last)? as usize;
            self.work.go_on()?;
            if last {
                break;
            }
            rest = window.bytes()[covered..].to_vec();
        }
        self.large_part_done(large)?;
        self.one_done(&dir)
    }
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

/// Standard input as a private file, written now.
fn stream_stat(now: TimeNs) -> Stat {
    let secs = now.div_euclid(1_000_000_000);
    let time = Time { secs, nanos: now.rem_euclid(1_000_000_000) as u32 };
    Stat {
        kind: Kind::File,
        mode: 0o600,
        uid: user_id(),
        gid: group_id(),
        size: 0,
        mtime: time,
        ctime: time,
        btime: None,
        dev: 0,
        ino: 0,
        nlink: 1,
        rdev: (0, 0),
        blocks: 0,
    }
}

/// The file is as it was: same length, same times.
fn unmoved(before: &Stat, after: &Stat) -> bool {
    (before.size, before.mtime, before.ctime) == (after.size, after.mtime, after.ctime)
}

fn is_sparse(stat: &Stat) -> bool {
    stat.blocks * 512 + HOLE_BYTES <= stat.size
}

fn merge_small_holes(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start - last.end < HOLE_BYTES => last.end = range.end,
            None if range.start < HOLE_BYTES => merged.push(0..range.end),
            _ => merged.push(range),
        }
    }
    merged
}
