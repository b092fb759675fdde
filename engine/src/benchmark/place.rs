//! Where backups go and restores come from: writing as packs are written, reading packs that are there, and writing
//! restored files. Nothing is published, nothing stays.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::benchmark::data::{Rng, noise};
use crate::benchmark::line::Sample;
use crate::benchmark::meter::{Meter, Speed, join};
use crate::benchmark::scratch::Scratch;
use crate::benchmark::source::{Reading, read};
use crate::error::Result;
use crate::format::codec::Decoder;
use crate::format::id::ChunkId;
use crate::repo::Repo;
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::Index;
use crate::store::Store;
use crate::sys::buffer::PageBuffer;
use crate::sys::clock::thread_cpu;
use crate::sys::file::write_all_at;
use crate::sys::place::PlaceDir;

/// About a frame.
const WRITE_BYTES: usize = 1 << 20;
/// A restored file: long enough that to create it does not count.
const FILE_BYTES: u64 = 128 << 20;
/// One file for one thread's speed, two for that of all. None is removed before the end: pages that
/// were freed right before cost a tenth of new ones where a host lends them to a virtual machine, and a
/// restore has no such pages to hope for.
const FILES: [&[u8]; 3] = [b"one", b"two", b"three"];
const LEAD_BYTES: usize = 1000;
/// Of packs, as a restore reads them.
const PIECE_BYTES: u64 = 8 << 20;
const PIECES_MAX: usize = 64;

/// Writing packs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writing {
    pub bytes: u64,
    /// Into the file, and of that on the processor.
    pub write_seconds: f64,
    pub cpu_seconds: f64,
    /// Making it durable.
    pub sync_seconds: f64,
}

impl Writing {
    /// Bytes that become durable in a second.
    pub fn sync_bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.sync_seconds.max(1e-9)
    }

    /// All of it, one after the other.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / (self.sync_seconds + self.write_seconds).max(1e-9)
    }
}

/// Writes files of a pack's length as the packer does, makes them durable, and drops them unnamed.
pub fn write(store: &dyn Store, pack_bytes: u64, seconds: f64, meter: &Meter) -> Result<Writing> {
    let frame = noise(WRITE_BYTES.min(pack_bytes as usize));
    let (started, mut writing) = (Instant::now(), Writing::default());
    while writing.bytes == 0 || started.elapsed().as_secs_f64() < seconds {
        meter.go_on()?;
        let mut staged = store.stage()?;
        let (clock, cpu) = (Instant::now(), thread_cpu());
        let mut len = 0;
        while len < pack_bytes {
            meter.go_on()?;
            staged.write(&frame)?;
            len += frame.len() as u64;
            // A slow disk need not fill a pack.
            if started.elapsed().as_secs_f64() > 2.0 * seconds {
                break;
            }
        }
        writing.bytes += len;
        writing.write_seconds += clock.elapsed().as_secs_f64();
        writing.cpu_seconds += (thread_cpu() - cpu).as_secs_f64();
        let clock = Instant::now();
        staged.sync()?;
        writing.sync_seconds += clock.elapsed().as_secs_f64();
    }
    Ok(writing)
}

/// Writing restored files, in processor time.
pub fn write_files(scratch: &Scratch, meter: &Meter) -> Result<Speed> {
    let folder = scratch.folder("written")?;
    let one = write_rate(&folder, &FILES[..1], 1, meter).map_err(scratch.failed())?;
    let all = match meter.threads.min(meter.cores) {
        1 => one,
        threads => write_rate(&folder, &FILES[1..], threads, meter).map_err(scratch.failed())?,
    };
    std::fs::remove_dir_all(&folder).map_err(scratch.failed())?;
    Ok(Speed { one, all })
}

