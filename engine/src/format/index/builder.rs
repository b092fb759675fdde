//! Collects packs and their frames, and lays them out as an index run. The same pushes give the
//! same bytes.

use std::collections::BTreeMap;

use crate::format::id::ChunkId;
use crate::format::index::{
    FANOUT_BITS_MAX, NO_TABLE, PackRow, RUN_LEN_MAX, RunFrame, Shard, encoded_len, u32_be,
};
use crate::format::pack::{BaseRow, ChunkRow, ContextRow, Directory, FrameRow, chunk_rows_hash};

/// What a run says about a frame's chunk rows as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// One chunk, and its row says it all.
    Single,
    /// H of all chunk rows, also of those in other shards.
    Hash([u8; 32]),
}

impl Table {
    pub fn of(chunks: &[ChunkRow]) -> Self {
        match chunks {
            [_] => Self::Single,
            _ => Self::Hash(chunk_rows_hash(chunks)),
        }
    }
}

struct Chunk {
    id: ChunkId,
    frame: u32,
    offset: u32,
    len: u32,
}

#[derive(Default)]
pub struct RunBuilder {
    shard: Shard,
    chunks: Vec<Chunk>,
    frames: Vec<RunFrame>,
    packs: Vec<PackRow>,
    contexts: Vec<ContextRow>,
    context_indexes: BTreeMap<ContextRow, u32>,
    tables: Vec<[u8; 32]>,
    bases: Vec<BaseRow>,
}

impl RunBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the chunks of this shard only, and frames that have any.
    pub fn for_shard(shard: Shard) -> Self {
        assert!(shard.bits <= 32 && u64::from(shard.prefix) < 1 << shard.bits);
        Self { shard, ..Self::default() }
    }

    /// A pack with all that its directory says. Seals are not kept: they stand in the pack.
    pub fn push_directory(&mut self, pack: PackRow, directory: &Directory) {
        let pack = self.push_pack(pack);
        let contexts: Vec<_> = directory.contexts.iter().map(|&c| self.push_context(c)).collect();
        for (frame, chunks, bases) in directory.frames_with_tables() {
            self.push_frame(pack, contexts[frame.context as usize], frame, chunks, bases);
        }
    }

    pub fn push_pack(&mut self, pack: PackRow) -> u32 {
        push(&mut self.packs, pack)
    }

    /// Equal contexts get one row.
    pub fn push_context(&mut self, context: ContextRow) -> u32 {
        let contexts = &mut self.contexts;
        *self.context_indexes.entry(context).or_insert_with(|| push(contexts, context))
    }

    /// `pack` and `context` are what the pushes of those returned; `frame.context` is not looked
    /// at. `chunks` are all of the frame's.
    pub fn push_frame(
        &mut self,
        pack: u32,
        context: u32,
        frame: &FrameRow,
        chunks: &[ChunkRow],
        bases: &[BaseRow],
    ) {
        debug_assert!(frame.chunks as usize == chunks.len() && frame.bases as usize == bases.len());
        self.push_part(pack, context, frame, Table::of(chunks), chunks, bases);
    }

    /// As `push_frame`, for a merge that has only some of the chunks at hand but knows their table.
    /// The counts in `frame` are not looked at.
    pub fn push_part(
        &mut self,
        pack: u32,
        context: u32,
        frame: &FrameRow,
        table: Table,
        chunks: &[ChunkRow],
        bases: &[BaseRow],
    ) {
        assert!((pack as usize) < self.packs.len() && (context as usize) < self.contexts.len());
        let index = self.frames.len() as u32;
        let before = self.chunks.len();
        let here = chunks.iter().filter(|chunk| self.shard.holds(&chunk.id));
        self.chunks.extend(here.map(|&ChunkRow { id, offset, len }| Chunk {
            id,
            frame: index,
            offset,
            len,
        }));
        if self.chunks.len() == before {
            return;
        }
        let table = match table {
            Table::Single => NO_TABLE,
            Table::Hash(hash) => push(&mut self.tables, hash),
        };
        let &FrameRow { offset, ordinal, stored, plain, codec, .. } = frame;
        let first_base = self.bases.len() as u32;
        self.bases.extend_from_slice(bases);
        let bases = bases.len() as u32;
        push(
            &mut self.frames,
            RunFrame {
                pack,
                context,
                offset,
                ordinal,
                stored,
                plain,
                first_base,
                bases,
                codec,
                table,
            },
        );
    }

    /// Chunks so far.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Of the payload that `finish` would give now.
    pub fn encoded_len(&self) -> u64 {
        encoded_len(self.counts(), fanout_bits(self.chunks.len()))
    }

    /// The payload. Panics above 1 GiB: whoever pushes watches `encoded_len`.
    pub fn finish(mut self) -> Vec<u8> {
        let bits = fanout_bits(self.chunks.len());
        let len = self.encoded_len();
        assert!(len <= RUN_LEN_MAX, "an index run of {len} bytes");
        self.chunks.sort_unstable_by_key(|chunk| (chunk.id, chunk.frame, chunk.offset));
        let mut out = Vec::with_capacity(len as usize);
        self.counts().iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        out.extend_from_slice(&[bits, self.shard.bits, 0, 0]);
        out.extend_from_slice(&self.shard.prefix.to_le_bytes());
        out.extend_from_slice(&[0; 32]);
        for bound in self.fanout(bits) {
            out.extend_from_slice(&bound.to_le_bytes());
        }
        self.chunks.iter().for_each(|chunk| out.extend_from_slice(&chunk.id.0));
        for chunk in &self.chunks {
            for field in [chunk.frame, chunk.offset, chunk.len] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        self.frames.iter().for_each(|frame| out.extend_from_slice(&frame.to_bytes()));
        self.packs.iter().for_each(|pack| out.extend_from_slice(&pack.to_bytes()));
        self.contexts.iter().for_each(|context| context.put(&mut out));
        self.tables.iter().for_each(|hash| out.extend_from_slice(hash));
        self.bases.iter().for_each(|base| out.extend_from_slice(&base.to_bytes()));
        debug_assert_eq!(out.len() as u64, len);
        out
    }

    /// For each i the number of ids whose first `bits` bits are below i.
    fn fanout(&self, bits: u8) -> Vec<u32> {
        let mut bounds = vec![0u32; (1 << bits) + 1];
        for chunk in &self.chunks {
            let bucket = u64::from(u32_be(&chunk.id.0)) >> (32 - bits);
            bounds[bucket as usize + 1] += 1;
        }
        for i in 1..bounds.len() {
            bounds[i] += bounds[i - 1];
        }
        bounds
    }

    fn counts(&self) -> [u32; 6] {
        [
            self.chunks.len(),
            self.frames.len(),
            self.packs.len(),
            self.contexts.len(),
            self.tables.len(),
            self.bases.len(),
        ]
        .map(|count| u32::try_from(count).expect("a run of 1 GiB has fewer rows"))
    }
}

fn push<T>(rows: &mut Vec<T>, row: T) -> u32 {
    let index = u32::try_from(rows.len()).expect("a run of 1 GiB has fewer rows");
    rows.push(row);
    index
}

/// clamp(ceil(log2(chunks / 512)), 0, 16)
fn fanout_bits(chunks: usize) -> u8 {
    let buckets = chunks.div_ceil(512).max(1).next_power_of_two();
    buckets.ilog2().min(FANOUT_BITS_MAX.into()) as u8
}
