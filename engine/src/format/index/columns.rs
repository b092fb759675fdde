//! Where the columns of a run lie in its payload: for whoever looks into many payloads again and again without parsing
//! their headers, and wants to know which bytes a row is before it believes them.

use std::ops::Range;

use crate::error::FormatError;
use crate::format::index::{
    FANOUT_BITS_MAX, FRAME_ROW, HEADER_LEN, LOCATOR, NO_TABLE, PACK_ROW, RUN, RUN_LEN_MAX, Run,
    RunFrame, Shard, encoded_len,
};
use crate::format::layout::{check, check_zero, limit, u32_at};
use crate::format::pack::{BASE_ROW, CONTEXT_ROW};

/// Bytes a row, in the order of the columns: fanout, ids, locators, frames, packs, contexts, tables, bases.
const ROWS: [usize; 8] = [4, 32, LOCATOR, FRAME_ROW, PACK_ROW, CONTEXT_ROW, 32, BASE_ROW];
const IDS: usize = 1;
const LOCATORS: usize = 2;
const FRAMES: usize = 3;
const PACKS: usize = 4;
const TABLES: usize = 6;
const BASES: usize = 7;

/// What the header of a run says, held to the payload's length.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    shard: Shard,
    fanout_bits: u8,
    /// In the order of `ROWS`.
    counts: [u32; 8],
    /// Byte at which each column begins, and the end; below `RUN_LEN_MAX`.
    starts: [u32; 9],
}

impl Columns {
    /// Bytes of a payload that `read` looks at.
    pub const HEADER_LEN: usize = HEADER_LEN;

    /// `head` begins with the payload's header.
    pub fn read(head: &[u8], payload_len: u64) -> Result<Self, FormatError> {
        limit(RUN, payload_len <= RUN_LEN_MAX, "longer than 1 GiB")?;
        if payload_len < HEADER_LEN as u64 || head.len() < HEADER_LEN {
            return Err(FormatError::Truncated { object: RUN });
        }
        check_zero(RUN, &head[26..28])?;
        check_zero(RUN, &head[32..HEADER_LEN])?;
        let [chunks, frames, packs, contexts, tables, bases] =
            [0, 4, 8, 12, 16, 20].map(|at| u32_at(head, at));
        let fanout_bits = head[24];
        check(RUN, fanout_bits <= FANOUT_BITS_MAX, "more than 16 fanout bits")?;
        let len = encoded_len([chunks, frames, packs, contexts, tables, bases], fanout_bits);
        if len > payload_len {
            return Err(FormatError::Truncated { object: RUN });
        }
        check(RUN, len == payload_len, "bytes after its last row")?;
        let shard = Shard { bits: head[25], prefix: u32_at(head, 28) };
        let prefix = shard.bits <= 32 && u64::from(shard.prefix) < 1 << shard.bits;
        check(RUN, prefix, "its shard is no prefix")?;
        let fanout = (1 << fanout_bits) + 1;
        let counts = [fanout, chunks, chunks, frames, packs, contexts, tables, bases];
        let mut starts = [HEADER_LEN as u32; 9];
        for (column, (count, row)) in counts.iter().zip(ROWS).enumerate() {
            starts[column + 1] = starts[column] + count * row as u32;
        }
        Ok(Self { shard, fanout_bits, counts, starts })
    }

    /// The payload seen as these columns. Panics if it is not the one they were read from, or one like it.
    pub fn of<'a>(&self, payload: &'a [u8]) -> Run<'a> {
        fn rows<const N: usize>(column: &[u8]) -> &[[u8; N]] {
            column.as_chunks().0
        }
        let column = |at: usize| &payload[self.starts[at] as usize..self.starts[at + 1] as usize];
        Run {
            shard: self.shard,
            fanout_bits: self.fanout_bits,
            fanout: rows(column(0)),
            ids: rows(column(IDS)),
            locators: rows(column(LOCATORS)),
            frames: rows(column(FRAMES)),
            packs: rows(column(PACKS)),
            contexts: rows(column(5)),
            tables: rows(column(TABLES)),
            bases: rows(column(BASES)),
        }
    }

    pub fn payload_len(&self) -> usize {
        self.starts[8] as usize
    }

    pub fn chunk_count(&self) -> u32 {
        self.counts[IDS]
    }

    pub fn frame_count(&self) -> u32 {
        self.counts[FRAMES]
    }

    pub fn pack_count(&self) -> u32 {
        self.counts[PACKS]
    }

    /// The bytes of all pack rows.
    pub fn packs(&self) -> Range<usize> {
        self.starts[PACKS] as usize..self.starts[PACKS + 1] as usize
    }

    /// The bytes of a chunk's id and of its locator.
    pub fn chunk(&self, row: u32) -> Option<[Range<usize>; 2]> {
        Some([self.row(IDS, row)?, self.row(LOCATORS, row)?])
    }

    /// Which frame a locator names.
    pub fn frame_in(locator: &[u8]) -> u32 {
        u32_at(locator, 0)
    }

    /// The bytes of a frame's row.
    pub fn frame(&self, index: u32) -> Option<Range<usize>> {
        self.row(FRAMES, index)
    }

    /// The bytes beside the row of a frame that say what it is: its table and its bases; empty where it has none.
    pub fn beside(&self, frame: &RunFrame) -> Option<[Range<usize>; 2]> {
        let table = if frame.table == NO_TABLE { 0..0 } else { self.row(TABLES, frame.table)? };
        if frame.bases == 0 {
            return Some([table, 0..0]);
        }
        let last = frame.first_base.checked_add(frame.bases - 1)?;
        let bases = self.row(BASES, frame.first_base)?.start..self.row(BASES, last)?.end;
        Some([table, bases])
    }

    fn row(&self, column: usize, row: u32) -> Option<Range<usize>> {
        let start = self.starts[column] as usize + row as usize * ROWS[column];
        (row < self.counts[column]).then(|| start..start + ROWS[column])
    }
}
