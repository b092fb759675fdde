//! Where the chunks of a file end whose shape may be known: a cut at the start of its samples, at
//! frames and at their end, and between those what the chunker says, as if each part were a source
//! of its own. So the same pixels give the same chunks whatever header they stand behind.
//!
//! The rule. Parts are the header (three, if large values stand together in it); the region of
//! samples, or groups of its frames; the rest. A frame (or fragment) of half the chunker's minimum or
//! more is a part. Smaller ones are taken together, as many as the chunker leaves in one piece, so
//! that a small multi-frame is not shredded. Within a part whose samples are known a cut is moved
//! down to the beginning of a row, or at least of a pixel. Like the chunker's, all cuts are a pure
//! function of the file's bytes.

use crate::backup::chunk::Chunker;
use crate::backup::shape::{self, Region, Shape};
use crate::format::codec::Samples;

/// Cuts one file, from its first byte to its last.
pub struct Cutter {
    chunker: Chunker,
    /// `None` from where nothing more is known.
    shape: Option<Shape>,
    /// Where the next chunk begins in the file.
    at: u64,
    part: Option<Part>,
}

/// What is cut as if it were a source of its own.
#[derive(Clone, Copy)]
struct Part {
    /// In the file; beyond its end where nothing ends the part but the file.
    end: u64,
    samples: Option<Samples>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub len: usize,
    pub samples: Option<Samples>,
}

impl Cutter {
    /// `head`: see `shape::of`.
    pub fn new(chunker: Chunker, head: &[u8]) -> Self {
        Self { shape: shape::of(head), ..Self::plain(chunker) }
    }

    /// Cuts by content alone.
    pub fn plain(chunker: Chunker) -> Self {
        Self { chunker, shape: None, at: 0, part: None }
    }

    /// The next chunk, from the beginning of `rest`, which begins at the last cut.
    ///
    /// `last`: `rest` runs to the end of the file. `None`: nothing is left, or more bytes are needed,
    /// which happens only while `rest.len() < max_bytes()` of the chunker and not `last`.
    pub fn next(&mut self, rest: &[u8], last: bool) -> Option<Cut> {
        let part = match self.part {
            Some(part) => part,
            None => self.next_part(rest, last)?,
        };
        self.part = Some(part);
        let left = usize::try_from(part.end - self.at).unwrap_or(usize::MAX);
        let ends = left <= rest.len();
        let data = if ends { &rest[..left] } else { rest };
        let cut = self.chunker.first_cut(data, ends || last)?;
        // A file that ends in the middle of a part looks as it would to whoever does not know yet.
        let at_end = cut == data.len() && (ends || last && cut < self.chunker.max_bytes());
        let len = if at_end { cut } else { self.aligned(cut, part.samples) };
        self.at += len as u64;
        if self.at == part.end {
            self.part = None;
        }
        Some(Cut { len, samples: part.samples })
    }

    /// The part that begins here.
    fn next_part(&mut self, rest: &[u8], last: bool) -> Option<Part> {
        let Some(Shape { large, start, region }) = self.shape else { return Some(Part::TAIL) };
        if self.at < start {
            let (from, to) = large.unwrap_or((start, start));
            let end = if self.at < from {
                from
            } else if self.at < to {
                to
            } else {
                start
            };
            return Some(Part { end, samples: None });
        }
        match region {
            Region::Frames { end, .. } if self.at >= end => Some(self.tail()),
            Region::Frames { end, frame, samples } => {
                let group = if frame == 0 { u64::MAX } else { self.group_bytes(frame) };
                let group_end = self.at.saturating_add(group);
                // The byte that makes the length even goes with the last frame.
                let end = if group_end.saturating_add(1) >= end { end } else { group_end };
                Some(Part { end, samples })
            }
            Region::Fragments => self.next_fragments(rest, last),
        }
    }

    fn tail(&mut self) -> Part {
        self.shape = None;
        Part::TAIL
    }

    /// Bytes of as many frames as make one chunk, or of one frame.
    fn group_bytes(&self, frame: u64) -> u64 {
        let whole = self.chunker.whole_bytes() as u64;
        if frame >= self.large_bytes() { frame } else { whole / frame * frame }
    }

    /// From here on a frame is a part of its own.
    fn large_bytes(&self) -> u64 {
        self.chunker.min_bytes() as u64 / 2
    }

    /// A large fragment, or several small ones. The largest chunk is at hand, and what is taken
    /// together is not longer: so it is the same however many bytes are.
    fn next_fragments(&mut self, rest: &[u8], last: bool) -> Option<Part> {
        if rest.len() < self.chunker.max_bytes() && !last {
            return None;
        }
        let (whole, large) = (self.chunker.whole_bytes() as u64, self.large_bytes());
        let Some(first) = shape::fragment_bytes(rest) else { return Some(self.tail()) };
        let mut len = first;
        while first < large
            && let Some(next) = rest.get(len as usize..).and_then(shape::fragment_bytes)
            && next < large
            && len + next <= whole
        {
            len += next;
        }
        Some(Part { end: self.at + len, samples: None })
    }

    fn aligned(&self, cut: usize, samples: Option<Samples>) -> usize {
        let Some(Samples { width, step, row }) = samples else { return cut };
        let (row, pixel) =
            (usize::from(width) * usize::from(row), usize::from(width) * usize::from(step));
        let unit = if row > 0 && row <= self.chunker.min_bytes() / 4 { row } else { pixel };
        let down = cut - cut % unit.max(1);
        if down > 0 { down } else { cut }
    }
}

impl Part {
    /// Up to the end of the file.
    const TAIL: Part = Part { end: u64::MAX, samples: None };
}
