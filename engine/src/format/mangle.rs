//! For the tests of every layout: bytes that repeat from run to run, and bytes that have suffered.

use std::time::{Duration, Instant};

/// xorshift64*: plain, seeded, and good enough to look random to zstd.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut word = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| word()).collect();
    bytes.truncate(len);
    bytes
}

pub(super) fn array<const N: usize>(seed: u64) -> [u8; N] {
    noise(seed, N).try_into().expect("N bytes")
}

/// No truncation may parse; after any flip of bits in one byte, what still parses must survive a
/// round trip, which `parse` sees to. Panics and endless work show as failures.
pub(super) fn mangle(bytes: &[u8], parse: impl Fn(&[u8]) -> bool) {
    assert!(bytes.len() <= 64 << 10, "inputs stay small");
    assert!(parse(bytes), "untouched");
    for len in 0..bytes.len() {
        assert!(!parse(&bytes[..len]), "cut to {len} of {}", bytes.len());
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(!parse(&longer), "one byte more");
    let mut mangled = bytes.to_vec();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x02, 0x10, 0x40, 0x80, 0xFF] {
            mangled[at] = bytes[at] ^ flip;
            parse(&mangled);
        }
        mangled[at] = bytes[at];
    }
}

/// What a hostile count must not cost.
pub(super) fn quickly<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    result
}
