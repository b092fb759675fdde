//! Predictors of codec 2: samples ↔ zigzagged residuals. All arithmetic is modulo 2^(8·width) and
//! sees only differences, so it does not matter whether samples are signed. Knows no header and no
//! order of bytes beyond little-endian samples.

use std::ops::Range;

use crate::error::FormatError;

/// How a sample is guessed from its neighbours: left `l`, above `u`, above left `ul`. Numbers are
/// the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Predictor {
    /// Not at all: samples are shuffled only.
    None = 0,
    Left = 1,
    /// Halfway from `l` to `u`: best on noise.
    Average = 2,
    /// Of `l`, `u` and `l + u − ul` the one in the middle: the median edge detector of JPEG-LS
    /// (Weinberger, Seroussi, Sapiro 2000).
    Median = 3,
}

impl Predictor {
    pub fn from_u8(predictor: u8) -> Result<Self, FormatError> {
        [Self::None, Self::Left, Self::Average, Self::Median]
            .into_iter()
            .find(|&p| p as u8 == predictor)
            .ok_or_else(|| FormatError::Unsupported {
                object: "frame",
                feature: format!("predictor {predictor}"),
            })
    }
}

/// An unsigned integer of N bytes.
pub trait Sample<const N: usize>: Copy + Default {
    fn read(bytes: [u8; N]) -> Self;
    fn write(self) -> [u8; N];
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// Small signed values to small unsigned ones.
    fn zigzag(self) -> Self;
    fn unzigzag(self) -> Self;
    /// Half of a signed difference, rounded down.
    fn half(self) -> Self;
    /// A signed difference, held between zero and another one, `end`.
    fn held(self, end: Self) -> Self;
    fn byte(self, byte: usize) -> u8;
    /// With a byte that was zero.
    fn with(self, byte: usize, of: u8) -> Self;
    /// Bits from the highest one that is set.
    fn bits(self) -> u32;
}

macro_rules! sample {
    ($unsigned:ty, $signed:ty, $n:literal) => {
        impl Sample<$n> for $unsigned {
            #[inline(always)]
            fn read(bytes: [u8; $n]) -> Self {
                Self::from_le_bytes(bytes)
            }
            #[inline(always)]
            fn write(self) -> [u8; $n] {
                self.to_le_bytes()
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn zigzag(self) -> Self {
                (self << 1) ^ (self as $signed >> (Self::BITS - 1)) as Self
            }
            #[inline(always)]
            fn unzigzag(self) -> Self {
                (self >> 1) ^ (self & 1).wrapping_neg()
            }
            #[inline(always)]
            fn half(self) -> Self {
                (self as $signed >> 1) as Self
            }
            #[inline(always)]
            fn held(self, end: Self) -> Self {
                let end = end as $signed;
                (self as $signed).max(end.min(0)).min(end.max(0)) as Self
            }
            #[inline(always)]
            fn byte(self, byte: usize) -> u8 {
                (self >> (8 * byte)) as u8
            }
            #[inline(always)]
            fn with(self, byte: usize, of: u8) -> Self {
                self | Self::from(of) << (8 * byte)
            }
            #[inline(always)]
            fn bits(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }
        }
    };
}

sample!(u8, i8, 1);
sample!(u16, i16, 2);
sample!(u32, i32, 4);
sample!(u64, i64, 8);

/// What `Average` and `Median` guess a sample to have more than `l`.
#[inline(always)]
fn more<const N: usize, S: Sample<N>, const MEDIAN: bool>(l: S, u: S, ul: S) -> S {
    let rise = u.minus(l);
    if MEDIAN { rise.held(u.minus(ul)) } else { rise.half() }
}

/// `residuals` of all `samples`. `step` and `row` as in `Samples`, both above zero where the
/// predictor needs them.
pub fn forward<const N: usize, S: Sample<N>>(
    predictor: Predictor,
    step: usize,
    row: usize,
    samples: &[[u8; N]],
    residuals: &mut [[u8; N]],
) {
    match predictor {
        Predictor::None => residuals.copy_from_slice(samples),
        Predictor::Left => forward_left::<N, S>(step, samples, residuals),
        Predictor::Average => forward_rows::<N, S, false>(step, row, samples, residuals),
        Predictor::Median => forward_rows::<N, S, true>(step, row, samples, residuals),
    }
}

fn forward_left<const N: usize, S: Sample<N>>(
    step: usize,
    samples: &[[u8; N]],
    residuals: &mut [[u8; N]],
) {
    let (first_samples, later) = samples.split_at(step.min(samples.len()));
    let (first, residuals) = residuals.split_at_mut(first_samples.len());
    for (residual, &x) in first.iter_mut().zip(first_samples) {
        *residual = S::read(x).zigzag().write();
    }
    for ((residual, &x), &l) in residuals.iter_mut().zip(later).zip(samples) {
        *residual = S::read(x).minus(S::read(l)).zigzag().write();
    }
}

fn forward_rows<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    step: usize,
    row: usize,
    samples: &[[u8; N]],
    residuals: &mut [[u8; N]],
) {
    let first = row.min(samples.len());
    forward_left::<N, S>(step, &samples[..first], &mut residuals[..first]);
    let above = samples.chunks(row);
    for ((residuals, now), above) in
        residuals.chunks_mut(row).skip(1).zip(samples.chunks(row).skip(1)).zip(above)
    {
        let (edge, rest) = residuals.split_at_mut(step.min(now.len()));
        for ((residual, &x), &u) in edge.iter_mut().zip(now).zip(above) {
            *residual = S::read(x).minus(S::read(u)).zigzag().write();
        }
        let neighbours = now.iter().zip(&above[step.min(row)..]).zip(above);
        for ((residual, &x), ((&l, &u), &ul)) in
            rest.iter_mut().zip(&now[edge.len()..]).zip(neighbours)
        {
            let [x, l, u, ul] = [x, l, u, ul].map(S::read);
            *residual = x.minus(l).minus(more::<N, S, MEDIAN>(l, u, ul)).zigzag().write();
        }
    }
}

