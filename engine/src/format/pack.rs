//! Packs (`docs/format.md`, 5): the clear header, the trailer's plaintext, and the directory's
//! plaintext. Nothing here seals, opens, or looks into a context; padding is the packer's.

mod rows;
#[cfg(test)]
mod tests;

use crate::error::FormatError;
use crate::format::codec::Codec;
use crate::format::id::SessionId;
use crate::format::layout::{array_at, check, check_zero, limit, take_rows, u32_at, u64_at};
pub(super) use crate::format::pack::rows::{BASE_ROW, CONTEXT_ROW};
pub use crate::format::pack::rows::{
    BaseRow, ChunkRow, ContextRow, FrameRow, SealRow, base_rows_bytes, chunk_rows_bytes,
    chunk_rows_hash,
};
use crate::format::pack::rows::{CHUNK_ROW, FRAME_ROW, SEAL_ROW};

pub const HEADER_LEN: usize = 64;
/// The sealed trailer at the very end of a pack: context, commitment, 48 bytes, tag.
pub const TRAILER_LEN: usize = 168;
/// The trailer's plaintext.
pub const TRAILER_PLAIN_LEN: usize = 48;
pub const TAG_LEN: u32 = 16;

pub const PACK_LEN_MAX: u64 = 1 << 30;
pub const DIRECTORY_LEN_MAX: u64 = 256 << 20;
pub const FRAME_PLAIN_MAX: u32 = 64 << 20;
pub const CHUNK_LEN_MAX: u32 = 16 << 20;
pub const FRAME_CHUNKS_MAX: u32 = 65_535;
pub const FRAME_BASES_MAX: u32 = 64;
pub const FRAME_BASE_BYTES_MAX: u64 = 8 << 20;

const MAGIC: &[u8; 8] = b"STRONGRM";
const KIND: u8 = 6;
const PACK: &str = "pack header";
const TRAILER: &str = "pack trailer";
const DIRECTORY: &str = "pack directory";

/// The commitment stands in front of a sealed directory.
const COMMIT_LEN: u64 = 32;
const COUNTS_LEN: usize = 24;

/// What a pack's frames are sealed to: data to DATA, trees to TREE, refs to META, mixed to any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PackClass {
    Data = 1,
    Tree = 2,
    Refs = 3,
    Mixed = 4,
}

impl PackClass {
    pub fn from_u8(class: u8) -> Option<Self> {
        [Self::Data, Self::Tree, Self::Refs, Self::Mixed].into_iter().find(|&c| c as u8 == class)
    }

    pub(super) fn read(object: &'static str, class: u8) -> Result<Self, FormatError> {
        let unknown =
            || FormatError::Unsupported { object, feature: format!("pack class {class}") };
        Self::from_u8(class).ok_or_else(unknown)
    }
}

/// The first 64 bytes of a pack, in clear and not signed: believe the directory instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHeader {
    pub session: SessionId,
    pub epoch: u32,
    pub class: PackClass,
    /// 1 AES-256-GCM, 2 ChaCha20-Poly1305; not checked here.
    pub suite: u8,
}

impl PackHeader {
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = KIND;
        bytes[9] = 1;
        bytes[16..32].copy_from_slice(&self.session.0);
        bytes[32..36].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[36] = self.class as u8;
        bytes[37] = self.suite;
        bytes
    }

    /// Reads the front of a pack; `bytes` may go on.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < HEADER_LEN {
            return Err(FormatError::Truncated { object: PACK });
        }
        if &bytes[..8] != MAGIC {
            return Err(FormatError::NotOurs { object: PACK });
        }
        if bytes[8] != KIND {
            return Err(FormatError::Kind { expected: "pack", found: bytes[8] });
        }
        if bytes[9] != 1 {
            return Err(FormatError::Newer { object: PACK, version: bytes[9].into() });
        }
        check_zero(PACK, &bytes[10..16])?;
        check_zero(PACK, &bytes[38..HEADER_LEN])?;
        Ok(Self {
            session: SessionId(array_at(bytes, 16)),
            epoch: u32_at(bytes, 32),
            class: PackClass::read(PACK, bytes[36])?,
            suite: bytes[37],
        })
    }
}

/// Plaintext of the trailer. Offsets are in the pack, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the directory's commitment begins.
    pub directory_offset: u64,
    /// Sealed, with its commitment.
    pub directory_len: u64,
    pub frames_end: u64,
    pub frames: u32,
    pub chunks: u32,
}

impl Trailer {
    pub fn to_bytes(&self) -> [u8; TRAILER_PLAIN_LEN] {
        let mut bytes = [0; TRAILER_PLAIN_LEN];
        bytes[..8].copy_from_slice(&self.directory_offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.directory_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.frames_end.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.frames.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.chunks.to_le_bytes());
        bytes
    }

