//! Where the samples of a file lie, told from its header, and where its chunks end.

#[path = "../../fuzz/bodies/dicom.rs"]
mod body;
#[path = "support/dicom.rs"]
mod build;
#[path = "../../fuzz/bodies/input.rs"]
mod input;

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
    Some(Shape { start: start as u64, region })
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
        let start = file.len() as u64;
        file.element((0xfffe, 0xe000), b"  ", &[1; 300]).end_sequence();
        assert_eq!(shape::of(&file.bytes), Some(Shape { start, region: Region::Fragments }));
    }
    // Of a transfer syntax that nobody knows, with a length all the same: no hint.
    let (bytes, start) = with_image("1.2.3.4", SLICE);
    assert_eq!(shape::of(&bytes), frames(start, SLICE.bytes(), 0, None));
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
    let start = (before + 12 + 8 + 4) as u64;
    assert_eq!(shape::of(&file.bytes), Some(Shape { start, region: Region::Fragments }));
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
            file.filler(20).end_item().end_sequence();
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

#[test]
fn fragments_are_taken_together_or_alone() {
    let sizes = [100_000, 200_000, 200_000, 300_000, 10, 262_144, 400_000, 8, 0, 262_136 - 2];
    let fragments: Vec<_> = sizes.iter().map(|&len| noise(len as u64, len)).collect();
    let wanted = [500_024, 300_008, 18, 262_152, 400_008, 262_134 + 8 + 8 + 16];
    for table in [0, 40, 4000] {
        let mut file = Dicom::new(JPEG_2000);
        file.filler(900 + table).fragments(table, &fragments).trailer(10);
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
