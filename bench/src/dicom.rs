//! CT-like slices as DICOM Part 10 files (PS3.10, explicit VR little endian): a valid preamble, file
//! meta group and the attributes a CT image needs, then 512 × 512 samples of 16 bit. The picture is
//! padding outside the scanner's circle, air with a little noise, and a body whose density varies
//! smoothly between lattice points, under noise that is correlated along rows and columns as
//! reconstruction leaves it. No image a radiologist would believe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::corpus::Rng;

/// Pixel data and about 700 bytes of attributes.
pub const SLICE_BYTES: u64 = 512 * 512 * 2 + 700;
pub const SLICES_PER_SERIES: u64 = 128;

const SIDE: usize = 512;
/// Distance between lattice points of the smooth field, in pixels and in slices.
const LATTICE: usize = 32;
const LATTICE_POINTS: usize = SIDE / LATTICE + 1;
const UID_ROOT: &str = "1.2.826.0.1.3680043.10.1479";
/// Of the station that exports a study again under identifiers of its own.
const UID_ROOT_AGAIN: &str = "1.2.826.0.1.3680043.10.1479.20261122.7";
const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Which picture, and how often its study has been exported before.
#[derive(Clone, Copy)]
pub struct Slice {
    pub seed: u64,
    /// Both counted from 0.
    pub series: u64,
    pub slice: u64,
    /// Other UIDs, another subject, private elements of a length that differs from slice to slice;
    /// the same pixels.
    pub again: bool,
}

