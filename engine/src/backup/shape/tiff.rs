//! Classic little-endian TIFF (TIFF 6.0): uncompressed strips that lie one after the other, of one image
//! or of several of the same kind. BigTIFF, tiles, other byte orders and compressed strips are plain
//! bytes, and so is what the pages have between them.

use crate::backup::shape::bytes::Bytes;
use crate::backup::shape::{Region, Shape, samples};
use crate::format::codec::Samples;

/// Directory entries and strips that are looked at, of all pages together.
const VISITED_MAX: u64 = 1 << 20;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES_PER_PIXEL: u16 = 277;
const STRIP_BYTES: u16 = 279;
const PLANAR: u16 = 284;

/// One image's strips.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Page {
    start: u64,
    len: u64,
    samples: Option<Samples>,
}

/// An entry of a directory: `count` values of `width` bytes from `place` on.
#[derive(Clone, Copy)]
struct Entry {
    width: u64,
    count: u64,
    place: u64,
}

pub fn shape(head: &[u8]) -> Option<Shape> {
    (head.get(..4)? == b"II*\0").then_some(())?;
    let bytes = Bytes::little(head);
    let mut visited = 0;
    let (first, mut next) = page(&bytes, u64::from(bytes.u32(4)?), &mut visited)?;
    let mut end = first.start + first.len;
    while next != 0 {
        match page(&bytes, next, &mut visited) {
            Some((page, after)) if page == (Page { start: end, ..first }) => {
                end += page.len;
                next = after;
            }
            _ => break,
        }
    }
    let frame = if end > first.start + first.len { first.len } else { 0 };
    let region = Region::Frames { end, frame, samples: first.samples };
    Some(Shape { large: None, start: first.start, region })
}

/// The image whose directory stands at `place`, and where the next directory stands.
fn page(bytes: &Bytes, place: u64, visited: &mut u64) -> Option<(Page, u64)> {
    let entries = u64::from(bytes.u16(place)?);
    *visited += entries;
    let find = |tag| find(bytes, place + 2, entries, tag);
    let number = |tag| find(tag).and_then(|entry| entry.value(bytes, 0));
    (number(COMPRESSION)? == 1).then_some(())?;
    let (columns, rows) = (number(WIDTH)?, number(HEIGHT)?);
    let per_pixel = number(SAMPLES_PER_PIXEL).unwrap_or(1);
    let bits = find(BITS)?;
    let width = bits.value(bytes, 0)?;
    let same = (1..bits.count.min(8)).all(|place| bits.value(bytes, place) == Some(width));
    (same && bits.count <= 8 && matches!(width, 8 | 16 | 32 | 64)).then_some(())?;
    let (start, len) = strips(bytes, find(STRIP_OFFSETS)?, find(STRIP_BYTES)?, visited)?;
    let row = columns.checked_mul(width / 8)?.checked_mul(per_pixel)?;
    (row.checked_mul(rows)? == len).then_some(())?;
    let step = if number(PLANAR).unwrap_or(1) == 1 { per_pixel } else { 1 };
    let samples = samples(width / 8, step, columns);
    let next = bytes.u32(place + 2 + 12 * entries).unwrap_or(0);
    Some((Page { start, len, samples }, u64::from(next)))
}

fn find(bytes: &Bytes, first: u64, entries: u64, tag: u16) -> Option<Entry> {
    let mut places = (0..entries).map(|n| first + 12 * n);
    let place = places.find(|&place| bytes.u16(place) == Some(tag))?;
    let width = match bytes.u16(place + 2)? {
        3 => 2,
        4 => 4,
        _ => return None,
    };
    let count = u64::from(bytes.u32(place + 4)?);
    let within = count.checked_mul(width)? <= 4;
    let place = if within { place + 8 } else { u64::from(bytes.u32(place + 8)?) };
    Some(Entry { width, count, place })
}

impl Entry {
    fn value(&self, bytes: &Bytes, index: u64) -> Option<u64> {
        (index < self.count).then_some(())?;
        let place = self.place + index * self.width;
        if self.width == 2 {
            bytes.u16(place).map(u64::from)
        } else {
            bytes.u32(place).map(u64::from)
        }
    }
}

/// Where the strips begin and how long they are together, if they lie one after the other.
fn strips(bytes: &Bytes, offsets: Entry, lengths: Entry, visited: &mut u64) -> Option<(u64, u64)> {
    *visited = visited.checked_add(offsets.count)?;
    (offsets.count == lengths.count && *visited <= VISITED_MAX).then_some(())?;
    let start = offsets.value(bytes, 0)?;
    let mut end = start;
    for strip in 0..offsets.count {
        (offsets.value(bytes, strip)? == end).then_some(())?;
        end = end.checked_add(lengths.value(bytes, strip)?)?;
    }
    Some((start, end - start))
}
