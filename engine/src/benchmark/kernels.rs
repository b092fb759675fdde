//! The speed of each stage alone, on built-in data: the functions that backup and restore call, one at a time.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use crate::backup::chunk::Chunker;
use crate::benchmark::data::{KINDS, Rng, csv, noise};
use crate::benchmark::meter::{Meter, Speed};
use crate::benchmark::scratch::Scratch;
use crate::error::Result;
use crate::format::codec::{Codec, Decoder, Encoder, Samples};
use crate::format::id::{
    ChunkId, IdKey, IdentityId, ObjectHash, PackId, RepositoryId, SessionId, hash,
};
use crate::format::index::{PackRow, RunBuilder};
use crate::format::pack::{ChunkRow, ContextRow, FrameRow, HEADER_LEN, PackClass};
use crate::format::seal::{
    CONTEXT_LEN, Context, Label, Recipient, Sealer, Secret, Suite, TAG_LEN, frame_nonce,
};
use crate::repo::lookup::{Index, Packs, Trusted};
use crate::sys::buffer::PageBuffer;
use crate::sys::file::read_full_at;
use crate::sys::map::GuardedMap;

/// What chunks are like on average.
const CHUNK_BYTES: usize = 1 << 20;
/// A buffer of the size that suits `pread`.
const READ_BYTES: usize = 1 << 20;
const CHUNKS_PER_PACK: usize = 60;
const RUNS: usize = 4;

/// The speed of a stage on one kind of data.
#[derive(Clone, Debug)]
pub struct StageSpeed {
    pub stage: &'static str,
    /// Kind of data, cipher, chunker, or way.
    pub of: &'static str,
    pub unit: Unit,
    pub speed: Speed,
    /// Of what compresses: the codec, and what is left.
    pub codec: Option<(Codec, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Speeds are in bytes a second.
    Bytes,
    /// In look-ups, or files, a second.
    Pieces,
}

pub struct Kernels<'k> {
    pub meter: &'k Meter<'k>,
    pub scratch: &'k Scratch,
    /// Of each kind of data, and of the noise in the file.
    pub data_bytes: usize,
    pub rows: Vec<StageSpeed>,
}

