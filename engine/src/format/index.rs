//! Index runs (`docs/format.md`, 7.3): which chunk is in which pack. `Run` looks into a payload
//! where it lies (a map of the cached file); sealing, signing and the choice of runs are elsewhere.

mod builder;
mod columns;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::HashMap;
use std::ops::Range;

use crate::error::FormatError;
use crate::format::id::{ChunkId, IdentityId, PackId};
use crate::format::layout::{array_at, u32_at, u64_at};
use crate::format::pack::{
    BASE_ROW, BaseRow, CONTEXT_ROW, ChunkRow, ContextRow, PackClass, chunk_rows_hash,
};

pub use crate::format::index::builder::{RunBuilder, Table};
pub use crate::format::index::columns::Columns;

pub const RUN_LEN_MAX: u64 = 1 << 30;
/// Runs are split by id prefix from here on.
pub const SHARD_CHUNKS: u64 = 4 << 20;

const RUN: &str = "index run";
const HEADER_LEN: usize = 64;
const FANOUT_BITS_MAX: u8 = 16;
/// `table` of a frame with one chunk.
const NO_TABLE: u32 = u32::MAX;
const LOCATOR: usize = 12;
const FRAME_ROW: usize = 48;
const PACK_ROW: usize = 64;

/// The ids that a run is for: those whose first `bits` bits are `prefix`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// At most 32.
    pub bits: u8,
    pub prefix: u32,
}

impl Shard {
    pub fn holds(&self, id: &ChunkId) -> bool {
        self.bits == 0 || u32_be(&id.0) >> (32 - self.bits) == self.prefix
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    pub id: PackId,
    pub len: u64,
    /// Whose session wrote it.
    pub author: IdentityId,
    pub class: PackClass,
}

impl PackRow {
    fn to_bytes(self) -> [u8; PACK_ROW] {
        let mut row = [0; PACK_ROW];
        row[..32].copy_from_slice(&self.id.0);
        row[32..40].copy_from_slice(&self.len.to_le_bytes());
        row[40..56].copy_from_slice(&self.author.0);
        row[56] = self.class as u8;
        row
    }

    fn read(row: &[u8; PACK_ROW]) -> Option<Self> {
        Some(Self {
            id: PackId(array_at(row, 0)),
            len: u64_at(row, 32),
            author: IdentityId(array_at(row, 40)),
            class: PackClass::from_u8(row[56])?,
        })
    }
}

/// A frame as the run has it; the fields mean what they mean in `pack::FrameRow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFrame {
    pub pack: u32,
    pub context: u32,
    pub offset: u64,
    pub ordinal: u64,
    pub stored: u32,
    pub plain: u32,
    pub first_base: u32,
    pub bases: u32,
    pub codec: u8,
    table: u32,
}

impl RunFrame {
    fn to_bytes(self) -> [u8; FRAME_ROW] {
        let mut row = [0; FRAME_ROW];
        let mut put = |at: usize, bytes: &[u8]| row[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.pack.to_le_bytes());
        put(4, &self.context.to_le_bytes());
        put(8, &self.offset.to_le_bytes());
        put(16, &self.ordinal.to_le_bytes());
        put(24, &self.stored.to_le_bytes());
        put(28, &self.plain.to_le_bytes());
        put(32, &self.first_base.to_le_bytes());
        put(36, &self.table.to_le_bytes());
        put(40, &self.bases.to_le_bytes());
        put(44, &[self.codec]);
        row
    }

    pub fn read(row: &[u8; FRAME_ROW]) -> Self {
        Self {
            pack: u32_at(row, 0),
            context: u32_at(row, 4),
            offset: u64_at(row, 8),
            ordinal: u64_at(row, 16),
            stored: u32_at(row, 24),
            plain: u32_at(row, 28),
            first_base: u32_at(row, 32),
            table: u32_at(row, 36),
            bases: u32_at(row, 40),
            codec: row[44],
        }
    }

    /// Whether it holds a single chunk.
    pub fn is_single(&self) -> bool {
        self.table == NO_TABLE
    }
}

