//! Codecs: what goes in comes out, and what comes in cannot do harm.

use proptest::prelude::{any, prop};
use proptest::{prop_assert_eq, proptest};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use crate::error::FormatError;
use crate::format::codec::{Codec, Decoder, Encoder, TWO_TABLES, context};
use crate::format::mangle::{noise, quickly};

fn decode(codec: Codec, encoded: &[u8], plain_len: usize) -> Result<Vec<u8>, FormatError> {
    let mut out = vec![0xEE; 10];
    let len = plain_len as u32;
    Decoder::new().decode(codec as u8, encoded, len, &[], &mut out).map(|()| out)
}

fn encode(plain: &[u8]) -> (Codec, Vec<u8>) {
    let mut buffer = vec![0xEE; 10];
    let (codec, encoded) = Encoder::new().encode_plain(plain, &mut buffer);
    (codec, encoded.to_vec())
}

/// Text that zstd shrinks.
fn csv(len: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|i| format!("{i};patient {};{}\n", i * 7, i % 13).into_bytes())
        .take(len)
        .collect()
}

fn zstd_frame(plain: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut zstd = CCtx::create();
    for &parameter in parameters {
        zstd.set_parameter(parameter).expect("a parameter");
    }
    let mut out = vec![0; compress_bound(plain.len())];
    let len = zstd.compress2(out.as_mut_slice(), plain).expect("room");
    out.truncate(len);
    out
}

#[test]
fn round_trips_and_choices() {
    let hex_text: Vec<u8> =
        noise(1, 1 << 20).iter().map(|byte| b"0123456789abcdef"[usize::from(byte & 15)]).collect();
    let mut half = noise(2, 1 << 20);
    half[..1 << 19].fill(0);
    let cases = [
        (vec![], Codec::Stored),
        (vec![7], Codec::Stored),
        (vec![7; 20], Codec::Zstd),
        (noise(3, 100), Codec::Stored),
        (noise(4, 100_000), Codec::Stored),
        (noise(5, 1 << 20), Codec::Stored),
        (noise(6, 5 << 20), Codec::Stored),
        (csv(1000), Codec::Zstd),
        (csv(3 << 20), Codec::Zstd),
        (vec![0; 1 << 20], Codec::Zstd),
        (hex_text, Codec::Zstd),
        (half, Codec::Zstd),
    ];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let (mut buffer, mut plain) = (Vec::new(), Vec::new());
    for (i, (case, expected)) in cases.iter().enumerate() {
        let (codec, encoded) = encoder.encode_plain(case, &mut buffer);
        assert_eq!(codec, *expected, "case {i}");
        assert!(encoded.len() <= case.len());
        let len = case.len() as u32;
        decoder.decode(codec as u8, encoded, len, &[], &mut plain).expect("our own");
        assert!(&plain == case, "case {i}");
        assert_eq!(encode(case).1, encoded, "a used encoder gives what a new one gives");
    }
}

/// Half a MiB of rows made from numbers that look random.
fn rows(seed: u64, row: impl Fn(&mut dyn FnMut(u64) -> u64) -> String) -> Vec<u8> {
    let random = noise(seed, 4 << 20);
    let mut words = random.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let mut below = |n: u64| words.next().unwrap() % n;
    let mut text = Vec::new();
    while text.len() < 512 << 10 {
        text.extend_from_slice(row(&mut below).as_bytes());
    }
    text
}