/// All threads write one file, as they do when a large one is restored; then the next.
fn write_rate(
    folder: &Path,
    names: &[&[u8]],
    threads: usize,
    meter: &Meter,
) -> std::io::Result<f64> {
    let dir = PlaceDir::open_root(folder, false)?;
    let bytes = noise(WRITE_BYTES);
    let started = Instant::now();
    let (mut done, mut spent) = (0, 0.0);
    for name in names {
        if done > 0 && started.elapsed().as_secs_f64() >= meter.seconds {
            break;
        }
        let (file, at) = (dir.create_file(name)?, AtomicU64::new(0));
        let run = || -> std::io::Result<f64> {
            let mut buffer = PageBuffer::default();
            // Where in a buffer a chunk lies is anyone's guess.
            let chunk = &mut buffer.room(LEAD_BYTES + bytes.len())[LEAD_BYTES..];
            chunk.copy_from_slice(&bytes);
            let cpu = thread_cpu();
            loop {
                let at = at.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                let is_over = at > 0 && started.elapsed().as_secs_f64() >= meter.seconds;
                if at >= FILE_BYTES || is_over {
                    return Ok((thread_cpu() - cpu).as_secs_f64());
                }
                match write_all_at(&file, at, chunk) {
                    // What was written says enough.
                    Err(error) if at + done > 0 && error.kind() == ErrorKind::StorageFull => {
                        return Ok((thread_cpu() - cpu).as_secs_f64());
                    }
                    written => written?,
                }
            }
        };
        let spans: Vec<std::io::Result<f64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(join).collect()
        });
        done += file.metadata()?.len();
        spent += spans.into_iter().sum::<std::io::Result<f64>>()?;
    }
    Ok(done as f64 * threads as f64 / spent.max(1e-9))
}

/// Pieces of packs all over the repository's folder.
pub fn pack_samples(repo: &Repo, folder: &Path) -> Result<Vec<Sample>> {
    let mut packs = Vec::new();
    repo.store().list("packs", &mut |name, len| packs.push((name, len)))?;
    let mut rng = Rng::at(0xac);
    let draw = |_| -> Option<Sample> {
        let (name, len) = packs.get(rng.below(packs.len() as u64) as usize)?;
        let pieces = len.div_ceil(PIECE_BYTES).max(1);
        let offset = rng.below(pieces) * PIECE_BYTES;
        let (path, len) = (folder.join(name.as_str()), PIECE_BYTES.min(len - offset) as usize);
        Some(Sample { path, offset, len, samples: None })
    };
    let mut drawn: Vec<Sample> = (0..PIECES_MAX.min(packs.len() * 4)).filter_map(draw).collect();
    drawn.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    drawn.dedup_by(|a, b| (&a.path, a.offset) == (&b.path, b.offset));
    Ok(drawn)
}

/// Reading packs: as found, then cold.
pub fn read_packs(samples: &[Sample], seconds: f64, meter: &Meter) -> Result<(Reading, Reading)> {
    let found = read(samples, false, seconds, meter)?;
    Ok((found, read(samples, true, seconds, meter)?))
}

/// What it takes to undo what is stored, measured on frames all over a repository. Processor time of one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    pub frames: u64,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    /// Fetch, open and decode.
    pub decode_seconds: f64,
    pub verify_seconds: f64,
}

/// Frames that cannot be read are passed over: `check` is there to find them.
pub fn stored_frames(repo: &Repo, index: &Index, seconds: f64, meter: &Meter) -> Result<Stored> {
    let (key, fetcher) = (repo.id_key()?, Fetcher::new(repo, index));
    let segments = index.segments();
    let (mut decoder, mut rng) = (Decoder::new(), Rng::at(0xf7));
    let (started, mut stored) = (Instant::now(), Stored::default());
    let total: u64 = segments.iter().map(|segment| u64::from(segment.run().len())).sum();
    for _ in 0..total.min(10_000) {
        meter.go_on()?;
        if stored.frames > 0 && started.elapsed().as_secs_f64() > seconds {
            break;
        }
        let mut at = rng.below(total);
        let id = segments.iter().find_map(|segment| {
            let len = u64::from(segment.run().len());
            let found = segment.run().ids().get(at as usize).copied();
            at = at.saturating_sub(len);
            found
        });
        let Some(copy) = id.and_then(|id| index.copies(&ChunkId(id)).pop()) else {
            continue;
        };
        let cpu = thread_cpu();
        let Ok(plain) = fetcher.frame(&FrameAt::of(&copy), &mut decoder) else { continue };
        let decoded = thread_cpu();
        std::hint::black_box(key.id(&plain));
        stored.decode_seconds += (decoded - cpu).as_secs_f64();
        stored.verify_seconds += (thread_cpu() - decoded).as_secs_f64();
        stored.frames += 1;
        stored.plain_bytes += plain.len() as u64;
        stored.stored_bytes += u64::from(copy.place.frame.stored);
    }
    Ok(stored)
}
