//! The choice: numbers are found, with and without a hint, and everything else is left alone.

use crate::format::codec::{Codec, Decoder, Encoder, Predictor, Samples};
use crate::format::mangle::noise;

const LEN: usize = 600_000;
const CT: Samples = Samples { width: 2, step: 1, row: 512 };

/// Encodes, decodes, and says how: codec, width, predictor; and the share of plain zstd's size.
fn chosen(plain: &[u8], samples: Option<Samples>) -> (Codec, u16, u8, f64) {
    let (mut encoder, mut buffer, mut back) = (Encoder::new(), Vec::new(), Vec::new());
    let (codec, out) = encoder.encode(plain, samples, &mut buffer);
    let len = plain.len() as u32;
    Decoder::new().decode(codec as u8, out, len, &[], &mut back).expect("our own");
    assert!(back == plain);
    let (width, predictor) = match codec {
        Codec::Numeric => (u16::from_le_bytes([out[0], out[1]]), out[2]),
        _ => (0, 0),
    };
    let mut buffer = Vec::new();
    let (_, alone) = encoder.encode_plain(plain, &mut buffer);
    (codec, width, predictor, out.len() as f64 / alone.len() as f64)
}

/// Slices of 16-bit samples, smooth fields with grain as wide as `grain`.
fn ct(len: usize, grain: u8) -> Vec<u8> {
    let noise = noise(3, len);
    let sample = |i: usize| {
        let (x, y) = (i % 512, i / 512);
        (x * x / 200 + y * y / 300 + 2 * x * y / 900 + usize::from(noise[i] % grain)) as u16
    };
    (0..len / 2).flat_map(|i| sample(i).wrapping_sub(1024).to_le_bytes()).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|i| format!("{i};patient {};{}\n", i * 7, i % 13).into_bytes())
        .take(len)
        .collect()
}

/// Records of `width` bytes: a counter, a random value, a constant.
fn records(len: usize, width: usize) -> Vec<u8> {
    let values = noise(5, len);
    let record = |i: usize| {
        let mut record = vec![b'x'; width];
        record[..4].copy_from_slice(&(i as u32 / 3 + 0x01F0_2030).to_be_bytes());
        record[5..7].copy_from_slice(&values[2 * i..][..2]);
        record[9] = b'a' + (i % 7) as u8;
        record
    };
    (0..len.div_ceil(width)).flat_map(record).take(len).collect()
}

#[test]
fn images_with_a_hint() {
    let (codec, width, predictor, share) = chosen(&ct(LEN, 20), Some(CT));
    assert_eq!((codec, width), (Codec::Numeric, 2));
    assert!(predictor == Predictor::Average as u8, "the mean of two is best on grain: {predictor}");
    assert!(share < 0.75, "{share}");
    let (codec, _, predictor, share) = chosen(&ct(LEN, 2), Some(CT));
    assert_eq!((codec, predictor), (Codec::Numeric, Predictor::Median as u8));
    assert!(share < 0.6, "{share}");
}

#[test]
fn images_and_numbers_without_a_hint() {
    let mut sum = 0i64;
    let steps = noise(7, LEN);
    let walk: Vec<i64> = steps
        .iter()
        .map(|&step| {
            sum += i64::from(step) - 100;
            sum
        })
        .collect();
    let ints: Vec<u8> = walk.iter().take(LEN / 4).flat_map(|&i| (i as i32).to_le_bytes()).collect();
    let doubles: Vec<u8> =
        walk.iter().take(LEN / 8).flat_map(|&i| (i as f64 * 0.25).to_le_bytes()).collect();
    let cases = [
        ("ct", ct(LEN, 20), 2, 0.85),
        ("i32", ints, 4, 0.6),
        ("f64", doubles, 8, 0.95),
        ("records", records(LEN, 37), 37, 0.9),
    ];
    for (name, plain, expected, share_max) in cases {
        for lead in [0, 1] {
            let plain = [&[0x2A; 3][..lead], &plain].concat();
            let (codec, width, _, share) = chosen(&plain, None);
            assert_eq!((codec, width), (Codec::Numeric, expected), "{name} {lead}: {share}");
            assert!(share < share_max, "{name} {lead}: {share}");
        }
    }
}

#[test]
fn everything_else_is_left_alone() {
    let words: Vec<u8> = noise(8, LEN)
        .iter()
        .flat_map(|&byte| [b"the ", b"of a", b"data", b"in\n "][usize::from(byte) % 4])
        .copied()
        .collect();
    for (plain, codec) in [
        (text(LEN), Codec::Zstd),
        (words, Codec::Zstd),
        (vec![0; LEN], Codec::Zstd),
        (vec![], Codec::Stored),
        (vec![7], Codec::Stored),
        (text(3000), Codec::Zstd),
        (noise(1, LEN), Codec::Stored),
        (noise(2, 70_000), Codec::Stored),
    ] {
        assert_eq!(chosen(&plain, None).0, codec, "{:?}", plain.get(..20));
    }
}

#[test]
fn wrong_hints_cost_space_only() {
    let hints = [1, 2, 3, 4, 8, 100, 4096, 4097, u16::MAX, 0].into_iter().flat_map(|width| {
        [(0, 0), (1, 0), (1, 7), (1, 8), (3, 600), (9, 8), (255, u16::MAX)]
            .map(|(step, row)| Samples { width, step, row })
    });
    let plains = [vec![], vec![1], noise(1, 100), text(20_000), noise(2, 20_000), ct(20_000, 9)];
    for hint in hints {
        for plain in &plains {
            let (.., share) = chosen(plain, Some(hint));
            assert!(plain.is_empty() || share < 1.7, "{hint:?}: {share}");
        }
    }
    let (codec, .., share) = chosen(&noise(1, LEN), Some(CT));
    assert_eq!((codec, share), (Codec::Stored, 1.0));
}

#[test]
fn drawings_stay_with_zstd() {
    // A mask: the same odd shape in every row, so that matches beat predictions.
    let row: Vec<u8> = noise(4, 1024).iter().map(|byte| u8::from(*byte < 16) * 200).collect();
    let plain: Vec<u8> = row.iter().copied().cycle().skip(13).take(LEN).collect();
    let (.., share) = chosen(&plain, Some(Samples { width: 1, step: 1, row: 600 }));
    assert!(share <= 1.0, "{share}");
}
