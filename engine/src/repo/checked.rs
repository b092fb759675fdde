//! Files of the client's cache that are mapped and looked into here and there. Each block of 4 KiB is held to its
//! hash when it is first touched, so that opening costs nothing of what is not read, and no byte is believed
//! unproven. `data ‖ table ‖ first 16 bytes of H of each block of the data ‖ data length u64 ‖ table length u64 ‖
//! kind [16] ‖ H of all behind the data`. What data and table mean is their owners' affair. A file gets its name
//! when it is complete, and is never written again; a broken one is deleted, and made again by whoever misses it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::format::id::hash;
use crate::sys::fault;
use crate::sys::map::GuardedMap;
use crate::sys::prefetch::prefetch;

const BLOCK: usize = 4096;
const SUM: usize = 16;
const FOOTER: usize = 8 + 8 + 16 + 32;
/// Written at a time; whole blocks. A huge page, so that the page cache makes it one.
const WRITE_BYTES: usize = 512 * BLOCK;
/// Files up to this size are faulted in by one call.
const SMALL_BYTES: usize = 1 << 20;

pub type FileKind = [u8; 16];

#[derive(Debug)]
pub struct Checked {
    bytes: Bytes,
    data_len: usize,
    /// Empty for what is held in memory, which needs no proof.
    sums: Range<usize>,
    table: Range<usize>,
    /// A bit for each block: proven.
    proven: Vec<AtomicU64>,
    broken: AtomicBool,
    /// Deleted as soon as a block turns out to be broken.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(GuardedMap),
    Held(Vec<u8>),
}

impl Checked {
    /// Keeps what needs no proof.
    pub fn hold(data: Vec<u8>) -> Self {
        let (data_len, broken) = (data.len(), AtomicBool::new(false));
        let bytes = Bytes::Held(data);
        Self { bytes, data_len, sums: 0..0, table: 0..0, proven: Vec::new(), broken, path: None }
    }

    pub fn open(path: &Path, kind: &FileKind) -> io::Result<Self> {
        fault::pass("cache open")?;
        Self::of(&File::open(path)?, path, kind)
    }

    fn of(file: &File, path: &Path, kind: &FileKind) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let map = match len {
            0..=SMALL_BYTES => GuardedMap::map(file, 0, len)?,
            _ => GuardedMap::map_untouched(file, 0, len)?,
        };
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the cached file is broken");
        let (data_len, table_len) = footer(&map, kind).ok_or_else(broken)?;
        let behind = map.get(data_len..len - 32).ok_or_else(broken)?;
        if hash(behind) != map[len - 32..] || map.faulted() {
            return Err(broken());
        }
        let table = data_len..data_len + table_len;
        let sums = table.end..table.end + data_len.div_ceil(BLOCK) * SUM;
        let words = data_len.div_ceil(BLOCK).div_ceil(64);
        let proven = (0..words).map(|_| AtomicU64::new(0)).collect();
        let (path, broken) = (Some(path.to_owned()), AtomicBool::new(false));
        Ok(Self { bytes: Bytes::Mapped(map), data_len, sums, table, proven, broken, path })
    }

    /// Proven when the file was opened.
    pub fn table(&self) -> &[u8] {
        &self.bytes()[self.table.clone()]
    }

    pub fn len(&self) -> usize {
        self.data_len
    }

    /// These bytes of the data. `None`: there are no such, or they are not what was written.
    #[inline]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        self.prove(range.clone()).then(|| &self.bytes()[range])
    }

    /// Are these bytes of the data there, and what was written?
    #[inline]
    pub fn prove(&self, range: Range<usize>) -> bool {
        if range.end > self.data_len || range.start >= range.end {
            return range.is_empty() && range.end <= self.data_len;
        }
        if self.proven.is_empty() {
            return true;
        }
        let blocks = range.start / BLOCK..=(range.end - 1) / BLOCK;
        blocks.into_iter().all(|block| self.is_proven(block) || self.prove_block(block))
    }

    /// Asks for the memory of this byte, which will be looked at soon.
    #[inline]
    pub fn ahead(&self, at: usize) {
        prefetch(self.bytes(), at);
    }

    /// All of the data, of which only what was proven may be looked at.
    pub fn unproven(&self) -> &[u8] {
        &self.bytes()[..self.data_len]
    }

    /// Has any byte turned out not to be what was written?
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.is_gone()
    }

    /// Were bytes read that the file no longer had, proven or not? Asked after they were read.
    #[inline]
    pub fn is_gone(&self) -> bool {
        matches!(&self.bytes, Bytes::Mapped(map) if map.faulted())
    }

    /// Where it lies, if in a file.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    #[inline]
    fn is_proven(&self, block: usize) -> bool {
        self.proven[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 != 0
    }

    #[cold]
    fn prove_block(&self, block: usize) -> bool {
        let bytes = self.bytes();
        let end = ((block + 1) * BLOCK).min(self.data_len);
        let sum = &bytes[self.sums.clone()][block * SUM..][..SUM];
        if hash(&bytes[block * BLOCK..end])[..SUM] == *sum && !self.is_gone() {
            self.proven[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
            return true;
        }
        self.broken.store(true, Ordering::Relaxed);
        // Whoever opens next finds none, and makes it again.
        self.path.as_deref().map(std::fs::remove_file);
        false
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Held(bytes) => bytes,
        }
    }
}

