//! Where the samples of a file lie, told from its header, and where its chunks end.

#[path = "../../fuzz/bodies/dicom.rs"]
mod body;
#[path = "support/dicom.rs"]
mod build;
#[path = "../../fuzz/bodies/input.rs"]
mod input;

use std::path::Path;

use proptest::prelude::{any, prop, proptest};
use proptest::test_runner::Config;
use strongroom::backup::chunk::Chunker;
use strongroom::backup::cut::Cut;
use strongroom::backup::shape::{self, Region, Shape};
use strongroom::format::codec::Samples;

use build::{BIG, DEFLATED, Dicom, EXPLICIT, IMPLICIT, Image, JPEG_2000};

const SLICE: Image = Image::gray_16(64, 64);
const SYNTAXES: [&str; 3] = [IMPLICIT, EXPLICIT, BIG];

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn frames(start: usize, len: usize, frame: usize, samples: Option<Samples>) -> Option<Shape> {
    let region = Region::Frames { end: (start + len) as u64, frame: frame as u64, samples };
    Some(Shape { large: None, start: start as u64, region })
}

fn fragments(start: usize) -> Option<Shape> {
    Some(Shape { large: None, start: start as u64, region: Region::Fragments })
}

fn hint(width: u16, step: u8, row: u16) -> Option<Samples> {
    Some(Samples { width, step, row })
}

/// A file with this image, zeros for pixels, and a trailer.
fn with_image(syntax: &str, image: Image) -> (Vec<u8>, usize) {
    let mut file = Dicom::new(syntax);
    file.filler(101).image(image).pixels(&vec![0; image.bytes()]);
    let start = file.len() - image.bytes();
    file.trailer(50);
    (file.bytes, start)
}

#[test]
fn native_pixels_are_found_in_every_byte_order() {
    for syntax in SYNTAXES {
        let (bytes, start) = with_image(syntax, SLICE);
        // Codecs know little-endian numbers only.
        let samples = hint(2, 1, 64).filter(|_| syntax != BIG);
        assert_eq!(shape::of(&bytes), frames(start, SLICE.bytes(), 0, samples), "{syntax}");
    }
}

#[test]
fn attributes_become_a_hint() {
    let cases = [
        (Image { bits: 8, ..SLICE }, hint(1, 1, 64)),
        (Image { bits: 32, ..SLICE }, hint(4, 1, 64)),
        (Image { bits: 64, ..SLICE }, hint(8, 1, 64)),
        (Image { bits: 8, samples: 3, planar: 0, ..SLICE }, hint(1, 3, 192)),
        (Image { bits: 8, samples: 3, planar: 1, ..SLICE }, hint(1, 1, 64)),
        (Image { bits: 16, samples: 3, planar: 0, ..SLICE }, hint(2, 3, 192)),
        // A row longer than the hint can say.
        (Image { bits: 8, samples: 3, columns: 40_000, ..SLICE }, hint(1, 3, 0)),
        // Masks of one bit, packed 12 bits, and what is no number of bits.
        (Image { bits: 1, ..SLICE }, None),
        (Image { bits: 12, ..SLICE }, None),
        (Image { bits: 24, ..SLICE }, None),
        (Image { bits: 0, ..SLICE }, None),
    ];
    for (image, samples) in cases {
        let (bytes, start) = with_image(EXPLICIT, image);
        let wanted = frames(start, image.bytes(), 0, samples).filter(|_| image.bits > 0);
        assert_eq!(shape::of(&bytes), wanted, "{image:?}");
    }
}

#[test]
fn float_pixels_are_found() {
    for (element, vr, bits) in [(0x0008, b"OF", 32), (0x0009, b"OD", 64)] {
        let image = Image { bits, ..SLICE };
        let mut file = Dicom::new(EXPLICIT);
        file.image(image).element((0x7fe0, element), vr, &vec![0; image.bytes()]);
        let start = file.len() - image.bytes();
        let wanted = frames(start, image.bytes(), 0, hint(bits / 8, 1, 64));
        assert_eq!(shape::of(&file.bytes), wanted);
    }
}

