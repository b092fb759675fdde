//! Residuals ↔ byte planes of codec 2: plane k holds byte k of all samples, so that zstd sees like
//! beside like. Behind a predictor that looks up, blocks of residuals also go to others of their
//! class, which is told by the residuals one row above; so the way back needs no more than how many
//! blocks there are of each class.

use crate::format::codec::numeric::predict::Sample;

/// Residuals that move together.
pub const BLOCK: usize = 8;
/// A block's class is how many of these the sum above it reaches.
const BOUNDS: [u32; COUNTS] = [16, 48, 96, 192, 512];
/// Counts of the classes but the last, which has the rest.
pub const COUNTS: usize = 5;
const CLASSES: usize = COUNTS + 1;

/// Samples into `planes`, both of the same number of bytes.
pub fn shuffle<const N: usize>(samples: &[[u8; N]], planes: &mut [u8]) {
    let count = samples.len();
    let (blocks, rest) = samples.as_chunks::<BLOCK>();
    for (i, block) in blocks.iter().enumerate() {
        put(block, planes, count, i * BLOCK);
    }
    put_rest(rest, planes, count);
}

/// Undoes `shuffle`.
pub fn unshuffle<const N: usize>(planes: &[u8], samples: &mut [[u8; N]]) {
    let count = samples.len();
    let (blocks, rest) = samples.as_chunks_mut::<BLOCK>();
    for (i, block) in blocks.iter_mut().enumerate() {
        get(planes, count, i * BLOCK, block);
    }
    get_rest(planes, count, rest);
}

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

/// Residuals into `planes`, blocks by class; gives the counts of the classes. `classes` is scratch.
pub fn sort<const N: usize, S: Sample<N>>(
    row: usize,
    residuals: &[[u8; N]],
    planes: &mut [u8],
    classes: &mut Vec<u8>,
) -> [u32; COUNTS] {
    let count = residuals.len();
    let (blocks, rest) = residuals.as_chunks::<BLOCK>();
    let mut counts = [0u32; CLASSES];
    classes.clear();
    classes.extend((0..blocks.len()).map(|i| {
        let class = class::<N, S>(row, i * BLOCK, residuals);
        counts[class] += 1;
        class as u8
    }));
    let mut next = first_places(&counts);
    for (block, &class) in blocks.iter().zip(&*classes) {
        let place = &mut next[usize::from(class)];
        put(block, planes, count, *place);
        *place += BLOCK;
    }
    put_rest(rest, planes, count);
    std::array::from_fn(|class| counts[class])
}

/// Undoes `sort`; `None`: there are not so many blocks of a class. `row` is a block or more.
pub fn unsort<const N: usize, S: Sample<N>>(
    row: usize,
    counts: &[u32; COUNTS],
    planes: &[u8],
    residuals: &mut [[u8; N]],
) -> Option<()> {
    let count = residuals.len();
    let last = (count / BLOCK) as u64;
    let last = last.checked_sub(counts.iter().map(|&count| u64::from(count)).sum())?;
    let mut all = [last as u32; CLASSES];
    all[..COUNTS].copy_from_slice(counts);
    let mut next = first_places(&all);
    let mut ends = [count / BLOCK * BLOCK; CLASSES];
    ends[..COUNTS].copy_from_slice(&next[1..]);
    for at in (0..count / BLOCK * BLOCK).step_by(BLOCK) {
        let class = class::<N, S>(row, at, residuals);
        let place = next[class];
        if place == ends[class] {
            return None;
        }
        next[class] += BLOCK;
        let block = residuals[at..].first_chunk_mut().expect("a block");
        get(planes, count, place, block);
    }
    get_rest(planes, count, &mut residuals[count / BLOCK * BLOCK..]);
    Some(())
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

/// Of the block at `at`; the first row has none above.
#[inline(always)]
fn class<const N: usize, S: Sample<N>>(row: usize, at: usize, residuals: &[[u8; N]]) -> usize {
    let Some(above) = at.checked_sub(row) else { return 0 };
    let above: &[[u8; N]; BLOCK] = residuals[above..].first_chunk().expect("a row is a block");
    let sum = above.iter().map(|&residual| u32::from(S::read(residual).capped())).sum::<u32>();
    BOUNDS.iter().map(|&bound| usize::from(sum >= bound)).sum()
}

#[inline(always)]
fn put<const N: usize>(block: &[[u8; N]; BLOCK], planes: &mut [u8], count: usize, at: usize) {
    for byte in 0..N {
        let plane: &mut [u8; BLOCK] =
            planes[byte * count + at..].first_chunk_mut().expect("room for a block");
        *plane = std::array::from_fn(|i| block[i][byte]);
    }
}

#[inline(always)]
fn get<const N: usize>(planes: &[u8], count: usize, at: usize, block: &mut [[u8; N]; BLOCK]) {
    let bytes: [&[u8; BLOCK]; N] = std::array::from_fn(|byte| {
        planes[byte * count + at..].first_chunk().expect("a block is there")
    });
    *block = std::array::from_fn(|i| std::array::from_fn(|byte| bytes[byte][i]));
}

/// What is no whole block ends the planes.
fn put_rest<const N: usize>(rest: &[[u8; N]], planes: &mut [u8], count: usize) {
    for (i, sample) in rest.iter().enumerate() {
        for byte in 0..N {
            planes[(byte + 1) * count - rest.len() + i] = sample[byte];
        }
    }
}

fn get_rest<const N: usize>(planes: &[u8], count: usize, rest: &mut [[u8; N]]) {
    let len = rest.len();
    for (i, sample) in rest.iter_mut().enumerate() {
        *sample = std::array::from_fn(|byte| planes[(byte + 1) * count - len + i]);
    }
}