pub fn write_slice(out: &mut impl Write, of: Slice) -> io::Result<()> {
    out.write_all(&header(of))?;
    for row in pixels(of.seed, of.series, of.slice).chunks_exact(SIDE) {
        let bytes: Vec<u8> = row.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn header(Slice { seed, series, slice, again }: Slice) -> Vec<u8> {
    let root = if again { UID_ROOT_AGAIN } else { UID_ROOT };
    let subject = if again { "EXPORTED^AGAIN^FOR THE CENTRAL READER" } else { "SUBJECT^GENERATED" };
    let study_uid = format!("{root}.{}", seed % 1_000_000);
    let series_uid = format!("{study_uid}.{}", series + 1);
    let instance_uid = format!("{series_uid}.{}", slice + 1);
    let mut meta = Vec::new();
    element(&mut meta, (0x0002, 0x0001), b"OB", &[0, 1]);
    element(&mut meta, (0x0002, 0x0002), b"UI", CT_IMAGE_STORAGE.as_bytes());
    element(&mut meta, (0x0002, 0x0003), b"UI", instance_uid.as_bytes());
    element(&mut meta, (0x0002, 0x0010), b"UI", EXPLICIT_LITTLE_ENDIAN.as_bytes());
    element(&mut meta, (0x0002, 0x0012), b"UI", UID_ROOT.as_bytes());

    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    element(&mut out, (0x0002, 0x0000), b"UL", &(meta.len() as u32).to_le_bytes());
    out.extend_from_slice(&meta);
    let position = format!("-250\\-250\\{}.5", slice * 2);
    for (tag, vr, value) in [
        ((0x0008, 0x0008), b"CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        ((0x0008, 0x0016), b"UI", CT_IMAGE_STORAGE),
        ((0x0008, 0x0018), b"UI", &instance_uid),
        ((0x0008, 0x0020), b"DA", "20260112"),
        ((0x0008, 0x0060), b"CS", "CT"),
        ((0x0008, 0x0070), b"LO", "Strongroom corpus"),
        ((0x0010, 0x0010), b"PN", subject),
        ((0x0010, 0x0020), b"LO", &format!("STR-{:05}", seed % 100_000)),
        ((0x0018, 0x0050), b"DS", "2.0"),
        ((0x0018, 0x0060), b"DS", "120"),
        ((0x0020, 0x000d), b"UI", &study_uid),
        ((0x0020, 0x000e), b"UI", &series_uid),
        ((0x0020, 0x0013), b"IS", &format!("{}", slice + 1)),
        ((0x0020, 0x0032), b"DS", &position),
        ((0x0020, 0x0037), b"DS", "1\\0\\0\\0\\1\\0"),
    ] {
        element(&mut out, tag, vr, value.as_bytes());
    }
    image_module(&mut out);
    if again {
        let trail =
            format!("export 2 of slice {slice}; {}", "reviewed; ".repeat(slice as usize % 9));
        element(&mut out, (0x0029, 0x0010), b"LO", b"STRONGROOM EXPORT");
        element(&mut out, (0x0029, 0x1001), b"LT", trail.as_bytes());
    }
    out.extend_from_slice(&[0xe0, 0x7f, 0x10, 0x00, b'O', b'W', 0, 0]);
    out.extend_from_slice(&((SIDE * SIDE * 2) as u32).to_le_bytes());
    out
}

fn image_module(out: &mut Vec<u8>) {
    let side = (SIDE as u16).to_le_bytes();
    element(out, (0x0028, 0x0002), b"US", &1u16.to_le_bytes());
    element(out, (0x0028, 0x0004), b"CS", b"MONOCHROME2");
    element(out, (0x0028, 0x0010), b"US", &side);
    element(out, (0x0028, 0x0011), b"US", &side);
    element(out, (0x0028, 0x0030), b"DS", b"0.9765625\\0.9765625");
    for (number, value) in [(0x0100, 16u16), (0x0101, 12), (0x0102, 11), (0x0103, 0)] {
        element(out, (0x0028, number), b"US", &value.to_le_bytes());
    }
    element(out, (0x0028, 0x1052), b"DS", b"-1024");
    element(out, (0x0028, 0x1053), b"DS", b"1");
}

/// One data element, value padded to even length (UIDs and binary with 0, text with a space).
fn element(out: &mut Vec<u8>, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) {
    let padded = value.len() + value.len() % 2;
    out.extend_from_slice(&tag.0.to_le_bytes());
    out.extend_from_slice(&tag.1.to_le_bytes());
    out.extend_from_slice(vr);
    if vr == b"OB" {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(padded as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&(padded as u16).to_le_bytes());
    }
    out.extend_from_slice(value);
    if padded > value.len() {
        out.push(if matches!(vr, b"UI" | b"OB") { 0 } else { b' ' });
    }
}

fn pixels(seed: u64, series: u64, slice: u64) -> Vec<u16> {
    let field = SmoothField::new(seed, series, slice);
    let mut rng = Rng::at(seed ^ 0xc7, series << 20 | slice);
    let mut above = vec![0i64; SIDE];
    let mut out = Vec::with_capacity(SIDE * SIDE);
    for y in 0..SIDE {
        let mut left = 0i64;
        for (x, above) in above.iter_mut().enumerate() {
            // An autoregressive field: 2/5 from the left, 2/5 from above, the rest new.
            let bytes = (rng.next() & 0x7f7f_7f7f).to_le_bytes();
            let fresh = bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>() - 254;
            left = (2 * left + 2 * *above + fresh) / 5;
            *above = left;
            out.push(sample(x, y, &field, left));
        }
    }
    out
}

fn sample(x: usize, y: usize, field: &SmoothField, noise: i64) -> u16 {
    let (dx, dy) = (x as i64 - 256, y as i64 - 256);
    if dx * dx + dy * dy > 250 * 250 {
        return 0;
    }
    let in_body = dx * dx * 150 * 150 + dy * dy * 200 * 200 < 200 * 200 * 150 * 150;
    let density = if in_body { field.at(x, y) + noise } else { 24 + noise / 4 };
    density.clamp(0, 4095) as u16
}

/// Random values on a lattice in three dimensions, linear between its points.
struct SmoothField {
    plane: Vec<i64>,
}

impl SmoothField {
    fn new(seed: u64, series: u64, slice: u64) -> SmoothField {
        let (below, part) = (slice / LATTICE as u64, (slice % LATTICE as u64) as i64);
        let plane = |z: u64| {
            let mut rng = Rng::at(seed ^ 0xf1e1d, series << 20 | z);
            (0..LATTICE_POINTS * LATTICE_POINTS).map(move |_| 900 + rng.below(300) as i64)
        };
        let mix = |(a, b): (i64, i64)| a * (LATTICE as i64 - part) + b * part;
        SmoothField { plane: plane(below).zip(plane(below + 1)).map(mix).collect() }
    }

    fn at(&self, x: usize, y: usize) -> i64 {
        let corner = |x: usize, y: usize| self.plane[y * LATTICE_POINTS + x];
        let (cell_x, cell_y) = (x / LATTICE, y / LATTICE);
        let (part_x, part_y) = ((x % LATTICE) as i64, (y % LATTICE) as i64);
        let along =
            |y| corner(cell_x, y) * (LATTICE as i64 - part_x) + corner(cell_x + 1, y) * part_x;
        let sum = along(cell_y) * (LATTICE as i64 - part_y) + along(cell_y + 1) * part_y;
        sum / (LATTICE * LATTICE * LATTICE) as i64
    }
}

/// Longest prefix of a file in which its transfer syntax and image attributes are looked for.
const HEAD_BYTES: u64 = 256 << 10;

/// Whether this is a Part 10 file with uncompressed little-endian samples of 16 bits. Looks for the
/// elements' bytes instead of parsing: good enough to pick what is measured, for nothing else.
pub fn is_native_16_bit(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.get(128..132) != Some(b"DICM") {
        return Ok(false);
    }
    let after = |element: &[u8]| {
        let at = head.windows(element.len()).position(|window| window == element)?;
        head.get(at + element.len()..)
    };
    let syntax = after(b"\x02\x00\x10\x00UI").and_then(|value| {
        let len = usize::from(u16::from_le_bytes([*value.first()?, *value.get(1)?]));
        Some(value.get(2..2 + len)?.trim_ascii_end())
    });
    let native = [&b"1.2.840.10008.1.2"[..], EXPLICIT_LITTLE_ENDIAN.as_bytes()];
    let syntax = syntax.map(|uid| uid.strip_suffix(b"\0").unwrap_or(uid));
    let bits = [&b"\x28\x00\x00\x01US\x02\x00"[..], b"\x28\x00\x00\x01\x02\x00\x00\x00"];
    let bits = bits.iter().find_map(|element| after(element));
    Ok(syntax.is_some_and(|uid| native.contains(&uid))
        && bits.is_some_and(|value| value.starts_with(&[16, 0])))
}