#[test]
fn frames_are_told_where_the_length_fits_them() {
    let image = Image { frames: 7, ..SLICE };
    for syntax in SYNTAXES {
        let (bytes, start) = with_image(syntax, image);
        let samples = hint(2, 1, 64).filter(|_| syntax != BIG);
        assert_eq!(shape::of(&bytes), frames(start, image.bytes(), 8192, samples), "{syntax}");
    }
    // One byte more makes an odd length even.
    let odd = Image { rows: 3, columns: 3, bits: 8, frames: 5, ..SLICE };
    let mut file = Dicom::new(EXPLICIT);
    file.image(odd).pixels(&[0; 46]);
    let start = file.len() - 46;
    assert_eq!(shape::of(&file.bytes), frames(start, 46, 9, hint(1, 1, 3)));
}

#[test]
fn pixels_of_another_length_are_cut_off_without_a_hint() {
    for len in [SLICE.bytes() - 2, SLICE.bytes() + 2, SLICE.bytes() * 2, 2] {
        let mut file = Dicom::new(EXPLICIT);
        file.image(SLICE).pixels(&vec![0; len]);
        let start = file.len() - len;
        assert_eq!(shape::of(&file.bytes), frames(start, len, 0, None));
    }
    let mut file = Dicom::new(EXPLICIT);
    file.pixels(&[0; 100]);
    assert_eq!(shape::of(&file.bytes), frames(file.len() - 100, 100, 0, None));
}

#[test]
fn pixels_that_the_file_does_not_hold_whole_are_found() {
    let (bytes, start) = with_image(EXPLICIT, SLICE);
    let wanted = frames(start, SLICE.bytes(), 0, hint(2, 1, 64));
    assert_eq!(shape::of(&bytes[..start + 1000]), wanted);
    assert_eq!(shape::of(&bytes[..start]), wanted);
    assert_eq!(shape::of(&bytes[..start - 1]), None);
}

#[test]
fn compressed_pixels_begin_behind_their_offset_table() {
    for table in [0, 4, 400] {
        let mut file = Dicom::new(JPEG_2000);
        file.image(SLICE).header((0x7fe0, 0x0010), b"OB", u32::MAX);
        file.element((0xfffe, 0xe000), b"  ", &vec![0; table]);
        let start = file.len();
        file.element((0xfffe, 0xe000), b"  ", &[1; 300]).end_sequence();
        assert_eq!(shape::of(&file.bytes), fragments(start));
    }
    // Of a transfer syntax that nobody knows, with a length all the same: no hint.
    let (bytes, start) = with_image("1.2.3.4", SLICE);
    assert_eq!(shape::of(&bytes), frames(start, SLICE.bytes(), 0, None));
}

fn with_large(large: (usize, usize), shape: Option<Shape>) -> Option<Shape> {
    let large = Some((large.0 as u64, large.1 as u64));
    Some(Shape { large, ..shape? })
}

#[test]
fn the_longest_run_of_large_values_is_told() {
    let mut file = Dicom::new(EXPLICIT);
    file.filler(5000).image(SLICE);
    let from = file.len() + 12;
    // Together: a value, another one, a sequence of undefined length; each in a long header.
    file.filler(3000).filler(1024).sequence((0x0040, 0x0275)).item().filler(3000);
    file.end_item().end_sequence();
    let to = file.len();
    file.filler(1023).filler(4096).pixels(&vec![0; SLICE.bytes()]);
    let start = file.len() - SLICE.bytes();
    let wanted = frames(start, SLICE.bytes(), 0, hint(2, 1, 64));
    assert_eq!(shape::of(&file.bytes), with_large((from, to), wanted));
    assert_eq!(lengths(&file.bytes), [from, to - from, start - to, SLICE.bytes()]);
    // One byte less than is worth it.
    let mut file = Dicom::new(EXPLICIT);
    file.image(SLICE).filler(4095).pixels(&vec![0; SLICE.bytes()]);
    assert_eq!(shape::of(&file.bytes).unwrap().large, None);
}

