//! Index runs against a plain map, against bytes laid out by hand, against damage, and against
//! lies.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::{prop_assert, prop_assert_eq, proptest};

use crate::error::FormatError;
use crate::format::id::{ChunkId, IdentityId, PackId, hash, to_hex};
use crate::format::index::{PackRow, Run, RunBuilder, Shard, Table};
use crate::format::mangle::{array, mangle, quickly};
use crate::format::pack::{
    BaseRow, ChunkRow, ContextRow, Directory, FrameRow, PackClass, chunk_rows_hash,
};

fn pack(seed: u64) -> PackRow {
    PackRow {
        id: PackId(array(seed)),
        len: 1 << 20,
        author: IdentityId(array(seed + 1)),
        class: PackClass::Data,
    }
}

fn context(seed: u64) -> ContextRow {
    ContextRow { context: array(seed), commit: array(seed + 1) }
}

fn frame(offset: u64, chunks: &[ChunkRow], bases: &[BaseRow]) -> FrameRow {
    FrameRow {
        offset,
        ordinal: offset + 1,
        stored: 100,
        plain: chunks.iter().map(|chunk| chunk.len).sum(),
        chunks: chunks.len() as u32,
        bases: bases.len() as u32,
        context: 0,
        codec: if bases.is_empty() { 1 } else { 3 },
    }
}

/// Three frames in two packs; one frame has bases, one chunk is there twice.
fn example() -> Vec<u8> {
    let single = [ChunkRow { id: ChunkId(array(1)), offset: 0, len: 50 }];
    let many = [
        ChunkRow { id: ChunkId(array(2)), offset: 0, len: 10 },
        ChunkRow { id: ChunkId(array(1)), offset: 10, len: 50 },
    ];
    let base = [BaseRow { id: ChunkId(array(1)), start: 3, len: 4 }];
    let delta = [ChunkRow { id: ChunkId(array(3)), offset: 0, len: 60 }];
    let mut builder = RunBuilder::new();
    let packs = [builder.push_pack(pack(20)), builder.push_pack(pack(30))];
    let contexts = [builder.push_context(context(40)), builder.push_context(context(50))];
    assert_eq!(builder.push_context(context(40)), contexts[0]);
    builder.push_frame(packs[0], contexts[0], &frame(64, &single, &[]), &single, &[]);
    builder.push_frame(packs[1], contexts[1], &frame(64, &many, &[]), &many, &[]);
    builder.push_frame(packs[1], contexts[0], &frame(164, &delta, &base), &delta, &base);
    builder.finish()
}

#[test]
fn golden() {
    let payload = example();
    let mut ids = [1u64, 1, 2, 3].map(|seed| (array::<32>(seed), seed));
    ids.sort_unstable();
    let mut expected = Vec::new();
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    expected.extend(words(&[4, 3, 2, 2, 1, 1, 0, 0]));
    expected.extend([0; 32]);
    expected.extend(words(&[0, 4]));
    ids.iter().for_each(|(id, _)| expected.extend(id));
    let mut first = true;
    for (_, seed) in ids {
        expected.extend(match seed {
            1 if std::mem::take(&mut first) => words(&[0, 0, 50]),
            1 => words(&[1, 10, 50]),
            2 => words(&[1, 0, 10]),
            _ => words(&[2, 0, 60]),
        });
    }
    // pack, context, offset ×2, ordinal ×2, stored, plain, first base, table, bases, codec
    expected.extend(words(&[0, 0, 64, 0, 65, 0, 100, 50, 0, u32::MAX, 0, 1]));
    expected.extend(words(&[1, 1, 64, 0, 65, 0, 100, 60, 0, 0, 0, 1]));
    expected.extend(words(&[1, 0, 164, 0, 165, 0, 100, 60, 0, u32::MAX, 1, 3]));
    for seed in [20, 30] {
        expected.extend(array::<32>(seed));
        expected.extend((1u64 << 20).to_le_bytes());
        expected.extend(array::<16>(seed + 1));
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    }
    for seed in [40, 50] {
        expected.extend(array::<72>(seed));
        expected.extend(array::<32>(seed + 1));
    }
    let table: Vec<u8> =
        [array::<32>(2).as_slice(), &words(&[0, 10]), &array::<32>(1), &words(&[10, 50])].concat();
    expected.extend(hash(&table));
    expected.extend(array::<32>(1));
    expected.extend(words(&[3, 4]));
    assert_eq!(to_hex(&payload), to_hex(&expected));
}

