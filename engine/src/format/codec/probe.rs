//! A cheap look at a chunk: is it worth compressing? Samples 1/64 of it, in spread pieces, since
//! the beginning of a file often lies. Wrongly "compressible" costs time only; wrongly
//! "incompressible" costs space, so two tests must agree: zstd's fastest level finds no repeats,
//! and the bytes are evenly spread (hex text fails only the second).

use zstd::zstd_safe::CCtx;

/// Below this zstd's own early exit costs less than a sample that is large enough to tell.
const PLAIN_MIN: usize = 256 << 10;
const PIECE: usize = 2 << 10;
const PIECES_MAX: usize = 32;
/// Samples take 1/64 of the time that compressing all would.
const SHARE: usize = 64;
/// Bits a byte; a sample of 4 KiB of random bytes has 7.95.
const ENTROPY_MIN: f64 = 7.9;

pub(super) struct Probe {
    zstd: CCtx<'static>,
    sample: Vec<u8>,
    out: Vec<u8>,
}

impl Probe {
    pub(super) fn new() -> Self {
        Self { zstd: CCtx::create(), sample: Vec::new(), out: Vec::new() }
    }

    pub(super) fn is_incompressible(&mut self, plain: &[u8]) -> bool {
        if plain.len() < PLAIN_MIN {
            return false;
        }
        let pieces = (plain.len() / SHARE / PIECE).clamp(2, PIECES_MAX);
        let stride = (plain.len() - PIECE) / (pieces - 1);
        self.sample.clear();
        for piece in 0..pieces {
            self.sample.extend_from_slice(&plain[piece * stride..][..PIECE]);
        }
        entropy(&self.sample) >= ENTROPY_MIN && !self.shrinks()
    }

    /// Whether zstd -1 saves 1/64 of the sample.
    fn shrinks(&mut self) -> bool {
        self.out.resize(self.sample.len() - self.sample.len() / SHARE, 0);
        self.zstd.compress(self.out.as_mut_slice(), &self.sample, -1).is_ok()
    }
}

/// Order-0 entropy in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [[0u32; 256]; 4];
    for (i, &byte) in bytes.iter().enumerate() {
        counts[i & 3][usize::from(byte)] += 1;
    }
    let total = bytes.len() as f64;
    (0..256)
        .map(|byte| f64::from(counts.iter().map(|lane| lane[byte]).sum::<u32>()))
        .filter(|&count| count > 0.0)
        .map(|count| count / total * (total / count).log2())
        .sum()
}
