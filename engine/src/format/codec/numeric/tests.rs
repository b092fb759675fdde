//! Codec 2: every filter comes back, the fast way gives what the plain way of `docs/format.md`
//! gives, and nothing hostile does harm.

use proptest::prelude::{Just, Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::error::FormatError;
use crate::format::codec::numeric::{Filter, Scratch};
use crate::format::codec::{Codec, Decoder, Encoder, Predictor, Samples};
use crate::format::mangle::noise;

const PREDICTORS: [Predictor; 4] =
    [Predictor::None, Predictor::Left, Predictor::Average, Predictor::Median];

fn filter(width: u16, predictor: Predictor, step: u8, row: u16, lead: u8) -> Filter {
    Filter::new(Samples { width, step, row }, predictor, lead).expect("a filter of the format")
}

/// Header and planes, before zstd.
fn apply(filter: Filter, plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut scratch, mut header) = (Scratch::default(), vec![0xEE; 3]);
    filter.apply(plain, &mut scratch, &mut header);
    (header, scratch.planes)
}

/// The plain way of the format: samples one after the other, nothing clever.
fn plainly(filter: Filter, counts: [u32; 5], stored: &[u8]) -> Vec<u8> {
    let (width, step) = (usize::from(filter.samples.width), usize::from(filter.samples.step));
    let row = usize::from(filter.samples.row);
    let lead = stored.len().min(filter.lead.into());
    let n = (stored.len() - lead) / width;
    let (planes, rest) = stored[lead..].split_at(n * width);
    let byte = |i: usize, k: usize| planes[k * n + i];
    let mut out = stored[..lead].to_vec();
    if filter.predictor == Predictor::None {
        out.extend((0..n).flat_map(|i| (0..width).map(move |k| byte(i, k))));
        out.extend(rest);
        return out;
    }
    let modulus = 1i128 << (8 * width);
    let signed = |a: i128| (a + modulus / 2).rem_euclid(modulus) - modulus / 2;
    let looks_up = matches!(filter.predictor, Predictor::Average | Predictor::Median);
    let mut next = [0; 6];
    for class in 1..6 {
        next[class] = next[class - 1] + 8 * counts[class - 1] as usize;
    }
    let (mut z, mut x): (Vec<i128>, Vec<i128>) = (Vec::new(), Vec::new());
    while z.len() < n {
        let block = z.len();
        let mut place = block;
        if looks_up && block + 8 <= n {
            let sum: i128 =
                (0..8).filter(|_| block >= row).map(|j| z[block - row + j].min(255)).sum();
            let class = [16, 48, 96, 192, 512].iter().filter(|&&bound| sum >= bound).count();
            place = next[class];
            next[class] += 8;
        }
        let number =
            |i: usize| (0..width).rev().fold(0, |sum, k| sum << 8 | i128::from(byte(i, k)));
        z.extend((place..place + 8.min(n - block)).map(number));
    }
    for i in 0..n {
        let l = if i < step { 0 } else { x[i - step] };
        let p = if !looks_up || i < row {
            l
        } else if i % row < step {
            x[i - row]
        } else {
            let (u, ul) = (x[i - row], x[i - row - step]);
            let d = signed(u - ul);
            match filter.predictor {
                Predictor::Average => l + signed(u - l).div_euclid(2),
                _ => l + signed(u - l).clamp(d.min(0), d.max(0)),
            }
        };
        let residual = if z[i] % 2 == 0 { z[i] / 2 } else { -(z[i] + 1) / 2 };
        x.push((p + residual).rem_euclid(modulus));
    }
    out.extend(x.iter().flat_map(|x| x.to_le_bytes()[..width].to_vec()));
    out.extend(rest);
    out
}

fn decode(encoded: &[u8], len: usize) -> Result<Vec<u8>, FormatError> {
    let mut out = vec![0xEE; 10];
    Decoder::new().decode(Codec::Numeric as u8, encoded, len as u32, &[], &mut out).map(|()| out)
}

/// An image of 16-bit samples, with a lead and a remainder.
fn image(row: usize, rows: usize) -> Vec<u8> {
    let grain = noise(9, row * rows);
    let sample =
        |i: usize| (60_000 + i % row * 90 + i / row * 7 + usize::from(grain[i] % 16)) as u16;
    let samples = (0..row * rows).flat_map(|i| sample(i).to_le_bytes());
    [0xAA].into_iter().chain(samples).chain([0xBB]).collect()
}

