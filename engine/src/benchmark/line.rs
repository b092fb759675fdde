//! One worker's way in and back over samples of real or built-in files, by the functions that backup and restore call,
//! with a stopwatch between the stages. It keeps nothing: packs are files without a name in the store, and gone when
//! the next one begins.
//!
//! What it leaves out: directories, journal and index (`rehearse` measures those), what is known already, and deltas.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backup::chunk::Chunker;
use crate::backup::cut::{Cut, Cutter};
use crate::backup::read::LARGE_BYTES;
use crate::backup::{bundle_limits, chunker_of};
use crate::benchmark::meter::{Meter, join};
use crate::error::{Named, Result};
use crate::format::codec::{Decoder, Encoder, Samples};
use crate::format::id::IdKey;
use crate::format::pack::ChunkRow;
use crate::format::seal::{Recipient, TAG_LEN};
use crate::repo::Repo;
use crate::repo::session::{Encoded, Session};
use crate::store::{Staged, Store};
use crate::sys::buffer::PageBuffer;
use crate::sys::clock::thread_cpu;
use crate::sys::file::read_full_at;
use crate::sys::map::GuardedMap;
use crate::sys::meta::xattrs_of;
use crate::sys::stat::fstat;

/// Room that unnamed packs of all threads may take.
const PACKS_BYTES: u64 = 512 << 20;

/// A piece of a file, or all of it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub path: PathBuf,
    pub offset: u64,
    pub len: usize,
    /// What is known of the numbers in it although it has no header.
    pub samples: Option<Samples>,
}

/// In the order of the way in, proof included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    Read,
    Cut,
    Identify,
    Copy,
    Encode,
    Seal,
    Open,
    Decode,
    Verify,
    Name,
    Write,
}

pub const STAGES: [Stage; 11] = [
    Stage::Read,
    Stage::Cut,
    Stage::Identify,
    Stage::Copy,
    Stage::Encode,
    Stage::Seal,
    Stage::Open,
    Stage::Decode,
    Stage::Verify,
    Stage::Name,
    Stage::Write,
];

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Cut => "find cuts",
            Stage::Identify => "identify",
            Stage::Copy => "copy",
            Stage::Encode => "compress",
            Stage::Seal => "seal",
            Stage::Open => "open",
            Stage::Decode => "decompress",
            Stage::Verify => "verify",
            Stage::Name => "name packs",
            Stage::Write => "write packs",
        }
    }
}

/// What became of samples, and the processor time it took. Sums over threads.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    pub files: u64,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    pub chunks: u64,
    /// Plain bytes by codec.
    pub by_codec: [u64; 4],
    seconds: [f64; STAGES.len()],
    bytes: [u64; STAGES.len()],
}

impl Spent {
    /// Of frames that are there already; their stages are to be added.
    pub fn of_stored(frames: u64, plain_bytes: u64, stored_bytes: u64) -> Self {
        Self { chunks: frames, plain_bytes, stored_bytes, ..Self::default() }
    }

    pub fn seconds(&self, stage: Stage) -> f64 {
        self.seconds[stage as usize]
    }

    /// Bytes that went through a stage.
    pub fn bytes(&self, stage: Stage) -> u64 {
        self.bytes[stage as usize]
    }

    /// Of one thread, for a byte of the source.
    pub fn per_byte(&self, stage: Stage) -> f64 {
        self.seconds(stage) / self.plain_bytes.max(1) as f64
    }

    pub fn stored_share(&self) -> f64 {
        self.stored_bytes as f64 / self.plain_bytes.max(1) as f64
    }

    pub fn add(&mut self, stage: Stage, seconds: f64, bytes: u64) {
        self.seconds[stage as usize] += seconds;
        self.bytes[stage as usize] += bytes;
    }

    fn merge(&mut self, other: &Spent) {
        self.files += other.files;
        self.plain_bytes += other.plain_bytes;
        self.stored_bytes += other.stored_bytes;
        self.chunks += other.chunks;
        for (sum, n) in self.by_codec.iter_mut().zip(other.by_codec) {
            *sum += n;
        }
        for stage in STAGES {
            self.add(stage, other.seconds(stage), other.bytes(stage));
        }
    }
}

/// What all lines of a measurement share.
#[derive(Clone, Copy)]
pub struct Plant<'p> {
    /// Whose keys, chunker and pack size they use.
    pub repo: &'p Repo,
    pub session: &'p Session,
    /// Where packs are written, and never published.
    pub store: &'p dyn Store,
}

