//! Bases on the client's own disk: frames that this client stored, kept so that a key that cannot
//! read the repository can still tell a changed file as a delta, and one that can need not fetch.
//! Sealed under a key that only this identity has, like the journal; limited in size; trusted for
//! nothing: every chunk that comes out is held against its id. Losing any of it, or all, costs
//! space in the next backup and nothing else.
//!
//! A segment is `magic ‖ salt ‖ records ‖ table ‖ place of the table u64 ‖ records u64`, where a
//! record is `codec u8 ‖ plain length u32 ‖ encoded bytes` and the table says for each where it is
//! and which chunks are in it, all sealed. It gets its name when it is complete; what a killed
//! session leaves is swept. When room is needed a segment goes that chance picks: with the oldest
//! first, a set of files just above the limit would lose every base right before its use.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};
use crate::format::codec::{Codec, Decoder};
use crate::format::id::{ChunkId, to_hex};
use crate::format::pack::ChunkRow;
use crate::repo::Repo;
use crate::repo::journal::{SealKey, TAG_LEN, is_held};
use crate::repo::recent::{Plain, Recent};
use crate::sys::fault;

const MAGIC: &[u8; 16] = b"strongroom-bas-1";
const HEAD_BYTES: u64 = 48;
const FOOTER_BYTES: u64 = 16;
/// A cache is at least so many segments, each between these sizes.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES: Range<u64> = 64 << 10..256 << 20;
/// Smaller caches hold nothing worth the trouble.
pub const BASE_CACHE_BYTES_MIN: u64 = 1 << 20;
/// No segment is so long that its table could be.
const TABLE_BYTES_MAX: u64 = 1 << 30;
const RECENT_BYTES: usize = 16 << 20;

pub struct BaseCache<'r> {
    repo: &'r Repo,
    folder: PathBuf,
    max_bytes: u64,
    kept: RwLock<Kept>,
    writing: Mutex<Option<Writing>>,
    recent: Recent<(usize, u32)>,
}

#[derive(Default)]
struct Kept {
    /// `None`: it had to make room.
    segments: Vec<Option<Arc<Segment>>>,
    /// First 8 bytes of a chunk's id → segment, place in its rows.
    places: HashMap<u64, (u32, u32)>,
}

struct Segment {
    path: PathBuf,
    file: File,
    key: SealKey,
    len: u64,
    records: Vec<RecordAt>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
struct RecordAt {
    offset: u64,
    len: u32,
}

#[derive(Clone, Copy)]
struct Row {
    record: u32,
    chunk: ChunkRow,
}

struct Writing {
    segment: Segment,
    /// A write failed: what is in the file is unknown, and nothing more is kept.
    failed: bool,
}

impl<'r> BaseCache<'r> {
    /// Opens the cache with what earlier sessions left, cut down to `max_bytes`. `None`: the client
    /// has no cache folder, or the limit is below `BASE_CACHE_BYTES_MIN`.
    pub fn open(repo: &'r Repo, max_bytes: u64) -> Result<Option<Self>> {
        let Some(cache) = repo.cache().filter(|_| max_bytes >= BASE_CACHE_BYTES_MIN) else {
            return Ok(None);
        };
        let folder = cache.join("bases");
        let failed = |source| Error::Cache { path: folder.clone(), source };
        fault::pass("cache list").map_err(failed)?;
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut kept = Kept::default();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort();
        for path in paths {
            if path.extension().is_some_and(|end| end == "new") {
                sweep(&path);
            } else if let Some(segment) = Segment::open(repo, &path) {
                kept.add(segment);
            } else {
                // Torn, or of another identity that shares the folder: of no use to anyone here.
                let _ = std::fs::remove_file(&path);
            }
        }
        let cache = Self {
            repo,
            folder,
            max_bytes,
            kept: RwLock::new(kept),
            writing: Mutex::default(),
            recent: Recent::new(RECENT_BYTES),
        };
        cache.make_room(0);
        Ok(Some(cache))
    }

    /// A chunk, proven by its id: the plain bytes of its frame, and where in them it is.
    pub fn get(&self, id: &ChunkId) -> Option<(Plain, Range<usize>)> {
        let (number, segment, row) = {
            let kept = self.kept.read().expect("no panic holds this lock");
            let &(number, row) = kept.places.get(&short(id))?;
            let segment = kept.segments[number as usize].clone()?;
            let row = segment.rows[row as usize];
            (number, segment, row)
        };
        let place = (number as usize, row.record);
        let plain = match self.recent.get(&place) {
            Some(plain) => plain,
            None => {
                let plain = Arc::new(segment.read(row.record)?);
                self.recent.put(place, plain.clone());
                plain
            }
        };
        let start = row.chunk.offset as usize;
        let range = start..start + row.chunk.len as usize;
        let proven = self.repo.id_key().ok()?.id(plain.get(range.clone())?) == *id;
        proven.then_some((plain, range))
    }

