//! Pack header, trailer and directory against bytes written by hand, against damage, and against
//! lies.

use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert_eq, proptest};

use crate::error::FormatError;
use crate::format::id::{ChunkId, SessionId, from_hex, hash, to_hex};
use crate::format::mangle::{array, mangle, quickly};
use crate::format::pack::{
    BaseRow, ChunkRow, ContextRow, DIRECTORY_LEN_MAX, Directory, FrameRow, HEADER_LEN, PackClass,
    PackHeader, SealRow, TRAILER_LEN, Trailer, base_rows_bytes, chunk_rows_bytes, chunk_rows_hash,
};

fn chunk(seed: u64, offset: u32, len: u32) -> ChunkRow {
    ChunkRow { id: ChunkId(array(seed)), offset, len }
}

fn example() -> Directory {
    Directory {
        contexts: vec![ContextRow { context: context(2, 7, 5), commit: array(3) }],
        seals: vec![SealRow {
            recipient: 2,
            epoch: 7,
            session: SessionId(array(5)),
            sealed: Box::new(array(4)),
        }],
        frames: vec![
            FrameRow {
                offset: 64,
                ordinal: 0,
                stored: 116,
                plain: 1000,
                chunks: 2,
                bases: 0,
                context: 0,
                codec: 1,
            },
            FrameRow {
                offset: 180,
                ordinal: 9,
                stored: 20,
                plain: 300,
                chunks: 1,
                bases: 1,
                context: 0,
                codec: 3,
            },
        ],
        chunks: vec![chunk(10, 0, 400), chunk(11, 400, 600), chunk(12, 0, 300)],
        bases: vec![BaseRow { id: ChunkId(array(13)), start: 100, len: 200 }],
    }
}

/// The fields of a context that a directory looks at (format.md, 4.1).
fn context(recipient: u8, epoch: u32, session_seed: u64) -> [u8; 72] {
    let mut context: [u8; 72] = array(2);
    context[2] = recipient;
    context[4..8].copy_from_slice(&epoch.to_le_bytes());
    context[24..40].copy_from_slice(&array::<16>(session_seed));
    context
}

#[test]
fn header_golden() {
    let session = SessionId(array(1));
    let header = PackHeader { session, epoch: 0x01020304, class: PackClass::Mixed, suite: 2 };
    let mut expected = b"STRONGRM\x06\x01\0\0\0\0\0\0".to_vec();
    expected.extend_from_slice(&session.0);
    expected.extend_from_slice(&[4, 3, 2, 1, 4, 2]);
    expected.resize(HEADER_LEN, 0);
    assert_eq!(header.to_bytes().as_slice(), expected);
    assert_eq!(PackHeader::from_bytes(&expected), Ok(header));
    expected[8] = 7;
    assert_eq!(
        PackHeader::from_bytes(&expected),
        Err(FormatError::Kind { expected: "pack", found: 7 })
    );
    expected[8..10].copy_from_slice(&[6, 2]);
    let newer = FormatError::Newer { object: "pack header", version: 2 };
    assert_eq!(PackHeader::from_bytes(&expected), Err(newer));
    expected[9] = 1;
    expected[36] = 9;
    let unsupported =
        FormatError::Unsupported { object: "pack header", feature: "pack class 9".into() };
    assert_eq!(PackHeader::from_bytes(&expected), Err(unsupported));
    let not_ours = FormatError::NotOurs { object: "pack header" };
    assert_eq!(PackHeader::from_bytes(&[0; 64]), Err(not_ours));
}