#[test]
fn everything_can_be_read_back() {
    let payload = example();
    let run = Run::new(&payload).expect("sound");
    run.validate().expect("valid");
    assert_eq!((run.len(), run.frame_count(), run.packs().count()), (4, 3, 2));
    let places: Vec<_> = run.find(&ChunkId(array(1))).collect();
    assert_eq!(places.len(), 2);
    assert_eq!(places[0].pack, pack(20));
    assert_eq!((places[1].pack, places[1].chunk.offset), (pack(30), 10));
    assert_eq!(run.context(places[1].frame.context), Some(context(50)));
    assert_eq!(places[0].table_hash(), chunk_rows_hash(&[places[0].chunk]));
    let many = [
        ChunkRow { id: ChunkId(array(2)), offset: 0, len: 10 },
        ChunkRow { id: ChunkId(array(1)), offset: 10, len: 50 },
    ];
    assert_eq!(places[1].table_hash(), chunk_rows_hash(&many));
    let delta = run.find(&ChunkId(array(3))).next().expect("there");
    let bases: Vec<_> = run.bases(&delta.frame).expect("there").collect();
    assert_eq!(bases, [BaseRow { id: ChunkId(array(1)), start: 3, len: 4 }]);
    assert!(!run.contains(&ChunkId(array(4))));
    assert_eq!(run.find(&ChunkId([0xFF; 32])).count(), 0);
}

/// Uses every reference, validated or not.
fn touch(payload: &[u8]) -> bool {
    let Ok(run) = Run::new(payload) else { return false };
    let valid = run.validate().is_ok();
    for position in 0..run.len() {
        let location = run.location(position);
        assert!(location.is_some() || !valid);
        if let Some(location) = location {
            location.table_hash();
            let bases = run.bases(&location.frame).map(Iterator::count);
            assert!(bases.is_some() || !valid);
        }
    }
    for id in run.ids() {
        assert!(run.contains(&ChunkId(*id)) || !valid);
        run.find(&ChunkId(*id)).for_each(drop);
    }
    valid
}

#[test]
fn survives_damage() {
    mangle(&example(), touch);
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    for column in 0..6 {
        for count in [u32::MAX, 1 << 31, 1 << 20] {
            let mut payload = example();
            payload[column * 4..][..4].copy_from_slice(&count.to_le_bytes());
            let refused = quickly(|| Run::new(&payload).err());
            assert_eq!(refused, Some(FormatError::Truncated { object: "index run" }));
        }
    }
    for (at, value) in [(24, 17), (24, 255), (25, 33), (28, 1), (26, 1), (40, 1)] {
        let mut payload = example();
        payload[at] = value;
        assert!(Run::new(&payload).is_err(), "byte {at} = {value}");
    }
}

