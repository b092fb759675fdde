//! Whether codec 2 is worth trying on a frame, and how. A hint from the file's header says what the
//! samples are; without one a look at spread pieces guesses and a trial decides. Knows nothing of
//! correctness: a filter that does not fit costs space, never content.

mod look;
#[cfg(test)]
mod tests;

use zstd::zstd_safe::{CCtx, compress_bound};

use crate::format::codec::choose::look::{Entropy, LOOKED, RECORD_ROOM, Text};
use crate::format::codec::numeric::predict::{self, Bits, Predictor, Sample};
use crate::format::codec::numeric::{Filter, Scratch, for_width};
use crate::format::codec::{PLANES, Samples, TWO_TABLES, context};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Plain,
    Filter(Filter),
    /// Do both and keep the smaller: the look could not tell.
    Both(Filter),
}

/// Below this a sample that can tell costs too much.
const PLAIN_MIN: usize = 64 << 10;
/// Numbers have to promise this share of the bytes' entropy for a trial …
const SHARE_MAX: f64 = 0.92;
/// … and in the trial this one of zstd alone, to be done at once.
const CLEAR: f64 = 0.85;
/// Below this share of the bytes zstd alone finds so many repeats that it may find more in all of
/// them than in pieces.
const REPEATS: f64 = 0.25;
/// Bytes tried: of all in spread pieces for numbers, in one piece for records.
const TRIED: usize = 16 << 10;
const TRIED_PIECES: usize = 4;
const TRIED_RECORDS: usize = 32 << 10;
/// At most this share of a frame is tried.
const TRIED_SHARE: usize = 16;
/// Records are tried on one piece, where zstd alone misses what comes back later: so by doing both.
const RECORDS_MAX: f64 = 0.95;

/// Chooses where nothing is known; keeps its context and buffers from frame to frame.
pub struct Chooser {
    entropy: Entropy,
    plain_zstd: CCtx<'static>,
    planes_zstd: CCtx<'static>,
    sample: Vec<u8>,
    filter: Scratch,
    out: Vec<u8>,
}

impl Chooser {
    pub fn new() -> Self {
        Self {
            entropy: Entropy::new(),
            plain_zstd: context(&TWO_TABLES),
            planes_zstd: context(&PLANES),
            sample: Vec::new(),
            filter: Scratch::default(),
            out: Vec::new(),
        }
    }

    /// By a look at the bytes.
    pub fn without_hint(&mut self, plain: &[u8]) -> Choice {
        if plain.len() < PLAIN_MIN {
            return Choice::Plain;
        }
        let text = look::text(plain);
        let mut choice = Choice::Plain;
        if text == Text::No
            && let Some(filter) = numbers(plain, &self.entropy)
        {
            let trial = self.try_numbers(&filter, plain);
            if trial.share < CLEAR && trial.plain > REPEATS {
                return Choice::Filter(filter);
            }
            if trial.share < 1.0 {
                choice = Choice::Both(filter);
            }
        }
        if text != Text::Lines
            && let Some(filter) = records(plain)
            && self.try_records(&filter, plain).share < RECORDS_MAX
        {
            choice = Choice::Both(filter);
        }
        choice
    }

    /// On spread pieces.
    fn try_numbers(&mut self, filter: &Filter, plain: &[u8]) -> Trial {
        let piece = TRIED.min(plain.len() / TRIED_SHARE) / TRIED_PIECES / 8 * 8;
        let stride = (plain.len() - piece) / (TRIED_PIECES - 1) / 8 * 8;
        self.sample.clear();
        for i in 0..TRIED_PIECES {
            self.sample.extend_from_slice(&plain[i * stride..][..piece]);
        }
        self.try_sample(filter)
    }

