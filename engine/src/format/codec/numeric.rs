//! Codec 2, the numeric filter: samples are predicted from their neighbours, the residuals
//! zigzagged, sorted by what lies above them and cut into byte planes; zstd takes it from there.
//! Here are its header and its order; what to try on which data is `choose`'s.

mod planes;
pub mod predict;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::error::FormatError;
use crate::format::codec::numeric::planes::{BLOCK, COUNTS};
use crate::format::codec::numeric::predict::{Predictor, Sample};
use crate::format::codec::{FRAME, Samples};
use crate::format::layout::{check, check_zero};

const HEADER_LEN: usize = 8;
const WIDTH_MAX: u16 = 4096;

/// Calls a generic function for samples of `width` bytes.
macro_rules! for_width {
    ($width:expr, $call:ident ( $($argument:expr),* )) => {
        match $width {
            1 => $call::<1, u8>($($argument),*),
            2 => $call::<2, u16>($($argument),*),
            4 => $call::<4, u32>($($argument),*),
            _ => $call::<8, u64>($($argument),*),
        }
    };
}
pub(super) use for_width;

/// How a frame is filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    samples: Samples,
    predictor: Predictor,
    /// Bytes before the first sample.
    lead: u8,
}

/// Buffers that are kept from frame to frame.
#[derive(Default)]
pub struct Scratch {
    residuals: Vec<u8>,
    unsorted: Vec<u8>,
    classes: Vec<u8>,
    pub planes: Vec<u8>,
}

type Counts = [u32; COUNTS];

impl Filter {
    /// What the predictor does not use of `samples` is dropped; an error: it cannot work with them.
    pub fn new(samples: Samples, predictor: Predictor, lead: u8) -> Result<Self, FormatError> {
        let samples = match predictor {
            Predictor::None => Samples { step: 0, row: 0, ..samples },
            Predictor::Left => Samples { row: 0, ..samples },
            Predictor::Average | Predictor::Median => samples,
        };
        let filter = Self { samples, predictor, lead };
        filter.check()?;
        Ok(filter)
    }

    fn check(&self) -> Result<(), FormatError> {
        let Samples { width, step, row } = self.samples;
        if self.predictor == Predictor::None {
            check(FRAME, (1..=WIDTH_MAX).contains(&width), "no such sample width")?;
        } else {
            check(FRAME, matches!(width, 1 | 2 | 4 | 8), "no such sample width")?;
        }
        let leads = self.predictor != Predictor::None;
        check(FRAME, self.lead == 0 || leads && u16::from(self.lead) < width, "lead of samples")?;
        check(FRAME, (step == 0) == (self.predictor == Predictor::None), "step of samples")?;
        match self.looks_up() {
            true => check(FRAME, row >= BLOCK as u16 && row > u16::from(step), "row of samples"),
            false => check(FRAME, row == 0, "row of samples"),
        }
    }

    /// Whether what it leaves is noise.
    pub fn predicts(&self) -> bool {
        self.predictor != Predictor::None
    }

    fn looks_up(&self) -> bool {
        matches!(self.predictor, Predictor::Average | Predictor::Median)
    }

    /// The filter, its counts, and the zstd frame behind them.
    pub fn read(encoded: &[u8]) -> Result<(Self, Counts, &[u8]), FormatError> {
        let cut = || FormatError::Truncated { object: FRAME };
        let (&[width0, width1, predictor, step, row0, row1, lead, zero], mut rest) =
            encoded.split_first_chunk::<HEADER_LEN>().ok_or_else(cut)?;
        check_zero(FRAME, &[zero])?;
        let [width, row] = [[width0, width1], [row0, row1]].map(u16::from_le_bytes);
        let predictor = Predictor::from_u8(predictor)?;
        let filter = Self { samples: Samples { width, step, row }, predictor, lead };
        filter.check()?;
        let mut counts = Counts::default();
        if filter.looks_up() {
            for count in &mut counts {
                let (bytes, behind) = rest.split_first_chunk().ok_or_else(cut)?;
                (*count, rest) = (u32::from_le_bytes(*bytes), behind);
            }
        }
        Ok((filter, counts, rest))
    }