#[test]
fn lies_are_refused() {
    let payload = example();
    let ids = 64 + 8;
    let locators = ids + 4 * 32;
    let frames = locators + 4 * 12;
    let packs = frames + 3 * 48;
    let lies = [
        ("fanout", 64 + 4, 3u32),
        ("fanout start", 64, 1),
        ("frame of a chunk", locators, 3),
        ("chunk beyond its frame", locators + 4, 1000),
        ("chunk length", locators + 8, u32::MAX),
        ("empty chunk", locators + 8, 0),
        ("pack of a frame", frames, 2),
        ("context of a frame", frames + 4, 2),
        ("frame in the header", frames + 8, 0),
        ("frame beyond its pack", frames + 8, 1 << 20),
        ("offset overflows", frames + 12, u32::MAX),
        ("stored length", frames + 24, 15),
        ("table missing", frames + 36, 1),
        ("table of many dropped", frames + 48 + 36, u32::MAX),
        ("base missing", frames + 96 + 32, 1),
        ("bases overflow", frames + 96 + 32, u32::MAX),
        ("codec without its bases", frames + 96 + 44, 1),
        ("pack length", packs + 32, 100),
        ("pack class", packs + 56, 5),
    ];
    for (lie, at, value) in lies {
        let mut payload = payload.clone();
        payload[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let run = Run::new(&payload).expect("sections are in place");
        assert!(run.validate().is_err(), "{lie}");
        touch(&payload);
    }
}

#[test]
fn empty_run() {
    let payload = RunBuilder::new().finish();
    let run = Run::new(&payload).expect("sound");
    run.validate().expect("valid");
    assert!(run.is_empty() && !run.contains(&ChunkId([0; 32])));
}

/// Ids of every shape: random, crowded into one fanout bucket, and the extremes.
fn crowd(count: u64) -> Vec<ChunkId> {
    let mut ids: Vec<_> = (0..count).map(|seed| ChunkId(array(seed))).collect();
    for i in 0..count / 4 {
        let mut id = [0x5A; 32];
        id[8..16].copy_from_slice(&(i * 3).to_be_bytes());
        ids.push(ChunkId(id));
    }
    ids.extend([ChunkId([0; 32]), ChunkId([0xFF; 32])]);
    ids
}

#[test]
fn finds_what_a_plain_search_finds() {
    for count in [1, 100, 511, 2_100, 5_000] {
        let ids = crowd(count);
        let mut builder = RunBuilder::new();
        let (pack, context) = (builder.push_pack(pack(1)), builder.push_context(context(1)));
        let mut model = BTreeMap::<ChunkId, u32>::new();
        for (i, id) in ids.iter().enumerate() {
            for _ in 0..=i % 3 / 2 {
                let chunks = [ChunkRow { id: *id, offset: 0, len: 1 }];
                builder.push_frame(pack, context, &frame(64, &chunks, &[]), &chunks, &[]);
                *model.entry(*id).or_default() += 1;
            }
        }
        let payload = builder.finish();
        let run = Run::new(&payload).expect("sound");
        run.validate().expect("valid");
        let buckets = run.fanout.len() - 1;
        assert!(
            run.len() as usize <= buckets * 512
                && (buckets == 1 || run.len() as usize > buckets * 256)
        );
        for (id, times) in &model {
            assert_eq!(run.find(id).count() as u32, *times, "{id}");
            let positions = run.positions(id);
            let plain = run.ids().partition_point(|found| found < &id.0) as u32;
            assert_eq!(positions, plain..plain + times);
            for neighbour in [1u8, 0xFF] {
                let mut other = *id;
                other.0[31] = other.0[31].wrapping_add(neighbour);
                assert_eq!(run.contains(&other), model.contains_key(&other));
            }
        }
    }
}

#[test]
fn shards_share_frames() {
    let chunks: Vec<_> = (0..40)
        .map(|i| ChunkRow { id: ChunkId(array(i)), offset: i as u32 * 10, len: 10 })
        .collect();
    let mut found = 0;
    for prefix in 0..8 {
        let shard = Shard { bits: 3, prefix };
        let mut builder = RunBuilder::for_shard(shard);
        let (pack, context) = (builder.push_pack(pack(1)), builder.push_context(context(1)));
        builder.push_frame(pack, context, &frame(64, &chunks, &[]), &chunks, &[]);
        builder.push_frame(pack, context, &frame(164, &chunks[..1], &[]), &chunks[..1], &[]);
        let expected = builder.encoded_len();
        let payload = builder.finish();
        assert_eq!(payload.len() as u64, expected);
        let run = Run::new(&payload).expect("sound");
        run.validate().expect("valid");
        assert_eq!(run.shard(), shard);
        for chunk in &chunks {
            let here = run.find(&chunk.id).next();
            assert_eq!(here.is_some(), shard.holds(&chunk.id));
            if let Some(location) = here {
                assert_eq!(location.table_hash(), chunk_rows_hash(&chunks));
                found += 1;
            }
        }
        let mut outside = payload.clone();
        outside[28] ^= 1;
        let moved = Run::new(&outside).expect("sound");
        assert_eq!(moved.validate().is_err(), !run.is_empty());
    }
    assert_eq!(found, 40);
}

/// A merge copies frames from run to run by their tables.
#[test]
fn a_run_can_be_rebuilt_from_itself() {
    let payload = example();
    let run = Run::new(&payload).expect("sound");
    let mut chunks = BTreeMap::<u32, Vec<ChunkRow>>::new();
    for position in 0..run.len() {
        let location = run.location(position).expect("valid");
        chunks.entry(location.frame_index).or_default().push(location.chunk);
    }
    let mut builder = RunBuilder::new();
    for pack in run.packs() {
        builder.push_pack(pack);
    }
    for context in run.contexts() {
        builder.push_context(context);
    }
    for (index, frame) in run.frames().enumerate() {
        let table: Table = run.table(&frame).expect("valid");
        let bases: Vec<_> = run.bases(&frame).expect("valid").collect();
        let row = FrameRow {
            offset: frame.offset,
            ordinal: frame.ordinal,
            stored: frame.stored,
            plain: frame.plain,
            chunks: 0,
            bases: 0,
            context: 0,
            codec: frame.codec,
        };
        let chunks = &chunks[&(index as u32)];
        builder.push_part(frame.pack, frame.context, &row, table, chunks, &bases);
    }
    assert_eq!(builder.finish(), payload);
}

proptest! {
    #[test]
    fn directories_agree_with_a_map(
        packs in vec(vec(vec(any::<u8>(), 1..6), 0..20), 0..5),
    ) {
        let mut builder = RunBuilder::new();
        let mut model = BTreeMap::<ChunkId, Vec<(PackId, u64, u32)>>::new();
        for (i, frames) in packs.iter().enumerate() {
            let row = pack(1_000 + i as u64);
            let directory = directory_of(frames);
            for (frame, chunks, _) in directory.frames_with_tables() {
                for chunk in chunks {
                    model.entry(chunk.id).or_default().push((row.id, frame.ordinal, chunk.offset));
                }
            }
            builder.push_directory(row, &directory);
        }
        let payload = builder.finish();
        let run = Run::new(&payload).expect("sound");
        prop_assert_eq!(run.validate(), Ok(()));
        for (id, places) in &model {
            let found: Vec<_> =
                run.find(id).map(|l| (l.pack.id, l.frame.ordinal, l.chunk.offset)).collect();
            prop_assert_eq!(&found, places);
        }
        prop_assert!(run.ids().iter().all(|id| model.contains_key(&ChunkId(*id))));
    }
}

/// One frame for each list of chunk seeds.
fn directory_of(frames: &[Vec<u8>]) -> Directory {
    let mut directory = Directory { contexts: vec![context(1)], ..Directory::default() };
    for (ordinal, seeds) in frames.iter().enumerate() {
        let chunks: Vec<_> = seeds
            .iter()
            .enumerate()
            .map(|(i, &seed)| ChunkRow {
                id: ChunkId(array(seed.into())),
                offset: i as u32 * 7,
                len: 7,
            })
            .collect();
        let row = frame(directory.frames_end(), &chunks, &[]);
        directory.frames.push(FrameRow { ordinal: ordinal as u64, ..row });
        directory.chunks.extend(chunks);
    }
    directory
}
