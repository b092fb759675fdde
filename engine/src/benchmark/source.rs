//! What is to be backed up: counted by a walk that ends when its time is up, sampled all over, and read: as it is
//! found, and once more after the sample's own pages were dropped from the page cache.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::backup::read::LARGE_BYTES;
use crate::benchmark::data::Rng;
use crate::benchmark::line::Sample;
use crate::benchmark::meter::{Meter, join};
use crate::error::{Error, Result};
use crate::sys::buffer::PageBuffer;
use crate::sys::clock::thread_cpu;
use crate::sys::dir::Dir;
use crate::sys::file::{CacheAdvice, advise, is_cached, read_full_at};
use crate::sys::stat::Kind;

/// Large files are sampled in pieces of this.
const PIECE_BYTES: u64 = 8 << 20;
/// Pieces of one file that may be drawn.
const PIECES_MAX: u64 = 256;
/// Samples kept; they are drawn by size, so a few hundred stand for any number of files.
const SAMPLES_MAX: usize = 4096;
const BUFFER_BYTES: usize = 1 << 20;

/// What the walk met.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub files: u64,
    pub dirs: u64,
    pub others: u64,
    pub bytes: u64,
    /// Files below `LARGE_BYTES`, and their bytes.
    pub small: (u64, u64),
    /// Entries that could not be looked at.
    pub unread: u64,
    /// The walk's time was up before its end: there is more.
    pub is_cut_short: bool,
}

/// Reading samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub bytes: u64,
    pub seconds: f64,
    /// Processor time of all threads.
    pub cpu_seconds: f64,
    /// Share that was in the page cache before; `None`: the file system does not say.
    pub cached: Option<f64>,
}

impl Reading {
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }

    /// The disk was really read.
    pub fn is_cold(&self) -> bool {
        self.bytes > 0 && self.cached.is_some_and(|cached| cached < 0.5)
    }

    /// Seconds that the disk takes for a byte: what all threads together waited for.
    pub fn wait_per_byte(&self, threads: usize) -> f64 {
        if self.bytes == 0 || self.cached.is_some_and(|cached| cached > 0.99) {
            return 0.0;
        }
        (self.seconds - self.cpu_seconds / threads as f64).max(0.0) / self.bytes as f64
    }
}

/// Seconds that the disk takes for a byte as things are. What is in the page cache takes none; by that share it is told
/// from what a cold read took, which other load on the processors disturbs far less than a warm one.
pub fn wait_as_found(as_found: &Reading, cold: &Reading, threads: usize) -> f64 {
    match as_found.cached {
        Some(share) if cold.is_cold() => (1.0 - share) * cold.wait_per_byte(threads),
        _ => as_found.wait_per_byte(threads),
    }
}

/// Walks all paths. Samples come in random order.
pub fn walk(paths: &[PathBuf], seconds: f64, meter: &Meter) -> Result<(Source, Vec<Sample>)> {
    let (started, source) = (Instant::now(), Source::default());
    let mut walk = Walk { source, drawn: Drawn::new(), rng: Rng::at(0x5a), started, seconds };
    for path in paths {
        let failed = |source| Error::Source { path: path.clone(), source };
        let found = path.symlink_metadata().map_err(failed)?;
        if !found.is_dir() {
            walk.entry(path, kind_of(&found), found.len());
            continue;
        }
        let mut dirs = Vec::new();
        Dir::open(path).and_then(|dir| walk.dir(&dir, path, &mut dirs)).map_err(failed)?;
        while let Some(path) = walk.draw_dir(&mut dirs) {
            meter.go_on()?;
            if walk.is_over() {
                walk.source.is_cut_short = true;
                break;
            }
            let listed = Dir::open(&path).and_then(|dir| walk.dir(&dir, &path, &mut dirs));
            walk.source.unread += u64::from(listed.is_err());
        }
    }
    let mut samples = walk.drawn.samples.into_vec();
    samples.sort_by(|a, b| b.key.total_cmp(&a.key));
    Ok((walk.source, samples.into_iter().map(|drawn| drawn.sample).collect()))
}

fn kind_of(found: &std::fs::Metadata) -> Kind {
    if found.is_file() { Kind::File } else { Kind::Fifo }
}

