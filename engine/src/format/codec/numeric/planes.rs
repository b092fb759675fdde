//! Residuals ↔ byte planes of codec 2: plane k holds byte k of all samples, so that zstd sees like
//! beside like. Behind a predictor that looks up, blocks of residuals also go to others of their
//! class, which is told by the residuals one row above; so the way back needs no more than how many
//! blocks there are of each class.

use crate::format::codec::numeric::predict::Sample;

/// Residuals that move together.
pub const BLOCK: usize = 8;
/// A block's class is how many of these the sum above it reaches.
const BOUNDS: [usize; COUNTS] = [16, 48, 96, 192, 512];
/// Counts of the classes but the last, which has the rest.
pub const COUNTS: usize = 5;
const CLASSES: usize = COUNTS + 1;

/// Samples into `planes`, both of the same number of bytes.
pub fn shuffle<const N: usize, S: Sample<N>>(samples: &[[u8; N]], planes: &mut [u8]) {
    let count = samples.len();
    let (groups, rest) = samples.as_chunks::<GROUP>();
    for (i, group) in groups.iter().enumerate() {
        for byte in 0..N {
            let plane: &mut [u8; GROUP] =
                planes[byte * count + i * GROUP..].first_chunk_mut().expect("room for a group");
            for (to, &sample) in plane.iter_mut().zip(group) {
                *to = S::read(sample).byte(byte);
            }
        }
    }
    for (i, sample) in rest.iter().enumerate() {
        for byte in 0..N {
            planes[(byte + 1) * count - rest.len() + i] = sample[byte];
        }
    }
}

/// Undoes `shuffle`.
pub fn unshuffle<const N: usize, S: Sample<N>>(planes: &[u8], samples: &mut [[u8; N]]) {
    let count = samples.len();
    let (groups, rest) = samples.as_chunks_mut::<GROUP>();
    for (i, group) in groups.iter_mut().enumerate() {
        let mut values = [S::default(); GROUP];
        for byte in 0..N {
            let plane: &[u8; GROUP] =
                planes[byte * count + i * GROUP..].first_chunk().expect("a group is there");
            for (value, &of) in values.iter_mut().zip(plane) {
                *value = value.with(byte, of);
            }
        }
        for (sample, value) in group.iter_mut().zip(values) {
            *sample = value.write();
        }
    }
    let len = rest.len();
    for (i, sample) in rest.iter_mut().enumerate() {
        *sample = std::array::from_fn(|byte| planes[(byte + 1) * count - len + i]);
    }
}

/// Samples that are shuffled at a time.
const GROUP: usize = 256;

/// As `shuffle`, for samples of `width` bytes.
pub fn shuffle_records(width: usize, records: &[u8], planes: &mut [u8]) {
    let count = records.len() / width;
    for (g, group) in records.chunks(RECORDS * width).enumerate() {
        for byte in 0..width {
            let plane = &mut planes[byte * count + g * RECORDS..];
            for (to, record) in plane.iter_mut().zip(group.chunks_exact(width)) {
                *to = record[byte];
            }
        }
    }
}

/// Undoes `shuffle_records`.
pub fn unshuffle_records(width: usize, planes: &[u8], records: &mut [u8]) {
    let count = records.len() / width;
    for (g, group) in records.chunks_mut(RECORDS * width).enumerate() {
        for byte in 0..width {
            let plane = &planes[byte * count + g * RECORDS..];
            for (record, &from) in group.chunks_exact_mut(width).zip(plane) {
                record[byte] = from;
            }
        }
    }
}

/// Records that are shuffled at a time: few enough that they stay in the first caches.
const RECORDS: usize = 32;

/// The blocks of `planes` sorted into `sorted`; gives the counts of the classes. `classes` is
/// scratch.
pub fn sort<const N: usize>(
    row: usize,
    planes: &[u8],
    classes: &mut Vec<u8>,
    sorted: &mut [u8],
) -> [u32; COUNTS] {
    let (planes, mut sorted) = (split::<N>(planes), split_mut::<N>(sorted));
    let blocks = planes[0].len() / BLOCK;
    // Blocks of the first row have nothing above.
    let first = row.div_ceil(BLOCK).min(blocks);
    classes.clear();
    classes.resize(first, 0);
    let above: [&[[u8; BLOCK]]; N] = std::array::from_fn(|k| {
        let from = if first < blocks { first * BLOCK - row } else { 0 };
        &planes[k][from..].as_chunks().0[..blocks - first]
    });
    classes.extend((0..blocks - first).map(|i| class::<N>(std::array::from_fn(|k| above[k][i]))));
    let mut counts = [0u32; CLASSES];
    for &class in &*classes {
        counts[usize::from(class)] += 1;
    }
    let mut next = first_places(&counts);
    for (block, &class) in classes.iter().enumerate() {
        let place = &mut next[usize::from(class)];
        for (plane, sorted) in planes.iter().zip(&mut sorted) {
            carry(plane, block * BLOCK, sorted, *place);
        }
        *place += BLOCK;
    }
    for (plane, sorted) in planes.iter().zip(&mut sorted) {
        sorted[blocks * BLOCK..].copy_from_slice(&plane[blocks * BLOCK..]);
    }
    std::array::from_fn(|class| counts[class])
}

