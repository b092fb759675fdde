//! Files with a shape, or nearly: DICOM built element by element and then spoilt, or whatever the input is. Whatever they say, their
//! chunks are the file, and how it is read moves no cut. The file's including module brings `build` (`engine/tests/support/dicom.rs`).

use strongroom::backup::chunk::Chunker;
use strongroom::backup::cut::{Cut, Cutter};
use strongroom::backup::shape::{self, Region};

use super::build::{BIG, DEFLATED, Dicom, EXPLICIT, IMPLICIT, Image, JPEG_2000};
use super::input::Input;

const CHUNKERS: [Chunker; 3] = [
    Chunker::MinCdc { min: 256, max: 768 },
    Chunker::MinCdc { min: 256, max: 260 },
    Chunker::FastCdc { min: 256, avg: 512, max: 2048 },
];

pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => holds(rest),
        1 => holds(&[&[0; 128][..], b"DICM", rest].concat()),
        _ => {
            let mut input = Input(rest);
            let mut file = built(&mut input);
            while !input.is_empty() {
                spoil(&mut file, &mut input);
            }
            holds(&file);
        }
    }
}

/// What must be so for every file.
pub fn holds(file: &[u8]) {
    let shape = shape::of(file);
    if let Some(shape) = shape {
        assert!((1..=file.len() as u64).contains(&shape.start), "{shape:?}");
        if let Region::Frames { end, .. } = shape.region {
            assert!(end > shape.start, "{shape:?}");
        }
    }
    for chunker in CHUNKERS {
        let cuts = cuts(chunker, file, file.len().max(1));
        let mut at = 0;
        let mut borders = Vec::new();
        for cut in &cuts {
            assert!(cut.len > 0 && cut.len <= chunker.max_bytes(), "{cut:?} by {chunker:?}");
            if cut.samples.is_some() {
                let Some(shape) = shape else { panic!("a hint without a shape") };
                let Region::Frames { end, .. } = shape.region else { panic!("{shape:?}") };
                assert!(shape.start <= at && at + cut.len as u64 <= end, "{shape:?}, {at} {cut:?}");
            }
            borders.push(at);
            at += cut.len as u64;
        }
        borders.push(at);
        assert_eq!(at, file.len() as u64, "the chunks are not the file");
        if let Some(shape) = shape {
            let (from, to) = shape.large.unwrap_or((shape.start, shape.start));
            assert!([from, to, shape.start].iter().all(|at| borders.contains(at)), "{shape:?}");
            match shape.region {
                Region::Frames { end, .. } if end <= at => assert!(borders.contains(&end)),
                _ => {}
            }
        }
        for step in [1 + file.len() / 7, chunker.max_bytes()] {
            assert_eq!(self::cuts(chunker, file, step), cuts, "reading moved a cut");
        }
    }
}

/// Cuts as a reader makes them that reads `step` bytes at a time, and learns that it has seen the end when it reads on; if it does not
/// read all at once.
pub fn cuts(chunker: Chunker, file: &[u8], step: usize) -> Vec<Cut> {
    let mut cutter = Cutter::new(chunker, file);
    let (mut at, mut filled, mut last, mut cuts) = (0, 0, false, Vec::new());
    while at < file.len() {
        match cutter.next(&file[at..filled], last) {
            Some(cut) => {
                at += cut.len;
                cuts.push(cut);
            }
            None => {
                assert!(!last && filled - at < chunker.max_bytes(), "undecided with enough bytes");
                last = filled == file.len() || step >= file.len();
                filled = file.len().min(filled + step);
            }
        }
    }
    cuts
}

fn built(input: &mut Input) -> Vec<u8> {
    let mut file = Dicom::new([IMPLICIT, EXPLICIT, BIG, DEFLATED, JPEG_2000][input.below(5)]);
    let mut image = Image::gray_16(16, 16);
    for _ in 0..input.below(12) {
        match input.below(8) {
            0 => file.filler(input.below(100) * input.below(100)),
            1 => file.sequence((0x0008, 0x1111)),
            2 => file.item(),
            3 => file.end_item(),
            4 => file.end_sequence(),
            5 => file.header((0x0011, 0x1001), b"UN", u32::MAX),
            6 => file.element((0x0013, 0x1001), b"LO", &vec![b'x'; input.below(40)]),
            _ => {
                image = drawn_image(input);
                file.image(image)
            }
        };
    }
    let pixels =
        |len: usize| (0..len).map(|n| (n % 251) as u8 ^ (n / 97) as u8).collect::<Vec<u8>>();
    match input.below(4) {
        0 => {
            let fragments: Vec<_> =
                (0..input.below(20)).map(|_| pixels(input.below(600))).collect();
            file.fragments(4 * input.below(4), &fragments);
        }
        1 => drop(file.pixels(&pixels(input.below(5000)))),
        _ => drop(file.pixels(&pixels(image.bytes().min(100_000)))),
    }
    file.trailer(input.below(300));
    file.bytes
}

fn drawn_image(input: &mut Input) -> Image {
    Image {
        rows: 1 + input.byte() as u16,
        columns: 1 + input.byte() as u16,
        bits: [8, 16, 32, 64, 1, 12, 0][input.below(7)],
        samples: 1 + input.below(3) as u16,
        planar: input.below(2) as u16,
        frames: input.below(9) as u32,
    }
}

fn spoil(file: &mut Vec<u8>, input: &mut Input) {
    let at = input.below(file.len().max(1));
    match input.below(6) {
        0 if at < file.len() => file[at] ^= 1 << input.below(8),
        1 => file.truncate(at),
        2 => drop(file.splice(at..at, vec![input.byte(); input.below(100)])),
        3 => drop(file.drain(at..file.len().min(at + 1 + input.below(50)))),
        4 if at + 4 <= file.len() => file[at..at + 4].fill(0xff),
        5 if at < file.len() => file[at] = input.byte(),
        _ => {}
    }
}