#[test]
fn deflated_and_foreign_files_are_plain_bytes() {
    let (mut bytes, _) = with_image(DEFLATED, SLICE);
    assert_eq!(shape::of(&bytes), None);
    bytes = with_image(EXPLICIT, SLICE).0;
    // The data set alone, without preamble.
    assert_eq!(shape::of(&bytes[132..]), None);
    bytes[128] = b'd';
    assert_eq!(shape::of(&bytes), None);
    for bytes in [&b""[..], b"DICM", &[0; 132], &noise(1, 5000)] {
        assert_eq!(shape::of(bytes), None);
    }
}

#[test]
fn sequences_of_undefined_length_are_skipped_with_all_that_is_in_them() {
    for syntax in SYNTAXES {
        let mut file = Dicom::new(syntax);
        file.image(SLICE);
        // An icon: its attributes and pixels are not the image's.
        file.sequence((0x0088, 0x0200)).item();
        file.image(Image { rows: 5, columns: 7, bits: 8, frames: 9, ..SLICE }).pixels(&[0; 36]);
        file.sequence((0x0040, 0x0275)).item().filler(30).end_item();
        file.element((0xfffe, 0xe000), b"  ", &[0; 0]).end_sequence();
        file.end_item().end_sequence();
        file.element((0x0099, 0x1010), b"LO", b"private ");
        file.pixels(&vec![0; SLICE.bytes()]);
        let start = file.len() - SLICE.bytes();
        let samples = hint(2, 1, 64).filter(|_| syntax != BIG);
        assert_eq!(shape::of(&file.bytes), frames(start, SLICE.bytes(), 0, samples), "{syntax}");
    }
}

#[test]
fn an_icon_may_be_compressed_itself() {
    let mut file = Dicom::new(JPEG_2000);
    file.sequence((0x0088, 0x0200)).item().fragments(0, &[[1; 20], [2; 20]]).end_item();
    file.end_sequence().image(SLICE);
    let before = file.len();
    file.fragments(4, &[[3; 40]]);
    assert_eq!(shape::of(&file.bytes), fragments(before + 12 + 8 + 4));
}

#[test]
fn unknown_values_of_undefined_length_hold_implicit_elements() {
    let implicit = |file: &mut Dicom, tag: (u16, u16), len: u32| {
        for half in [tag.0, tag.1, len as u16, (len >> 16) as u16] {
            file.bytes.extend_from_slice(&half.to_le_bytes());
        }
    };
    let mut file = Dicom::new(EXPLICIT);
    file.image(SLICE);
    for nested in [false, true] {
        if nested {
            file.sequence((0x0008, 0x1111)).item();
        }
        file.header((0x0011, 0x1001), b"UN", u32::MAX).item();
        implicit(&mut file, (0x0011, 0x1002), 6);
        file.bytes.extend_from_slice(b"secret");
        file.end_item().end_sequence();
        if nested {
            // Explicit again, as deep as that was.
            file.filler(20).sequence((0x0008, 0x1111)).item().filler(20);
            file.end_item().end_sequence().end_item().end_sequence();
        }
    }
    file.pixels(&vec![0; SLICE.bytes()]);
    let start = file.len() - SLICE.bytes();
    assert_eq!(shape::of(&file.bytes), frames(start, SLICE.bytes(), 0, hint(2, 1, 64)));
}