struct Walk {
    source: Source,
    drawn: Drawn,
    rng: Rng,
    started: Instant,
    seconds: f64,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.started.elapsed().as_secs_f64() > self.seconds
    }

    /// The next directory: any of those that wait, so that a walk that is cut short has seen a bit of everything.
    fn draw_dir(&mut self, dirs: &mut Vec<PathBuf>) -> Option<PathBuf> {
        if dirs.is_empty() {
            return None;
        }
        let at = self.rng.below(dirs.len() as u64) as usize;
        Some(dirs.swap_remove(at))
    }

    fn dir(&mut self, dir: &Dir, path: &Path, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        self.source.dirs += 1;
        for (n, name) in dir.names()?.iter().enumerate() {
            // A directory may be huge, and far away.
            if n % 256 == 255 && self.is_over() {
                self.source.is_cut_short = true;
                break;
            }
            let below = || path.join(std::ffi::OsStr::from_bytes(name));
            match dir.stat(name) {
                Ok(stat) if stat.kind == Kind::Dir => dirs.push(below()),
                Ok(stat) => self.entry(&below(), stat.kind, stat.size),
                Err(_) => self.source.unread += 1,
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: Kind, size: u64) {
        if kind != Kind::File {
            self.source.others += 1;
            return;
        }
        self.source.files += 1;
        self.source.bytes += size;
        if size < LARGE_BYTES {
            self.source.small.0 += 1;
            self.source.small.1 += size;
        }
        for (offset, len, weight) in pieces(size) {
            self.drawn.offer(path, offset, len, weight, &mut self.rng);
        }
    }
}

/// Offsets and lengths of what of a file may be drawn, each with the bytes that it stands for.
fn pieces(size: u64) -> impl Iterator<Item = (u64, u64, f64)> {
    let count = match size {
        0 => 0,
        1..LARGE_BYTES => 1,
        _ => size.div_ceil(PIECE_BYTES).min(PIECES_MAX),
    };
    let stride = size.checked_div(count).unwrap_or(0);
    (0..count).map(move |n| {
        let offset = n * stride / 4096 * 4096;
        let len = if count == 1 { size } else { PIECE_BYTES.min(size - offset) };
        (offset, len, stride as f64)
    })
}

/// A weighted sample of a stream (Efraimidis and Spirakis, 2006): the largest of keys u^(1/w).
struct Drawn {
    samples: BinaryHeap<OneDrawn>,
}

struct OneDrawn {
    key: f64,
    sample: Sample,
}

impl PartialEq for OneDrawn {
    fn eq(&self, other: &Self) -> bool {
        self.key.total_cmp(&other.key).is_eq()
    }
}

impl Eq for OneDrawn {}

impl PartialOrd for OneDrawn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OneDrawn {
    /// The smallest key on top: it goes first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.key.total_cmp(&self.key)
    }
}

impl Drawn {
    fn new() -> Self {
        Self { samples: BinaryHeap::new() }
    }

    fn offer(&mut self, path: &Path, offset: u64, len: u64, weight: f64, rng: &mut Rng) {
        // The logarithm of the key: the key itself would be 1 for all large weights.
        let key = rng.unit().ln() / weight;
        let full = self.samples.len() == SAMPLES_MAX;
        if full && self.samples.peek().is_some_and(|least| least.key >= key) {
            return;
        }
        if full {
            self.samples.pop();
        }
        let (path, len) = (path.to_owned(), len as usize);
        self.samples.push(OneDrawn { key, sample: Sample { path, offset, len, samples: None } });
    }
}

/// The first samples, up to so many bytes.
pub fn first(samples: &[Sample], bytes: u64) -> &[Sample] {
    let mut sum = 0;
    let end = samples.iter().position(|sample| {
        let enough = sum >= bytes;
        sum += sample.len as u64;
        enough
    });
    &samples[..end.unwrap_or(samples.len())]
}