    fn try_records(&mut self, filter: &Filter, plain: &[u8]) -> Trial {
        let len = TRIED_RECORDS.min(plain.len() / TRIED_SHARE);
        let start = (plain.len() - len) / 2;
        self.sample.clear();
        self.sample.extend_from_slice(&plain[start..][..len]);
        self.try_sample(filter)
    }

    fn try_sample(&mut self, filter: &Filter) -> Trial {
        self.out.resize(compress_bound(self.sample.len()), 0);
        let mut len = |zstd: &mut CCtx<'_>, bytes: &[u8]| {
            zstd.compress2(self.out.as_mut_slice(), bytes).expect("room for the bound") as f64
        };
        let plain = len(&mut self.plain_zstd, &self.sample);
        let mut header = Vec::new();
        filter.apply(&self.sample, &mut self.filter, &mut header);
        let zstd = if filter.predicts() { &mut self.planes_zstd } else { &mut self.plain_zstd };
        let share = len(zstd, &self.filter.planes) / plain;
        Trial { share, plain: plain / self.sample.len() as f64 }
    }
}

struct Trial {
    /// What the filter leaves as a share of what zstd alone does.
    share: f64,
    /// What zstd alone leaves of the bytes.
    plain: f64,
}

fn numbers(plain: &[u8], entropy: &Entropy) -> Option<Filter> {
    let numbers = look::numbers(plain, entropy);
    let (predictor, lead) =
        if numbers.delta { (Predictor::Left, numbers.lead as u8) } else { (Predictor::None, 0) };
    let filter = Filter::new(whole(numbers.width), predictor, lead).ok();
    filter.filter(|_| numbers.share < SHARE_MAX)
}

fn records(plain: &[u8]) -> Option<Filter> {
    let record = look::record(&plain[(plain.len() - RECORD_ROOM) / 2..])?;
    let filter = Filter::new(whole(record), Predictor::None, 0).ok();
    filter.filter(|_| !matches!(record, 1 | 2 | 4 | 8))
}

/// Samples of which no more than the width is known.
fn whole(width: usize) -> Samples {
    Samples { width: width as u16, step: 1, row: 0 }
}

/// Of a hint: `plain` begins with a sample.
pub fn with_hint(plain: &[u8], samples: Samples) -> Choice {
    let Samples { width, step, row } = samples;
    if plain.len() >= LOOKED && look::text(plain) == Text::Lines {
        return Choice::Plain;
    }
    if !matches!(width, 1 | 2 | 4 | 8) {
        return Filter::new(samples, Predictor::None, 0).map_or(Choice::Plain, Choice::Both);
    }
    let Ok(left) = Filter::new(samples, Predictor::Left, 0) else { return Choice::Plain };
    let average = Filter::new(samples, Predictor::Average, 0);
    let median = Filter::new(samples, Predictor::Median, 0);
    let step = usize::from(step);
    let row = if median.is_ok() { row.into() } else { step };
    let Some(bits) = for_width!(width, bits(plain, step, row)) else { return Choice::Both(left) };
    let costs = bits.map(|bits| cost(&bits));
    let (filter, i) = match (average, median) {
        (Ok(average), Ok(median)) if costs[0] >= costs[1].min(costs[2]) * SORTED => {
            if costs[1] < costs[2] { (average, 1) } else { (median, 2) }
        }
        _ => (left, 0),
    };
    let bits = bits[i];
    // Where most samples are as predicted, as in masks and drawings, zstd may find more by itself;
    // where predictions are poor, the hint is wrong.
    let looked = bits.iter().sum::<u32>();
    let drawn = bits[0] > looked / 4 * 3;
    let share = costs[i] / (f64::from(looked) * f64::from(8 * width));
    match share {
        HOPELESS.. => Choice::Plain,
        _ if share > POOR || drawn => Choice::Both(filter),
        _ => Choice::Filter(filter),
    }
}

/// What predictions leave of a sample's bits where they are no good, and where nothing is.
const POOR: f64 = 0.7;
const HOPELESS: f64 = 0.98;

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