/// Where a chunk is: enough to fetch, open and decode its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub chunk: ChunkRow,
    /// Index of the frame in the run.
    pub frame_index: u32,
    pub frame: RunFrame,
    pub pack: PackRow,
    table: Table,
}

impl Location {
    /// H of the frame's chunk rows, for its associated data. Costs a hash if the frame holds one
    /// chunk.
    pub fn table_hash(&self) -> [u8; 32] {
        match self.table {
            Table::Hash(hash) => hash,
            Table::Single => chunk_rows_hash(&[self.chunk]),
        }
    }
}

/// A payload seen as columns. `new` costs nothing and holds every section to the length; `validate`
/// reads all of it once. Without it a bad reference is found as `None`, never as a panic.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    shard: Shard,
    fanout_bits: u8,
    fanout: &'a [[u8; 4]],
    ids: &'a [[u8; 32]],
    locators: &'a [[u8; LOCATOR]],
    frames: &'a [[u8; FRAME_ROW]],
    packs: &'a [[u8; PACK_ROW]],
    contexts: &'a [[u8; CONTEXT_ROW]],
    tables: &'a [[u8; 32]],
    bases: &'a [[u8; BASE_ROW]],
}

impl<'a> Run<'a> {
    pub fn new(payload: &'a [u8]) -> Result<Self, FormatError> {
        Ok(Columns::read(payload, payload.len() as u64)?.of(payload))
    }

    pub fn len(&self) -> u32 {
        self.ids.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn frame_count(&self) -> u32 {
        self.frames.len() as u32
    }

    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Ascending; chunk ids in their bare form.
    pub fn ids(&self) -> &'a [[u8; 32]] {
        self.ids
    }

    pub fn contains(&self, id: &ChunkId) -> bool {
        self.ids.get(self.lower_bound(id)).is_some_and(|found| found == &id.0)
    }

    /// Where this id stands in `ids`, as often as it does.
    pub fn positions(&self, id: &ChunkId) -> Range<u32> {
        let start = self.lower_bound(id);
        let count = self.ids[start..].iter().take_while(|&found| found == &id.0).count();
        start as u32..(start + count) as u32
    }