#[test]
fn trailer_golden() {
    let trailer = Trailer {
        directory_offset: 0x1000,
        directory_len: 0x230,
        frames_end: 0xF01,
        frames: 3,
        chunks: 0x0A0B,
    };
    let pack_len = 0x1230 + TRAILER_LEN as u64;
    let expected = "001000000000000030020000000000 00010f000000000000030000000b0a0000\
        00000000000000000000000000000000";
    let expected: [u8; 48] = from_hex(&expected.replace(' ', "")).expect("hex");
    assert_eq!(trailer.to_bytes(), expected);
    assert_eq!(Trailer::from_bytes(&expected, pack_len), Ok(trailer));
    for wrong_len in [0, 100, pack_len - 1, pack_len + 1, u64::MAX] {
        assert!(Trailer::from_bytes(&expected, wrong_len).is_err());
    }
    mangle(&expected, |bytes| match Trailer::from_bytes(bytes, pack_len) {
        Ok(trailer) => {
            assert_eq!(trailer.to_bytes().as_slice(), bytes);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn directory_golden() {
    let directory = example();
    let mut expected = Vec::new();
    for count in [1u32, 1, 2, 3, 1, 0] {
        expected.extend_from_slice(&count.to_le_bytes());
    }
    expected.extend_from_slice(&context(2, 7, 5));
    expected.extend_from_slice(&array::<32>(3));
    expected.extend_from_slice(&[2, 0, 0, 0, 7, 0, 0, 0]);
    expected.extend_from_slice(&array::<16>(5));
    expected.extend_from_slice(&array::<1168>(4));
    let frames = "4000000000000000 0000000000000000 74000000 e8030000 02000000 00000000 00000000\
        01 0000000000000000000000\
        b400000000000000 0900000000000000 14000000 2c010000 01000000 01000000 00000000\
        03 0000000000000000000000";
    expected.extend_from_slice(&from_hex::<96>(&frames.replace(' ', "")).expect("hex"));
    for (seed, offset, len) in [(10, 0u32, 400u32), (11, 400, 600), (12, 0, 300), (13, 100, 200)] {
        expected.extend_from_slice(&array::<32>(seed));
        expected.extend_from_slice(&offset.to_le_bytes());
        expected.extend_from_slice(&len.to_le_bytes());
    }
    let bytes = directory.to_bytes();
    assert_eq!(to_hex(&bytes), to_hex(&expected));
    assert_eq!(Directory::from_bytes(&bytes), Ok(directory.clone()));
    assert_eq!(bytes.len() as u64, Directory::encoded_len(1, 1, 2, 3, 1));
    assert_eq!(directory.frames_end(), 200);
    assert_eq!(directory.seal_of(&directory.contexts[0]), Some(&directory.seals[0]));
    let tables: Vec<_> = directory.frames_with_tables().collect();
    assert_eq!(tables[0].1, &directory.chunks[..2]);
    assert_eq!((tables[1].1, tables[1].2), (&directory.chunks[2..], &directory.bases[..]));
}

#[test]
fn rows_and_their_hash() {
    let directory = example();
    assert_eq!(chunk_rows_hash(&directory.chunks), hash(&chunk_rows_bytes(&directory.chunks)));
    assert_eq!(chunk_rows_hash(&[]), hash(b""));
    assert_eq!(base_rows_bytes(&directory.bases), directory.bases[0].to_bytes());
}

#[test]
fn directory_survives_damage() {
    mangle(&example().to_bytes(), |bytes| match Directory::from_bytes(bytes) {
        Ok(directory) => {
            assert_eq!(directory.to_bytes(), bytes);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    for column in 0..5 {
        for count in [u32::MAX, 1 << 31, 1 << 20] {
            let mut bytes = example().to_bytes();
            bytes[column * 4..][..4].copy_from_slice(&count.to_le_bytes());
            let refused = quickly(|| Directory::from_bytes(&bytes));
            assert_eq!(refused, Err(FormatError::Truncated { object: "pack directory" }));
        }
    }
    let long = vec![0; DIRECTORY_LEN_MAX as usize + 1];
    let limit = FormatError::Limit { object: "pack directory", what: "longer than 256 MiB" };
    assert_eq!(quickly(|| Directory::from_bytes(&long)), Err(limit));
}

#[test]
fn lies_are_refused() {
    type Lie = (&'static str, fn(&mut Directory));
    let lies: [Lie; 17] = [
        ("no such context", |d| d.frames[1].context = 1),
        ("gap between frames", |d| d.frames[1].offset += 1),
        ("first frame in the header", |d| d.frames[0].offset = 63),
        ("overlap of frames", |d| d.frames[0].stored += 1),
        ("offset overflows", |d| d.frames[1].offset = u64::MAX),
        ("shorter than the tag", |d| d.frames[1].stored = 15),
        ("chunks swapped between frames", |d| {
            d.frames[0].chunks = 1;
            d.frames[1].chunks = 2;
        }),
        ("gap between chunks", |d| d.chunks[1].offset = 401),
        ("chunks reach too far", |d| d.chunks[1].len = 601),
        ("chunks do not cover", |d| d.chunks[1].len = 599),
        ("empty chunk", |d| d.chunks[1].len = 0),
        ("ordinal twice", |d| d.frames[1].ordinal = 0),
        ("delta without bases", |d| {
            d.frames[1].bases = 0;
            d.bases.clear();
        }),
        ("bases without delta", |d| d.frames[1].codec = 1),
        ("empty base", |d| d.bases[0].len = 0),
        ("base too long", |d| d.bases[0].start = u32::MAX),
        ("bases not accounted for", |d| d.bases.push(d.bases[0])),
    ];
    for (lie, tell) in lies {
        let mut directory = example();
        tell(&mut directory);
        assert!(directory.check().is_err(), "{lie}");
    }
}

#[test]
fn limits_of_a_frame() {
    let mut directory = example();
    directory.frames.truncate(1);
    directory.bases.clear();
    let (len, count) = (16 << 20, 5u32);
    directory.chunks = (0..count).map(|i| chunk(i.into(), i * len, len)).collect();
    directory.frames[0].chunks = count;
    directory.frames[0].plain = count * len;
    assert!(matches!(directory.check(), Err(FormatError::Limit { .. })), "80 MiB of plain bytes");
    directory.chunks.pop();
    directory.frames[0].chunks = 4;
    directory.frames[0].plain = 4 * len;
    assert_eq!(directory.check(), Ok(()));
    directory.frames[0].codec = 3;
    let base = BaseRow { id: ChunkId([0; 32]), start: 0, len: 1 << 17 };
    for (bases, ok) in [(64, true), (65, false)] {
        directory.bases = vec![base; bases as usize];
        directory.frames[0].bases = bases;
        assert_eq!(directory.check().is_ok(), ok);
    }
    directory.bases = vec![BaseRow { len: (8 << 20) + 1, ..base }];
    directory.frames[0].bases = 1;
    assert!(matches!(directory.check(), Err(FormatError::Limit { .. })), "9 MiB of bases");
}

#[test]
fn trailer_and_directory_must_agree() {
    let directory = example();
    let trailer = Trailer {
        directory_offset: 4096,
        directory_len: 100,
        frames_end: 200,
        frames: 2,
        chunks: 3,
    };
    assert_eq!(directory.check_against(&trailer), Ok(()));
    assert!(directory.check_against(&Trailer { frames: 3, ..trailer }).is_err());
    assert!(directory.check_against(&Trailer { frames_end: 199, ..trailer }).is_err());
}

/// Frames with their chunks' lengths, bases' lengths and a context.
type Shape = Vec<(Vec<u32>, Vec<u32>, prop::sample::Index)>;

fn directories() -> impl Strategy<Value = Directory> {
    let frame = (
        prop::collection::vec(1u32..100_000, 1..5),
        prop::collection::vec(1u32..50_000, 0..4),
        any::<prop::sample::Index>(),
    );
    (1usize..4, 0usize..3, prop::collection::vec(frame, 0..12))
        .prop_map(|(contexts, seals, shape)| directory_of(contexts, seals, shape))
}

fn directory_of(contexts: usize, seals: usize, shape: Shape) -> Directory {
    let mut directory = Directory::default();
    for i in 0..contexts as u64 {
        directory.contexts.push(ContextRow { context: array(i), commit: array(i + 50) });
    }
    for i in 0..seals as u64 {
        directory.seals.push(SealRow {
            recipient: 1 + i as u8,
            epoch: i as u32,
            session: SessionId(array(i)),
            sealed: Box::new(array(i)),
        });
    }
    for (ordinal, (chunks, bases, context)) in shape.into_iter().enumerate() {
        let mut plain = 0;
        for len in &chunks {
            directory.chunks.push(chunk(ordinal as u64, plain, *len));
            plain += len;
        }
        let base = |&len: &u32| BaseRow { id: ChunkId(array(len.into())), start: len, len };
        directory.bases.extend(bases.iter().map(base));
        directory.frames.push(FrameRow {
            offset: directory.frames_end(),
            ordinal: ordinal as u64,
            stored: 16 + plain,
            plain,
            chunks: chunks.len() as u32,
            bases: bases.len() as u32,
            context: context.index(contexts) as u32,
            codec: if bases.is_empty() { ordinal as u8 % 3 } else { 3 },
        });
    }
    directory
}

proptest! {
    #[test]
    fn directory_round_trip(directory in directories()) {
        let bytes = directory.to_bytes();
        prop_assert_eq!(Directory::from_bytes(&bytes), Ok(directory));
    }
}
