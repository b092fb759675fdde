//! DICOM Part 10 files (PS3.5, PS3.10): where pixel data begins and how its samples lie.
//!
//! Elements are skipped by their lengths; the few that describe the pixels are read at the top level
//! of the data set only (an icon within a sequence has pixels and attributes of its own). Crate
//! `dicom-parser` was looked at: it would do, but wants a reader that seeks, a registry of transfer
//! syntaxes and text encodings, keeps a stack that the file makes grow, and decodes what is only to
//! be skipped. Files without preamble and deflated ones are plain bytes.

use crate::backup::shape::bytes::{Bytes, Order};
use crate::backup::shape::{Region, Shape, samples};
use crate::format::codec::Samples;

/// Elements and items that are looked at, nested ones included; an enhanced multi-frame object has
/// some hundred a frame.
const ELEMENTS_MAX: u32 = 1 << 20;
/// Sequences and items of undefined length within one another.
const DEPTH_MAX: u32 = 64;

/// A value of this length is large; private data, icons, overlays and per-frame groups are.
const LARGE_VALUE_BYTES: u64 = 1 << 10;
/// Values of consecutive elements stand together: there is no more than a header between them.
const LARGE_GAP_BYTES: u64 = 16;
/// Less than this is not worth two more cuts.
const LARGE_BYTES: u64 = 4 << 10;

const UNDEFINED: u32 = u32::MAX;
const ITEM: (u16, u16) = (0xfffe, 0xe000);
const ITEM_END: (u16, u16) = (0xfffe, 0xe00d);
const SEQUENCE_END: (u16, u16) = (0xfffe, 0xe0dd);
const PIXELS: [(u16, u16); 3] = [(0x7fe0, 0x0008), (0x7fe0, 0x0009), (0x7fe0, 0x0010)];
/// The length of these explicit value representations takes 4 bytes after 2 that mean nothing.
const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// How the elements after the file meta information are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
    /// Explicit and little-endian; its pixels are compressed, or nobody knows.
    Other,
    Deflated,
}

impl Syntax {
    fn of(uid: &[u8]) -> Self {
        match uid.trim_ascii_end() {
            b"1.2.840.10008.1.2" => Self::ImplicitLittle,
            b"1.2.840.10008.1.2.1" => Self::ExplicitLittle,
            b"1.2.840.10008.1.2.2" => Self::ExplicitBig,
            b"1.2.840.10008.1.2.1.99" | b"1.2.840.10008.1.2.4.95" => Self::Deflated,
            _ => Self::Other,
        }
    }
}

/// What the data set says of its pixels; each 0 where it does not.
#[derive(Default)]
struct Image {
    samples_per_pixel: u16,
    planar: u16,
    frames: u64,
    rows: u16,
    columns: u16,
    bits: u16,
}

#[derive(Clone, Copy)]
struct Element {
    tag: (u16, u16),
    /// VR UN: what is in it, if its length is undefined, is implicit (PS3.5, 6.2.2).
    unknown: bool,
    len: u32,
    /// Where its value begins.
    value: u64,
}

/// The longest run of large values, and the one that may still grow; from, to.
#[derive(Default)]
struct Large {
    longest: (u64, u64),
    last: (u64, u64),
}

impl Large {
    fn add(&mut self, from: u64, to: u64) {
        if to - from < LARGE_VALUE_BYTES {
            return;
        }
        let together = self.last.1 > 0 && from - self.last.1 <= LARGE_GAP_BYTES;
        self.last = (if together { self.last.0 } else { from }, to);
        if self.last.1 - self.last.0 > self.longest.1 - self.longest.0 {
            self.longest = self.last;
        }
    }

    fn longest(&self) -> Option<(u64, u64)> {
        Some(self.longest).filter(|(from, to)| to - from >= LARGE_BYTES)
    }
}

struct Reader<'b> {
    bytes: Bytes<'b>,
    explicit: bool,
    at: u64,
    visited: u32,
}

pub fn shape(head: &[u8]) -> Option<Shape> {
    (head.get(128..132)? == b"DICM").then_some(())?;
    let mut reader = Reader { bytes: Bytes::little(head), explicit: true, at: 132, visited: 0 };
    let syntax = reader.meta()?;
    if syntax == Syntax::Deflated {
        return None;
    }
    reader.explicit = syntax != Syntax::ImplicitLittle;
    if syntax == Syntax::ExplicitBig {
        reader.bytes.order = Order::Big;
    }
    let (mut image, mut large) = (Image::default(), Large::default());
    loop {
        let element = reader.element(reader.explicit)?;
        if PIXELS.contains(&element.tag) {
            let (start, region) = reader.pixels(element, syntax, &image)?;
            return Some(Shape { large: large.longest(), start, region });
        }
        reader.describe(&mut image, element);
        if element.len == UNDEFINED {
            reader.skip_nested(element)?;
        } else {
            reader.at += u64::from(element.len);
        }
        large.add(element.value, reader.at);
    }
}

/// See `shape::fragment_bytes`.
pub fn item_bytes(bytes: &[u8]) -> Option<u64> {
    let bytes = Bytes::little(bytes);
    let len = bytes.u32(4)?;
    let item = (bytes.u16(0)?, bytes.u16(2)?) == ITEM && len != UNDEFINED;
    item.then_some(8 + u64::from(len))
}