#[test]
fn predictors_by_hand() {
    let samples =
        [1000u16, 1003, 1001, 65_535, 2, 1000, 999, 998, 1000, 1002, 1004, 65_530, 5, 1000];
    let mut plain: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    plain.push(0xAB);
    let residuals = |predictor, row| {
        // The blocks are of one class, so planes are in order.
        let (_, planes) =
            apply(filter(2, predictor, u8::from(predictor != Predictor::None), row, 0), &plain);
        assert_eq!(planes[28], 0xAB);
        (0..14).map(|i| u16::from_le_bytes([planes[i], planes[14 + i]])).collect::<Vec<_>>()
    };
    assert_eq!(residuals(Predictor::None, 0), samples);
    let left = [2000, 6, 3, 2003, 6, 1996, 1, 1, 4, 4, 4, 2019, 22, 1990];
    assert_eq!(residuals(Predictor::Left, 0), left);
    // The ninth sample is the first of its row: guessed from above.
    let average = [2000, 6, 3, 2003, 6, 1996, 1, 1, 0, 2, 6, 1013, 14, 996];
    assert_eq!(residuals(Predictor::Average, 8), average);
    // 65,535 and 65,530 are as good as −1 and −6.
    let median = [2000, 6, 3, 2003, 6, 1996, 1, 1, 0, 1, 6, 15, 16, 0];
    assert_eq!(residuals(Predictor::Median, 8), median);
}

