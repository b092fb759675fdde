//! The dedup index at sizes that nobody backs up for a test: generated index runs go into a client's cache as fetched
//! ones would, then the index is opened from there and asked. Prints a row of a Markdown table: time to fill and to
//! open, look-ups a second on one core, anonymous memory at most, bytes on disk.
//! `cargo run --release -p strongroom-bench --bin index_scale -- CHUNKS RUNS FOLDER [keep] [cold]`; the folder is made,
//! and deleted in the end, or kept, and used as it is by the next one that says so. It is opened twice: the first may
//! find something to merge, as after runs of other writers were fetched; the second is how it is opened when nothing
//! has changed; `cold`: and once more with nothing of it in the page cache. Store, keys and network are left out: what
//! is fetched is made here. Times of look-ups are CPU time.

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};
use strongroom::format::id::{ChunkId, IdentityId, ObjectHash, PackId};
use strongroom::format::index::{PackRow, RunBuilder};
use strongroom::format::pack::{ChunkRow, ContextRow, FrameRow, PackClass};
use strongroom::repo::lookup::{Index, Packs, Trusted};

const CHUNK_BYTES: u32 = 1 << 20;
const CHUNKS_PER_PACK: u64 = 63;
const PACK_BYTES: u64 = 64 << 20;
const AUTHOR: IdentityId = IdentityId([1; 16]);
/// Look-ups of each kind.
const LOOKUPS: u64 = 4 << 20;
/// Ids are made in batches, so that making them is not measured.
const BATCH: u64 = 1 << 14;

/// As good as a hash, and much cheaper.
fn id(n: u64, of: u64) -> [u8; 32] {
    let mut id = [0; 32];
    for (word, bytes) in (0u64..).zip(id.as_chunks_mut::<8>().0) {
        *bytes = mix(mix(n.wrapping_mul(8) + word) ^ of).to_le_bytes();
    }
    id
}

/// The finaliser of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn chunk(n: u64) -> ChunkId {
    ChunkId(id(n, 1))
}

fn pack(n: u64) -> PackId {
    PackId(id(n, 2))
}

fn payload(first: u64, end: u64) -> Vec<u8> {
    let mut builder = RunBuilder::new();
    let context = builder.push_context(ContextRow { context: [0; 72], commit: [0; 32] });
    for start in (first..end).step_by(CHUNKS_PER_PACK as usize) {
        let class = PackClass::Data;
        let row = PackRow { id: pack(start), len: PACK_BYTES, author: AUTHOR, class };
        let pack = builder.push_pack(row);
        for n in start..(start + CHUNKS_PER_PACK).min(end) {
            let frame = FrameRow {
                offset: 64 + (n - start) * u64::from(CHUNK_BYTES),
                ordinal: n,
                stored: CHUNK_BYTES,
                plain: CHUNK_BYTES,
                chunks: 1,
                bases: 0,
                context,
                codec: 0,
            };
            let row = ChunkRow { id: chunk(n), offset: 0, len: CHUNK_BYTES };
            builder.push_frame(pack, context, &frame, &[row], &[]);
        }
    }
    builder.finish()
}

fn index(runs: &[(u64, u64)], cache: &Path) -> Index {
    let starts =
        runs.iter().flat_map(|(first, end)| (*first..*end).step_by(CHUNKS_PER_PACK as usize));
    let listed = starts.map(|start| (pack(start), PACK_BYTES)).collect();
    let authors = HashSet::from([AUTHOR]);
    let trusted = Trusted { everyone: false, attested: true, authors };
    Index::new(Packs { listed, ..Packs::default() }, trusted, Some(cache.to_owned()))
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Look-ups a second: `ids` gives those of one batch.
fn rate(index: &Index, known: bool, mut ids: impl FnMut(u64) -> Vec<ChunkId>) -> f64 {
    let mut busy = Duration::ZERO;
    for batch in 0..LOOKUPS / BATCH {
        let ids = ids(batch);
        let start = cpu();
        let found = ids.iter().filter(|id| index.knows(black_box(id))).count();
        busy += cpu() - start;
        assert_eq!(found, if known { ids.len() } else { 0 });
    }
    LOOKUPS as f64 / busy.as_secs_f64() / 1e6
}

/// MiB of anonymous memory now.
fn anonymous_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0) >> 10
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, chunks, runs, folder, how @ ..] = &args[..] else {
        eprintln!("usage: index_scale CHUNKS RUNS FOLDER [keep] [cold]");
        std::process::exit(2);
    };
    let [keep, is_cold] = ["keep", "cold"].map(|word| how.iter().any(|said| said == word));
    let (chunks, count): (u64, u64) =
        (chunks.parse().expect("a number"), runs.parse().expect("a number"));
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let per_run = chunks.div_ceil(count).next_multiple_of(CHUNKS_PER_PACK);
    let runs: Vec<(u64, u64)> = (0..chunks)
        .step_by(per_run as usize)
        .map(|first| (first, (first + per_run).min(chunks)))
        .collect();
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_mib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let names: Vec<_> = (0..).zip(&runs).map(|(n, _)| ObjectHash(id(n, 4))).collect();
        measure(chunks, &runs, &names, folder, &peak);
        if is_cold {
            forget_pages(folder);
            open(&runs, &names, folder, "nothing in the page cache");
        }
        done.store(true, Ordering::Relaxed);
    });
    if !keep {
        std::fs::remove_dir_all(folder).expect("the folder can be deleted");
    }
}

