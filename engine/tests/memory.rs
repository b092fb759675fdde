//! The budget of `docs/performance.md` ("Memory"), held by backup and restore while the store stands
//! still: sources go on until nothing can, and what the pipeline then holds is counted, byte by byte,
//! by an allocator of this binary's own. (What C code allocates is not seen here: contexts of zstd,
//! about 3 MiB a thread, one of deltas 4 MiB more while it runs.)
//!
//! One test, as all of the process is counted.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::slot::Unlock;
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, LocalStore, Op};
use strongroom::watch::Tally;

use support::{KEY, is_quiet, memory_dir, noise};

/// Frames held back until a pack is worth it, what runs ahead, rows of open packs, the journal.
const IN_SHARED: usize = 16 << 20;
/// A chunk's private copy, encoded, sealed, opened and decoded again: 1.5 MiB each, and a scratch.
const COPIES: usize = 9 << 20;
/// The same of 16-bit samples, with the numeric filter's buffers.
const SAMPLES: usize = 10 << 20;
/// More workers than this take turns with what they store chunks with.
const TOOLS_MAX: usize = 16;
/// And no more than this restore.
const WORKERS_MAX: usize = 21;
/// Small files, of all workers; and seven bundles: what a bundle becomes is smaller than a chunk.
const SMALL_ALL: usize = 32 << 20;
const BUNDLES: usize = 8 << 20;
/// Windows of standard input.
const STREAM: usize = 64 << 20;
/// Decoded frames with bases, for all; and those of one chunk and one bundle.
const BASES: usize = 80 << 20;
const DELTA: usize = 5 << 20;
/// A batch of pieces, and decoded trees and bases.
const BACK_SHARED: usize = 48 << 20;
/// A range as it was read, a frame, its bases.
const BACK: usize = 13 << 20;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: everything is the system allocator's; the layouts are passed on as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are those that this call needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        grown(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A store's slowness: closed, it lets pass what it is told to, and no more.
#[derive(Default)]
struct Gate {
    state: Mutex<Passage>,
    moved: Condvar,
}

#[derive(Default)]
struct Passage {
    closed: bool,
    allowed: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        while state.closed && state.allowed == 0 {
            state = self.moved.wait(state).unwrap();
        }
        state.allowed = state.allowed.saturating_sub(1);
    }

    fn set(&self, closed: bool, allowed: usize) {
        *self.state.lock().unwrap() = Passage { closed, allowed };
        self.moved.notify_all();
    }
}

/// The most that is allocated at a time while `run` runs, beyond what was before. The gate is opened
/// a little whenever nothing moves any more, and for good after some rounds.
fn peak_of(gate: &Gate, run: impl FnOnce()) -> usize {
    const ROUNDS: usize = 6;
    let done = AtomicBool::new(false);
    gate.set(true, 0);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                let mut quiet = 0;
                while quiet < 3 && !done.load(Ordering::Relaxed) {
                    let live = LIVE.load(Ordering::Relaxed);
                    let still = is_quiet() && LIVE.load(Ordering::Relaxed) == live;
                    quiet = if still { quiet + 1 } else { 0 };
                    std::thread::yield_now();
                }
                gate.set(true, 2 << round.min(6));
            }
            gate.set(false, 0);
        });
        run();
        done.store(true, Ordering::Relaxed);
    });
    PEAK.load(Ordering::Relaxed) - before
}

struct Bench {
    folder: tempfile::TempDir,
    gate: Arc<Gate>,
    threads: usize,
}

impl Bench {
    /// An ordinary repository: chunks of 1 MiB, packs of 64 MiB.
    fn new(threads: usize) -> Self {
        let bench = Self { folder: memory_dir(), gate: Arc::default(), threads };
        let store = LocalStore::create(&bench.path("repository")).unwrap();
        let env = Env::system(threads);
        init(Arc::new(store), Unlock::KeyFile(&KEY), &InitOptions::default(), &env).unwrap();
        std::fs::create_dir(bench.path("cache")).unwrap();
        std::fs::create_dir(bench.path("source")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path("source").join(name), bytes).unwrap();
    }