    /// `pack_len`: bytes of the whole pack, to which the offsets are held.
    pub fn from_bytes(bytes: &[u8], pack_len: u64) -> Result<Self, FormatError> {
        if bytes.len() < TRAILER_PLAIN_LEN {
            return Err(FormatError::Truncated { object: TRAILER });
        }
        check(TRAILER, bytes.len() == TRAILER_PLAIN_LEN, "bytes after its end")?;
        check_zero(TRAILER, &bytes[32..])?;
        let trailer = Self {
            directory_offset: u64_at(bytes, 0),
            directory_len: u64_at(bytes, 8),
            frames_end: u64_at(bytes, 16),
            frames: u32_at(bytes, 24),
            chunks: u32_at(bytes, 28),
        };
        trailer.check(pack_len)?;
        Ok(trailer)
    }

    fn check(&self, pack_len: u64) -> Result<(), FormatError> {
        limit(TRAILER, pack_len <= PACK_LEN_MAX, "the pack is longer than 1 GiB")?;
        let inside = self.frames_end >= HEADER_LEN as u64
            && self.frames_end <= self.directory_offset
            && self.directory_len > COMMIT_LEN
            && self.directory_offset.checked_add(self.directory_len)
                == pack_len.checked_sub(TRAILER_LEN as u64);
        check(TRAILER, inside, "frames, directory and trailer do not fill the pack")
    }
}

/// Everything a reader needs to use a pack without its index run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub contexts: Vec<ContextRow>,
    /// Those that the contexts need.
    pub seals: Vec<SealRow>,
    pub frames: Vec<FrameRow>,
    /// Those of frame 0 first, then frame 1 …
    pub chunks: Vec<ChunkRow>,
    /// In frame order.
    pub bases: Vec<BaseRow>,
}

impl Directory {
    /// Bytes of a directory's plaintext with these counts.
    pub fn encoded_len(contexts: u64, seals: u64, frames: u64, chunks: u64, bases: u64) -> u64 {
        COUNTS_LEN as u64
            + contexts * CONTEXT_ROW as u64
            + seals * SEAL_ROW as u64
            + frames * FRAME_ROW as u64
            + chunks * CHUNK_ROW as u64
            + bases * BASE_ROW as u64
    }

    /// Panics if `check` would refuse it: that is the packer's bug.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let counts = self.counts();
        let mut out = Vec::with_capacity(counts.encoded_len() as usize);
        for count in [counts.contexts, counts.seals, counts.frames, counts.chunks, counts.bases, 0]
        {
            out.extend_from_slice(&count.to_le_bytes());
        }
        self.contexts.iter().for_each(|row| row.put(&mut out));
        self.seals.iter().for_each(|row| row.put(&mut out));
        self.frames.iter().for_each(|row| row.put(&mut out));
        self.chunks.iter().for_each(|row| out.extend_from_slice(&row.to_bytes()));
        self.bases.iter().for_each(|row| out.extend_from_slice(&row.to_bytes()));
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let counts = Counts::read(bytes)?;
        let mut rest = &bytes[COUNTS_LEN..];
        let contexts = take_rows(&mut rest, counts.contexts as usize);
        let seals = take_rows(&mut rest, counts.seals as usize);
        let frames = take_rows(&mut rest, counts.frames as usize);
        let chunks = take_rows(&mut rest, counts.chunks as usize);
        let bases = take_rows(&mut rest, counts.bases as usize);
        let directory = Self {
            contexts: contexts.iter().map(ContextRow::read).collect(),
            seals: seals.iter().map(SealRow::read).collect::<Result<_, _>>()?,
            frames: frames.iter().map(FrameRow::read).collect::<Result<_, _>>()?,
            chunks: chunks.iter().map(ChunkRow::read).collect(),
            bases: bases.iter().map(BaseRow::read).collect(),
        };
        directory.check()?;
        Ok(directory)
    }

    /// Each frame with its chunks and its bases.
    pub fn frames_with_tables(
        &self,
    ) -> impl Iterator<Item = (&FrameRow, &[ChunkRow], &[BaseRow])> + '_ {
        let (mut chunks, mut bases) = (self.chunks.as_slice(), self.bases.as_slice());
        self.frames.iter().map(move |frame| {
            (frame, take(&mut chunks, frame.chunks), take(&mut bases, frame.bases))
        })
    }

    /// End of the last frame, in the pack.
    pub fn frames_end(&self) -> u64 {
        self.frames.last().map_or(HEADER_LEN as u64, FrameRow::end)
    }

    /// The sealed secret that a context's key derives from.
    pub fn seal_of(&self, context: &ContextRow) -> Option<&SealRow> {
        let context = &context.context;
        self.seals.iter().find(|seal| {
            seal.recipient == context[2]
                && seal.epoch == u32_at(context, 4)
                && seal.session.0 == context[24..40]
        })
    }

    /// Whether the trailer tells the same story.
    pub fn check_against(&self, trailer: &Trailer) -> Result<(), FormatError> {
        let same = self.frames.len() == trailer.frames as usize
            && self.chunks.len() == trailer.chunks as usize
            && self.frames_end() == trailer.frames_end;
        check(DIRECTORY, same, "it does not agree with the trailer")
    }

    fn counts(&self) -> Counts {
        let count = |len: usize| u32::try_from(len).expect("rows fit 256 MiB");
        Counts {
            contexts: count(self.contexts.len()),
            seals: count(self.seals.len()),
            frames: count(self.frames.len()),
            chunks: count(self.chunks.len()),
            bases: count(self.bases.len()),
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        let sum = |count: fn(&FrameRow) -> u32| -> u64 {
            self.frames.iter().map(|frame| u64::from(count(frame))).sum()
        };
        let whole = sum(|frame| frame.chunks) == self.chunks.len() as u64
            && sum(|frame| frame.bases) == self.bases.len() as u64;
        check(DIRECTORY, whole, "its frames do not account for all chunks and bases")?;
        let mut end = HEADER_LEN as u64;
        for (frame, chunks, bases) in self.frames_with_tables() {
            check(DIRECTORY, frame.offset == end, "frames do not stand back to back")?;
            end = frame.end();
            limit(DIRECTORY, end <= PACK_LEN_MAX, "a frame ends beyond 1 GiB")?;
            let context = (frame.context as usize) < self.contexts.len();
            check(DIRECTORY, context, "a frame has no such context")?;
            check(DIRECTORY, frame.stored >= TAG_LEN, "a frame is shorter than its tag")?;
            limit(DIRECTORY, frame.plain <= FRAME_PLAIN_MAX, "plain length of a frame")?;
            limit(DIRECTORY, frame.chunks <= FRAME_CHUNKS_MAX, "chunks of a frame")?;
            check_chunks(frame, chunks)?;
            check_bases(DIRECTORY, frame.codec, bases.iter().copied())?;
        }
        self.check_ordinals()
    }

    fn check_ordinals(&self) -> Result<(), FormatError> {
        let mut used: Vec<_> = self.frames.iter().map(|f| (f.context, f.ordinal)).collect();
        used.sort_unstable();
        let once = used.array_windows().all(|[a, b]| a != b);
        check(DIRECTORY, once, "an ordinal is used twice under a context")
    }
}