/// Undoes `sort`; `None`: there are not so many blocks of a class. `row` is a block or more.
pub fn unsort<const N: usize>(
    row: usize,
    counts: &[u32; COUNTS],
    sorted: &[u8],
    planes: &mut [u8],
) -> Option<()> {
    let (sorted, mut planes) = (split::<N>(sorted), split_mut::<N>(planes));
    let blocks = sorted[0].len() / BLOCK;
    let last = (blocks as u64).checked_sub(counts.iter().map(|&count| u64::from(count)).sum())?;
    let mut all = [last as u32; CLASSES];
    all[..COUNTS].copy_from_slice(counts);
    let mut next = first_places(&all);
    let mut ends = [blocks * BLOCK; CLASSES];
    ends[..COUNTS].copy_from_slice(&next[1..]);
    for at in (0..blocks * BLOCK).step_by(BLOCK) {
        let above = at.checked_sub(row).map(|above| {
            std::array::from_fn(|k| *planes[k][above..].first_chunk().expect("a row is a block"))
        });
        let class = usize::from(above.map_or(0, class::<N>));
        let place = next[class];
        if place == ends[class] {
            return None;
        }
        next[class] += BLOCK;
        for (plane, sorted) in planes.iter_mut().zip(&sorted) {
            carry(sorted, place, plane, at);
        }
    }
    for (plane, sorted) in planes.iter_mut().zip(&sorted) {
        plane[blocks * BLOCK..].copy_from_slice(&sorted[blocks * BLOCK..]);
    }
    Some(())
}

fn split<const N: usize>(planes: &[u8]) -> [&[u8]; N] {
    let count = planes.len() / N;
    std::array::from_fn(|k| &planes[k * count..][..count])
}

fn split_mut<const N: usize>(mut planes: &mut [u8]) -> [&mut [u8]; N] {
    let count = planes.len() / N;
    std::array::from_fn(|_| planes.split_off_mut(..count).expect("as many planes"))
}

/// Where the blocks of each class begin.
fn first_places(counts: &[u32; CLASSES]) -> [usize; CLASSES] {
    let mut at = 0;
    counts.map(|count| {
        let first = at;
        at += count as usize * BLOCK;
        first
    })
}

/// Of the block below these residuals, given as the bytes of each plane.
#[inline(always)]
fn class<const N: usize>(above: [[u8; BLOCK]; N]) -> u8 {
    let [low, high @ ..] = above.as_slice() else { unreachable!("a sample has bytes") };
    let high = high.iter().fold(0, |high, &block| high | u64::from_le_bytes(block));
    // Eight bytes at a time: what has a higher byte counts as 255.
    const LOW_7: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    const PAIRS: u64 = 0x00FF_00FF_00FF_00FF;
    let beyond = (((high & LOW_7) + LOW_7) | high) >> 7 & 0x0101_0101_0101_0101;
    let capped = u64::from_le_bytes(*low) | (beyond * 0xFF);
    let pairs = (capped & PAIRS) + (capped >> 8 & PAIRS);
    let sum = pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    CLASS_OF[sum as usize % CLASS_OF.len()]
}

/// The class of each sum of a block, which is 8 × 255 at most.
const CLASS_OF: [u8; 2048] = {
    let mut classes = [0; 2048];
    let mut bound = 0;
    while bound < BOUNDS.len() {
        let mut sum = BOUNDS[bound];
        while sum < classes.len() {
            classes[sum] += 1;
            sum += 1;
        }
        bound += 1;
    }
    classes
};

#[inline(always)]
fn carry(from: &[u8], at: usize, to: &mut [u8], place: usize) {
    let bytes: &[u8; BLOCK] = from[at..].first_chunk().expect("a block");
    *to[place..].first_chunk_mut().expect("room for a block") = *bytes;
}