    /// Keeps a frame that was just made, before it is sealed for the store. `encoded`: by a codec
    /// without bases.
    pub fn put(&self, codec: Codec, plain_len: u32, encoded: &[u8], chunks: &[ChunkRow]) {
        let segment_max = (self.max_bytes / SEGMENTS).clamp(SEGMENT_BYTES.start, SEGMENT_BYTES.end);
        let mut writing = self.writing.lock().expect("no panic holds this lock");
        if writing.as_ref().is_some_and(|writing| writing.segment.len >= segment_max) {
            self.complete(writing.take());
        }
        if writing.is_none() {
            *writing = Writing::create(self.repo, &self.folder).ok();
        }
        let Some(writing) = writing.as_mut() else { return };
        let mut bytes = Vec::with_capacity(encoded.len() + 5 + TAG_LEN);
        bytes.push(codec as u8);
        bytes.extend_from_slice(&plain_len.to_le_bytes());
        bytes.extend_from_slice(encoded);
        self.make_room(writing.segment.len + bytes.len() as u64);
        writing.append(bytes, chunks);
    }

    /// Completes what this session has written.
    pub fn finish(&self) {
        let writing = self.writing.lock().expect("no panic holds this lock").take();
        self.complete(writing);
        self.make_room(0);
    }

    fn complete(&self, writing: Option<Writing>) {
        if let Some(segment) = writing.and_then(Writing::complete) {
            self.kept.write().expect("no panic holds this lock").add(segment);
        }
    }

    /// Deletes segments until the rest, and `more` bytes, are within the limit.
    fn make_room(&self, more: u64) {
        let mut kept = self.kept.write().expect("no panic holds this lock");
        loop {
            let here: Vec<usize> =
                (0..kept.segments.len()).filter(|&n| kept.segments[n].is_some()).collect();
            let bytes: u64 = kept.segments.iter().flatten().map(|segment| segment.len).sum();
            if bytes + more <= self.max_bytes || here.is_empty() {
                return;
            }
            let chance = u64::from_le_bytes(self.repo.env().random::<8>());
            let gone = here[(chance % here.len() as u64) as usize];
            if let Some(segment) = kept.segments[gone].take() {
                let _ = std::fs::remove_file(&segment.path);
            }
        }
    }
}

impl Kept {
    fn add(&mut self, segment: Segment) {
        let number = self.segments.len() as u32;
        for (place, row) in (0..).zip(&segment.rows) {
            self.places.insert(short(&row.chunk.id), (number, place));
        }
        self.segments.push(Some(Arc::new(segment)));
    }
}

impl Segment {
    /// `None`: not complete, or not this identity's.
    fn open(repo: &Repo, path: &Path) -> Option<Self> {
        fault::pass("cache read").ok()?;
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let mut head = [0; HEAD_BYTES as usize];
        file.read_exact_at(&mut head, 0).ok()?;
        let (magic, salt) = head.split_first_chunk::<16>()?;
        if magic != MAGIC {
            return None;
        }
        let key = SealKey::bases(repo, salt.try_into().expect("32 bytes"));
        let mut footer = [0; FOOTER_BYTES as usize];
        let table_end = len.checked_sub(FOOTER_BYTES)?;
        file.read_exact_at(&mut footer, table_end).ok()?;
        let table_at = u64::from_le_bytes(footer[..8].try_into().expect("eight bytes"));
        let count = u64::from_le_bytes(footer[8..].try_into().expect("eight bytes"));
        let table_len = table_end.checked_sub(table_at).filter(|&len| len <= TABLE_BYTES_MAX)?;
        let mut table = vec![0; table_len as usize];
        file.read_exact_at(&mut table, table_at).ok()?;
        if !key.open(count, &mut table) {
            return None;
        }
        let (records, rows) = read_table(&table)?;
        Some(Self { path: path.to_owned(), file, key, len, records, rows })
    }

