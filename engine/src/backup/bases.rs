//! Bases of deltas: the full chunks that hold a file's last version, fetched through a bounded
//! cache that the workers share. A base is a chunk that a new snapshot could rely on, stored in
//! full; where the last version is a delta itself, its own bases are taken, so that every delta is
//! one step deep. Anything that is missing, damaged or not to be read means: no delta.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use crate::backup::BackupOptions;
use crate::backup::old::{Old, OldPiece, Stretch, Text};
use crate::error::Result;
use crate::format::codec::{Codec, Samples};
use crate::format::id::{ChunkId, ObjectHash, PackId};
use crate::format::pack::{BaseRow, FRAME_BASE_BYTES_MAX};
use crate::format::seal::Recipient;
use crate::repo::Repo;
use crate::repo::base_cache::BaseCache;
use crate::repo::fetch::{Fetcher, Plain};
use crate::repo::lookup::{Copy, Index};
use crate::repo::session::Encoded;
use crate::repo::trees::Piece;

/// Plain bytes of frames that hold bases, kept for the chunks that come next.
pub const HELD_BYTES: usize = 48 << 20;
/// Frames that are fetched for one chunk, in plain bytes: its old pieces may have bases all over.
const FETCHED_BYTES_MAX: u64 = 12 << 20;
/// What a base row takes in a pack's directory and in an index run, beside the delta itself.
const ROW_BYTES: u64 = 80;
/// Bases of one chunk of the default size; those of larger ones may have `REACH` more than they.
pub const CHUNK_BASE_BYTES_MAX: u64 = 2 << 20;
const REACH: u64 = 512 << 10;
/// A delta below this share of the full chunk is always worth it; one above `DELTA_MAX` never.
const DELTA_SMALL: u64 = 16;
const DELTA_MAX: u64 = 2;

pub struct Bases<'r> {
    index: &'r Index,
    /// Only if the key reads content.
    fetcher: Option<Fetcher<'r>>,
    /// Only if there is room given for it.
    cache: Option<BaseCache<'r>>,
    held: Mutex<Held>,
    /// Deltas of many small files, by the index run that they are in.
    shared: Mutex<HashMap<ObjectHash, Arc<SharedDeltas>>>,
}

/// By a frame's number in its run: where its chunks begin in it, in order.
type SharedDeltas = HashMap<u32, Vec<u32>>;

type Fetched = Arc<OnceLock<Option<(Plain, Range<usize>)>>>;

#[derive(Default)]
struct Held {
    chunks: HashMap<ChunkId, Fetched>,
    order: VecDeque<(ChunkId, usize)>,
    bytes: usize,
}

/// What chunks can be a delta of. Without rows: of nothing.
#[derive(Default)]
pub struct Base {
    pub rows: Vec<BaseRow>,
    pub prefix: Vec<u8>,
    pub worth: Worth,
}

impl Base {
    /// Of several rows only the longest.
    pub fn longest(mut self) -> Self {
        let longest = (0..self.rows.len()).max_by_key(|&n| self.rows[n].len).unwrap_or(0);
        let before: u32 = self.rows.iter().take(longest).map(|row| row.len).sum();
        self.rows = self.rows.get(longest).copied().into_iter().collect();
        let len: u32 = self.rows.iter().map(|row| row.len).sum();
        self.prefix.drain(..before as usize);
        self.prefix.truncate(len as usize);
        self
    }

    pub fn add(&mut self, mut other: Base) {
        self.rows.append(&mut other.rows);
        self.prefix.append(&mut other.prefix);
        self.worth.full += other.worth.full;
        self.worth.before += other.worth.before;
    }
}

/// What storing a chunk costs otherwise, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worth {
    /// Stored in full, estimated by how its bases are stored.
    pub full: u64,
    /// As a delta, the last time, without its base rows.
    pub before: u64,
}

impl Worth {
    /// Does a delta of `len` bytes with so many base rows pay?
    ///
    /// Content drifts away from its bases: deltas grow by about as much each time. With a growth of
    /// g, storing the chunk in full again pays best once the delta exceeds √(2 · full · g). Base rows
    /// do not grow, and would be there after that, too.
    pub fn pays(&self, len: usize, rows: usize) -> bool {
        let len = len as u64;
        let delta = len + rows as u64 * ROW_BYTES;
        let growth = len.saturating_sub(self.before);
        delta * DELTA_SMALL <= self.full
            || (delta * DELTA_MAX <= self.full
                && (growth == 0 || len * len <= 2 * self.full * growth))
    }
}