/// Reads samples with `threads` until the time is up. `evict`: their pages are dropped from the page cache first.
pub fn read(samples: &[Sample], evict: bool, seconds: f64, meter: &Meter) -> Result<Reading> {
    meter.go_on()?;
    let opened: Vec<(File, &Sample)> =
        samples.iter().filter_map(|s| Some((File::open(&s.path).ok()?, s))).take(1024).collect();
    if evict {
        for (file, sample) in &opened {
            advise(file, sample.offset, sample.len as u64, CacheAdvice::DontNeed);
        }
    }
    let probes: Vec<Option<bool>> = opened.iter().flat_map(|(file, s)| probe(file, s)).collect();
    let known = probes.iter().flatten().count();
    let cached = probes.iter().flatten().filter(|cached| **cached).count();
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    let work = || {
        let (mut buffer, cpu, mut bytes) = (PageBuffer::default(), thread_cpu(), 0);
        while let Some((file, sample)) = opened.get(next.fetch_add(1, Ordering::Relaxed)) {
            for at in (0..sample.len).step_by(BUFFER_BYTES) {
                let room = BUFFER_BYTES.min(sample.len - at);
                let read = read_full_at(file, sample.offset + at as u64, buffer.room(room));
                bytes += read.unwrap_or(0) as u64;
            }
            if started.elapsed().as_secs_f64() > seconds || meter.watch.cancelled() {
                break;
            }
        }
        (bytes, (thread_cpu() - cpu).as_secs_f64())
    };
    let done: Vec<(u64, f64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..meter.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(join).collect()
    });
    meter.go_on()?;
    Ok(Reading {
        bytes: done.iter().map(|(bytes, _)| bytes).sum(),
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: done.iter().map(|(_, cpu)| cpu).sum(),
        cached: (known > 0).then(|| cached as f64 / known as f64),
    })
}

/// At its beginning and at its middle.
fn probe(file: &File, sample: &Sample) -> [Option<bool>; 2] {
    [0, sample.len as u64 / 2].map(|at| is_cached(file, sample.offset + at))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Drawn, Reading, Rng, first, pieces, wait_as_found};

    #[test]
    fn pieces_cover_small_files_whole_and_large_ones_all_over() {
        assert_eq!(pieces(0).count(), 0);
        assert_eq!(pieces(5).collect::<Vec<_>>(), [(0, 5, 5.0)]);
        let large: Vec<_> = pieces(100 << 20).collect();
        assert_eq!(large.len(), 13);
        assert!(large.iter().all(|(at, len, _)| at + len <= 100 << 20 && *len > 7 << 20));
        assert_eq!(pieces(1 << 50).count(), 256);
        let weight: f64 = pieces(1 << 50).map(|(.., weight)| weight).sum();
        assert_eq!(weight, (1u64 << 50) as f64);
    }

    #[test]
    fn what_is_cached_does_not_wait_for_the_disk() {
        let reading = |cached| Reading { bytes: 1000, seconds: 3.0, cpu_seconds: 2.0, cached };
        let cold = reading(Some(0.0));
        // Two threads that compute for a second each, of three.
        assert!((cold.wait_per_byte(2) - 0.002).abs() < 1e-9);
        let wait = |cached| wait_as_found(&reading(cached), &cold, 2);
        assert!((wait(Some(0.75)) - 0.0005).abs() < 1e-9);
        assert_eq!(wait(Some(1.0)), 0.0);
        assert!((wait(None) - 0.002).abs() < 1e-9, "what is not known is taken as measured");
        let warm = reading(Some(1.0));
        assert_eq!(wait_as_found(&warm, &warm, 2), 0.0, "a disk that is memory");
    }

    #[test]
    fn what_is_drawn_stands_for_bytes_not_for_files() {
        let (mut drawn, mut rng) = (Drawn::new(), Rng::at(1));
        for n in 0..20_000 {
            // Half of the files are nine times as long as the others.
            let len = if n % 2 == 0 { 9_000 } else { 1_000 };
            drawn.offer(Path::new("x"), 0, len, len as f64, &mut rng);
        }
        assert_eq!(drawn.samples.len(), super::SAMPLES_MAX);
        let samples: Vec<_> = drawn.samples.into_iter().map(|drawn| drawn.sample).collect();
        let long = samples.iter().filter(|sample| sample.len == 9_000).count();
        let share = long as f64 / samples.len() as f64;
        assert!((0.8..0.95).contains(&share), "{share}");
        assert_eq!(first(&samples, 1).len(), 1);
        assert!(first(&samples, u64::MAX).len() == samples.len());
    }
}