#[test]
fn each_frame_gets_the_tables_that_save_more() {
    // Long matches and little else; words, which are short matches.
    let items = |seed| {
        rows(seed, |below| {
            let (form, item, value) = (below(9), below(40), below(1000));
            format!(
                "<ItemData FormOID=\"F_{form}\" ItemOID=\"IT.VITAL_SIGNS.{item:03}\" \
                 IsNull=\"No\" Value=\"{value}\"/>\n"
            )
        })
    };
    let words = |seed| {
        rows(seed, |below| {
            let word = 7_919 * (1 + below(600)) % 99_991;
            format!("{word:05}{}", if below(9) == 0 { '\n' } else { ';' })
        })
    };
    let (mut encoder, mut buffer) = (Encoder::new(), Vec::new());
    for (plain, better) in [(items(1), 0), (words(2), 1), (items(3), 0), (words(4), 1)] {
        let sizes = [&[][..], &TWO_TABLES].map(|more| {
            let mut out = vec![0; compress_bound(plain.len())];
            context(more).compress2(out.as_mut_slice(), &plain).unwrap()
        });
        assert!(sizes[better] < sizes[1 - better], "{better}: {sizes:?}");
        let (codec, encoded) = encoder.encode_plain(&plain, &mut buffer);
        assert_eq!((codec, encoded.len()), (Codec::Zstd, sizes[better]), "{sizes:?}");
    }
}

#[test]
fn unknown_codec_is_named() {
    let refused = Decoder::new().decode(4, &[], 0, &[], &mut Vec::new());
    let expected = FormatError::Unsupported { object: "frame", feature: "codec 4".into() };
    assert_eq!(refused, Err(expected));
}

#[test]
fn exact_length_is_required() {
    let plain = csv(5000);
    let (codec, encoded) = encode(&plain);
    assert_eq!(codec, Codec::Zstd);
    for len in [0, 1, 4999, 5001, 1 << 20] {
        assert!(decode(Codec::Zstd, &encoded, len).is_err(), "{len}");
        assert!(decode(Codec::Stored, &plain, len).is_err(), "{len}");
    }
    let unsized_frame = zstd_frame(&plain, &[CParameter::ContentSizeFlag(false)]);
    assert_eq!(decode(Codec::Zstd, &unsized_frame, 5000).as_ref(), Ok(&plain));
    for len in [0, 1, 4999, 5001] {
        assert!(decode(Codec::Zstd, &unsized_frame, len).is_err(), "{len}");
    }
    let limit = FormatError::Limit { object: "frame", what: "plain length" };
    assert_eq!(quickly(|| decode(Codec::Zstd, &encoded, u32::MAX as usize)), Err(limit));
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![0; 60 << 20];
    for sized in [true, false] {
        let bomb = zstd_frame(&zeros, &[CParameter::ContentSizeFlag(sized)]);
        assert!(bomb.len() < 10_000);
        let mut out = Vec::new();
        for codec in [Codec::Zstd, Codec::Numeric] {
            let encoded = match codec {
                Codec::Numeric => [&[2, 0, 1, 1, 0, 0, 0, 0], bomb.as_slice()].concat(),
                _ => bomb.clone(),
            };
            let refused =
                quickly(|| Decoder::new().decode(codec as u8, &encoded, 100, &[], &mut out));
            assert!(refused.is_err());
            assert!(out.is_empty() && out.capacity() < 1000);
        }
    }
}

#[test]
fn window_above_64_mib_is_refused() {
    let plain = csv(5000);
    let mut frame = zstd_frame(&plain, &[CParameter::ContentSizeFlag(false)]);
    let mut with = |window: u8| {
        frame[5] = window;
        decode(Codec::Zstd, &frame, 5000)
    };
    let limit = Err(FormatError::Limit { object: "frame", what: "window above 64 MiB" });
    assert_eq!(with(16 << 3).as_ref(), Ok(&plain));
    assert_eq!(with(16 << 3 | 1), limit);
    assert_eq!(with(17 << 3), limit);
    assert_eq!(with(0xFF), limit);
}