/// Lengths of data and table, if they fit the file.
fn footer(bytes: &[u8], kind: &FileKind) -> Option<(usize, usize)> {
    let footer = &bytes[bytes.len().checked_sub(FOOTER)?..];
    let number = |at: usize| {
        let number = u64::from_le_bytes(footer[at..at + 8].try_into().expect("eight bytes"));
        usize::try_from(number).ok()
    };
    let (data, table) = (number(0)?, number(8)?);
    let sums = data.div_ceil(BLOCK).checked_mul(SUM)?;
    let len = data.checked_add(table)?.checked_add(sums)?.checked_add(FOOTER)?;
    (len == bytes.len() && footer[16..32] == *kind).then_some((data, table))
}

/// A file being written, mode 0600. One that is not finished is deleted.
pub struct Writing {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    pending: Vec<u8>,
    sums: Vec<u8>,
    written: usize,
    finished: bool,
}

impl Writing {
    /// The name while it is written is `path`'s with more behind it, at the end `.new`. It is locked (`flock`) until
    /// then, so one that can be locked is a dead writer's.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Nothing else that lives in this process begins where this does.
        let pending = Vec::with_capacity(WRITE_BYTES);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}-{:p}.new", std::process::id(), pending.as_ptr()));
        let (temporary, path) = (PathBuf::from(temporary), path.to_owned());
        fault::pass("cache create")?;
        let file = loop {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            // Whoever sweeps may have had it between the two calls; where there are no locks nobody sweeps.
            let held = flock(&file, FlockOperation::NonBlockingLockExclusive);
            if held != Err(Errno::WOULDBLOCK) && file.metadata()?.nlink() > 0 {
                break file;
            }
        };
        let sums = Vec::new();
        Ok(Self { file, temporary, path, pending, sums, written: 0, finished: false })
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.written + self.pending.len()
    }

    pub fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(WRITE_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            data = later;
            if self.pending.len() == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for block in self.pending.chunks(BLOCK) {
            self.sums.extend_from_slice(&hash(block)[..SUM]);
        }
        self.written += self.pending.len();
        put(&mut self.file, &self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Completes the file and opens it. `lasting`: what it is made of will be deleted, so it is brought to disk first.
    pub fn finish(mut self, table: &[u8], kind: &FileKind, lasting: bool) -> io::Result<Checked> {
        self.flush()?;
        let (data_len, table_len) = (self.written as u64, table.len() as u64);
        let lengths = [data_len.to_le_bytes(), table_len.to_le_bytes()].concat();
        let mut end = [table, &self.sums, &lengths, kind].concat();
        let sum = hash(&end);
        end.extend_from_slice(&sum);
        put(&mut self.file, &end)?;
        if lasting {
            fault::pass("cache sync")?;
            self.file.sync_data()?;
        }
        // Opened before it has its name: another process may delete it as soon as it has.
        fault::pass("cache open")?;
        let checked = Checked::of(&File::open(&self.temporary)?, &self.path, kind)?;
        fault::pass("cache rename")?;
        std::fs::rename(&self.temporary, &self.path)?;
        self.finished = true;
        Ok(checked)
    }
}

/// Deletes what a dead writer left.
pub fn sweep(temporary: &Path) {
    let Ok(file) = File::open(temporary) else { return };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = std::fs::remove_file(temporary);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn put(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    fault::write("cache write", bytes, |bytes| file.write_all(bytes))
}
