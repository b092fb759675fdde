//! Large files and streams: mapped (or read) in windows, cut by one worker, their chunks stored by
//! all. A file that is truncated under its map is noticed, read again, and costs nobody their life.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, TrySendError, bounded, select_biased};

use crate::backup::cut::{Cut, Cutter};
use crate::backup::identify::About;
use crate::backup::old::Old;
use crate::backup::read::{ATTEMPTS, time, unmoved};
use crate::backup::shape::HEAD_BYTES_MAX;
use crate::backup::walk::DirNode;
use crate::backup::work::Worker;
use crate::env::TimeNs;
use crate::error::{Error, Result};
use crate::format::codec::Samples;
use crate::format::seal::Recipient;
use crate::format::tree::{CHANGED_WHILE_READ, Entry};
use crate::repo::journal::Record;
use crate::repo::trees::Piece;
use crate::sys::dir::Names;
use crate::sys::file::{CacheAdvice, advise, data_ranges, is_cached};
use crate::sys::host::{group_id, user_id};
use crate::sys::map::GuardedMap;
use crate::sys::stat::{Kind, Stat, Time, fstat};
use crate::watch::Counter;

/// Holes below this are stored as zeros.
const HOLE_BYTES: u64 = 64 << 10;
/// Bytes mapped at a time; several of the largest chunks.
const WINDOW_BYTES: usize = 64 << 20;
const STREAM_WINDOW_BYTES: usize = HEAD_BYTES_MAX;
/// Windows of standard input that are held at once: one is read while chunks of the others are under
/// way.
const STREAM_WINDOWS: usize = 4;

/// A file whose chunks are spread over the workers.
pub struct Large {
    dir: Arc<DirNode>,
    place: usize,
    /// `None`: standard input.
    file: Option<Arc<File>>,
    stat: Stat,
    entry: Entry,
    was: Option<Record>,
    /// Its last version, if chunks of that can be had.
    old: Option<Old>,
    attempt: u32,
    /// How far the scan has come.
    scanned: AtomicU64,
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
    samples: Option<Samples>,
    /// Its place among the pieces.
    at: usize,
    /// Its place in the file.
    offset: u64,
}

enum Window {
    Mapped(Mapped),
    Held(Held),
}

/// Bytes of a file. Fields are dropped in their order: what is still mapped stays in the page cache.
struct Mapped {
    map: GuardedMap,
    _after: Option<Forget>,
}

/// Pages that came into the page cache for our sake leave it when they are done with, so that a
/// backup does not push out what others work with.
struct Forget {
    file: Arc<File>,
    range: Range<u64>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let len = self.range.end - self.range.start;
        advise(&self.file, self.range.start, len, CacheAdvice::DontNeed);
    }
}

/// Bytes of standard input. The buffer goes back to be read into again.
struct Held {
    bytes: Vec<u8>,
    spare: Sender<Vec<u8>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody takes it any more if the stream has ended.
        let _ = self.spare.try_send(std::mem::take(&mut self.bytes));
    }
}

impl Window {
    fn bytes(&self) -> &[u8] {
        match self {
            Window::Mapped(mapped) => &mapped.map,
            Window::Held(held) => &held.bytes,
        }
    }
}

impl Large {
    pub fn new(
        dir: Arc<DirNode>,
        place: usize,
        file: Option<Arc<File>>,
        stat: Stat,
        entry: Entry,
        was: Option<Record>,
        old: Option<Old>,
    ) -> Self {
        Self {
            dir,
            place,
            file,
            stat,
            entry,
            was,
            old,
            attempt: 1,
            scanned: AtomicU64::new(0),
            pieces: Mutex::default(),
            pending: AtomicUsize::new(1),
            torn: AtomicBool::new(false),
        }
    }

    /// The next piece; a chunk's is put in later.
    fn push(&self, piece: Option<Piece>, len: u64) -> (usize, u64) {
        let mut pieces = self.pieces.lock().expect("no panic holds this lock");
        pieces.push(piece);
        (pieces.len() - 1, self.scanned.fetch_add(len, Ordering::Relaxed))
    }
}