impl Reader<'_> {
    /// Reads the file meta information, always explicit and little-endian. Its elements are told by their group, as
    /// its stated length is wrong in real files.
    fn meta(&mut self) -> Option<Syntax> {
        let mut syntax = None;
        while self.bytes.u16(self.at)? == 0x0002 {
            let element = self.element(true)?;
            if element.tag == (0x0002, 0x0010) {
                let uid = self.bytes.run(element.value, u64::from(element.len))?;
                syntax = Some(Syntax::of(uid.split(|&byte| byte == 0).next()?));
            }
            self.at += u64::from(element.len);
        }
        syntax
    }

    /// The header of the element at hand; goes on to its value.
    fn element(&mut self, explicit: bool) -> Option<Element> {
        self.visited += 1;
        (self.visited <= ELEMENTS_MAX).then_some(())?;
        let (bytes, at) = (self.bytes, self.at);
        let tag = (bytes.u16(at)?, bytes.u16(at + 2)?);
        let (unknown, len, header) = if explicit && tag.0 != ITEM.0 {
            let vr: [u8; 2] = bytes.at(at + 4)?;
            vr.iter().all(u8::is_ascii_uppercase).then_some(())?;
            if LONG.contains(&&vr) {
                (&vr == b"UN", bytes.u32(at + 8)?, 12)
            } else {
                (false, u32::from(bytes.u16(at + 6)?), 8)
            }
        } else {
            (false, bytes.u32(at + 4)?, 8)
        };
        self.at = at + header;
        Some(Element { tag, unknown, len, value: self.at })
    }

    /// Goes past the end of a sequence of undefined length, and of all that is in it. Ends are
    /// counted, not matched by kind.
    fn skip_nested(&mut self, sequence: Element) -> Option<()> {
        let mut open = 1;
        // From this depth on elements are implicit.
        let mut implicit_from = if sequence.unknown { 1 } else { u32::MAX };
        while open > 0 {
            let element = self.element(self.explicit && open < implicit_from)?;
            match element {
                Element { tag: ITEM_END | SEQUENCE_END, .. } => {
                    open -= 1;
                    if open < implicit_from {
                        implicit_from = u32::MAX;
                    }
                }
                Element { len: UNDEFINED, unknown, .. } => {
                    open += 1;
                    if unknown {
                        implicit_from = implicit_from.min(open);
                    }
                    (open <= DEPTH_MAX).then_some(())?;
                }
                Element { len, .. } => self.at += u64::from(len),
            }
        }
        Some(())
    }

    /// Values that are not what they should be are not there.
    fn describe(&self, image: &mut Image, element: Element) {
        let short = || self.bytes.u16(element.value).filter(|_| element.len == 2).unwrap_or(0);
        match element.tag {
            (0x0028, 0x0002) => image.samples_per_pixel = short(),
            (0x0028, 0x0006) => image.planar = short(),
            (0x0028, 0x0008) => {
                let text = self.bytes.run(element.value, u64::from(element.len));
                image.frames = text.and_then(integer).unwrap_or(0);
            }
            (0x0028, 0x0010) => image.rows = short(),
            (0x0028, 0x0011) => image.columns = short(),
            (0x0028, 0x0100) => image.bits = short(),
            _ => {}
        }
    }

    fn pixels(&self, element: Element, syntax: Syntax, image: &Image) -> Option<(u64, Region)> {
        if element.len == UNDEFINED {
            // The first item is the offset table, which changes with whoever writes the file.
            let table = item_bytes(self.bytes.all.get(self.at as usize..)?)?;
            return Some((self.at + table, Region::Fragments));
        }
        let (start, len) = (self.at, u64::from(element.len));
        let native =
            matches!(syntax, Syntax::ImplicitLittle | Syntax::ExplicitLittle | Syntax::ExplicitBig);
        let frame = image.frame_bytes(len).filter(|_| native);
        let samples = frame.filter(|_| syntax != Syntax::ExplicitBig).and(image.samples());
        let frame = frame.filter(|_| image.frames > 1).unwrap_or(0);
        Some((start, Region::Frames { end: start + len, frame, samples }))
    }
}

/// An integer string (VR IS) that is not negative.
fn integer(text: &[u8]) -> Option<u64> {
    let text = text.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

impl Image {
    /// Bytes of a frame, if `len` bytes are as many frames as there should be and at most one byte to
    /// make them even.
    fn frame_bytes(&self, len: u64) -> Option<u64> {
        let pixels = u64::from(self.rows) * u64::from(self.columns);
        let bits = pixels.checked_mul(u64::from(self.samples_per_pixel.max(1)))?;
        let bits = bits.checked_mul(u64::from(self.bits))?;
        let frame = bits / 8;
        (bits > 0 && bits.is_multiple_of(8)).then_some(())?;
        let whole = frame.checked_mul(self.frames.max(1))?;
        (len == whole || len == whole.checked_add(1)? && !whole.is_multiple_of(2)).then_some(frame)
    }

    fn samples(&self) -> Option<Samples> {
        self.bits.is_multiple_of(8).then_some(())?;
        let interleaved = self.planar == 0;
        let step = if interleaved { u64::from(self.samples_per_pixel.max(1)) } else { 1 };
        samples(u64::from(self.bits / 8), step, u64::from(self.columns))
    }
}