/// Works `samples` off with `threads` until the time is up, from the first one again where they do not last: `again`.
pub fn run(
    plant: Plant,
    samples: &[Sample],
    threads: usize,
    seconds: f64,
    again: bool,
    meter: &Meter,
) -> Result<Spent> {
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    let work = || {
        let mut line = Line::new(plant, threads)?;
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let over = place >= threads && started.elapsed().as_secs_f64() >= seconds;
            if over || samples.is_empty() || (!again && place >= samples.len()) {
                break;
            }
            meter.go_on()?;
            line.pass(&samples[place % samples.len()])?;
        }
        line.flush()?;
        Ok(line.spent)
    };
    let mut sum = Spent::default();
    let all: Vec<Result<Spent>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(join).collect()
    });
    for spent in all {
        sum.merge(&spent?);
    }
    Ok(sum)
}

/// Small chunks on their way into one frame.
#[derive(Default)]
struct Bundle {
    samples: Option<Samples>,
    plain: Vec<u8>,
    rows: Vec<ChunkRow>,
}

struct Line<'p> {
    plant: Plant<'p>,
    key: &'p IdKey,
    chunker: Chunker,
    bundle_below_bytes: usize,
    bundle_bytes: usize,
    encoder: Encoder,
    decoder: Decoder,
    file: PageBuffer,
    private: Vec<u8>,
    encoded: Vec<u8>,
    opened: Vec<u8>,
    proof: Vec<u8>,
    bundle: Bundle,
    pack: Option<(Box<dyn Staged>, u64)>,
    pack_bytes: u64,
    hasher: blake3::Hasher,
    spent: Spent,
    clock: Duration,
}

impl<'p> Line<'p> {
    fn new(plant: Plant<'p>, threads: usize) -> Result<Self> {
        let (bundle_below_bytes, bundle_bytes) = bundle_limits(plant.repo.file());
        Ok(Self {
            plant,
            key: plant.repo.id_key()?,
            chunker: chunker_of(plant.repo.file()),
            bundle_below_bytes,
            bundle_bytes,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            file: PageBuffer::default(),
            private: Vec::new(),
            encoded: Vec::new(),
            opened: Vec::new(),
            proof: Vec::new(),
            bundle: Bundle::default(),
            pack: None,
            pack_bytes: plant.repo.file().pack_size.min(PACKS_BYTES / threads as u64),
            hasher: blake3::Hasher::new(),
            spent: Spent::default(),
            clock: Duration::ZERO,
        })
    }

    fn lap(&mut self, stage: Stage, bytes: usize) {
        let now = thread_cpu();
        self.spent.add(stage, (now - self.clock).as_secs_f64(), bytes as u64);
        self.clock = now;
    }

    /// A sample that cannot be read, or that is gone, is passed over: a backup would report it.
    fn pass(&mut self, sample: &Sample) -> Result<()> {
        self.clock = thread_cpu();
        let Ok(file) = File::open(&sample.path) else { return Ok(()) };
        if (sample.len as u64) < LARGE_BYTES {
            let mut buffer = std::mem::take(&mut self.file);
            let read = read_small(&file, sample, &mut buffer).unwrap_or(0);
            self.lap(Stage::Read, read);
            let done = self.chunks(buffer.room(read), sample, true);
            self.file = buffer;
            return done;
        }
        let Ok(map) = GuardedMap::map(&file, sample.offset, sample.len) else { return Ok(()) };
        self.lap(Stage::Read, map.len());
        self.chunks(&map, sample, false)?;
        drop(map);
        self.lap(Stage::Read, 0);
        Ok(())
    }

    fn chunks(&mut self, bytes: &[u8], sample: &Sample, is_private: bool) -> Result<()> {
        self.spent.files += 1;
        self.spent.plain_bytes += bytes.len() as u64;
        let mut rest = bytes;
        let mut cutter = match sample.offset {
            0 => Cutter::new(self.chunker, rest),
            _ => Cutter::plain(self.chunker),
        };
        while let Some(Cut { len, samples }) = cutter.next(rest, true) {
            self.lap(Stage::Cut, len);
            let (chunk, after) = rest.split_at(len);
            rest = after;
            self.spent.chunks += 1;
            self.chunk(chunk, samples.or(sample.samples), is_private)?;
        }
        Ok(())
    }