#[test]
fn depth_and_length_of_a_header_have_limits() {
    for (depth, found) in [(30, true), (33, false), (100_000, false)] {
        let mut file = Dicom::new(EXPLICIT);
        for _ in 0..depth {
            file.sequence((0x0008, 0x1111)).item();
        }
        for _ in 0..depth {
            file.end_item().end_sequence();
        }
        file.image(SLICE).pixels(&vec![0; SLICE.bytes()]);
        assert_eq!(shape::of(&file.bytes).is_some(), found, "{depth}");
    }
    // Elements without a value, some too many.
    for (elements, found) in [(1 << 19, true), (1 << 21, false)] {
        let mut file = Dicom::new(IMPLICIT);
        file.bytes.extend([9, 0, 1, 0x10, 0, 0, 0, 0].repeat(elements));
        file.image(SLICE).pixels(&vec![0; SLICE.bytes()]);
        assert_eq!(shape::of(&file.bytes).is_some(), found, "{elements}");
    }
    for (len, found) in [(shape::HEAD_BYTES_MAX - 1000, true), (shape::HEAD_BYTES_MAX, false)] {
        let mut file = Dicom::new(EXPLICIT);
        file.filler(len).image(SLICE).pixels(&vec![0; SLICE.bytes()]);
        assert_eq!(shape::of(&file.bytes).is_some(), found, "{len}");
    }
}

