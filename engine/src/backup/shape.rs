//! A file's first bytes → where its pixels (or other samples) lie, so that chunks can end where
//! they begin and where their frames do, and codecs can be told how the numbers lie. Pure functions
//! without I/O. They allocate nothing, recurse nowhere, and visit a bounded number of elements:
//! whoever writes the source may be hostile. A wrong shape costs space, never content.
//!
//! What is not understood has no shape: broken, truncated and contradictory headers, unknown formats,
//! and headers that do not end within `HEAD_BYTES_MAX`. Deliberately absent: whatever is not needed
//! to find the samples (patients, studies, colour, calibration), and opening compressed files.

mod bytes;
mod dicom;
mod nifti;
mod tiff;

use crate::format::codec::Samples;

/// No more of a file is looked at: the same for mapped files, small ones and streams, so that none
/// of them is cut in another way than the others.
pub const HEAD_BYTES_MAX: usize = 16 << 20;

/// A file in three: a header, a region of samples, and the rest. Offsets in bytes from the file's
/// beginning; all of them are above 0, `start` is within the bytes that were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Where large values stand together in the header, which whoever exports the file again seldom
    /// changes: from, to.
    pub large: Option<(u64, u64)>,
    /// Where the region begins.
    pub start: u64,
    pub region: Region,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Samples, one frame after the other.
    Frames {
        /// Not below `start`; beyond the end of a file that was cut off.
        end: u64,
        /// Bytes of one frame. 0: the region is one piece.
        frame: u64,
        samples: Option<Samples>,
    },
    /// Fragments of compressed frames, each after an item header that gives its length; they end
    /// where no such header stands (DICOM PS3.5, A.4).
    Fragments,
}

/// `head`: the first `HEAD_BYTES_MAX` bytes of the file, or all of it. More are not looked at.
pub fn of(head: &[u8]) -> Option<Shape> {
    let head = &head[..head.len().min(HEAD_BYTES_MAX)];
    let shape = dicom::shape(head).or_else(|| nifti::shape(head)).or_else(|| tiff::shape(head))?;
    let within = (1..=head.len() as u64).contains(&shape.start);
    let ends = match shape.region {
        Region::Frames { end, .. } => end > shape.start,
        Region::Fragments => true,
    };
    assert!(shape.large.is_none_or(|(from, to)| 0 < from && from < to && to <= shape.start));
    (within && ends).then_some(shape)
}

/// Bytes of a fragment with its item header; `None` where there is no item header.
pub fn fragment_bytes(bytes: &[u8]) -> Option<u64> {
    dicom::item_bytes(bytes)
}

/// `width` bytes a sample, `step` samples a pixel, `columns` pixels a row. `None`: not a width that
/// codecs know.
fn samples(width: u64, step: u64, columns: u64) -> Option<Samples> {
    matches!(width, 1 | 2 | 4 | 8).then_some(())?;
    let row = step.checked_mul(columns)?;
    Some(Samples {
        width: width as u16,
        step: u8::try_from(step).ok().filter(|&step| step > 0)?,
        // Rows that are too long to be told are none.
        row: u16::try_from(row).unwrap_or(0),
    })
}
