//! Criterion benches of the kernels the way in is made of, at the chunk sizes that matter (64 KiB
//! and 1 MiB): reading, chunking, hashing, copying, compressing, filtering, telling differences, and
//! back; sealing and opening with each cipher. Processor time of one thread, data hot in cache where
//! it fits; the engine's functions, but for plain zstd, which is there to compare with.
//! `cargo bench -p strongroom-bench --bench kernels -- FILTER` runs some of them; `--quick` behind the
//! `--` takes a minute instead of several.

mod measure;

use std::fs::File;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::backup::chunk::Chunker;
use strongroom::benchmark::{built_in_sealer, cipher_name};
use strongroom::format::codec::{Codec, Decoder, Encoder, Predictor, Samples};
use strongroom::format::id::IdKey;
use strongroom::format::seal::{Suite, frame_nonce};
use strongroom::sys::buffer::PageBuffer;
use strongroom::sys::file::read_full_at;
use strongroom::sys::map::GuardedMap;

use measure::ThreadTime;

const KIB: usize = 1 << 10;
const SIZES: [(&str, usize); 2] = [("64K", 64 * KIB), ("1M", 1024 * KIB)];
const SOURCE_BYTES: usize = 64 << 20;
/// Where in a page a chunk begins.
const LEAD: usize = 1000;

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .with_measurement(ThreadTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = reading, chunking, hashing, copying, compressing, filtering, choosing, deltas, decoding, sealing
}
criterion_main!(kernels);

type Bench = Criterion<ThreadTime>;

/// From the page cache: mapped as a large file's window, and into a buffer as a small file. Each
/// cache line is touched once.
fn reading(c: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, random(SOURCE_BYTES)).expect("written");
    let file = File::open(&path).expect("it was written");
    let sum = |bytes: &[u8]| bytes.iter().step_by(64).map(|&byte| u64::from(byte)).sum::<u64>();
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(SOURCE_BYTES as u64));
    group.bench_function("map/64M", |b| {
        b.iter(|| sum(&GuardedMap::map(&file, 0, SOURCE_BYTES).expect("mapped")));
    });
    for (size, len) in SIZES {
        let mut buffer = PageBuffer::default();
        group.bench_function(BenchmarkId::new("pread", size), |b| {
            b.iter(|| {
                let mut read = |at| {
                    let room = buffer.room(len);
                    let n = read_full_at(&file, at as u64, room).expect("it is there");
                    sum(&room[..n])
                };
                (0..SOURCE_BYTES).step_by(len).map(&mut read).sum::<u64>()
            });
        });
    }
    group.finish();
}

fn chunking(c: &mut Bench) {
    let data = random(SOURCE_BYTES);
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (size, mean) in SIZES {
        let mean = mean as u32;
        for (name, chunker) in [
            ("mincdc", Chunker::min_cdc_with_mean(mean)),
            ("fastcdc", Chunker::FastCdc { min: mean / 2, avg: mean, max: mean * 8 }),
        ] {
            group.bench_with_input(BenchmarkId::new(name, size), &data, |b, data| {
                b.iter(|| count_chunks(chunker, data));
            });
        }
    }
    group.finish();
}

fn count_chunks(chunker: Chunker, mut rest: &[u8]) -> usize {
    let mut count = 0;
    while let Some(cut) = chunker.first_cut(rest, true) {
        rest = &rest[cut..];
        count += 1;
    }
    count
}

fn hashing(c: &mut Bench) {
    let mut group = c.benchmark_group("identify");
    let key = IdKey([7; 32]);
    for (size, len) in SIZES {
        let data = random(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("blake3-keyed", size), &data, |b, data| {
            b.iter(|| key.id(black_box(data)));
        });
        // As the packer names a pack: while its frames pass by.
        let mut hasher = blake3::Hasher::new();
        group.bench_with_input(BenchmarkId::new("blake3-of-a-pack", size), &data, |b, data| {
            b.iter(|| hasher.update(black_box(data)).count());
        });
    }
    group.finish();
}

/// A mapped chunk's private copy. It begins somewhere in a page, the copy at its beginning: `memcpy` is
/// 16 times slower on some CPUs (Zen 3) where the target lies up to 48 bytes behind the source in
/// its page, and where malloc puts two vectors is chance.
fn copying(c: &mut Bench) {
    let mut group = c.benchmark_group("copy");
    for (size, len) in SIZES {
        let (mut window, mut private) = (PageBuffer::default(), PageBuffer::default());
        let data = &mut window.room(LEAD + len)[LEAD..];
        data.copy_from_slice(&random(len));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("memory", size), |b| {
            b.iter(|| {
                let private = private.room(len);
                private.copy_from_slice(black_box(data));
                black_box(private).len()
            });
        });
    }
    group.finish();
}

fn compressing(c: &mut Bench) {
    let mut group = c.benchmark_group("encode");
    let mut compressor = zstd::bulk::Compressor::new(1).expect("level 1 exists");
    for (size, len) in SIZES {
        for (kind, data) in [("csv", csv_like(len)), ("ct", ct_like(len)), ("random", random(len))]
        {
            let mut out = vec![0; zstd::zstd_safe::compress_bound(len)];
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new(format!("zstd1-{kind}"), size), |b| {
                b.iter(|| compressor.compress_to_buffer(black_box(&data), &mut out));
            });
        }
    }
    group.finish();
}