fn little(numbers: &[(usize, usize, u64)], bytes: &mut [u8]) {
    for &(place, width, number) in numbers {
        bytes[place..place + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }
}

/// 64 × 40 × 3 voxels of this type, NIfTI-1.
fn nifti_1(datatype: u64, voxel: usize, offset: f32) -> Vec<u8> {
    let mut bytes = vec![0; offset as usize + 64 * 40 * 3 * voxel];
    little(&[(0, 4, 348), (40, 2, 3), (42, 2, 64), (44, 2, 40), (46, 2, 3)], &mut bytes);
    little(&[(70, 2, datatype), (108, 4, u64::from(offset.to_bits()))], &mut bytes);
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes
}

#[test]
fn nifti_volumes_are_found() {
    let cases = [
        (2, 1, hint(1, 1, 64)),
        (4, 2, hint(2, 1, 64)),
        (16, 4, hint(4, 1, 64)),
        (64, 8, hint(8, 1, 64)),
        (32, 8, hint(4, 2, 128)),
        (128, 3, hint(1, 3, 192)),
        (2304, 4, hint(1, 4, 256)),
    ];
    for (datatype, voxel, samples) in cases {
        let bytes = nifti_1(datatype, voxel, 352.0);
        assert_eq!(shape::of(&bytes), frames(352, 7680 * voxel, 0, samples), "{datatype}");
    }
    let mut bytes = vec![0; 1000 + 7680 * 2];
    little(&[(0, 4, 540), (12, 2, 4), (16, 8, 3), (24, 8, 64), (32, 8, 40)], &mut bytes);
    little(&[(40, 8, 3), (168, 8, 1000)], &mut bytes);
    bytes[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
    assert_eq!(shape::of(&bytes), frames(1000, 7680 * 2, 0, hint(2, 1, 64)));
    little(&[(0, 4, u64::from(540_u32.swap_bytes()))], &mut bytes);
    assert_eq!(shape::of(&bytes), None, "a big-endian file says 8 dimensions and more");
}

#[test]
fn big_endian_nifti_has_no_hint() {
    let mut bytes = nifti_1(4, 2, 352.0);
    for (place, width) in [(0, 4), (40, 2), (42, 2), (44, 2), (46, 2), (70, 2), (108, 4)] {
        bytes[place..place + width].reverse();
    }
    assert_eq!(shape::of(&bytes), frames(352, 7680 * 2, 0, None));
}

#[test]
fn contradictory_nifti_is_plain_bytes() {
    let cases: [&[(usize, usize, u64)]; 8] = [
        &[(40, 2, 0)],
        &[(40, 2, 8)],
        &[(42, 2, 0)],
        &[(44, 2, 0xffff)],
        &[(70, 2, 1536)],
        &[(108, 4, f32::NAN.to_bits() as u64)],
        &[(108, 4, 1e30_f32.to_bits() as u64)],
        &[(344, 4, u32::from_le_bytes(*b"ni1\0") as u64)],
    ];
    for numbers in cases {
        let mut bytes = nifti_1(4, 2, 352.0);
        little(numbers, &mut bytes);
        assert_eq!(shape::of(&bytes), None, "{numbers:?}");
    }
}

/// A TIFF of pages of 100 × 30 pixels, 3 strips each, pixels first.
fn tiff(pages: usize, bits: u64, per_pixel: u64) -> Vec<u8> {
    let strip = 10 * 100 * bits / 8 * per_pixel;
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    bytes.resize(8 + pages * 3 * strip as usize, 7);
    let mut link = 4;
    for page in 0..pages as u64 {
        let at = bytes.len() as u64;
        little(&[(link, 4, at)], &mut bytes);
        let tables = at + 2 + 12 * 9 + 4;
        let entries = [
            (256, 3, 1, 100),
            (257, 3, 1, 30),
            (258, 3, per_pixel, if per_pixel > 2 { tables + 24 } else { bits }),
            (259, 3, 1, 1),
            (273, 4, 3, tables),
            (277, 3, 1, per_pixel),
            (278, 3, 1, 10),
            (279, 4, 3, tables + 12),
            (284, 3, 1, 1),
        ];
        bytes.resize(tables as usize + 24 + 6, 0);
        little(&[(at as usize, 2, entries.len() as u64)], &mut bytes);
        for (n, (tag, kind, count, value)) in entries.into_iter().enumerate() {
            let place = at as usize + 2 + 12 * n;
            let numbers = [(place, 2, tag), (place + 2, 2, kind), (place + 4, 4, count)];
            little(&numbers, &mut bytes);
            little(&[(place + 8, 4, value)], &mut bytes);
        }
        for n in 0..3 {
            let (place, first) = (tables as usize + 4 * n, 8 + (3 * page + n as u64) * strip);
            little(&[(place, 4, first), (place + 12, 4, strip)], &mut bytes);
            little(&[(tables as usize + 24 + 2 * n, 2, bits)], &mut bytes);
        }
        link = tables as usize - 4;
    }
    bytes
}

#[test]
fn tiff_strips_are_found() {
    assert_eq!(shape::of(&tiff(1, 8, 1)), frames(8, 3000, 0, hint(1, 1, 100)));
    assert_eq!(shape::of(&tiff(1, 16, 1)), frames(8, 6000, 0, hint(2, 1, 100)));
    assert_eq!(shape::of(&tiff(1, 8, 3)), frames(8, 9000, 0, hint(1, 3, 300)));
    assert_eq!(shape::of(&tiff(5, 16, 1)), frames(8, 30_000, 6000, hint(2, 1, 100)));
}

#[test]
fn other_tiffs_are_plain_bytes() {
    let sound = tiff(1, 16, 1);
    let entry = |n: usize| 8 + 6000 + 2 + 12 * n;
    let tables = entry(9) + 4;
    let cases: [&[(usize, usize, u64)]; 8] = [
        &[(2, 2, 43)],
        &[(0, 2, 0x4d4d)],
        &[(4, 4, 1 << 30)],
        // Bits, compression, a gap between strips, another length, strips without number.
        &[(entry(2) + 8, 2, 12)],
        &[(entry(3) + 8, 2, 5)],
        &[(tables + 4, 4, 2010)],
        &[(tables + 20, 4, 1999)],
        &[(entry(4) + 4, 4, u64::from(u32::MAX)), (entry(7) + 4, 4, u64::from(u32::MAX))],
    ];
    for numbers in cases {
        let mut bytes = sound.clone();
        little(numbers, &mut bytes);
        assert_eq!(shape::of(&bytes), None, "{numbers:?}");
    }
    // A directory that names itself as the next one.
    let mut endless = sound.clone();
    little(&[(entry(9), 4, 6008)], &mut endless);
    assert_eq!(shape::of(&endless), frames(8, 6000, 0, hint(2, 1, 100)));
}

fn real(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/real");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn real_files_have_the_shape_that_they_have() {
    let native = [
        ("epi-00041.dcm", with_large((6002, 15_418), frames(16_900, 8192, 0, hint(2, 1, 64)))),
        ("epi-00042.dcm", with_large((6002, 15_418), frames(16_902, 8192, 0, hint(2, 1, 64)))),
        ("epi-pe-ap.nii", frames(352, 103_680, 0, hint(2, 1, 72))),
        ("SC_rgb.dcm", frames(1300, 30_000, 0, hint(1, 3, 300))),
        ("SC_rgb_expb.dcm", frames(1288, 30_000, 0, None)),
        ("ae.xpt", None),
        ("super-wide-1.zip", None),
    ];
    for (name, wanted) in native {
        assert_eq!(shape::of(&real(name)), wanted, "{name}");
        cuts(&real(name));
    }
    let compressed = [
        ("rtdose_rle_1frame.dcm", 1774),
        ("SC_rgb_rle_16bit_2frame.dcm", 1344),
        ("emri_small_jpeg_2k_lossless.dcm", 2360),
    ];
    for (name, start) in compressed {
        assert_eq!(shape::of(&real(name)), fragments(start), "{name}");
        // The fragments are one group; behind them stands their end.
        let [header, group, 8] = lengths(&real(name))[..] else { panic!("{name}") };
        assert_eq!((header, header + group + 8), (start, real(name).len()), "{name}");
    }
}

const MIN: usize = 512 << 10;

fn cuts(file: &[u8]) -> Vec<Cut> {
    body::holds(file);
    body::cuts(Chunker::DEFAULT, file, file.len())
}

fn lengths(file: &[u8]) -> Vec<usize> {
    cuts(file).iter().map(|cut| cut.len).collect()
}

/// A file with pixels of noise behind a header of some length.
fn noisy(syntax: &str, image: Image, header: usize) -> Vec<u8> {
    let mut file = Dicom::new(syntax);
    file.filler(header).image(image).pixels(&noise(7, image.bytes())).trailer(header / 2);
    file.bytes
}

#[test]
fn pixels_give_the_same_chunks_behind_any_header() {
    let images = [
        Image::gray_16(300, 340),
        Image::gray_16(512, 512),
        Image { frames: 400, ..SLICE },
        Image { frames: 3, ..Image::gray_16(400, 401) },
        Image::gray_16(1024, 1536),
        Image { samples: 3, bits: 8, ..Image::gray_16(1000, 1001) },
    ];
    for image in images {
        for syntax in SYNTAXES {
            let chunks = |header| {
                let file = noisy(syntax, image, header);
                let start = shape::of(&file).unwrap().start as usize;
                let (mut at, mut chunks) = (0, Vec::new());
                for cut in cuts(&file) {
                    if (start..start + image.bytes()).contains(&at) {
                        chunks.push((blake3::hash(&file[at..at + cut.len]), cut.samples));
                    }
                    at += cut.len;
                }
                chunks
            };
            let first = chunks(100);
            assert!(!first.is_empty());
            for header in [0, 1001, 2300, 700_001] {
                assert_eq!(chunks(header), first, "{image:?}, {syntax}, {header}");
            }
        }
    }
}

#[test]
fn small_frames_are_taken_together() {
    let image = Image { frames: 400, ..SLICE };
    let file = noisy(EXPLICIT, image, 1000);
    let [_, pixels @ .., _] = &lengths(&file)[..] else { panic!() };
    // 80 frames are 640 KiB, the most that the chunker leaves in one piece.
    assert_eq!(pixels, [80 * 8192; 5]);
    let image = Image { frames: 11, ..Image::gray_16(400, 200) };
    let [_, pixels @ .., _] = &lengths(&noisy(EXPLICIT, image, 1000))[..] else { panic!() };
    assert_eq!(pixels, [4 * 160_000, 4 * 160_000, 3 * 160_000]);
}

#[test]
fn frames_of_half_the_minimum_are_parts_of_their_own() {
    for (rows, columns) in [(256, 512), (512, 512), (600, 512)] {
        let image = Image { frames: 5, ..Image::gray_16(rows, columns) };
        let [_, pixels @ .., _] = &lengths(&noisy(EXPLICIT, image, 1000))[..] else { panic!() };
        assert_eq!(pixels, [image.frame_bytes(); 5]);
    }
}

#[test]
fn within_a_frame_chunks_begin_at_rows() {
    let image = Image::gray_16(1024, 1537);
    let [_, pixels @ .., _] = &cuts(&noisy(EXPLICIT, image, 1000))[..] else { panic!() };
    assert!(pixels.len() > 2);
    for cut in pixels {
        assert_eq!(cut.samples, hint(2, 1, 1537));
        assert_eq!(cut.len % (2 * 1537), 0);
    }
    for cut in &pixels[..pixels.len() - 1] {
        assert!(cut.len > MIN - 2 * 1537);
    }
    // Rows that cannot be told, and rows longer than chunks: at pixels.
    let wide = Image { bits: 8, samples: 3, ..Image::gray_16(100, 30_000) };
    let long = Image { bits: 64, ..Image::gray_16(50, 60_000) };
    for (image, pixel) in [(wide, 3), (long, 8)] {
        let [_, pixels @ .., _] = &cuts(&noisy(EXPLICIT, image, 1000))[..] else { panic!() };
        assert!(pixels.len() > 2);
        assert!(pixels.iter().all(|cut| cut.len.is_multiple_of(pixel)), "{pixels:?}");
    }
}

#[test]
fn a_pad_byte_goes_with_the_last_frame() {
    let image = Image { bits: 8, frames: 3, ..Image::gray_16(701, 701) };
    let mut file = Dicom::new(EXPLICIT);
    file.image(image).pixels(&noise(7, image.bytes() + 1)).trailer(10);
    let [_, pixels @ .., _] = &lengths(&file.bytes)[..] else { panic!() };
    assert_eq!(pixels, [701 * 701, 701 * 701, 701 * 701 + 1]);
}

/// A stream's reader learns that it has seen the end only when it reads on.
#[test]
fn a_file_cut_off_in_its_pixels_is_cut_as_if_it_went_on() {
    let chunker = Chunker::MinCdc { min: 256, max: 768 };
    let mut file = Dicom::new(EXPLICIT);
    file.image(Image { bits: 8, ..Image::gray_16(1000, 50) }).pixels(&[0; 50_000]);
    let start = file.len() - 50_000;
    for left in [100, 767, 768, 769, 1518] {
        let file = &file.bytes[..start + left];
        body::holds(file);
        let cuts: Vec<_> = body::cuts(chunker, file, 5000).iter().map(|cut| cut.len).collect();
        let wanted: &[usize] = match left {
            100 => &[100],
            767 => &[767],
            768 => &[750, 18],
            769 => &[750, 19],
            _ => &[750, 750, 18],
        };
        assert_eq!(cuts[cuts.len() - wanted.len()..], *wanted, "{left}");
    }
}

#[test]
fn fragments_are_taken_together_or_alone() {
    let sizes = [100_000, 200_000, 200_000, 300_000, 10, 262_144, 400_000, 8, 0, 262_136 - 2];
    let fragments: Vec<_> = sizes.iter().map(|&len| noise(len as u64, len)).collect();
    let wanted = [500_024, 300_008, 18, 262_152, 400_008, 262_134 + 8 + 8 + 16];
    for table in [0, 40, 4000] {
        let mut file = Dicom::new(JPEG_2000);
        file.filler(900 + table % 7).fragments(table, &fragments).trailer(10);
        let [_, pixels @ .., tail] = &lengths(&file.bytes)[..] else { panic!() };
        assert_eq!(pixels, wanted);
        assert_eq!(*tail, 8 + 12 + 10);
    }
}

#[test]
fn without_a_shape_the_chunker_alone_decides() {
    for file in [noise(1, 5 << 20), vec![0; 5 << 20], noisy(DEFLATED, SLICE, 3 << 20)] {
        let (mut rest, mut wanted) = (&file[..], Vec::new());
        while let Some(len) = Chunker::DEFAULT.first_cut(rest, true) {
            wanted.push(Cut { len, samples: None });
            rest = &rest[len..];
        }
        assert_eq!(cuts(&file), wanted);
    }
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    /// Built, spoilt in several places, or drawn.
    #[test]
    fn whatever_a_file_says_its_chunks_are_the_file(
        input in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        body::run(&input);
    }
}