    fn read(&self, record: u32) -> Option<Vec<u8>> {
        let at = self.records.get(record as usize)?;
        fault::pass("cache read").ok()?;
        let mut bytes = vec![0; at.len as usize];
        self.file.read_exact_at(&mut bytes, at.offset).ok()?;
        if !self.key.open(u64::from(record), &mut bytes) {
            return None;
        }
        let (&codec, rest) = bytes.split_first()?;
        let (len, encoded) = rest.split_first_chunk::<4>()?;
        let mut plain = Vec::new();
        let len = u32::from_le_bytes(*len);
        Decoder::new().decode(codec, encoded, len, &[], &mut plain).ok()?;
        Some(plain)
    }
}

impl Writing {
    fn create(repo: &Repo, folder: &Path) -> io::Result<Self> {
        fault::pass("cache create")?;
        let salt: [u8; 32] = repo.env().random();
        let name = format!("{:020}-{}.new", repo.env().now().max(0), &to_hex(&salt)[..8]);
        let path = folder.join(name);
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        fault::write("cache write", &[&MAGIC[..], &salt].concat(), |head| file.write_all(head))?;
        let key = SealKey::bases(repo, &salt);
        let (records, rows) = (Vec::new(), Vec::new());
        let segment = Segment { path, file, key, len: HEAD_BYTES, records, rows };
        Ok(Self { segment, failed: false })
    }

    fn append(&mut self, mut bytes: Vec<u8>, chunks: &[ChunkRow]) {
        if self.failed {
            return;
        }
        let Segment { key, file, len, records, rows, .. } = &mut self.segment;
        let record = records.len() as u32;
        key.seal(u64::from(record), &mut bytes);
        let written = fault::write("cache write", &bytes, |bytes| file.write_all(bytes));
        self.failed = written.is_err();
        records.push(RecordAt { offset: *len, len: bytes.len() as u32 });
        rows.extend(chunks.iter().map(|&chunk| Row { record, chunk }));
        *len += bytes.len() as u64;
    }

    /// `None`: something could not be written, and the file is gone.
    fn complete(mut self) -> Option<Segment> {
        let segment = &mut self.segment;
        let mut table = write_table(&segment.records, &segment.rows);
        let count = segment.records.len() as u64;
        segment.key.seal(count, &mut table);
        table.extend_from_slice(&segment.len.to_le_bytes());
        table.extend_from_slice(&count.to_le_bytes());
        let file = &mut segment.file;
        let done = segment.path.with_extension("seg");
        let written = fault::write("cache write", &table, |table| file.write_all(table))
            .and_then(|()| fault::pass("cache rename"))
            .and_then(|()| std::fs::rename(&segment.path, &done));
        if self.failed || written.is_err() {
            let _ = std::fs::remove_file(&segment.path);
            return None;
        }
        segment.path = done;
        segment.len += table.len() as u64;
        Some(self.segment)
    }
}

/// `records u32 ‖ (offset u64 ‖ length u32 ‖ chunks u32)… ‖ (id ‖ offset u32 ‖ length u32)…`.
fn write_table(records: &[RecordAt], rows: &[Row]) -> Vec<u8> {
    let mut chunks = vec![0u32; records.len()];
    rows.iter().for_each(|row| chunks[row.record as usize] += 1);
    let mut table = (records.len() as u32).to_le_bytes().to_vec();
    for (record, chunks) in records.iter().zip(chunks) {
        table.extend_from_slice(&record.offset.to_le_bytes());
        table.extend_from_slice(&record.len.to_le_bytes());
        table.extend_from_slice(&chunks.to_le_bytes());
    }
    for Row { chunk, .. } in rows {
        table.extend_from_slice(&chunk.id.0);
        table.extend_from_slice(&chunk.offset.to_le_bytes());
        table.extend_from_slice(&chunk.len.to_le_bytes());
    }
    table
}

fn read_table(table: &[u8]) -> Option<(Vec<RecordAt>, Vec<Row>)> {
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    let (count, rest) = table.split_first_chunk::<4>()?;
    let (heads, rest) = rest.split_at_checked(u32::from_le_bytes(*count) as usize * 16)?;
    let (mut records, mut rows) = (Vec::new(), Vec::new());
    let mut chunks = rest.chunks_exact(40);
    for (record, head) in (0..).zip(heads.chunks_exact(16)) {
        let offset = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
        records.push(RecordAt { offset, len: u32_at(head, 8) });
        for _ in 0..u32_at(head, 12) {
            let row = chunks.next()?;
            let id = ChunkId(row[..32].try_into().expect("32 bytes"));
            let chunk = ChunkRow { id, offset: u32_at(row, 32), len: u32_at(row, 36) };
            rows.push(Row { record, chunk });
        }
    }
    (chunks.next().is_none() && chunks.remainder().is_empty()).then_some((records, rows))
}

/// Removes what a dead session has left; a live one holds a lock on its file.
fn sweep(path: &Path) {
    if File::open(path).is_ok_and(|file| !is_held(&file)) {
        let _ = std::fs::remove_file(path);
    }
}

fn short(id: &ChunkId) -> u64 {
    u64::from_le_bytes(id.0[..8].try_into().expect("eight bytes"))
}
