//! The version of a file that the last backup saw, and which stretch of it a new chunk resembles.
//!
//! Where a chunk's old bytes lie is guessed from its offset and from how far the chunk before it
//! had moved. Then *anchors*, short pieces spread over the new chunk, are looked for there. Those
//! that agree give the stretch to within a few KiB; without any the chunk counts as unlike, and no
//! delta is tried. No fetching here, and no encoding: `bases` and `encode` do that.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use memchr::memmem;

use crate::format::id::ChunkId;
use crate::format::pack::{BaseRow, FRAME_BASES_MAX};
use crate::repo::fetch::Plain;
use crate::repo::trees::Piece;

/// Old bytes this far beyond the expected stretch, but no further than its length, are looked at,
/// too.
const REACH: i64 = 64 << 10;
/// Taken on both sides of where the anchors say: rows may have grown or shrunk between them.
const SLACK: usize = 16 << 10;
const ANCHORS: usize = 8;
/// A row of a table is seldom the same for so long without being the same row.
const ANCHOR_BYTES: usize = 64;
const ANCHOR_BYTES_SMALL: usize = 24;
const SMALL: usize = 64 << 10;
/// Anchors agree if they have moved equally far to within this.
const AGREE: i64 = 32 << 10;
/// So near to the last one an anchor is looked for first.
const NEAR: usize = 16 << 10;
/// A file with so many unlike chunks in a row is asked for one chunk in `PATIENCE` only.
const PATIENCE: u32 = 8;

/// The pieces of a file's last version.
pub struct Old {
    pieces: Vec<OldPiece>,
    /// Old offset less new offset of what was found last.
    shift: AtomicI64,
    /// Chunks since then that were unlike.
    unlike: AtomicU32,
}

#[derive(Debug, Clone, Copy)]
pub struct OldPiece {
    pub at: u64,
    pub id: ChunkId,
    pub len: u32,
}

/// A range of a base chunk, with its bytes.
pub struct Stretch {
    pub row: BaseRow,
    pub plain: Plain,
    /// Where in `plain` the chunk begins.
    pub chunk: usize,
}

impl Stretch {
    /// Takes in a range of the same chunk that overlaps or touches this one.
    fn join(&mut self, other: &BaseRow) -> bool {
        let (start, end) = (self.row.start, self.row.start + self.row.len);
        let (other_start, other_end) = (other.start, other.start + other.len);
        if self.row.id != other.id || other_start > end || start > other_end {
            return false;
        }
        self.row.start = start.min(other_start);
        self.row.len = end.max(other_end) - self.row.start;
        true
    }

    pub fn bytes(&self) -> &[u8] {
        &self.plain[self.chunk + self.row.start as usize..][..self.row.len as usize]
    }
}

/// Old bytes around an expected place, as far as full chunks hold them.
#[derive(Default)]
pub struct Text {
    stretches: Vec<Stretch>,
    places: Vec<Place>,
}

/// Where in the text a piece of the old version begins, at least about: in a chunk; and where it
/// began in the file.
struct Place {
    id: ChunkId,
    start: u32,
    beyond: usize,
    old: u64,
}

impl Old {
    pub fn new(pieces: &[Piece]) -> Self {
        let mut at = 0;
        let mut chunks = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if let Piece::Chunk { id, len } = *piece {
                chunks.push(OldPiece { at, id, len });
            }
            at += piece.bytes();
        }
        Self { pieces: chunks, shift: AtomicI64::new(0), unlike: AtomicU32::new(0) }
    }

    /// The old pieces that a new chunk's bytes are expected in. None: it is not worth a look.
    pub fn around(&self, at: u64, len: usize) -> &[OldPiece] {
        let unlike = self.unlike.load(Ordering::Relaxed);
        if unlike >= PATIENCE && !unlike.is_multiple_of(PATIENCE) {
            self.unlike.store(unlike.wrapping_add(1), Ordering::Relaxed);
            return &[];
        }
        let from = at as i64 + self.shift.load(Ordering::Relaxed);
        let reach = REACH.min(len as i64);
        let (from, to) = (from - reach, from + len as i64 + reach);
        let first = self.pieces.partition_point(|old| old.at as i64 + i64::from(old.len) <= from);
        let end = self.pieces.partition_point(|old| (old.at as i64) < to);
        self.pieces.get(first..end).unwrap_or_default()
    }

    /// The stretch of the text that a new chunk resembles.
    pub fn like(&self, text: &Text, at: u64, bytes: &[u8]) -> Option<Range<usize>> {
        let anchors = anchors(text, bytes);
        let Some(&(last, place)) = anchors.last() else {
            self.unlike.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.unlike.store(0, Ordering::Relaxed);
        if let Some(old) = text.old_offset(place) {
            self.shift.store(old - (at + last as u64) as i64, Ordering::Relaxed);
        }
        let moved = anchors.iter().map(|&(new, place)| place as i64 - new as i64);
        let (low, high) = moved.fold((i64::MAX, i64::MIN), |(l, h), m| (l.min(m), h.max(m)));
        let slack = SLACK.min(bytes.len()) as i64;
        let within = |place: i64| place.clamp(0, text.extent() as i64) as usize;
        let range = within(low - slack)..within(high + bytes.len() as i64 + slack);
        (!range.is_empty()).then_some(range)
    }
}