/// Codec 2 by each predictor, there and back.
fn filtering(c: &mut Bench) {
    let mut group = c.benchmark_group("filter");
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let samples = Samples { width: 2, step: 1, row: 512 };
    for (size, len) in SIZES {
        let data = ct_like(len);
        group.throughput(Throughput::Bytes(len as u64));
        for predictor in [Predictor::None, Predictor::Left, Predictor::Average, Predictor::Median] {
            let (mut encoded, mut plain) = (Vec::new(), Vec::new());
            group.bench_function(BenchmarkId::new(format!("encode-{predictor:?}"), size), |b| {
                b.iter(|| {
                    encoder.encode_numeric(samples, predictor, 0, black_box(&data), &mut encoded)
                });
            });
            group.bench_function(BenchmarkId::new(format!("decode-{predictor:?}"), size), |b| {
                let codec = Codec::Numeric as u8;
                b.iter(|| decoder.decode(codec, &encoded, len as u32, &[], &mut plain));
            });
        }
    }
    group.finish();
}

/// What the choice of a codec costs: `encode` looks first, `encode_plain` does not.
fn choosing(c: &mut Bench) {
    let mut group = c.benchmark_group("choose");
    let mut encoder = Encoder::new();
    let mut encoded = Vec::new();
    let hint = Samples { width: 2, step: 1, row: 512 };
    for (size, len) in SIZES {
        group.throughput(Throughput::Bytes(len as u64));
        for (kind, data, hint) in [
            ("csv", csv_like(len), None),
            ("random", random(len), None),
            ("ct", ct_like(len), None),
            ("ct-hinted", ct_like(len), Some(hint)),
        ] {
            group.bench_function(BenchmarkId::new(format!("look-{kind}"), size), |b| {
                b.iter(|| encoder.encode(black_box(&data), hint, &mut encoded).1.len());
            });
            group.bench_function(BenchmarkId::new(format!("plain-{kind}"), size), |b| {
                b.iter(|| encoder.encode_plain(black_box(&data), &mut encoded).1.len());
            });
        }
    }
    group.finish();
}

fn sealing(c: &mut Bench) {
    let mut group = c.benchmark_group("seal");
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let sealer = built_in_sealer(suite);
        for (size, len) in SIZES {
            let (mut data, mut ordinal) = (random(len), 0u64);
            let name = |way| format!("{way}-{}", cipher_name(suite));
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new(name("seal"), size), |b| {
                b.iter(|| {
                    ordinal += 1;
                    sealer.seal_slice_in_place(frame_nonce(ordinal), &[], &mut data)
                });
            });
            let (mut sealed, mut buffer) = (random(len), Vec::new());
            sealer.seal_in_place(frame_nonce(0), &[], &mut sealed);
            group.bench_function(BenchmarkId::new(name("open"), size), |b| {
                b.iter(|| {
                    buffer.clear();
                    buffer.extend_from_slice(&sealed);
                    sealer.open_in_place(frame_nonce(0), &[], &mut buffer, "frame").map(|p| p.len())
                });
            });
        }
    }
    group.finish();
}

/// Codec 3: a table of which one row in a hundred has changed, and its version before.
fn deltas(c: &mut Bench) {
    let mut group = c.benchmark_group("delta");
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for (size, len) in SIZES {
        let old = csv_like(len);
        let mut new = old.clone();
        for at in (0..len).step_by(7_000) {
            new[at] ^= 1;
        }
        let (mut encoded, mut plain) = (Vec::new(), Vec::new());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("encode", size), |b| {
            b.iter(|| encoder.encode_delta(&old, black_box(&new), &mut encoded));
        });
        encoder.encode_delta(&old, &new, &mut encoded);
        group.bench_function(BenchmarkId::new("decode", size), |b| {
            let codec = Codec::Delta as u8;
            b.iter(|| decoder.decode(codec, &encoded, len as u32, &[&old], &mut plain));
        });
    }
    group.finish();
}

/// What `encode` chose, undone.
fn decoding(c: &mut Bench) {
    let mut group = c.benchmark_group("decode");
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let hint = Samples { width: 2, step: 1, row: 512 };
    for (size, len) in SIZES {
        group.throughput(Throughput::Bytes(len as u64));
        for (kind, data, hint) in [
            ("csv", csv_like(len), None),
            ("random", random(len), None),
            ("ct", ct_like(len), Some(hint)),
        ] {
            let (mut buffer, mut plain) = (Vec::new(), Vec::new());
            let (codec, encoded) = encoder.encode(&data, hint, &mut buffer);
            group.bench_function(BenchmarkId::new(kind, size), |b| {
                b.iter(|| decoder.decode(codec as u8, encoded, len as u32, &[], &mut plain));
            });
        }
    }
    group.finish();
}

fn random(len: usize) -> Vec<u8> {
    measure::random(1, len)
}

fn csv_like(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 128);
    for (row, noise) in random(len).chunks_exact(4).enumerate() {
        let (subject, result) = (row / 40, f32::from(noise[1]) / 8.0 + 60.0);
        let day = 1 + noise[2] % 28;
        let line = format!(
            "STUDY-01,SITE-{:03},SUBJ-{subject:05},VISIT {},VITALS,{result:.1},mmHg,2026-03-{day:02}\n",
            subject % 40,
            row % 12,
        );
        out.extend_from_slice(line.as_bytes());
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

/// 12-bit samples in 16 bits: a smooth field with noise, air at both ends of each row.
fn ct_like(len: usize) -> Vec<u8> {
    let noise = random(len / 2);
    let sample = |i: usize| {
        let (x, y) = (i % 512, i / 512);
        let smooth = (x * x / 300 + y * 3) as u16 % 1500;
        if (100..412).contains(&x) { smooth + u16::from(noise[i] % 32) } else { 0xfc18 }
    };
    (0..len / 2).flat_map(|i| sample(i).to_le_bytes()).collect()
}