#[test]
fn headers_golden() {
    let plain = image(16, 9);
    let header = |filter| apply(filter, &plain).0;
    assert_eq!(header(filter(300, Predictor::None, 9, 9, 0)), [0x2C, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(header(filter(8, Predictor::Left, 3, 7, 5)), [8, 0, 1, 3, 0, 0, 5, 0]);
    let median = header(filter(2, Predictor::Median, 1, 16, 1));
    assert_eq!(median[..8], [2, 0, 3, 1, 16, 0, 1, 0]);
    assert_eq!(median.len(), 28);
    let counts: Vec<u32> =
        median[8..].as_chunks().0.iter().map(|&count| u32::from_le_bytes(count)).collect();
    assert_eq!(
        counts.iter().sum::<u32>(),
        18 - 2,
        "{counts:?}: those below the first row's are of class 5"
    );
}

#[test]
fn classes_move_blocks() {
    // One byte a sample; blocks 0 and 1 are the first row; 2 and 3 lie below them.
    let mut plain = [0u8; 40];
    plain[0] = 100;
    plain[9..16].fill(3);
    let (header, planes) = apply(filter(1, Predictor::Average, 1, 16, 0), &plain);
    let mut residuals = [0; 40];
    residuals[0] = 200;
    residuals[1] = 199;
    assert_eq!(plainly(filter(1, Predictor::Average, 1, 16, 0), counts(&header), &planes), plain);
    assert_eq!(planes[..2], residuals[..2]);
    // The sum above block 2 is 399, above block 4 199: class 4; above block 3 it is 6: class 0, as
    // those of the first row.
    assert_eq!(counts(&header), [3, 0, 0, 0, 2]);
}

fn counts(header: &[u8]) -> [u32; 5] {
    let counts = header[8..].as_chunks().0;
    std::array::from_fn(|class| counts.get(class).map_or(0, |&count| u32::from_le_bytes(count)))
}

#[test]
fn hostile_headers_are_refused() {
    let plain = image(16, 20);
    let mut encoded = Vec::new();
    let samples = Samples { width: 2, step: 1, row: 16 };
    let mut encoder = Encoder::new();
    encoder.encode_numeric(samples, Predictor::Median, 1, &plain, &mut encoded).expect("a filter");
    assert_eq!(decode(&encoded, plain.len()).as_ref(), Ok(&plain));
    let with = |changes: &[(usize, u8)]| {
        let mut bad = encoded.clone();
        for &(at, byte) in changes {
            bad[at] = byte;
        }
        decode(&bad, plain.len())
    };
    let refused: &[&[(usize, u8)]] = &[
        &[(0, 0)],
        &[(0, 3)],
        &[(1, 1)],
        &[(2, 4)],
        &[(2, 0xFF)],
        &[(3, 0)],
        &[(3, 16)],
        &[(4, 7)],
        &[(4, 0)],
        &[(6, 2)],
        &[(7, 1)],
        &[(2, 0)],
        &[(2, 1)],
        &[(8, encoded[8] ^ 1)],
        &[(11, 0xFF)],
        &[(24, encoded[24] ^ 1)],
    ];
    for changes in refused {
        assert!(with(changes).is_err(), "{changes:?}");
    }
    for len in 0..29 {
        assert!(decode(&encoded[..len], plain.len()).is_err(), "{len}");
    }
    for len in [0, 1, plain.len() - 1, plain.len() + 1] {
        assert!(decode(&encoded, len).is_err(), "{len}");
    }
    let named = FormatError::Unsupported { object: "frame", feature: "predictor 9".into() };
    assert_eq!(with(&[(2, 9)]), Err(named));
}

/// One frame of each predictor, as they came from the first encoder: they stay readable.
#[test]
fn frozen_frames() {
    let plain = image(9, 5);
    let frozen = include_str!("frozen.txt").lines().filter(|line| !line.starts_with('#'));
    let mut seen = Vec::new();
    for line in frozen {
        let encoded: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[2 * at..][..2], 16).expect("hex"))
            .collect();
        assert!(decode(&encoded, plain.len()) == Ok(plain.clone()), "{line}");
        seen.push(encoded[2]);
    }
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[test]
fn every_predictor_at_every_length() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let (mut encoded, mut out) = (Vec::new(), Vec::new());
    for len in [0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 500, 4099] {
        let plain = noise(len as u64, len);
        for (predictor, width) in PREDICTORS.iter().flat_map(|&p| [1, 2, 4, 8].map(|w| (p, w))) {
            let samples = Samples { width, step: 1, row: 8 };
            // Also with fewer bytes than are said to be before the first sample (found by fuzzing).
            let lead_max = if predictor == Predictor::None { 0 } else { width as u8 - 1 };
            for lead in [0, lead_max] {
                let told = encoder.encode_numeric(samples, predictor, lead, &plain, &mut encoded);
                told.expect("a filter");
                let done = decoder.decode(2, &encoded, len as u32, &[], &mut out);
                assert_eq!((done, &out), (Ok(()), &plain), "{len} {predictor:?} {width} {lead}");
            }
        }
    }
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let width = prop_oneof![Just(1u16), Just(2), Just(4), Just(8)];
    let predicted = (width, 1usize..4, 1u8..5, 8u16..90, any::<u8>()).prop_map(
        |(width, predictor, step, row, lead)| {
            filter(width, PREDICTORS[predictor], step, row, lead % width as u8)
        },
    );
    prop_oneof![predicted, (1u16..4097).prop_map(|width| filter(width, Predictor::None, 0, 0, 0))]
}

/// Bytes that hold images, noise and extremes.
fn any_plain() -> impl Strategy<Value = Vec<u8>> {
    let extremes = prop::collection::vec(
        prop_oneof![Just(0u8), Just(1), Just(0x7F), Just(0x80), Just(0xFF)],
        0..3000,
    );
    let images = (9usize..70, 1usize..20).prop_map(|(row, rows)| image(row, rows));
    prop_oneof![extremes, images, prop::collection::vec(any::<u8>(), 0..3000)]
}

proptest! {
    #[test]
    fn round_trip_and_the_plain_way(filter in any_filter(), plain in any_plain()) {
        let (header, planes) = apply(filter, &plain);
        prop_assert!(plainly(filter, counts(&header), &planes) == plain);
        let mut encoded = Vec::new();
        Encoder::new().encode_filter(&filter, &plain, &mut encoded);
        prop_assert_eq!(&encoded[..header.len()], &header);
        prop_assert!(decode(&encoded, plain.len()) == Ok(plain));
    }

    #[test]
    fn any_counts_are_taken_calmly(
        filter in any_filter(),
        counts in prop::array::uniform5(prop_oneof![0u32..40, any::<u32>()]),
        planes in any_plain(),
    ) {
        let len = planes.len();
        let mut scratch = Scratch { planes, ..Scratch::default() };
        let mut out = Vec::new();
        if filter.undo(&counts, &mut scratch, &mut out).is_ok() {
            prop_assert_eq!(out.len(), len);
        }
    }
}
