//! Section 7.3: index runs, and chunks located through them.

use super::pack::{ChunkRow, FrameRow, context_row};
use super::seal::Context;
use super::{Cursor, Id, Result, Short, h, need};

const ONE_CHUNK: u32 = u32::MAX;

pub struct Run {
    fanout_bits: u8,
    fanout: Vec<u32>,
    /// Ascending by id; frame; row in the frame.
    pub chunks: Vec<(u32, ChunkRow)>,
    pub frames: Vec<RunFrame>,
    pub packs: Vec<RunPack>,
}

pub struct RunFrame {
    pub pack: u32,
    pub row: FrameRow,
}

pub struct RunPack {
    pub id: Id,
    pub len: u64,
    pub author: Short,
    pub class: u8,
}

pub fn parse(payload: &[u8]) -> Result<Run> {
    let mut cursor = Cursor(payload);
    let [n, f, p, c, m, b] = [(); 6].map(|()| cursor.u32());
    let (n, f, p, c, m, b) = (n?, f?, p?, c?, m?, b?);
    let (fanout_bits, shard_bits) = (cursor.u8()?, cursor.u8()?);
    cursor.zero(2)?;
    let shard = cursor.u32()?;
    cursor.zero(32)?;
    need(fanout_bits <= 16 && shard_bits <= 32, "fanout and shard bits")?;
    let fanout = (0..=1u32 << fanout_bits).map(|_| cursor.u32()).collect::<Result<Vec<_>>>()?;
    let ids = (0..n).map(|_| cursor.array()).collect::<Result<Vec<Id>>>()?;
    let chunks = ids.into_iter().map(|id| {
        let frame = cursor.u32()?;
        Ok((frame, ChunkRow { id, offset: cursor.u32()?, len: cursor.u32()? }))
    });
    let chunks = chunks.collect::<Result<Vec<_>>>()?;
    let mut frames = Cursor(cursor.take(48 * f as usize)?);
    let packs = (0..p).map(|_| pack_row(&mut cursor)).collect::<Result<Vec<_>>>()?;
    let contexts = (0..c).map(|_| context_row(&mut cursor)).collect::<Result<Vec<_>>>()?;
    let tables = (0..m).map(|_| cursor.array()).collect::<Result<Vec<Id>>>()?;
    let bases = cursor.take(40 * b as usize)?;
    cursor.end()?;
    let frames = (0..f)
        .map(|number| {
            let alone = || {
                let mut rows =
                    chunks.iter().filter(|(frame, _)| *frame == number).map(|(_, row)| row);
                let (row, none) = (rows.next().ok_or("a frame without chunks")?, rows.next());
                need(none.is_none(), "a frame without a table holds one chunk")?;
                Ok(h(&[&row.id[..], &[0; 4], &row.len.to_le_bytes()].concat()))
            };
            frame_row(&mut frames, packs.len(), &contexts, &tables, bases, &alone)
        })
        .collect::<Result<Vec<_>>>()?;
    let run = Run { fanout_bits, fanout, chunks, frames, packs };
    run.check(shard_bits, shard)?;
    Ok(run)
}

fn frame_row(
    cursor: &mut Cursor<'_>,
    packs: usize,
    contexts: &[(Context, Id)],
    tables: &[Id],
    bases: &[u8],
    alone: &dyn Fn() -> Result<Id>,
) -> Result<RunFrame> {
    let (pack, context) = (cursor.u32()?, cursor.u32()?);
    let (offset, ordinal) = (cursor.u64()?, cursor.u64()?);
    let (stored, plain) = (cursor.u32()?, cursor.u32()?);
    let (first_base, table, base_count) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let codec = cursor.u8()?;
    cursor.zero(3)?;
    need((pack as usize) < packs, "no such pack")?;
    let (context, commit) = *contexts.get(context as usize).ok_or("no such context")?;
    let start = 40 * first_base as usize;
    let base_rows =
        bases.get(start..start + 40 * base_count as usize).ok_or("no such bases")?.to_vec();
    let table = match table {
        ONE_CHUNK => alone()?,
        table => *tables.get(table as usize).ok_or("no such table")?,
    };
    let row = FrameRow { offset, ordinal, stored, plain, codec, context, commit, base_rows, table };
    Ok(RunFrame { pack, row })
}

fn pack_row(cursor: &mut Cursor<'_>) -> Result<RunPack> {
    let row = RunPack {
        id: cursor.array()?,
        len: cursor.u64()?,
        author: cursor.array()?,
        class: cursor.u8()?,
    };
    cursor.zero(7)?;
    Ok(row)
}

/// The first bits of an id, as a number.
fn first_bits(id: &Id, bits: u8) -> u32 {
    let first = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
    first.checked_shr(32 - u32::from(bits)).unwrap_or(0)
}

impl Run {
    fn check(&self, shard_bits: u8, shard: u32) -> Result<()> {
        let key = |(frame, row): &(u32, ChunkRow)| (row.id, *frame);
        need(self.chunks.is_sorted_by(|a, b| key(a) <= key(b)), "ids ascend")?;
        for (frame, row) in &self.chunks {
            let frame = self.frames.get(*frame as usize).ok_or("no such frame")?;
            let end = row.offset.checked_add(row.len).ok_or("length of a chunk")?;
            need(end <= frame.row.plain, "a chunk lies in its frame")?;
            need(first_bits(&row.id, shard_bits) == shard, "an id of another shard")?;
        }
        for (i, start) in self.fanout.iter().enumerate() {
            let bucket =
                |(_, row): &(u32, ChunkRow)| first_bits(&row.id, self.fanout_bits) as usize;
            let below = self.chunks.partition_point(|chunk| bucket(chunk) < i);
            need(below == *start as usize, "fanout")?;
        }
        Ok(())
    }

    /// The places of a chunk, found through the fanout.
    pub fn find(&self, id: &Id) -> impl Iterator<Item = &(u32, ChunkRow)> {
        let bucket = first_bits(id, self.fanout_bits) as usize;
        let range = self.fanout[bucket] as usize..self.fanout[bucket + 1] as usize;
        self.chunks[range].iter().filter(move |(_, row)| row.id == *id)
    }
}
