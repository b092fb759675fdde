//! DICOM files made by hand, element by element, right or wrong.
#![allow(dead_code, reason = "each test uses a part of it")]

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const BIG: &str = "1.2.840.10008.1.2.2";
pub const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

const LONG: [&[u8; 2]; 8] = [b"OB", b"OD", b"OF", b"OW", b"SQ", b"UC", b"UN", b"UT"];

/// What the attributes of an image say.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    pub rows: u16,
    pub columns: u16,
    pub bits: u16,
    pub samples: u16,
    pub planar: u16,
    pub frames: u32,
}

impl Image {
    pub const fn gray_16(rows: u16, columns: u16) -> Self {
        Self { rows, columns, bits: 16, samples: 1, planar: 0, frames: 1 }
    }

    pub fn frame_bytes(&self) -> usize {
        let pixels = usize::from(self.rows) * usize::from(self.columns);
        pixels * usize::from(self.samples) * usize::from(self.bits) / 8
    }

    pub fn bytes(&self) -> usize {
        self.frame_bytes() * self.frames as usize
    }
}

pub struct Dicom {
    pub bytes: Vec<u8>,
    explicit: bool,
    big: bool,
}

impl Dicom {
    pub fn new(syntax: &str) -> Self {
        let mut file = Self { bytes: vec![0; 128], explicit: true, big: false };
        file.bytes.extend_from_slice(b"DICM");
        let mut uid = syntax.as_bytes().to_vec();
        if !uid.len().is_multiple_of(2) {
            uid.push(0);
        }
        file.element((0x0002, 0x0010), b"UI", &uid);
        file.explicit = syntax != IMPLICIT;
        file.big = syntax == BIG;
        file
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    fn u16(&mut self, n: u16) {
        self.bytes.extend(if self.big { n.to_be_bytes() } else { n.to_le_bytes() });
    }

    fn u32(&mut self, n: u32) {
        self.bytes.extend(if self.big { n.to_be_bytes() } else { n.to_le_bytes() });
    }

    pub fn header(&mut self, tag: (u16, u16), vr: &[u8; 2], len: u32) -> &mut Self {
        self.u16(tag.0);
        self.u16(tag.1);
        if !self.explicit || tag.0 == 0xfffe {
            self.u32(len);
            return self;
        }
        self.bytes.extend_from_slice(vr);
        if LONG.contains(&vr) {
            self.u16(0);
            self.u32(len);
        } else {
            self.u16(len as u16);
        }
        self
    }

    pub fn element(&mut self, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) -> &mut Self {
        self.header(tag, vr, value.len() as u32);
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn short(&mut self, tag: (u16, u16), value: u16) -> &mut Self {
        self.header(tag, b"US", 2);
        self.u16(value);
        self
    }

    /// A sequence of undefined length.
    pub fn sequence(&mut self, tag: (u16, u16)) -> &mut Self {
        self.header(tag, b"SQ", u32::MAX)
    }

    /// An item of undefined length.
    pub fn item(&mut self) -> &mut Self {
        self.header((0xfffe, 0xe000), b"  ", u32::MAX)
    }

    pub fn end_item(&mut self) -> &mut Self {
        self.header((0xfffe, 0xe00d), b"  ", 0)
    }

    pub fn end_sequence(&mut self) -> &mut Self {
        self.header((0xfffe, 0xe0dd), b"  ", 0)
    }

    /// `len` bytes of text that nobody reads.
    pub fn filler(&mut self, len: usize) -> &mut Self {
        let text: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
        self.element((0x0009, 0x1001), b"UT", &text)
    }

    pub fn image(&mut self, image: Image) -> &mut Self {
        self.short((0x0028, 0x0002), image.samples);
        self.short((0x0028, 0x0006), image.planar);
        let frames = format!("{:<8}", image.frames);
        self.element((0x0028, 0x0008), b"IS", frames.as_bytes());
        self.short((0x0028, 0x0010), image.rows).short((0x0028, 0x0011), image.columns);
        self.short((0x0028, 0x0100), image.bits)
    }

    pub fn pixels(&mut self, value: &[u8]) -> &mut Self {
        self.element((0x7fe0, 0x0010), b"OW", value)
    }

    /// Encapsulated pixel data: an offset table of `table` bytes, fragments, the end.
    pub fn fragments<F: AsRef<[u8]>>(&mut self, table: usize, fragments: &[F]) -> &mut Self {
        self.header((0x7fe0, 0x0010), b"OB", u32::MAX);
        self.element((0xfffe, 0xe000), b"  ", &vec![0; table]);
        for fragment in fragments {
            self.element((0xfffe, 0xe000), b"  ", fragment.as_ref());
        }
        self.end_sequence()
    }

    /// What stands behind the pixels.
    pub fn trailer(&mut self, len: usize) -> &mut Self {
        self.element((0xfffc, 0xfffc), b"OB", &vec![0; len])
    }
}