/// Anchors that were found and agree: where in the new chunk, where in the text.
fn anchors(text: &Text, bytes: &[u8]) -> Vec<(usize, usize)> {
    let len = if bytes.len() < SMALL { ANCHOR_BYTES_SMALL } else { ANCHOR_BYTES };
    let Some(last) = bytes.len().checked_sub(len) else { return Vec::new() };
    let mut found: Vec<(usize, usize)> = Vec::new();
    for n in 0..ANCHORS {
        let new = last * n / (ANCHORS - 1);
        let anchor = &bytes[new..new + len];
        let expected = found.last().map(|&(before, place)| place + new - before);
        if let Some(place) = text.find(anchor, expected) {
            found.push((new, place));
        }
    }
    let moved = |&(new, place): &(usize, usize)| place as i64 - new as i64;
    let agrees = |one: &(usize, usize)| {
        let others = found.iter().filter(|other| (moved(one) - moved(other)).abs() <= AGREE);
        // Itself is one of them.
        others.count() * 3 > found.len()
    };
    found.iter().copied().filter(agrees).collect()
}

impl Text {
    /// Appends what a piece of the old version, at offset `old` of the file, can be told by. Pieces
    /// beside each other may share ranges of their bases: each is in the text once.
    pub fn append(&mut self, rows: impl Iterator<Item = Stretch>, old: u64, beyond: usize) {
        for (n, stretch) in rows.enumerate() {
            let Stretch { row: BaseRow { id, start, .. }, .. } = stretch;
            if n == 0 {
                self.places.push(Place { id, start, beyond, old });
            }
            if !self.stretches.iter_mut().any(|held| held.join(&stretch.row)) {
                self.stretches.push(stretch);
            }
        }
    }

    /// Where in the old version of the file a place of the text was.
    fn old_offset(&self, place: usize) -> Option<i64> {
        let begins = |of: &Place| {
            let mut begins = 0;
            for Stretch { row, .. } in &self.stretches {
                if row.id == of.id && (row.start..=row.start + row.len).contains(&of.start) {
                    return Some(begins + (of.start - row.start) as usize + of.beyond);
                }
                begins += row.len as usize;
            }
            None
        };
        let begun = self.places.iter().filter_map(|of| Some((begins(of)?, of.old)));
        let (begins, old) =
            begun.filter(|(begins, _)| *begins <= place).max_by_key(|(at, _)| *at)?;
        Some(old as i64 + (place - begins) as i64)
    }

    /// In bytes.
    pub fn extent(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.row.len as usize).sum()
    }

    /// First near where it is expected, then anywhere.
    fn find(&self, anchor: &[u8], expected: Option<usize>) -> Option<usize> {
        let near = expected.map(|place| place.saturating_sub(NEAR)..place + NEAR);
        near.and_then(|near| self.find_in(anchor, near))
            .or_else(|| self.find_in(anchor, 0..usize::MAX))
    }

    fn find_in(&self, anchor: &[u8], within: Range<usize>) -> Option<usize> {
        let mut begins = 0;
        for stretch in &self.stretches {
            let bytes = stretch.bytes();
            let from = within.start.saturating_sub(begins).min(bytes.len());
            let to = within.end.saturating_sub(begins).min(bytes.len());
            if let Some(place) = memmem::find(&bytes[from..to], anchor) {
                return Some(begins + from + place);
            }
            begins += bytes.len();
        }
        None
    }

    /// A range of the text as rows of base chunks, and its bytes. `None`: more than a frame may
    /// have.
    pub fn rows(&self, range: Range<usize>) -> Option<(Vec<BaseRow>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut prefix = Vec::with_capacity(range.len());
        let mut begins = 0;
        for stretch in &self.stretches {
            let bytes = stretch.bytes();
            let from = range.start.saturating_sub(begins).min(bytes.len());
            let to = range.end.saturating_sub(begins).min(bytes.len());
            if from < to {
                let start = stretch.row.start + from as u32;
                rows.push(BaseRow { id: stretch.row.id, start, len: (to - from) as u32 });
                prefix.extend_from_slice(&bytes[from..to]);
            }
            begins += bytes.len();
        }
        let fits = (1..=FRAME_BASES_MAX as usize).contains(&rows.len());
        fits.then_some((rows, prefix))
    }
}