    /// Every place of a chunk.
    pub fn find(&self, id: &ChunkId) -> impl Iterator<Item = Location> + use<'a> {
        let run = *self;
        self.positions(id).filter_map(move |position| run.location(position))
    }

    /// Of the chunk at this position of `ids`.
    pub fn location(&self, position: u32) -> Option<Location> {
        let id = ChunkId(*self.ids.get(position as usize)?);
        let locator = self.locators.get(position as usize)?;
        let frame_index = u32_at(locator, 0);
        let frame = self.frame(frame_index)?;
        Some(Location {
            chunk: ChunkRow { id, offset: u32_at(locator, 4), len: u32_at(locator, 8) },
            frame_index,
            pack: self.pack(frame.pack)?,
            table: self.table(&frame)?,
            frame,
        })
    }

    /// The frame of the chunk at this position of `ids`, and where in its plain bytes the chunk begins.
    pub fn frame_of(&self, position: u32) -> Option<(u32, u32)> {
        self.locators.get(position as usize).map(|row| (u32_at(row, 0), u32_at(row, 4)))
    }

    pub fn frame(&self, index: u32) -> Option<RunFrame> {
        self.frames.get(index as usize).map(RunFrame::read)
    }

    pub fn frames(&self) -> impl ExactSizeIterator<Item = RunFrame> + use<'a> {
        self.frames.iter().map(RunFrame::read)
    }

    /// What `RunBuilder::push_part` wants to know of a frame.
    pub fn table(&self, frame: &RunFrame) -> Option<Table> {
        if frame.is_single() {
            return Some(Table::Single);
        }
        self.tables.get(frame.table as usize).map(|hash| Table::Hash(*hash))
    }

    pub fn pack(&self, index: u32) -> Option<PackRow> {
        PackRow::read(self.packs.get(index as usize)?)
    }

    /// Skips rows of an unknown class, which `validate` refuses.
    pub fn packs(&self) -> impl Iterator<Item = PackRow> + use<'a> {
        self.packs.iter().filter_map(PackRow::read)
    }

    pub fn context(&self, index: u32) -> Option<ContextRow> {
        self.contexts.get(index as usize).map(ContextRow::read)
    }

    pub fn contexts(&self) -> impl ExactSizeIterator<Item = ContextRow> + use<'a> {
        self.contexts.iter().map(ContextRow::read)
    }

    /// Of each frame that is a delta of several chunks: where those begin in it, in order. Looks at
    /// every row of the run.
    pub fn shared_deltas(&self) -> HashMap<u32, Vec<u32>> {
        let mut shared: HashMap<u32, Vec<u32>> = (0..)
            .zip(self.frames())
            .filter(|(_, frame)| frame.bases > 0 && !frame.is_single())
            .map(|(number, _)| (number, Vec::new()))
            .collect();
        if shared.is_empty() {
            return shared;
        }
        for locator in self.locators {
            if let Some(offsets) = shared.get_mut(&u32_at(locator, 0)) {
                offsets.push(u32_at(locator, 4));
            }
        }
        shared.values_mut().for_each(|offsets| offsets.sort_unstable());
        shared
    }

    /// None if they are not all there.
    pub fn bases(
        &self,
        frame: &RunFrame,
    ) -> Option<impl ExactSizeIterator<Item = BaseRow> + use<'a>> {
        let end = frame.first_base.checked_add(frame.bases)?;
        let rows = self.bases.get(frame.first_base as usize..end as usize)?;
        Some(rows.iter().map(BaseRow::read))
    }

    /// First position whose id is not below `id`. Ids are random, so inside its fanout bucket one
    /// stands near where its next bits say: guess, widen until it is enclosed, halve.
    fn lower_bound(&self, id: &ChunkId) -> usize {
        let Range { start, end } = self.bucket(id);
        let bucket = &self.ids[start..end];
        let key = u64::from_be_bytes(array_at(&id.0, 0));
        let known = self.fanout_bits.max(self.shard.bits);
        let share = u128::from(key << known);
        let guess = ((share * bucket.len() as u128) >> 64) as usize;
        let below = |at: usize| bucket[at] < id.0;
        let (mut low, mut high) = (0, bucket.len());
        let mut step = 4;
        if guess < high && below(guess) {
            low = guess + 1;
            while low + step < high {
                if !below(low + step) {
                    high = low + step;
                    break;
                }
                low += step + 1;
                step *= 2;
            }
        } else {
            high = guess;
            while high > step {
                if below(high - step) {
                    low = high - step + 1;
                    break;
                }
                high -= step;
                step *= 2;
            }
        }
        start + low + bucket[low..high].partition_point(|found| found < &id.0)
    }

    /// Positions that the fanout gives for an id's first bits; empty if it makes no sense.
    fn bucket(&self, id: &ChunkId) -> Range<usize> {
        let first = u64::from(u32_be(&id.0)) >> (32 - self.fanout_bits);
        let bound = |at: usize| u32_at(&self.fanout[at], 0) as usize;
        let (start, end) = (bound(first as usize), bound(first as usize + 1));
        if start <= end && end <= self.ids.len() { start..end } else { 0..0 }
    }
}

fn u32_be(id: &[u8; 32]) -> u32 {
    u32::from_be_bytes(array_at(id, 0))
}

/// Counts in the order of the header: chunks, frames, packs, contexts, tables, bases.
fn encoded_len(counts: [u32; 6], fanout_bits: u8) -> u64 {
    let rows = [32 + LOCATOR, FRAME_ROW, PACK_ROW, CONTEXT_ROW, 32, BASE_ROW];
    let columns: u64 = counts.iter().zip(rows).map(|(&n, row)| u64::from(n) * row as u64).sum();
    HEADER_LEN as u64 + ((1 << fanout_bits) + 1) * 4 + columns
}
