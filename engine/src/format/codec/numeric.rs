//! Filters of codec 2: delta, zigzag and byte shuffle over samples of 1, 2, 4 or 8 little-endian
//! bytes. A remainder shorter than a sample stays as it is, behind them.

use crate::error::FormatError;
use crate::format::codec::FRAME;
use crate::format::layout::{check, check_zero};

pub const DELTA: u8 = 1;
pub const ZIGZAG: u8 = 2;
pub const SHUFFLE: u8 = 4;
pub(super) const HEADER_LEN: usize = 4;

pub(super) struct Filter {
    width: usize,
    flags: u8,
}

macro_rules! for_width {
    ($width:expr, $call:ident, $samples:expr, $flags:expr) => {
        match $width {
            1 => $call!(u8, $samples, $flags),
            2 => $call!(u16, $samples, $flags),
            4 => $call!(u32, $samples, $flags),
            _ => $call!(u64, $samples, $flags),
        }
    };
}

macro_rules! forward {
    ($t:ty, $samples:expr, $flags:expr) => {{
        let mut last: $t = 0;
        for sample in $samples.chunks_exact_mut(size_of::<$t>()) {
            let value = <$t>::from_le_bytes((&*sample).try_into().expect("a sample"));
            let mut coded = value;
            if $flags & DELTA != 0 {
                coded = value.wrapping_sub(last);
                last = value;
            }
            if $flags & ZIGZAG != 0 {
                let sign = (coded >> (<$t>::BITS - 1)).wrapping_neg();
                coded = (coded << 1) ^ sign;
            }
            sample.copy_from_slice(&coded.to_le_bytes());
        }
    }};
}

macro_rules! backward {
    ($t:ty, $samples:expr, $flags:expr) => {{
        let mut last: $t = 0;
        for sample in $samples.chunks_exact_mut(size_of::<$t>()) {
            let mut value = <$t>::from_le_bytes((&*sample).try_into().expect("a sample"));
            if $flags & ZIGZAG != 0 {
                value = (value >> 1) ^ (value & 1).wrapping_neg();
            }
            if $flags & DELTA != 0 {
                last = last.wrapping_add(value);
                value = last;
            }
            sample.copy_from_slice(&value.to_le_bytes());
        }
    }};
}

impl Filter {
    pub(super) fn new(width: u8, flags: u8) -> Result<Self, FormatError> {
        check(FRAME, matches!(width, 1 | 2 | 4 | 8), "no such sample width")?;
        check(FRAME, flags & !(DELTA | ZIGZAG | SHUFFLE) == 0, "no such numeric filter")?;
        Ok(Self { width: width.into(), flags })
    }

    /// The filter and the zstd frame behind it.
    pub(super) fn read(encoded: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        let cut = FormatError::Truncated { object: FRAME };
        let (&[width, flags, zero @ ..], rest) =
            encoded.split_first_chunk::<HEADER_LEN>().ok_or(cut)?;
        let zero: [u8; 2] = zero;
        check_zero(FRAME, &zero)?;
        Ok((Self::new(width, flags)?, rest))
    }

    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        [self.width as u8, self.flags, 0, 0]
    }

    pub(super) fn shuffles(&self) -> bool {
        self.flags & SHUFFLE != 0
    }

    /// Replaces `out` by the filtered bytes.
    pub(super) fn apply(&self, plain: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(plain);
        for_width!(self.width, forward, out, self.flags);
        if self.shuffles() {
            let filtered = std::mem::replace(out, vec![0; plain.len()]);
            let count = filtered.len() / self.width;
            let (planes, rest) = out.split_at_mut(count * self.width);
            for (i, sample) in filtered.chunks_exact(self.width).enumerate() {
                for (byte, &value) in sample.iter().enumerate() {
                    planes[byte * count + i] = value;
                }
            }
            rest.copy_from_slice(&filtered[count * self.width..]);
        }
    }

    /// Replaces `out` by the plain bytes; the filtered ones stand in `shuffled` if the filter
    /// shuffles, else in `out`.
    pub(super) fn undo(&self, shuffled: &[u8], out: &mut Vec<u8>) {
        if self.shuffles() {
            out.resize(shuffled.len(), 0);
            let count = shuffled.len() / self.width;
            let (planes, rest) = shuffled.split_at(count * self.width);
            let (samples, out_rest) = out.split_at_mut(count * self.width);
            for (i, sample) in samples.chunks_exact_mut(self.width).enumerate() {
                for (byte, value) in sample.iter_mut().enumerate() {
                    *value = planes[byte * count + i];
                }
            }
            out_rest.copy_from_slice(rest);
        }
        for_width!(self.width, backward, out, self.flags);
    }
}