#[test]
fn only_one_zstd_frame_and_nothing_else() {
    let plain = csv(100);
    let frame = zstd_frame(&plain, &[]);
    let skippable = [0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9];
    let twice = [frame.as_slice(), &frame].concat();
    assert!(decode(Codec::Zstd, &twice, 200).is_err());
    assert!(decode(Codec::Zstd, &[frame.as_slice(), &skippable].concat(), 100).is_err());
    assert!(decode(Codec::Zstd, &[&skippable, frame.as_slice()].concat(), 100).is_err());
    assert!(decode(Codec::Zstd, &skippable, 0).is_err());
    assert!(decode(Codec::Zstd, &[], 0).is_err());
    assert!(decode(Codec::Zstd, &[frame.as_slice(), &[0]].concat(), 100).is_err());
    assert_eq!(decode(Codec::Zstd, &frame, 100), Ok(plain));
}

#[test]
fn delta_needs_its_bases() {
    let base = noise(1, 200_000);
    let mut plain = base.clone();
    plain[100_000] ^= 1;
    plain.splice(50_000..50_000, *b"inserted");
    let (mut encoder, mut encoded) = (Encoder::new(), Vec::new());
    let halves = [&base[..77_777], &base[77_777..]];
    encoder.encode_delta(&halves.concat(), &plain, &mut encoded);
    assert!(encoded.len() < 2_000, "{}", encoded.len());
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let mut with = |bases: &[&[u8]]| {
        decoder.decode(Codec::Delta as u8, &encoded, plain.len() as u32, bases, &mut out)?;
        Ok::<_, FormatError>(out.clone())
    };
    assert!(with(&[&base]) == Ok(plain.clone()), "however it is cut");
    assert!(with(&halves) == Ok(plain.clone()));
    assert!(with(&[]).is_err(), "no base");
    assert!(with(&[&base[..1000]]) != Ok(plain.clone()), "another base");
    assert!(with(&[&[1][..]; 65]).is_err(), "too many");
    assert!(with(&[&vec![0; (8 << 20) + 1]]).is_err(), "too long");
    let bases: &[&[u8]] = &[&base];
    assert!(Decoder::new().decode(0, b"x", 1, bases, &mut Vec::new()).is_err(), "not a delta");
}

#[test]
fn a_prefix_that_looks_like_a_dictionary_is_raw() {
    let base = [&0xEC30_A437_u32.to_le_bytes(), noise(1, 50_000).as_slice()].concat();
    let mut encoded = Vec::new();
    Encoder::new().encode_delta(&base, &base.clone(), &mut encoded);
    assert!(encoded.len() < 1000);
    let mut out = Vec::new();
    let len = base.len() as u32;
    Decoder::new().decode(3, &encoded, len, &[&base], &mut out).expect("raw content");
    assert!(out == base);
}

#[test]
fn damage_is_an_error_or_other_bytes() {
    let plain = csv(3000);
    let (_, encoded) = encode(&plain);
    for len in 0..encoded.len() {
        assert!(decode(Codec::Zstd, &encoded[..len], 3000).is_err());
    }
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    for at in 0..encoded.len() {
        let mut bad = encoded.clone();
        bad[at] ^= 0x41;
        if decoder.decode(1, &bad, 3000, &[], &mut out).is_ok() {
            assert_eq!(out.len(), 3000);
        }
        decoder.decode(1, &encoded, 3000, &[], &mut out).expect("the decoder has recovered");
        assert!(out == plain);
    }
}

proptest! {
    #[test]
    fn plain_round_trip(plain in prop::collection::vec(0u8..4, 0..3000)) {
        let (mut encoder, mut buffer) = (Encoder::new(), Vec::new());
        let (codec, encoded) = encoder.encode_plain(&plain, &mut buffer);
        prop_assert_eq!(decode(codec, encoded, plain.len()), Ok(plain.clone()));
    }

    #[test]
    fn any_bytes_are_taken_calmly(
        codec in 0u8..6,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        len in 0u32..10_000,
    ) {
        let mut out = Vec::new();
        if Decoder::new().decode(codec, &bytes, len, &[], &mut out).is_ok() {
            prop_assert_eq!(out.len(), len as usize);
        }
    }
}