impl Kernels<'_> {
    pub fn bytes(
        &mut self,
        stage: &'static str,
        of: &'static str,
        speed: Speed,
        codec: Option<(Codec, f64)>,
    ) {
        self.rows.push(StageSpeed { stage, of, unit: Unit::Bytes, speed, codec });
    }

    pub fn pieces(&mut self, stage: &'static str, of: &'static str, speed: Speed) {
        self.rows.push(StageSpeed { stage, of, unit: Unit::Pieces, speed, codec: None });
    }

    /// All of them, in the order of the way in.
    pub fn run(&mut self) -> Result<()> {
        let noise = noise(self.data_bytes);
        let path = self.scratch.file("noise", &noise)?;
        self.reading(&path)?;
        self.cutting(&noise)?;
        self.hashing(&noise)?;
        for kind in KINDS {
            let bytes = kind.bytes(self.data_bytes.min(8 << 20));
            self.coding(kind.name(), &bytes, kind.samples())?;
        }
        self.deltas()?;
        self.sealing(&noise)?;
        self.looking_up()
    }

    fn reading(&mut self, path: &Path) -> Result<()> {
        let failed = self.scratch.failed();
        let file = File::open(path).map_err(&failed)?;
        let len = self.data_bytes;
        let map = self.meter.speed(|| {
            let mut sum = 0u64;
            let file = &file;
            move || {
                let Ok(map) = GuardedMap::map(file, 0, len) else { return 0 };
                // One access a cache line, so that it is really there.
                sum += map.iter().step_by(64).map(|&byte| u64::from(byte)).sum::<u64>();
                black_box(sum);
                len as u64
            }
        })?;
        self.bytes("read", "map", map, None);
        let pread = self.meter.speed(|| {
            let (mut buffer, file, mut at) = (PageBuffer::default(), &file, 0);
            move || {
                let read = read_full_at(file, at, buffer.room(READ_BYTES)).unwrap_or(0);
                at = if read < READ_BYTES { 0 } else { at + read as u64 };
                read as u64
            }
        })?;
        self.bytes("read", "pread", pread, None);
        Ok(())
    }

    fn cutting(&mut self, bytes: &[u8]) -> Result<()> {
        let fast = Chunker::FastCdc { min: 512 << 10, avg: 1 << 20, max: 8 << 20 };
        for (name, chunker) in [("mincdc", Chunker::DEFAULT), ("fastcdc", fast)] {
            let speed = self.meter.speed(|| {
                let mut rest = bytes;
                move || {
                    let cut = chunker.first_cut(rest, true).unwrap_or(0);
                    rest = if cut == rest.len() { bytes } else { &rest[cut..] };
                    cut as u64
                }
            })?;
            self.bytes("find cuts", name, speed, None);
        }
        Ok(())
    }

    fn hashing(&mut self, bytes: &[u8]) -> Result<()> {
        let key = IdKey([7; 32]);
        let identify = self.meter.speed(|| {
            let mut chunks = bytes.chunks(CHUNK_BYTES).cycle();
            let key = &key;
            move || {
                let chunk = chunks.next().expect("it is not empty");
                black_box(key.id(chunk));
                chunk.len() as u64
            }
        })?;
        self.bytes("identify", "blake3", identify, None);
        let copy = self.meter.speed(|| {
            let (mut chunks, mut private) = (bytes.chunks(CHUNK_BYTES).cycle(), Vec::new());
            move || {
                let chunk = chunks.next().expect("it is not empty");
                private.clear();
                private.extend_from_slice(black_box(chunk));
                black_box(&private);
                chunk.len() as u64
            }
        })?;
        self.bytes("copy", "memory", copy, None);
        let name = self.meter.speed(|| {
            let (mut chunks, mut hasher) =
                (bytes.chunks(CHUNK_BYTES).cycle(), blake3::Hasher::new());
            move || {
                let chunk = chunks.next().expect("it is not empty");
                hasher.update(chunk);
                chunk.len() as u64
            }
        })?;
        self.bytes("name packs", "blake3", name, None);
        Ok(())
    }

    fn coding(&mut self, name: &'static str, bytes: &[u8], samples: Option<Samples>) -> Result<()> {
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES.min(bytes.len() / 2)).collect();
        let mut encoder = Encoder::new();
        let encoded: Vec<(Codec, Vec<u8>, u32)> = chunks
            .iter()
            .map(|chunk| {
                let mut out = Vec::new();
                let (codec, encoded) = encoder.encode(chunk, samples, &mut out);
                (codec, encoded.to_vec(), chunk.len() as u32)
            })
            .collect();
        let stored: usize = encoded.iter().map(|(_, encoded, _)| encoded.len()).sum();
        let codec = Some((encoded[0].0, stored as f64 / bytes.len() as f64));
        let compress = self.meter.speed(|| {
            let (mut encoder, mut out) = (Encoder::new(), Vec::new());
            let mut chunks = chunks.iter().cycle();
            move || {
                let chunk = chunks.next().expect("it is not empty");
                black_box(encoder.encode(chunk, samples, &mut out).1.len());
                chunk.len() as u64
            }
        })?;
        self.bytes("compress", name, compress, codec);
        let decompress = self.meter.speed(|| {
            let (mut decoder, mut out) = (Decoder::new(), Vec::new());
            let mut frames = encoded.iter().cycle();
            move || {
                let (codec, encoded, len) = frames.next().expect("it is not empty");
                let decoded = decoder.decode(*codec as u8, encoded, *len, &[], &mut out);
                decoded.expect("it was encoded just now");
                u64::from(*len)
            }
        })?;
        self.bytes("decompress", name, decompress, codec);
        Ok(())
    }

    /// A chunk of a table whose last version is known, with some of it on both sides.
    fn deltas(&mut self) -> Result<()> {
        let old = csv(CHUNK_BYTES + (128 << 10), false);
        let new = csv(CHUNK_BYTES + (64 << 10), true).split_off(64 << 10);
        let mut encoded = Vec::new();
        Encoder::new().encode_delta(&old, &new, &mut encoded);
        let codec = Some((Codec::Delta, encoded.len() as f64 / new.len() as f64));
        let compress = self.meter.speed(|| {
            let (mut encoder, mut out) = (Encoder::new(), Vec::new());
            let (old, new) = (&old, &new);
            move || {
                encoder.encode_delta(old, new, &mut out);
                new.len() as u64
            }
        })?;
        self.bytes("compress", "csv-delta", compress, codec);
        let decompress = self.meter.speed(|| {
            let (mut decoder, mut out) = (Decoder::new(), Vec::new());
            let (old, encoded, len) = (&old, &encoded, new.len() as u32);
            move || {
                let bases: &[&[u8]] = &[old];
                let decoded = decoder.decode(Codec::Delta as u8, encoded, len, bases, &mut out);
                decoded.expect("it was encoded just now");
                u64::from(len)
            }
        })?;
        self.bytes("decompress", "csv-delta", decompress, codec);
        Ok(())
    }

    fn sealing(&mut self, bytes: &[u8]) -> Result<()> {
        let chunk = &bytes[..CHUNK_BYTES.min(bytes.len())];
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let sealer = built_in_sealer(suite);
            let seal = self.meter.speed(|| {
                let (mut buffer, mut ordinal, sealer) = (chunk.to_vec(), 0, &sealer);
                move || {
                    ordinal += 1;
                    sealer.seal_slice_in_place(frame_nonce(ordinal), &[], &mut buffer);
                    buffer.len() as u64
                }
            })?;
            self.bytes("seal", cipher_name(suite), seal, None);
            let mut sealed = chunk.to_vec();
            sealer.seal_in_place(frame_nonce(0), &[], &mut sealed);
            let open = self.meter.speed(|| {
                let (mut buffer, sealed, sealer) = (Vec::new(), &sealed, &sealer);
                move || {
                    buffer.clear();
                    buffer.extend_from_slice(sealed);
                    let opened = sealer.open_in_place(frame_nonce(0), &[], &mut buffer, "frame");
                    black_box(opened.expect("it was sealed just now"));
                    (sealed.len() - TAG_LEN) as u64
                }
            })?;
            self.bytes("open", cipher_name(suite), open, None);
        }
        Ok(())
    }

    fn looking_up(&mut self) -> Result<()> {
        let chunks = (self.meter.seconds * 2e6) as usize;
        let (index, ids) = built_in_index(chunks.clamp(2_000, 200_000))?;
        let missing: Vec<ChunkId> = (0..ids.len() as u64).map(|n| chunk_id(n | 1 << 40)).collect();
        let mut shuffled = ids.clone();
        let mut rng = Rng::at(0x1d);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, rng.below(at as u64 + 1) as usize);
        }
        for (of, ids) in
            [("known, in order", &ids), ("known, anywhere", &shuffled), ("new", &missing)]
        {
            let speed = look_up_speed(self.meter, &index, ids)?;
            self.pieces("look up", of, speed);
        }
        Ok(())
    }
}