/// The base ranges of an old piece, and what it costs.
struct Lineage {
    rows: Vec<BaseRow>,
    /// Stored and plain bytes of the frames its bases are in.
    full: (u64, u64),
    /// Those frames: each once, with its plain bytes.
    frames: BTreeMap<(PackId, u64), u64>,
    /// Stored bytes, if it is a delta itself.
    before: u64,
}

impl<'r> Bases<'r> {
    pub fn open(repo: &'r Repo, index: &'r Index, options: &BackupOptions) -> Result<Self> {
        let fetcher = repo.reads(Recipient::Data).then(|| Fetcher::new(repo, index));
        let room = if options.dry_run { 0 } else { options.base_cache_bytes };
        let cache = BaseCache::open(repo, room)?;
        Ok(Self { index, fetcher, cache, held: Mutex::default(), shared: Mutex::default() })
    }

    /// The last version of a file, if chunks of it can be had.
    pub fn old(&self, pieces: &[Piece]) -> Option<Old> {
        let any = self.fetcher.is_some() || self.cache.is_some();
        (any && !pieces.is_empty()).then(|| Old::new(pieces))
    }

    /// Keeps what was just encoded, if there is room given for it. Images are left out: they do
    /// not change; so is what does not compress, as it seldom resembles what it was before.
    pub fn keep(&self, encoded: &Encoded, samples: Option<Samples>) {
        if let Some(cache) = &self.cache
            && samples.is_none()
            && matches!(encoded.codec, Codec::Zstd | Codec::Numeric)
        {
            cache.put(encoded.codec, encoded.plain_len, &encoded.bytes, &encoded.chunks);
        }
    }

    pub fn finish(&self) {
        if let Some(cache) = &self.cache {
            cache.finish();
        }
    }

    /// A base for the chunk at offset `at` of the file whose last version is `old`.
    pub fn find(&self, old: &Old, at: u64, bytes: &[u8]) -> Option<Base> {
        let mut text = Text::default();
        let (mut full, mut before) = ((0, 0), (0, 0));
        let mut frames = BTreeMap::new();
        let pieces = old.around(at, bytes.len());
        if pieces.is_empty() {
            return None;
        }
        for piece in pieces {
            let Some(lineage) = self.lineage(piece) else { continue };
            let plain: u64 = lineage.rows.iter().map(|row| u64::from(row.len)).sum();
            frames.extend(lineage.frames);
            if text.extent() as u64 + plain > 2 * FRAME_BASE_BYTES_MAX
                || frames.values().sum::<u64>() > FETCHED_BYTES_MAX
            {
                break;
            }
            // A delta's bases reach a little further than the piece itself, on both sides.
            let beyond = (plain as usize).saturating_sub(piece.len as usize) / 2;
            let fetched = lineage.rows.iter().filter_map(|row| self.stretch(row));
            text.append(fetched, piece.at, beyond);
            full = (full.0 + lineage.full.0, full.1 + lineage.full.1);
            before = (before.0 + lineage.before, before.1 + u64::from(piece.len));
        }
        let range = old.like(&text, at, bytes)?;
        let (rows, prefix) = text.rows(range)?;
        let most = CHUNK_BASE_BYTES_MAX.max(bytes.len() as u64 + REACH).min(FRAME_BASE_BYTES_MAX);
        if prefix.len() as u64 > most {
            return None;
        }
        let share = |(stored, plain): (u64, u64)| (bytes.len() as u64 * stored).checked_div(plain);
        let worth = Worth { full: share(full)?, before: share(before)? };
        Some(Base { rows, prefix, worth })
    }

    fn stretch(&self, row: &BaseRow) -> Option<Stretch> {
        let (plain, chunk) = self.fetch(&row.id)?;
        let end = row.start.checked_add(row.len)?;
        (end as usize <= chunk.len()).then_some(Stretch { row: *row, plain, chunk: chunk.start })
    }