    /// As `backup::identify` and `backup::encode` do it with a chunk that is new.
    fn chunk(&mut self, chunk: &[u8], samples: Option<Samples>, is_private: bool) -> Result<()> {
        if chunk.len() < self.bundle_below_bytes {
            if self.bundle.samples != samples {
                self.flush()?;
                self.bundle.samples = samples;
            }
            let offset = self.bundle.plain.len() as u32;
            self.bundle.plain.extend_from_slice(chunk);
            self.lap(Stage::Copy, chunk.len());
            let id = self.key.id(&self.bundle.plain[offset as usize..]);
            self.bundle.rows.push(ChunkRow { id, offset, len: chunk.len() as u32 });
            self.lap(Stage::Identify, chunk.len());
            return if self.bundle.plain.len() >= self.bundle_bytes {
                self.flush()
            } else {
                Ok(())
            };
        }
        let row = ChunkRow { id: self.key.id(chunk), offset: 0, len: chunk.len() as u32 };
        self.lap(Stage::Identify, chunk.len());
        if is_private {
            return self.frame(vec![row], chunk, samples);
        }
        let mut private = std::mem::take(&mut self.private);
        private.clear();
        private.extend_from_slice(chunk);
        self.lap(Stage::Copy, chunk.len());
        let framed = self.frame(vec![row], &private, samples);
        self.private = private;
        framed
    }

    fn flush(&mut self) -> Result<()> {
        let mut bundle = std::mem::take(&mut self.bundle);
        if !bundle.rows.is_empty() {
            self.clock = thread_cpu();
            let rows = std::mem::take(&mut bundle.rows);
            self.frame(rows, &bundle.plain, bundle.samples)?;
        }
        bundle.plain.clear();
        self.bundle = bundle;
        Ok(())
    }

    fn frame(&mut self, rows: Vec<ChunkRow>, plain: &[u8], samples: Option<Samples>) -> Result<()> {
        let session = self.plant.session;
        let (codec, encoded) = self.encoder.encode(plain, samples, &mut self.encoded);
        let now = thread_cpu();
        self.spent.add(Stage::Encode, (now - self.clock).as_secs_f64(), plain.len() as u64);
        self.clock = now;
        let mut bytes = Vec::with_capacity(encoded.len() + TAG_LEN);
        bytes.extend_from_slice(encoded);
        self.lap(Stage::Copy, bytes.len());
        let plain_len = plain.len() as u32;
        let encoded = Encoded { codec, bytes, plain_len, chunks: rows, bases: Vec::new() };
        let frame = session.seal(Recipient::Data, encoded);
        self.lap(Stage::Seal, frame.stored.len());
        let mut opened = std::mem::take(&mut self.opened);
        let len = session.open(&frame, &mut opened)?.len();
        self.lap(Stage::Open, len);
        let (codec_number, encoded) = (codec as u8, &opened[..len]);
        let decoder = &mut self.decoder;
        let decoded =
            decoder.decode_in_place(codec_number, encoded, plain_len, &[], &mut self.proof);
        let decoded = decoded.named("frame")?;
        let now = thread_cpu();
        self.spent.add(Stage::Decode, (now - self.clock).as_secs_f64(), plain.len() as u64);
        self.clock = now;
        for row in &frame.chunks {
            let chunk = &decoded[row.offset as usize..][..row.len as usize];
            // The source may change meanwhile; what a backup makes of that is its own affair.
            std::hint::black_box(self.key.id(chunk) == row.id);
        }
        self.lap(Stage::Verify, plain.len());
        self.opened = opened;
        self.spent.by_codec[codec as usize] += plain.len() as u64;
        self.spent.stored_bytes += frame.stored.len() as u64;
        self.write(&frame.stored)
    }

    /// As `repo::pack_file` does it, up to its end.
    fn write(&mut self, frame: &[u8]) -> Result<()> {
        self.hasher.update(frame);
        self.lap(Stage::Name, frame.len());
        let pack_bytes = self.pack_bytes;
        if self.pack.as_ref().is_none_or(|(_, len)| len + frame.len() as u64 > pack_bytes) {
            self.pack = None;
            self.pack = Some((self.plant.store.stage()?, 0));
            self.clock = thread_cpu();
        }
        let (staged, len) = self.pack.as_mut().expect("just begun");
        staged.write(frame)?;
        *len += frame.len() as u64;
        self.lap(Stage::Write, frame.len());
        Ok(())
    }
}

fn read_small(file: &File, sample: &Sample, buffer: &mut PageBuffer) -> io::Result<usize> {
    let stat = fstat(file)?;
    let _ = xattrs_of(file);
    let room = buffer.room(sample.len.min(stat.size as usize) + 1);
    let read = read_full_at(file, sample.offset, room)?;
    fstat(file).map(|_| read.min(sample.len))
}
