//! Compares chunkers on real folders and on synthetic extremes: chunking speed (CPU time of one
//! thread), share of the bytes that is left after deduplication, chunk counts and sizes.
//! `cargo run --release -p strongroom-bench --bin chunkers -- FOLDER…` prints the Markdown tables
//! that `docs/decisions/0001-default-chunker.md` quotes. Each folder is deduplicated within itself,
//! file after file in sorted order, so a folder with one sub-folder a day shows what the days share.

use std::collections::HashSet;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mothcdc::mincdc::{MinCdcHash4, SliceChunker};
use rustix::time::{ClockId, clock_gettime};
use strongroom::backup::chunk::Chunker;

/// Each file is cut this often and the fastest run counts: the machine is shared.
const RUNS: usize = 5;
const KIB: u32 = 1 << 10;
const SYNTHETIC_BYTES: usize = 64 << 20;

/// What is compared: ours, and the crate's own rule without our rules for ends and low entropy.
#[derive(Clone, Copy)]
enum Contender {
    Ours(Chunker),
    PlainMothcdc { min: u32, max: u32 },
}

struct Corpus {
    name: String,
    files: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Outcome {
    bytes: u64,
    unique_bytes: u64,
    chunks: u64,
    inner_chunks: u64,
    inner_bytes: u64,
    busy: Duration,
}

fn main() {
    let mut corpora: Vec<Corpus> =
        std::env::args_os().skip(1).map(|folder| read_corpus(Path::new(&folder))).collect();
    corpora.extend(synthetic());
    for (mean, contenders) in [("1 MiB", contenders_1m()), ("64 KiB", contenders_64k())] {
        println!("\n## mean {mean} on random data\n");
        println!(
            "| corpus | chunker | stored % | chunks | mean KiB, last of a file left out | GiB/s |"
        );
        println!("|---|---|---|---|---|---|");
        for corpus in &corpora {
            for (name, contender) in &contenders {
                print_row(&corpus.name, name, &measure(*contender, corpus));
            }
        }
    }
}

fn contenders_1m() -> Vec<(String, Contender)> {
    vec![
        named(Contender::Ours(Chunker::DEFAULT)),
        named(Contender::PlainMothcdc { min: 512 * KIB, max: 1536 * KIB }),
        named(fast(128, 726, 8192)),
        named(fast(512, 1024, 8192)),
    ]
}

fn contenders_64k() -> Vec<(String, Contender)> {
    vec![
        named(Contender::Ours(Chunker::min_cdc_with_mean(64 * KIB))),
        named(Contender::PlainMothcdc { min: 32 * KIB, max: 96 * KIB }),
        named(fast(8, 46, 512)),
        named(fast(32, 64, 512)),
    ]
}

fn fast(min: u32, avg: u32, max: u32) -> Contender {
    Contender::Ours(Chunker::FastCdc { min: min * KIB, avg: avg * KIB, max: max * KIB })
}

fn named(contender: Contender) -> (String, Contender) {
    let kib = |bytes: u32| bytes / KIB;
    let name = match contender {
        Contender::Ours(Chunker::MinCdc { min, max }) => {
            format!("**mincdc** {}..{}", kib(min), kib(max))
        }
        Contender::Ours(Chunker::FastCdc { min, avg, max }) => {
            format!("fastcdc {}/{}/{}", kib(min), kib(avg), kib(max))
        }
        Contender::PlainMothcdc { min, max } => format!("mothcdc plain {}..{}", kib(min), kib(max)),
    };
    (name, contender)
}

fn measure(contender: Contender, corpus: &Corpus) -> Outcome {
    let mut outcome = Outcome::default();
    let mut seen = HashSet::new();
    for file in &corpus.files {
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let started = thread_cpu();
            black_box(cuts(contender, file));
            best = best.min(thread_cpu() - started);
        }
        outcome.busy += best;
        let cuts = cuts(contender, file);
        let mut at = 0;
        for cut in cuts {
            let chunk = &file[at..at + cut];
            at += cut;
            outcome.chunks += 1;
            outcome.bytes += cut as u64;
            if at < file.len() {
                outcome.inner_chunks += 1;
                outcome.inner_bytes += cut as u64;
            }
            if seen.insert(blake3::hash(chunk)) {
                outcome.unique_bytes += cut as u64;
            }
        }
    }
    outcome
}

fn cuts(contender: Contender, file: &[u8]) -> Vec<usize> {
    let mut out = Vec::with_capacity(file.len() / (32 << 10) + 1);
    match contender {
        Contender::Ours(chunker) => {
            let mut rest = file;
            while let Some(cut) = chunker.first_cut(rest, true) {
                out.push(cut);
                rest = &rest[cut..];
            }
        }
        Contender::PlainMothcdc { min, max } => {
            let chunks = SliceChunker::new(file, min as usize, max as usize, MinCdcHash4::new());
            out.extend(chunks.map(|chunk| chunk.len()));
        }
    }
    out
}

fn print_row(corpus: &str, contender: &str, outcome: &Outcome) {
    let stored = 100.0 * outcome.unique_bytes as f64 / outcome.bytes.max(1) as f64;
    let mean_kib = outcome.inner_bytes as f64 / outcome.inner_chunks.max(1) as f64 / 1024.0;
    let gib = outcome.bytes as f64 / f64::from(1 << 30);
    let speed = gib / outcome.busy.as_secs_f64().max(1e-9);
    let chunks = outcome.chunks;
    println!("| {corpus} | {contender} | {stored:.2} | {chunks} | {mean_kib:.0} | {speed:.1} |");
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn read_corpus(folder: &Path) -> Corpus {
    let mut paths = Vec::new();
    list_files(folder, &mut paths);
    let read = |path: &PathBuf| {
        fs::read(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
    };
    Corpus { name: folder.display().to_string(), files: paths.iter().map(read).collect() }
}

fn list_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("listing {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            list_files(&path, out);
        } else if path.is_file() {
            out.push(path);
        }
    }
}

/// Random data with and without edits, and what makes a windowed minimum tie.
fn synthetic() -> Vec<Corpus> {
    let corpus = |name: &str, files| Corpus { name: name.to_owned(), files };
    let cycle = |period: usize| {
        random(period, "cycle").into_iter().cycle().take(SYNTHETIC_BYTES).collect::<Vec<u8>>()
    };
    let base = random(2 * SYNTHETIC_BYTES, "edits");
    let mut edited = base.clone();
    for (i, at) in random(400, "places").chunks_exact(4).enumerate() {
        let at = u32::from_le_bytes([at[0], at[1], at[2], at[3]]) as usize % edited.len();
        if i % 2 == 0 {
            edited.insert(at, 7);
        } else {
            edited.remove(at);
        }
    }
    vec![
        corpus("random 256 MiB", vec![random(4 * SYNTHETIC_BYTES, "random")]),
        corpus("random 128 MiB, then with 100 one-byte edits", vec![base, edited]),
        corpus("zeros 64 MiB", vec![vec![0; SYNTHETIC_BYTES]]),
        corpus("period 4, 64 MiB", vec![cycle(4)]),
        corpus("period 1024, 64 MiB", vec![cycle(1024)]),
        corpus("period 4096, 64 MiB", vec![cycle(4096)]),
    ]
}

fn random(len: usize, seed: &str) -> Vec<u8> {
    let mut out = vec![0; len];
    let key = blake3::hash(seed.as_bytes());
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut out);
    out
}