    /// Which full chunks an old piece can be told by.
    fn lineage(&self, piece: &OldPiece) -> Option<Lineage> {
        let copy = self.index.relied_copy(&piece.id)?;
        let frame = &copy.place.frame;
        if frame.bases == 0 {
            let rows = vec![BaseRow { id: piece.id, start: 0, len: piece.len }];
            let full = (u64::from(frame.stored), u64::from(frame.plain));
            let frames = BTreeMap::from([frame_of(&copy)]);
            return Some(Lineage { rows, full, frames, before: 0 });
        }
        let rows = self.bases_of(&copy)?;
        let (mut full, mut frames) = ((0, 0), BTreeMap::new());
        for row in &rows {
            let base = self.index.relied_copy(&row.id)?;
            frames.extend([frame_of(&base)]);
            let base = base.place.frame;
            if base.bases != 0 {
                return None;
            }
            full = (full.0 + u64::from(base.stored), full.1 + u64::from(base.plain));
        }
        let share = u64::from(copy.place.chunk.len);
        let before = u64::from(frame.stored) * share / u64::from(frame.plain).max(1);
        Some(Lineage { rows, full, frames, before })
    }

    /// The base rows of one chunk of a delta. In a frame of several chunks each has one, in order:
    /// so this writer does it, and if another did not, its deltas serve for nothing here.
    fn bases_of(&self, copy: &Copy) -> Option<Vec<BaseRow>> {
        let (run, place) = (copy.segment.run(), &copy.place);
        let rows: Vec<BaseRow> = run.bases(&place.frame)?.collect();
        if place.frame.is_single() {
            return Some(rows);
        }
        let shared = {
            let mut shared = self.shared.lock().expect("no panic holds this lock");
            let run = || Arc::new(run.shared_deltas());
            shared.entry(copy.segment.name?).or_insert_with(run).clone()
        };
        let chunks = shared.get(&place.frame_index)?;
        let nth = chunks.binary_search(&place.chunk.offset).ok()?;
        (chunks.len() == rows.len()).then(|| vec![rows[nth]])
    }

    /// A base chunk: the frame it is in, and where in that it is.
    fn fetch(&self, id: &ChunkId) -> Option<(Plain, Range<usize>)> {
        let slot = {
            let mut held = self.held.lock().expect("no panic holds this lock");
            held.chunks.entry(*id).or_default().clone()
        };
        // Whoever comes second waits for the first instead of decoding it, too.
        let fetched = slot.get_or_init(|| {
            let near = self.cache.as_ref().and_then(|cache| cache.get(id));
            let far = || self.fetcher.as_ref()?.base(id).ok();
            let fetched = near.or_else(far);
            self.hold(id, fetched.as_ref());
            fetched
        });
        fetched.clone()
    }

    /// Counts what was fetched, by the whole frame that it keeps in memory. What could not be had is
    /// forgotten.
    fn hold(&self, id: &ChunkId, fetched: Option<&(Plain, Range<usize>)>) {
        let mut held = self.held.lock().expect("no panic holds this lock");
        let Some((plain, _)) = fetched else {
            held.chunks.remove(id);
            return;
        };
        held.bytes += plain.len();
        held.order.push_back((*id, plain.len()));
        while held.bytes > HELD_BYTES && held.order.len() > 1 {
            let (gone, len) = held.order.pop_front().expect("more than one");
            held.chunks.remove(&gone);
            held.bytes -= len;
        }
    }
}

/// Where a copy's frame is, and its plain bytes.
fn frame_of(copy: &Copy) -> ((PackId, u64), u64) {
    let place = &copy.place;
    ((place.pack.id, place.frame.offset), u64::from(place.frame.plain))
}

#[cfg(test)]
mod tests {
    use super::Worth;

    #[test]
    fn a_delta_pays_until_it_has_grown_too_far() {
        let worth = |full, before| Worth { full, before };
        assert!(worth(100_000, 0).pays(40_000, 1), "the first one, below half");
        assert!(!worth(100_000, 0).pays(60_000, 1), "more than half");
        assert!(worth(100_000, 4_000).pays(5_000, 1), "small ones always");
        assert!(worth(100_000, 12_000).pays(13_000, 1), "growing by 1 %: up to 14 %");
        assert!(!worth(100_000, 14_000).pays(15_000, 1), "beyond");
        assert!(worth(100_000, 30_000).pays(29_000, 1), "not growing");
    }

    #[test]
    fn full_chunks_are_stored_again_as_seldom_as_pays() {
        // Content that drifts by 0.2 % of its full size a night: a full chunk each 31 nights or so.
        let (full, growth) = (250_000, 500);
        let (mut before, mut nights, mut stored) = (0, 0, full);
        loop {
            let delta = before + growth;
            if !(Worth { full, before }).pays(delta as usize, 0) {
                break;
            }
            (before, nights, stored) = (delta, nights + 1, stored + delta);
        }
        assert!((30..=45).contains(&nights), "{nights}");
        assert!(stored / nights < full / 14, "{} a night", stored / nights);
    }
}