fn take<'a, T>(rest: &mut &'a [T], count: u32) -> &'a [T] {
    let (front, tail) = rest.split_at(count as usize);
    *rest = tail;
    front
}

fn check_chunks(frame: &FrameRow, chunks: &[ChunkRow]) -> Result<(), FormatError> {
    let mut covered = 0;
    for chunk in chunks {
        check(DIRECTORY, chunk.len > 0, "a chunk is empty")?;
        limit(DIRECTORY, chunk.len <= CHUNK_LEN_MAX, "length of a chunk")?;
        check(DIRECTORY, chunk.offset == covered, "chunks of a frame overlap or leave a gap")?;
        covered += chunk.len;
        check(DIRECTORY, covered <= frame.plain, "chunks reach beyond their frame")?;
    }
    check(DIRECTORY, covered == frame.plain && covered > 0, "chunks do not cover their frame")
}

/// A delta has bases and nothing else has; an unknown codec may do as it likes.
pub(super) fn check_bases(
    object: &'static str,
    codec: u8,
    bases: impl ExactSizeIterator<Item = BaseRow>,
) -> Result<(), FormatError> {
    let delta = codec == Codec::Delta as u8;
    let fits = codec > Codec::Delta as u8 || delta == (bases.len() > 0);
    check(object, fits, "bases and codec do not go together")?;
    limit(object, bases.len() <= FRAME_BASES_MAX as usize, "bases of a frame")?;
    let mut total = 0;
    for base in bases {
        check(object, base.len > 0, "a base is empty")?;
        let end = u64::from(base.start) + u64::from(base.len);
        limit(object, end <= CHUNK_LEN_MAX.into(), "a base reaches beyond any chunk")?;
        total += u64::from(base.len);
    }
    limit(object, total <= FRAME_BASE_BYTES_MAX, "bytes of a frame's bases")
}

struct Counts {
    contexts: u32,
    seals: u32,
    frames: u32,
    chunks: u32,
    bases: u32,
}

impl Counts {
    /// Compared with the length before anything is allocated for them.
    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        limit(DIRECTORY, bytes.len() as u64 <= DIRECTORY_LEN_MAX, "longer than 256 MiB")?;
        if bytes.len() < COUNTS_LEN {
            return Err(FormatError::Truncated { object: DIRECTORY });
        }
        check_zero(DIRECTORY, &bytes[20..24])?;
        let [contexts, seals, frames, chunks, bases] =
            [0, 4, 8, 12, 16].map(|at| u32_at(bytes, at));
        let counts = Self { contexts, seals, frames, chunks, bases };
        let len = counts.encoded_len();
        if len > bytes.len() as u64 {
            return Err(FormatError::Truncated { object: DIRECTORY });
        }
        check(DIRECTORY, len == bytes.len() as u64, "bytes after its last row")?;
        Ok(counts)
    }

    fn encoded_len(&self) -> u64 {
        let [c, s, f, n, b] =
            [self.contexts, self.seals, self.frames, self.chunks, self.bases].map(u64::from);
        Directory::encoded_len(c, s, f, n, b)
    }
}