pub fn look_up_speed(meter: &Meter, index: &Index, ids: &[ChunkId]) -> Result<Speed> {
    meter.speed(|| {
        let mut ids = ids.iter().cycle();
        move || {
            for id in ids.by_ref().take(64) {
                black_box(index.knows(id));
            }
            64
        }
    })
}

pub fn cipher_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes256Gcm => "aes-256-gcm",
        Suite::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

/// With keys that everybody knows.
pub fn built_in_sealer(suite: Suite) -> Sealer {
    let context = Context {
        suite,
        recipient: Recipient::Data,
        epoch: 1,
        repository: RepositoryId([1; 16]),
        session: SessionId([2; 16]),
        salt: [3; 32],
    };
    Sealer::new(&Secret([4; 32]), &context, Label::Frame)
}

fn chunk_id(n: u64) -> ChunkId {
    ChunkId(hash(&n.to_le_bytes()))
}

/// An index of so many chunks in several runs, and their ids in the order of packs.
pub fn built_in_index(chunks: usize) -> Result<(Index, Vec<ChunkId>)> {
    let ids: Vec<ChunkId> = (0..chunks as u64).map(chunk_id).collect();
    let author = IdentityId([9; 16]);
    let pack = |n: usize| {
        let id = PackId(hash(&(n as u64 | 1 << 50).to_le_bytes()));
        PackRow { id, len: 64 << 20, author, class: PackClass::Data }
    };
    let packs = chunks.div_ceil(CHUNKS_PER_PACK);
    let listed = (0..packs).map(|n| (pack(n).id, 64 << 20)).collect();
    let trusted = Trusted { everyone: true, attested: false, authors: Default::default() };
    let index = Index::new(Packs { listed, ..Packs::default() }, trusted, None);
    let in_run = packs.div_ceil(RUNS).max(1);
    for (run, ids) in ids.chunks(in_run * CHUNKS_PER_PACK).enumerate() {
        let mut builder = RunBuilder::new();
        let context = ContextRow { context: [0; CONTEXT_LEN], commit: [0; 32] };
        let context = builder.push_context(context);
        for (nth, ids) in ids.chunks(CHUNKS_PER_PACK).enumerate() {
            let pack = builder.push_pack(pack(run * in_run + nth));
            for (place, id) in ids.iter().enumerate() {
                let (len, stored) = (CHUNK_BYTES as u32, (CHUNK_BYTES + TAG_LEN) as u32);
                let offset = HEADER_LEN as u64 + place as u64 * u64::from(stored);
                let row = ChunkRow { id: *id, offset: 0, len };
                let frame = FrameRow {
                    offset,
                    ordinal: place as u64,
                    stored,
                    plain: len,
                    chunks: 1,
                    bases: 0,
                    context: 0,
                    codec: 0,
                };
                builder.push_frame(pack, context, &frame, &[row], &[]);
            }
        }
        index.add(&ObjectHash(hash(&(run as u64).to_le_bytes())), builder.finish())?;
    }
    Ok((index, ids))
}

#[cfg(test)]
mod tests {
    use super::{built_in_index, chunk_id};

    #[test]
    fn the_built_in_index_knows_its_chunks_and_no_others() {
        let (index, ids) = built_in_index(1_000).unwrap();
        assert!(ids.iter().all(|id| index.knows(id)));
        assert!((0..1_000).all(|n| !index.knows(&chunk_id(n | 1 << 40))));
    }
}
