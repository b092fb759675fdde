//! Whether codec 2 is worth trying on a frame, and how. A hint from the file's header says what the
//! samples are; without one a look at spread pieces finds them. Knows nothing of correctness: a
//! filter that does not fit costs space, never content.

use crate::format::codec::Samples;
use crate::format::codec::numeric::predict::{self, Bits, Predictor, Sample};
use crate::format::codec::numeric::{Filter, for_width};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Plain,
    Filter(Filter),
    /// Do both and keep the smaller: the look could not tell.
    Both(Filter),
}

/// Of a hint: `plain` begins with a sample.
pub fn with_hint(plain: &[u8], samples: Samples) -> Choice {
    let Samples { width, step, row } = samples;
    if !matches!(width, 1 | 2 | 4 | 8) {
        return Filter::new(samples, Predictor::None, 0).map_or(Choice::Plain, Choice::Both);
    }
    let left = Filter::new(samples, Predictor::Left, 0);
    if Filter::new(samples, Predictor::Median, 0).is_err() {
        return left.map_or(Choice::Plain, Choice::Both);
    }
    let (step, row) = (usize::from(step), usize::from(row));
    let Some(bits) = for_width!(width, bits(plain, step, row)) else {
        return left.map_or(Choice::Plain, Choice::Both);
    };
    let [left, average, median] = bits.map(|bits| cost(&bits));
    let (predictor, bits) = if left < average.min(median) * SORTED {
        (Predictor::Left, bits[0])
    } else if average < median {
        (Predictor::Average, bits[1])
    } else {
        (Predictor::Median, bits[2])
    };
    let filter = Filter::new(samples, predictor, 0).expect("checked above");
    // Where most samples are as predicted, as in masks and drawings, zstd may find more by itself.
    let drawn = bits[0] > bits.iter().sum::<u32>() / 4 * 3;
    if drawn { Choice::Both(filter) } else { Choice::Filter(filter) }
}

/// Spread pieces that `with_hint` looks at, and samples in each.
const SPANS: usize = 8;
const SPAN: usize = 256;
/// What sorting saves behind the predictors that look up.
const SORTED: f64 = 0.96;

/// What three predictors leave of spread pieces.
fn bits<const N: usize, S: Sample<N>>(plain: &[u8], step: usize, row: usize) -> Option<[Bits; 3]> {
    let (samples, _) = plain.as_chunks::<N>();
    let first = row + step;
    let span = SPAN.min(samples.len().checked_sub(first)? / SPANS);
    if span == 0 {
        return None;
    }
    let stride = (samples.len() - first - span) / (SPANS - 1);
    let mut bits = [[0; 65]; 3];
    for i in 0..SPANS {
        let at = first + i * stride;
        predict::look::<N, S>(step, row, samples, at..at + span, &mut bits);
    }
    Some(bits)
}

/// About what it takes to store residuals: the entropy of their lengths, and the bits below the
/// highest one.
fn cost(bits: &Bits) -> f64 {
    let total = f64::from(bits.iter().sum::<u32>());
    let of = |(len, &count): (usize, &u32)| {
        let count = f64::from(count);
        let low = len.saturating_sub(1) as f64;
        if count > 0.0 { count * ((total / count).log2() + low) } else { 0.0 }
    };
    bits.iter().enumerate().map(of).sum()
}