    /// Filters `plain` into `scratch.planes` and replaces `out` by the header.
    pub fn apply(&self, plain: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) {
        let Samples { width, step, row } = self.samples;
        let counts = self.filter(plain, scratch);
        out.clear();
        out.extend_from_slice(&width.to_le_bytes());
        out.extend_from_slice(&[self.predictor as u8, step]);
        out.extend_from_slice(&row.to_le_bytes());
        out.extend_from_slice(&[self.lead, 0]);
        for count in counts.iter().filter(|_| self.looks_up()) {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    fn filter(&self, plain: &[u8], scratch: &mut Scratch) -> Counts {
        let samples = self.range(plain.len());
        let (lead, end) = (samples.start, samples.end);
        scratch.planes.resize(plain.len(), 0);
        scratch.planes[..lead].copy_from_slice(&plain[..lead]);
        scratch.planes[end..].copy_from_slice(&plain[end..]);
        if matches!(self.samples.width, 1 | 2 | 4 | 8) {
            return for_width!(self.samples.width, forward(self, lead, &plain[samples], scratch));
        }
        let planes = &mut scratch.planes[samples.clone()];
        planes::shuffle_records(self.samples.width.into(), &plain[samples], planes);
        Counts::default()
    }

    /// Replaces `out` by the plain bytes of what stands in `scratch.planes`; on error `out` is
    /// anything.
    pub fn undo(
        &self,
        counts: &Counts,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let samples = self.range(scratch.planes.len());
        let (lead, end) = (samples.start, samples.end);
        out.resize(scratch.planes.len(), 0);
        out[..lead].copy_from_slice(&scratch.planes[..lead]);
        out[end..].copy_from_slice(&scratch.planes[end..]);
        if matches!(self.samples.width, 1 | 2 | 4 | 8) {
            let samples = &mut out[samples];
            let done =
                for_width!(self.samples.width, backward(self, lead, counts, scratch, samples));
            return check(FRAME, done.is_some(), "counts of classes");
        }
        let planes = &scratch.planes[samples.clone()];
        planes::unshuffle_records(self.samples.width.into(), planes, &mut out[samples]);
        Ok(())
    }

    /// Where whole samples lie in `len` bytes.
    fn range(&self, len: usize) -> Range<usize> {
        let lead = len.min(self.lead.into());
        lead..len - (len - lead) % usize::from(self.samples.width)
    }
}

/// `plain`: whole samples, behind `lead` bytes.
fn forward<const N: usize, S: Sample<N>>(
    filter: &Filter,
    lead: usize,
    plain: &[u8],
    scratch: &mut Scratch,
) -> Counts {
    let (samples, _) = plain.as_chunks::<N>();
    let (step, row) = (filter.samples.step.into(), filter.samples.row.into());
    let planes = &mut scratch.planes[lead..][..plain.len()];
    if filter.predictor == Predictor::None {
        planes::shuffle::<N, S>(samples, planes);
        return Counts::default();
    }
    scratch.residuals.resize(plain.len(), 0);
    let (residuals, _) = scratch.residuals.as_chunks_mut::<N>();
    predict::forward::<N, S>(filter.predictor, step, row, samples, residuals);
    if !filter.looks_up() {
        planes::shuffle::<N, S>(residuals, planes);
        return Counts::default();
    }
    scratch.unsorted.resize(plain.len(), 0);
    planes::shuffle::<N, S>(residuals, &mut scratch.unsorted);
    planes::sort::<N>(row, &scratch.unsorted, &mut scratch.classes, planes)
}

/// `out`: room for whole samples, behind `lead` bytes.
fn backward<const N: usize, S: Sample<N>>(
    filter: &Filter,
    lead: usize,
    counts: &Counts,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Option<()> {
    let (samples, _) = out.as_chunks_mut::<N>();
    let (step, row) = (filter.samples.step.into(), filter.samples.row.into());
    let planes = &scratch.planes[lead..][..samples.len() * N];
    if filter.predictor == Predictor::None {
        planes::unshuffle::<N, S>(planes, samples);
        return Some(());
    }
    scratch.residuals.resize(samples.len() * N, 0);
    let (residuals, _) = scratch.residuals.as_chunks_mut::<N>();
    if filter.looks_up() {
        scratch.unsorted.resize(planes.len(), 0);
        planes::unsort::<N>(row, counts, planes, &mut scratch.unsorted)?;
        planes::unshuffle::<N, S>(&scratch.unsorted, residuals);
    } else {
        planes::unshuffle::<N, S>(planes, residuals);
    }
    predict::backward::<N, S>(filter.predictor, step, row, residuals, samples);
    Some(())
}