impl Worker<'_> {
    /// Finds the cuts of a large file and sends its chunks out; what no queue takes is done here.
    pub fn scan(&mut self, large: Arc<Large>) -> Result<()> {
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
                let len = range.start - at;
                large.push(Some(Piece::Hole { len }), len);
            }
            at = range.end;
            if let Err(error) = self.scan_range(&large, range)? {
                return self.large_failed(&large, error);
            }
        }
        if at < size {
            let len = size - at;
            large.push(Some(Piece::Hole { len }), len);
        }
        self.large_part_done(large)
    }

    fn scan_range(&mut self, large: &Arc<Large>, range: Range<u64>) -> Result<io::Result<()>> {
        let file = large.file.as_ref().expect("a file is scanned");
        let max_bytes = self.work.chunker.max_bytes() as u64;
        let window_bytes = (WINDOW_BYTES as u64).max(4 * max_bytes);
        let cold = is_cold(file, &range);
        let mut cutter = None;
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(window_bytes);
            let map = match GuardedMap::map(file, at, len as usize) {
                Ok(map) => map,
                Err(error) => return Ok(Err(error)),
            };
            // The end of this window is the beginning of the next.
            let done = if at + len == range.end { len } else { len - max_bytes };
            let forget = || Forget { file: file.clone(), range: at..at + done };
            let mapped = Mapped { map, _after: cold.then(forget) };
            let window = Arc::new(Window::Mapped(mapped));
            let cutter = cutter.get_or_insert_with(|| match range.start {
                0 if range.end == large.stat.size => Cutter::new(self.work.chunker, window.bytes()),
                // Between holes nothing is where a header says.
                _ => Cutter::plain(self.work.chunker),
            });
            at += self.cut_window(large, &window, cutter, at + len == range.end)?;
            if large.torn.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(Ok(()))
    }

    /// Sends out the chunks of a window; how many of its bytes they cover.
    fn cut_window(
        &mut self,
        large: &Arc<Large>,
        window: &Arc<Window>,
        cutter: &mut Cutter,
        last: bool,
    ) -> Result<u64> {
        let bytes = window.bytes();
        let mut from = 0;
        while let Some(Cut { len, samples }) = cutter.next(&bytes[from..], last) {
            let (at, offset) = large.push(None, len as u64);
            large.pending.fetch_add(1, Ordering::Relaxed);
            let (large, window, range) = (large.clone(), window.clone(), from..from + len);
            let chunk = LargeChunk { large, window, range, samples, at, offset };
            let left = match &self.queues {
                Some(queues) => queues.chunks.try_send(chunk).err().map(TrySendError::into_inner),
                None => Some(chunk),
            };
            if let Some(chunk) = left {
                self.large_chunk(chunk)?;
            }
            from += len;
        }
        Ok(from as u64)
    }

    pub fn large_chunk(&mut self, chunk: LargeChunk) -> Result<()> {
        self.work.go_on()?;
        let LargeChunk { large, window, range, samples, at, offset } = chunk;
        let bytes = &window.bytes()[range];
        let old = large.old.as_ref().map(|old| (old, offset));
        let private = matches!(&*window, Window::Held(_));
        let id = self.store(Recipient::Data, bytes, About { samples, old, private })?;
        self.work.count(Counter::BytesRead, bytes.len() as u64);
        let piece = Piece::Chunk { id, len: bytes.len() as u32 };
        if matches!(&*window, Window::Mapped(mapped) if mapped.map.faulted()) {
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
                let old = self.work.old(was.as_ref());
                let mut again = Large::new(dir, large.place, file, after, entry, was, old);
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
        let mut names = Names::default();
        let failed = |source| Error::Source { path: "standard input".into(), source };
        names.push(name, Some(Kind::File)).map_err(failed)?;
        let dir = DirNode::new(b"/".to_vec(), None, names, None, None, None);
        let stat = stream_stat(self.work.started);
        let entry = self.work.entry(name, &stat, Vec::new());
        let was = self.work.before.record(&dir, name, &dir.path_of(name))?;
        let old = self.work.old(was.as_ref());
        let large = Arc::new(Large::new(dir.clone(), 0, None, stat, entry, was, old));
        let window_bytes = STREAM_WINDOW_BYTES.max(4 * self.work.chunker.max_bytes());
        let (spare_in, spare) = bounded(STREAM_WINDOWS);
        for _ in 0..STREAM_WINDOWS {
            spare_in.send(Vec::with_capacity(window_bytes)).expect("there is room");
        }
        let quit = self.work.quit();
        let mut before: Option<(Arc<Window>, usize)> = None;
        let mut cutter = None;
        loop {
            let mut bytes = select_biased! {
                recv(spare) -> bytes => bytes.expect("both ends are held"),
                // A worker has failed; its error is the one that counts.
                recv(quit) -> _ => return Err(Error::Interrupted),
            };
            bytes.clear();
            if let Some((window, covered)) = before.take() {
                bytes.extend_from_slice(&window.bytes()[covered..]);
            }
            let wanted = (window_bytes - bytes.len()) as u64;
            let n = reader.take(wanted).read_to_end(&mut bytes).map_err(failed)? as u64;
            let last = n < wanted;
            let window = Arc::new(Window::Held(Held { bytes, spare: spare_in.clone() }));
            let cutter =
                cutter.get_or_insert_with(|| Cutter::new(self.work.chunker, window.bytes()));
            let covered = self.cut_window(&large, &window, cutter, last)? as usize;
            self.work.go_on()?;
            if last {
                break;
            }
            before = Some((window, covered));
        }
        self.large_part_done(large)?;
        self.listed(&dir)
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

/// Is it certain that neither the first page nor the one in the middle is in the page cache?
pub fn is_cold(file: &File, range: &Range<u64>) -> bool {
    let middle = range.start + (range.end - range.start) / 2;
    [range.start, middle].iter().all(|&at| is_cached(file, at) == Some(false))
}

pub fn is_sparse(stat: &Stat) -> bool {
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