/// How many residuals have how many bits.
pub type Bits = [u32; 65];

/// The residuals of the samples in `range` (none of the first row), for `Left`, `Average` and
/// `Median`; about, because the beginnings of rows are not told from the rest.
pub fn look<const N: usize, S: Sample<N>>(
    step: usize,
    row: usize,
    samples: &[[u8; N]],
    range: Range<usize>,
    bits: &mut [Bits; 3],
) {
    let at = |back: usize| &samples[range.start - back..range.end - back];
    let above = at(row).iter().zip(at(row + step));
    for ((&x, &l), (&u, &ul)) in at(0).iter().zip(at(step)).zip(above) {
        let [x, l, u, ul] = [x, l, u, ul].map(S::read);
        let mores = [S::default(), more::<N, S, false>(l, u, ul), more::<N, S, true>(l, u, ul)];
        for (bits, more) in bits.iter_mut().zip(mores) {
            bits[x.minus(l).minus(more).zigzag().bits() as usize] += 1;
        }
    }
}

/// Undoes `forward`.
pub fn backward<const N: usize, S: Sample<N>>(
    predictor: Predictor,
    step: usize,
    row: usize,
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
) {
    match predictor {
        Predictor::None => samples.copy_from_slice(residuals),
        Predictor::Left => backward_left::<N, S>(step, residuals, samples),
        Predictor::Average => backward_rows::<N, S, false>(step, row, residuals, samples),
        Predictor::Median => backward_rows::<N, S, true>(step, row, residuals, samples),
    }
}

fn backward_left<const N: usize, S: Sample<N>>(
    step: usize,
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
) {
    if step == 1 {
        let mut l = S::default();
        for (sample, &residual) in samples.iter_mut().zip(residuals) {
            l = l.plus(S::read(residual).unzigzag());
            *sample = l.write();
        }
        return;
    }
    for at in 0..residuals.len() {
        let l = if at < step { S::default() } else { S::read(samples[at - step]) };
        samples[at] = l.plus(S::read(residuals[at]).unzigzag()).write();
    }
}

