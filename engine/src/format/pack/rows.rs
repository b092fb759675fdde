//! Rows of the pack directory: fixed width, little-endian.

use crate::error::FormatError;
use crate::format::id::{ChunkId, SessionId};
use crate::format::layout::{array_at, check, check_zero, u32_at, u64_at};
use crate::format::pack::DIRECTORY;

pub(in crate::format) const CONTEXT_ROW: usize = 104;
pub(super) const SEAL_ROW: usize = 1192;
const SEALED_SECRET: usize = 1168;
pub(super) const FRAME_ROW: usize = 48;
pub(super) const CHUNK_ROW: usize = 40;
pub(in crate::format) const BASE_ROW: usize = 40;

/// What a frame's key derives from (format.md, 4.1), kept byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextRow {
    pub context: [u8; 72],
    pub commit: [u8; 32],
}

impl ContextRow {
    pub(in crate::format) fn read(row: &[u8; CONTEXT_ROW]) -> Self {
        Self { context: array_at(row, 0), commit: array_at(row, 72) }
    }

    pub(in crate::format) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.context);
        out.extend_from_slice(&self.commit);
    }
}

/// A session's secret for one recipient, sealed to that epoch's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRow {
    /// 1 DATA, 2 TREE, 3 META
    pub recipient: u8,
    pub epoch: u32,
    pub session: SessionId,
    pub sealed: Box<[u8; SEALED_SECRET]>,
}

impl SealRow {
    pub(super) fn read(row: &[u8; SEAL_ROW]) -> Result<Self, FormatError> {
        check(DIRECTORY, (1..=3).contains(&row[0]), "a seal has no such recipient")?;
        check_zero(DIRECTORY, &row[1..4])?;
        Ok(Self {
            recipient: row[0],
            epoch: u32_at(row, 4),
            session: SessionId(array_at(row, 8)),
            sealed: Box::new(array_at(row, 24)),
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.recipient, 0, 0, 0]);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&*self.sealed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRow {
    /// In the pack, in bytes.
    pub offset: u64,
    /// The nonce; used once under a context.
    pub ordinal: u64,
    /// Bytes in the pack, with the tag.
    pub stored: u32,
    /// Bytes after decoding.
    pub plain: u32,
    pub chunks: u32,
    pub bases: u32,
    /// Index into the contexts.
    pub context: u32,
    pub codec: u8,
}

impl FrameRow {
    pub(super) fn read(row: &[u8; FRAME_ROW]) -> Result<Self, FormatError> {
        check_zero(DIRECTORY, &row[37..])?;
        Ok(Self {
            offset: u64_at(row, 0),
            ordinal: u64_at(row, 8),
            stored: u32_at(row, 16),
            plain: u32_at(row, 20),
            chunks: u32_at(row, 24),
            bases: u32_at(row, 28),
            context: u32_at(row, 32),
            codec: row[36],
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.ordinal.to_le_bytes());
        for field in [self.stored, self.plain, self.chunks, self.bases, self.context] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(self.codec);
        out.extend_from_slice(&[0; 11]);
    }

    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored)
    }
}

/// A chunk inside its frame's plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    pub id: ChunkId,
    pub offset: u32,
    pub len: u32,
}

/// A range of another chunk that a delta frame (codec 3) needs as its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseRow {
    pub id: ChunkId,
    pub start: u32,
    pub len: u32,
}

fn id_row(id: &ChunkId, a: u32, b: u32) -> [u8; CHUNK_ROW] {
    let mut row = [0; CHUNK_ROW];
    row[..32].copy_from_slice(&id.0);
    row[32..36].copy_from_slice(&a.to_le_bytes());
    row[36..].copy_from_slice(&b.to_le_bytes());
    row
}

impl ChunkRow {
    pub fn to_bytes(&self) -> [u8; CHUNK_ROW] {
        id_row(&self.id, self.offset, self.len)
    }

    pub(super) fn read(row: &[u8; CHUNK_ROW]) -> Self {
        Self { id: ChunkId(array_at(row, 0)), offset: u32_at(row, 32), len: u32_at(row, 36) }
    }
}

impl BaseRow {
    pub fn to_bytes(&self) -> [u8; BASE_ROW] {
        id_row(&self.id, self.start, self.len)
    }

    pub(in crate::format) fn read(row: &[u8; BASE_ROW]) -> Self {
        Self { id: ChunkId(array_at(row, 0)), start: u32_at(row, 32), len: u32_at(row, 36) }
    }
}

pub fn chunk_rows_bytes(rows: &[ChunkRow]) -> Vec<u8> {
    rows.iter().flat_map(ChunkRow::to_bytes).collect()
}

/// The part of a frame's associated data that names its chunks.
pub fn chunk_rows_hash(rows: &[ChunkRow]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        hasher.update(&row.to_bytes());
    }
    *hasher.finalize().as_bytes()
}

pub fn base_rows_bytes(rows: &[BaseRow]) -> Vec<u8> {
    rows.iter().flat_map(BaseRow::to_bytes).collect()
}