fn measure(
    chunks: u64,
    runs: &[(u64, u64)],
    names: &[ObjectHash],
    folder: &Path,
    peak: &AtomicU64,
) {
    if std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_none()) {
        fill(runs, names, folder);
    }
    let filling = peak.swap(0, Ordering::Relaxed);
    let files = files(folder);
    let bytes: u64 = files.iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum();
    eprintln!("{} files, {} MiB; {filling} MiB at most so far", files.len(), bytes >> 20);
    let settling = open(runs, names, folder, "first").1;
    let (index, [wall, busy]) = open(runs, names, folder, "nothing changed");
    let mut seed = 1;
    let mut random = |below: u64| {
        seed = mix(seed);
        seed % below
    };
    let mut places = |_| (0..BATCH).map(|_| chunk(random(chunks))).collect();
    let misses = |batch: u64| (0..BATCH).map(|n| ChunkId(id(batch * BATCH + n, 3))).collect();
    let mut start = 0;
    let mut in_order = |_| {
        start = (start + chunks / 7 / BATCH * BATCH + BATCH) % (chunks - BATCH);
        (start..start + BATCH).map(chunk).collect()
    };
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push([
            rate(&index, false, misses),
            rate(&index, true, &mut in_order),
            rate(&index, true, &mut places),
        ]);
        eprintln!("misses, hits in pack order, random hits, M/s: {:.2?}", told.last());
    }
    let [first, again] = told[..] else { unreachable!("two rounds") };
    println!(
        "| chunks | runs | cache MiB | open s (CPU) | first | misses M/s | \
         pack order M/s | random M/s | RssAnon MiB, opened and asked | filling |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    println!(
        "| {chunks} | {} | {} | {:.2} ({:.2}) | {:.2} | {:.1}, then {:.1} | {:.1}, then {:.1} | \
         {:.1}, then {:.1} | {} | {filling} |",
        runs.len(),
        bytes >> 20,
        wall.as_secs_f64(),
        busy.as_secs_f64(),
        settling[0].as_secs_f64(),
        first[0],
        again[0],
        first[1],
        again[1],
        first[2],
        again[2],
        peak.load(Ordering::Relaxed),
    );
}

fn files(folder: &Path) -> Vec<File> {
    let files = std::fs::read_dir(folder).expect("the folder is there");
    files.map(|file| File::open(file.expect("listed").path()).expect("can be read")).collect()
}

/// As far as the kernel heeds it.
fn forget_pages(folder: &Path) {
    for file in files(folder) {
        file.sync_data().expect("can be brought to disk");
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

/// Wall clock and CPU.
fn open(
    runs: &[(u64, u64)],
    names: &[ObjectHash],
    folder: &Path,
    what: &str,
) -> (Index, [Duration; 2]) {
    let (wall, busy) = (Instant::now(), cpu());
    let index = index(runs, folder);
    let listed = cpu() - busy;
    for name in names {
        assert!(index.add_cached(name), "{name} is cached");
    }
    let taken = cpu() - busy;
    index.settle();
    let (wall, busy) = (wall.elapsed(), cpu() - busy);
    let [taken, settled] = [taken - listed, busy - taken];
    eprintln!(
        "opened ({what}) in {wall:.2?}, CPU {busy:.2?}: packs and folder {listed:.2?}, \
         runs {taken:.2?}, settling {settled:.2?}"
    );
    (index, [wall, busy])
}

/// As a client that fetches all of them.
fn fill(runs: &[(u64, u64)], names: &[ObjectHash], folder: &Path) {
    let start = Instant::now();
    let index = index(runs, folder);
    for ((first, end), name) in runs.iter().zip(names) {
        index.add(name, payload(*first, *end)).expect("the cache can be written");
    }
    index.settle();
    eprintln!("{} runs cached in {:.1?}", names.len(), start.elapsed());
}