    fn open(&self) -> Repo {
        let gate = self.gate.clone();
        let store = FaultyStore::new(
            Arc::new(LocalStore::open(&self.path("repository")).unwrap()),
            move |_, op, name| {
                let slow = match op {
                    Op::StageWrite | Op::StageCommit => true,
                    Op::GetRange => name.starts_with("packs/"),
                    _ => false,
                };
                if slow {
                    gate.pass();
                }
                Fault::None
            },
        );
        let env = Env::system(self.threads);
        Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), Some(&self.path("cache")), &env).unwrap()
    }

    fn back_up(&self, what: &str, budget: usize) {
        let repo = self.open();
        let paths = [self.path("source")];
        let tally = Tally::default();
        let peak = peak_of(&self.gate, || {
            backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &tally).unwrap();
        });
        self.judge(what, peak, budget);
    }

    fn back_up_stream(&self, what: &str, bytes: u64, budget: usize) {
        let repo = self.open();
        let tally = Tally::default();
        let peak = peak_of(&self.gate, || {
            let mut reader = blake3::Hasher::new().finalize_xof().take(bytes);
            let (name, finish) = (b"stream".as_slice(), &mut || Ok(None));
            let source = Source::Stream { name, reader: &mut reader, finish };
            let report = backup::run(&repo, source, &BackupOptions::default(), &tally).unwrap();
            assert_eq!(report.counts.bytes, bytes);
        });
        self.judge(what, peak, budget);
    }

    fn restore(&self, what: &str, budget: usize) {
        let repo = self.open();
        let snapshot = repo.find_snapshot("latest").unwrap();
        let target = self.path("target");
        let tally = Tally::default();
        let source = self.path("source").canonicalize().unwrap();
        let peak = peak_of(&self.gate, || {
            let path = Some(source.as_os_str().as_encoded_bytes());
            let options = RestoreOptions::default();
            restore::run(&repo, &snapshot, path, &target, &options, &tally).unwrap();
        });
        self.judge(what, peak, budget);
        same(&source, &target);
        std::fs::remove_dir_all(target).unwrap();
    }

    fn judge(&self, what: &str, peak: usize, budget: usize) {
        let (peak, budget) = (peak >> 20, budget >> 20);
        eprintln!("{what}, {} threads: {peak} MiB of {budget}", self.threads);
        assert!(peak <= budget, "{what}, {} threads: {peak} MiB of {budget}", self.threads);
    }

    fn clear(&self) {
        std::fs::remove_dir_all(self.path("source")).unwrap();
        std::fs::create_dir(self.path("source")).unwrap();
    }
}

fn same(a: &Path, b: &Path) {
    let names = |path: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b));
    for name in names(a) {
        assert!(std::fs::read(a.join(&name)).unwrap() == std::fs::read(b.join(&name)).unwrap());
    }
}

/// Rows of a table; some of them change from night to night.
fn rows(night: u64, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    for row in 0u64.. {
        if text.len() >= bytes {
            break;
        }
        let changed = if row % 50 == 0 { night } else { 0 };
        let value = blake3::hash(&(row ^ changed << 40).to_le_bytes());
        text.extend_from_slice(format!("{row};{};{value}\n", row % 7).as_bytes());
    }
    text
}

/// 16-bit samples of a smooth field under noise, as scanners give them: what the numeric codec is for.
fn slices(seed: u64, bytes: usize) -> Vec<u8> {
    let noise = noise(seed, bytes / 2);
    let sample = |(n, noise): (usize, &u8)| {
        let (x, y) = (n % 512, n / 512);
        (900 + (x * x / 300 + y * 3) as u16 % 1500 + u16::from(noise % 32)).to_le_bytes()
    };
    noise.iter().enumerate().flat_map(sample).collect()
}

#[test]
fn what_is_held_while_the_store_stands_still_is_bounded() {
    for threads in [2, 16, 64] {
        let bench = Bench::new(threads);
        let way_in = |each: usize| IN_SHARED + threads.min(TOOLS_MAX) * each;
        let way_back = BACK_SHARED + threads.min(WORKERS_MAX) * BACK;
        for n in 0..3 {
            bench.write(&format!("large {n}"), &noise(n, 24 << 20));
        }
        bench.back_up("large files in", way_in(COPIES));
        bench.restore("large files back", way_back);
        bench.clear();
        for n in 0..3 {
            bench.write(&format!("images {n}"), &slices(n, 10 << 20));
        }
        bench.back_up("images in", way_in(SAMPLES));
        if threads > 16 {
            continue;
        }
        bench.restore("images back", way_back);
        bench.clear();
        for n in 0..2_500 {
            bench.write(&format!("small {n}"), &noise(100 + n, 2_000 + n as usize));
        }
        bench.back_up("small files in", way_in(BUNDLES) + SMALL_ALL.min(threads * (4 << 20)));
        bench.restore("small files back", way_back);
        bench.clear();
        bench.back_up_stream("standard input", 120 << 20, way_in(COPIES) + STREAM);
        for night in 1..3 {
            bench.write("table", &rows(night, 12 << 20));
            for n in 0..40 {
                bench.write(&format!("small table {n}"), &rows(night ^ n << 8, 150_000));
            }
            let budget = way_in(COPIES + BUNDLES + DELTA) + BASES;
            bench.back_up(&format!("night {night} of tables in"), budget);
        }
        bench.restore("tables with deltas back", way_back);
    }
}