/// Rows that are undone at once: each waits for its own left neighbours only, so the processor
/// works on all of them.
const WAVE: usize = 4;

fn backward_rows<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    step: usize,
    row: usize,
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
) {
    let mut done = row.min(samples.len());
    backward_left::<N, S>(step, &residuals[..done], &mut samples[..done]);
    while done < samples.len() {
        let (before, rest) = samples.split_at_mut(done);
        let above = &before[done - row..];
        let residuals = &residuals[done..];
        done += if step == 1 && row >= WAVE && rest.len() >= WAVE * row {
            wave::<N, S, MEDIAN>(above, residuals, rest);
            WAVE * row
        } else {
            let len = row.min(rest.len());
            for (at, residual) in residuals[..len].iter().enumerate() {
                one::<N, S, MEDIAN>(step, at, above, residual, rest);
            }
            len
        };
    }
}

/// Undoes sample `at` of the row `now`.
fn one<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    step: usize,
    at: usize,
    above: &[[u8; N]],
    residual: &[u8; N],
    now: &mut [[u8; N]],
) {
    let u = S::read(above[at]);
    let guess = match at.checked_sub(step).map(|at| (S::read(now[at]), S::read(above[at]))) {
        Some((l, ul)) => l.plus(more::<N, S, MEDIAN>(l, u, ul)),
        None => u,
    };
    now[at] = guess.plus(S::read(*residual).unzigzag()).write();
}

/// Undoes the first `WAVE` rows of `samples`, each one column behind the one above it; step 1.
fn wave<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    above: &[[u8; N]],
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
) {
    let row = above.len();
    ends::<N, S, MEDIAN>(above, residuals, samples, |k| 0..WAVE - k);
    wave_middle::<N, S, MEDIAN>(above, residuals, samples);
    ends::<N, S, MEDIAN>(above, residuals, samples, |k| row - k..row);
}

/// Undoes some columns of each row of a wave.
fn ends<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    above: &[[u8; N]],
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
    columns: impl Fn(usize) -> Range<usize>,
) {
    let row = above.len();
    for k in 0..WAVE {
        let (before, now) = samples.split_at_mut(k * row);
        let above = if k == 0 { above } else { &before[(k - 1) * row..] };
        for at in columns(k) {
            one::<N, S, MEDIAN>(1, at, above, &residuals[k * row + at], now);
        }
    }
}

fn wave_middle<const N: usize, S: Sample<N>, const MEDIAN: bool>(
    above: &[[u8; N]],
    residuals: &[[u8; N]],
    samples: &mut [[u8; N]],
) {
    let row = above.len();
    let len = row - WAVE;
    // The last sample of each row, and the one before it.
    let mut last: [S; WAVE] = std::array::from_fn(|k| S::read(samples[k * row + WAVE - k - 1]));
    let mut older: [S; WAVE] =
        std::array::from_fn(|k| S::read(samples[(k * row + WAVE - k).saturating_sub(2)]));
    let residuals: [&[[u8; N]]; WAVE] =
        std::array::from_fn(|k| &residuals[k * row + WAVE - k..][..len]);
    let mut rows = samples.chunks_exact_mut(row).enumerate();
    let now: [&mut [[u8; N]]; WAVE] = std::array::from_fn(|_| {
        let (k, now) = rows.next().expect("as many rows");
        &mut now[WAVE - k..][..len]
    });
    let (u, ul) = (&above[WAVE..][..len], &above[WAVE - 1..][..len]);
    for at in 0..len {
        let mut next = last;
        for k in 0..WAVE {
            let (u, ul) = if k == 0 {
                (S::read(u[at]), S::read(ul[at]))
            } else {
                (last[k - 1], older[k - 1])
            };
            // In this order, so that one sum does not wait for the last sample.
            let sum = last[k].plus(S::read(residuals[k][at]).unzigzag());
            next[k] = sum.plus(more::<N, S, MEDIAN>(last[k], u, ul));
            now[k][at] = next[k].write();
        }
        (older, last) = (last, next);
    }
}
