//! Residuals ↔ byte planes of codec 2: plane k holds byte k of all samples, so that zstd sees like
//! beside like. Behind a predictor that looks up, blocks of residuals also go to others of their
//! class, which is told by the residuals one row above; so the way back needs no more than how many
//! blocks there are of each class.

use crate::format::codec::numeric::predict::Sample;

/// Residuals that move together.
pub const BLOCK: usize = 8;
/// A block's class is how many of these the sum above it reaches.
const BOUNDS: [u16; COUNTS] = [16, 48, 96, 192, 512];
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
    classes.resize(blocks, 0);
    if first < blocks {
        let from = first * BLOCK - row;
        classify(planes.map(|plane| &plane[from..]), &mut classes[first..]);
    }
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
    // As many blocks at once as have nothing of their own above them.
    let first = row.div_ceil(BLOCK).min(blocks);
    let (mut at, mut classes) = (0, [0; GROUP]);
    while at < blocks {
        let group = if at < first { first - at } else { row / BLOCK };
        let group = group.min(blocks - at).min(GROUP);
        let classes = &mut classes[..group];
        if at >= first {
            let above = at * BLOCK - row;
            classify(planes.each_ref().map(|plane| &plane[above..]), classes);
        }
        for &class in &*classes {
            let place = next[usize::from(class)];
            if place == ends[usize::from(class)] {
                return None;
            }
            next[usize::from(class)] += BLOCK;
            for (plane, sorted) in planes.iter_mut().zip(&sorted) {
                carry(sorted, place, plane, at * BLOCK);
            }
            at += 1;
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

/// Classes of blocks beside each other, told by the residuals above them, plane by plane. In steps
/// that vector units take.
fn classify<const N: usize>(above: [&[u8]; N], classes: &mut [u8]) {
    const LOW_7: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    const PAIRS: u64 = 0x00FF_00FF_00FF_00FF;
    let above: [&[[u8; BLOCK]]; N] = above.map(|plane| plane.as_chunks().0);
    for (n, classes) in classes.chunks_mut(GROUP).enumerate() {
        let above = above.map(|plane| &plane[n * GROUP..][..classes.len()]);
        let mut high = [0; GROUP];
        for plane in &above[1..] {
            for (high, &block) in high.iter_mut().zip(*plane) {
                *high |= u64::from_le_bytes(block);
            }
        }
        let mut sums = [0; GROUP];
        for ((sum, &low), high) in sums.iter_mut().zip(above[0]).zip(high) {
            // What has a higher byte counts as 255.
            let beyond = (((high & LOW_7) + LOW_7) | high) >> 7 & 0x0101_0101_0101_0101;
            let capped = u64::from_le_bytes(low) | (beyond << 8).wrapping_sub(beyond);
            let pairs = (capped & PAIRS) + (capped >> 8 & PAIRS);
            let quads = pairs + (pairs >> 32);
            *sum = (quads + (quads >> 16)) as u16;
        }
        for (class, sum) in classes.iter_mut().zip(sums) {
            *class = BOUNDS.iter().map(|&bound| u8::from(sum >= bound)).sum();
        }
    }
}

#[inline(always)]
fn carry(from: &[u8], at: usize, to: &mut [u8], place: usize) {
    let bytes: &[u8; BLOCK] = from[at..].first_chunk().expect("a block");
    *to[place..].first_chunk_mut().expect("room for a block") = *bytes;
}
