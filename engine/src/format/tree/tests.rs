//! TREE and REFS nodes against CBOR written by hand, against damage, and against lies.

use proptest::prelude::{Just, Strategy, any, prop};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use crate::error::FormatError;
use crate::format::id::{ChunkId, hash, to_hex};
use crate::format::mangle::{array, mangle, quickly};
use crate::format::tree::{
    CHANGED_WHILE_READ, Child, ChunkRef, Entry, EntryKind, ListChild, LooseEntry, NODE_LEN_MAX,
    RefsNode, Segment, TimeSpec, TreeChild, TreeNode, ends_inner, ends_leaf, ends_list,
    leaf_from_encoded, put_entry,
};

/// Hex with spaces.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn file(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: TimeSpec { secs: 1, nanos: 2 },
        ..Entry::default()
    }
}

/// One entry of every kind, every optional field, every segment.
fn example() -> (TreeNode, RefsNode) {
    let chunks: Vec<_> =
        (1..=3).map(|i| ChunkRef { id: ChunkId(array(i)), len: 100 * i as u32 }).collect();
    let id = ChunkId(array(9));
    let parts = vec![Segment::Chunks { first: 2, chunks: 1, len: 300 }];
    let rebuilt = Segment::Rebuilt { encoder: 1, len: 1000, id, params: vec![7], parts };
    let content = vec![
        Segment::Chunks { first: 0, chunks: 2, len: 300 },
        Segment::Hole { len: 1 << 40 },
        Segment::List { list: 0, len: 5 },
        rebuilt,
    ];
    let full = Entry {
        user: Some("åsa".into()),
        group: Some("lab".into()),
        ctime: Some(TimeSpec { secs: -1, nanos: 999_999_999 }),
        btime: Some(TimeSpec::default()),
        size: Some((1 << 40) + 1305),
        hard_link: Some([3; 16]),
        xattrs: vec![(b"user.a".to_vec(), vec![]), (b"user.b".to_vec(), vec![0xFF])],
        flags: CHANGED_WHILE_READ,
        content,
        ..file(b"f")
    };
    let kind = |name: &[u8], kind| Entry { kind, ..file(name) };
    let entries = vec![
        Entry { child: Some(0), ..kind(b"a", EntryKind::Directory) },
        Entry { device: Some((8, 1)), ..kind(b"b", EntryKind::BlockDevice) },
        Entry { device: Some((1, 3)), ..kind(b"c", EntryKind::CharDevice) },
        kind(b"d", EntryKind::Fifo),
        Entry { size: Some(0), ..file(b"e") },
        full,
        kind(b"g", EntryKind::Socket),
        Entry { target: Some(b"../x".to_vec()), ..kind(b"h\xFF", EntryKind::Symlink) },
    ];
    let children = vec![Child { refs: ChunkId(array(4)), tree: ChunkId(array(5)) }];
    let lists = vec![ChunkId(array(6))];
    (TreeNode::Leaf { entries }, RefsNode::Leaf { children, chunks, lists })
}

const ENTRY: &str =
    "a8 01 4161 02 01 03 1901a4 04 1903e8 05 1903e8 08 820102 0b 05 10 81 8400000105";

#[test]
fn tree_golden() {
    let entry = Entry {
        size: Some(5),
        content: vec![Segment::Chunks { first: 0, chunks: 1, len: 5 }],
        ..file(b"a")
    };
    let leaf = TreeNode::Leaf { entries: vec![entry] };
    let expected = hex(&format!("a3 0001 0101 02 81 {ENTRY}"));
    assert_eq!(to_hex(&leaf.to_bytes()), to_hex(&expected));
    assert_eq!(TreeNode::from_bytes(&expected), Ok(leaf));
    let child = |name: &[u8], entries| TreeChild { first_name: name.to_vec(), entries };
    let inner = TreeNode::Inner { children: vec![child(b"a", 300), child(b"b", 2)] };
    let expected = hex("a3 0001 0102 03 82 82 4161 19012c 82 4162 02");
    assert_eq!(to_hex(&inner.to_bytes()), to_hex(&expected));
    assert_eq!(TreeNode::from_bytes(&expected), Ok(inner));
}

#[test]
fn full_tree_golden() {
    let (tree, refs) = example();
    assert_eq!(to_hex(&hash(&tree.to_bytes())), FULL_TREE);
    assert_eq!(to_hex(&hash(&refs.to_bytes())), FULL_REFS);
    assert_eq!(TreeNode::from_bytes(&tree.to_bytes()), Ok(tree.clone()));
    assert_eq!(RefsNode::from_bytes(&refs.to_bytes()), Ok(refs.clone()));
    assert_eq!(tree.check_against(&refs), Ok(()));
}

const FULL_TREE: &str = "f88b2c4cf14b36e3b7e6cd23a46a6c91b473cb0ec32d8a49b2be053a2f4dabfe";
const FULL_REFS: &str = "3bd4ad4e8f3386e8ef6163a81b8a30e422ab5368f342e99a2f04778110fa1178";

#[test]
fn refs_golden() {
    let id = |byte| ChunkId([byte; 32]);
    let child = Child { refs: id(1), tree: id(2) };
    let chunk = ChunkRef { id: id(3), len: 0x0102 };
    let list = ListChild { id: id(5), chunks: 7, bytes: 0x0900 };
    let row = |byte: &str| byte.repeat(32);
    let children = format!("02 5840 {}{}", row("01"), row("02"));
    let chunks = format!("03 5824 {} 02010000", row("03"));
    let golden = [
        (
            RefsNode::Leaf { children: vec![child], chunks: vec![chunk], lists: vec![id(4)] },
            format!("a5 0001 0101 {children} {chunks} 04 5820 {}", row("04")),
        ),
        (
            RefsNode::Leaf { children: vec![], chunks: vec![], lists: vec![] },
            "a2 0001 0101".to_owned(),
        ),
        (RefsNode::Inner { children: vec![child] }, format!("a3 0001 0102 {children}")),
        (RefsNode::List { chunks: vec![chunk] }, format!("a3 0001 0103 {chunks}")),
        (
            RefsNode::ListInner { lists: vec![list] },
            format!("a3 0001 0104 05 5830 {} 0700000000000000 0009000000000000", row("05")),
        ),
    ];
    for (node, expected) in golden {
        let expected = hex(&expected);
        assert_eq!(to_hex(&node.to_bytes()), to_hex(&expected));
        assert_eq!(RefsNode::from_bytes(&expected), Ok(node));
    }
}

#[test]
fn entries_can_be_encoded_one_by_one() {
    let (tree, _) = example();
    let TreeNode::Leaf { entries } = &tree else { panic!("a leaf") };
    let mut encoded = Vec::new();
    entries.iter().for_each(|entry| put_entry(entry, &mut encoded));
    assert_eq!(leaf_from_encoded(entries.len(), &encoded), tree.to_bytes());
}

#[test]
fn entries_that_wait_for_their_leaf_are_encoded_no_different() {
    let (tree, _) = example();
    let TreeNode::Leaf { entries } = tree else { panic!("a leaf") };
    for entry in entries {
        let bytes = entry.content.iter().map(Segment::len).sum();
        let loose = Entry { content: Vec::new(), child: None, ..entry.clone() };
        let loose = LooseEntry::new(&loose, bytes).expect("sound");
        let (mut at_once, mut later) = (vec![7], vec![7]);
        put_entry(&entry, &mut at_once);
        loose.put(&entry.content, entry.child, &mut later);
        assert_eq!(to_hex(&later), to_hex(&at_once), "{entry:?}");
    }
    let wrong = LooseEntry::new(&Entry { size: Some(5), ..file(b"a") }, 4);
    assert!(matches!(wrong, Err(FormatError::Malformed { .. })), "{wrong:?}");
}

/// What still parses must come back as itself.
fn tree_parses(bytes: &[u8]) -> bool {
    let Ok(node) = TreeNode::from_bytes(bytes) else { return false };
    assert_eq!(TreeNode::from_bytes(&node.to_bytes()), Ok(node));
    true
}

fn refs_parse(bytes: &[u8]) -> bool {
    let Ok(node) = RefsNode::from_bytes(bytes) else { return false };
    assert_eq!(RefsNode::from_bytes(&node.to_bytes()), Ok(node));
    true
}

#[test]
fn survives_damage() {
    let (tree, refs) = example();
    mangle(&tree.to_bytes(), tree_parses);
    mangle(&refs.to_bytes(), refs_parse);
    mangle(&hex("a3 0001 0102 03 82 82 4161 19012c 82 4162 02"), tree_parses);
    let list = ListChild { id: ChunkId([1; 32]), chunks: 7, bytes: 9 };
    mangle(&RefsNode::ListInner { lists: vec![list] }.to_bytes(), refs_parse);
}

fn malformed(what: &'static str) -> FormatError {
    FormatError::Malformed { object: "tree node", what }
}

fn unsupported(feature: &str) -> FormatError {
    FormatError::Unsupported { object: "tree node", feature: feature.into() }
}

#[test]
fn only_deterministic_cbor() {
    let node = format!("a3 0001 0101 02 81 {ENTRY}");
    let swaps = [
        ("0b 05", "0b 1805", "an integer is not in its shortest form"),
        ("02 81 a8", "02 9801 a8", "an integer is not in its shortest form"),
        ("4161", "580161", "an integer is not in its shortest form"),
        ("02 81 a8", "02 9f a8", "an indefinite or reserved length, or a float"),
        ("4161", "5f4161ff", "an indefinite or reserved length, or a float"),
        ("0b 05", "0b fb3ff0000000000000", "an indefinite or reserved length, or a float"),
        ("0b 05", "0b e0", "a simple value or a float"),
        ("0b 05", "0a 05", "an array has another length"),
        ("0b 05", "08 05", "map keys are not in order, or twice there"),
        ("0b 05", "11 05", "map keys are not in order, or twice there"),
        ("0b 05", "0b 4105", "a field has another type"),
        ("4161", "6161", "a field has another type"),
        ("a3 0001", "83 0001", "an array has another length"),
    ];
    for (from, to, what) in swaps {
        assert!(node.contains(from), "{from}");
        let error = TreeNode::from_bytes(&hex(&node.replacen(from, to, 1))).unwrap_err();
        let shape = to == "0a 05" || to.starts_with("83");
        assert!(error == malformed(what) || shape, "{from} → {to}: {error}");
    }
    let mut longer = hex(&node);
    longer.push(0);
    assert_eq!(TreeNode::from_bytes(&longer), Err(malformed("bytes after its end")));
}

#[test]
fn what_is_unknown_is_named() {
    let node = format!("a3 0001 0101 02 81 {ENTRY}");
    let swaps = [
        ("8400000105", "8204", "segment kind 4"),
        ("02 01 03", "02 08 03", "entry kind 8"),
        ("0101 02", "0103 02", "node kind 3"),
        ("a3 0001 0101", "a4 0001 0101", "key 3"),
    ];
    for (from, to, feature) in swaps {
        let mut bytes = hex(&node.replacen(from, to, 1));
        if to.starts_with("a4") {
            bytes.extend([3, 0x80]);
        }
        let error = TreeNode::from_bytes(&bytes).unwrap_err();
        if to == "8204" {
            // The array says two elements, so one has to follow.
            let bytes = hex(&node.replacen(from, "820405", 1));
            assert_eq!(TreeNode::from_bytes(&bytes), Err(unsupported(feature)));
        } else {
            assert_eq!(error, unsupported(feature));
        }
    }
    let newer = FormatError::Newer { object: "tree node", version: 2 };
    let bytes = hex(&node.replacen("0001", "0002", 1));
    assert_eq!(TreeNode::from_bytes(&bytes), Err(newer));
    let entry = ENTRY.replacen("a8", "a9", 1);
    let with_key = |key: &str| hex(&format!("a3 0001 0101 02 81 {entry} {key} 83 f6 a0 6161"));
    assert_eq!(TreeNode::from_bytes(&with_key("13")), Err(unsupported("key 19")));
    assert_eq!(TreeNode::from_bytes(&with_key("187f")), Err(unsupported("key 127")));
    let known = TreeNode::from_bytes(&hex(&node));
    assert_eq!(TreeNode::from_bytes(&with_key("1880")), known);
    let flags = Entry { flags: 2, ..file(b"a") };
    assert_eq!(flags.check(), Err(unsupported("entry flags 0x2")));
    let key_6 = hex("a3 0001 0101 06 40");
    let refs = FormatError::Unsupported { object: "refs node", feature: "key 6".into() };
    assert_eq!(RefsNode::from_bytes(&key_6), Err(refs));
}

#[test]
fn entries_that_cannot_be() {
    let kind = |kind| Entry { kind, ..file(b"a") };
    let hole = |len| Segment::Hole { len };
    let bad = [
        file(b""),
        file(b"."),
        file(b".."),
        file(b"a/b"),
        file(b"a\0"),
        file(&[b'a'; 4097]),
        Entry { mode: 0o10000, ..file(b"a") },
        Entry { mtime: TimeSpec { secs: 0, nanos: 1_000_000_000 }, ..file(b"a") },
        Entry { size: Some(5), ..file(b"a") },
        Entry { content: vec![hole(1)], ..file(b"a") },
        Entry { size: Some(0), content: vec![hole(u64::MAX), hole(1)], ..file(b"a") },
        Entry { child: Some(0), ..file(b"a") },
        Entry { device: Some((1, 1)), ..file(b"a") },
        Entry { target: Some(vec![b'x']), ..file(b"a") },
        Entry { size: Some(0), ..kind(EntryKind::Directory) },
        kind(EntryKind::Symlink),
        kind(EntryKind::CharDevice),
        Entry { xattrs: vec![(vec![1], vec![0; 4 << 20])], ..file(b"a") },
        Entry { xattrs: vec![(vec![2], vec![]), (vec![1], vec![])], ..file(b"a") },
        Entry { xattrs: vec![(vec![1], vec![]), (vec![1], vec![])], ..file(b"a") },
    ];
    for entry in bad {
        assert!(entry.check().is_err(), "{entry:?}");
    }
    for order in [[b"b", b"a"], [b"a", b"a"]] {
        let entries = order.map(|name| file(name)).to_vec();
        assert!(TreeNode::Leaf { entries }.check().is_err());
        let children =
            order.map(|name| TreeChild { first_name: name.to_vec(), entries: 1 }).to_vec();
        assert!(TreeNode::Inner { children }.check().is_err());
    }
}

#[test]
fn limits() {
    let long = vec![0; NODE_LEN_MAX + 1];
    assert!(matches!(TreeNode::from_bytes(&long), Err(FormatError::Limit { .. })));
    assert!(matches!(RefsNode::from_bytes(&long), Err(FormatError::Limit { .. })));
    let deep = [vec![0x81; 1 << 20], vec![0]].concat();
    assert!(matches!(TreeNode::from_bytes(&deep), Err(FormatError::Limit { .. })));
    for head in ["9bffffffffffffffff", "9b0000000100000000", "9affffffff"] {
        let bytes = hex(&format!("a3 0001 0101 02 {head} {ENTRY}"));
        let cut = FormatError::Truncated { object: "tree node" };
        assert_eq!(quickly(|| TreeNode::from_bytes(&bytes)), Err(cut));
    }
    for head in ["5bffffffffffffffff", "5affffffff"] {
        let bytes = hex(&format!("a3 0001 0103 03 {head} 00"));
        let cut = FormatError::Truncated { object: "refs node" };
        assert_eq!(quickly(|| RefsNode::from_bytes(&bytes)), Err(cut));
    }
    let empty_chunk = ChunkRef { id: ChunkId([0; 32]), len: 0 };
    assert!(RefsNode::List { chunks: vec![empty_chunk] }.check().is_err());
    let half = ListChild { id: ChunkId([0; 32]), chunks: 1 << 63, bytes: 0 };
    assert!(RefsNode::ListInner { lists: vec![half; 2] }.check().is_err());
}

#[test]
fn places_must_exist() {
    let (tree, refs) = example();
    let TreeNode::Leaf { entries } = &tree else { panic!("a leaf") };
    let with = |at: usize, change: fn(&mut Entry)| {
        let mut entries = entries.clone();
        change(&mut entries[at]);
        TreeNode::Leaf { entries }.check_against(&refs)
    };
    assert_eq!(with(5, |_| ()), Ok(()));
    assert!(with(0, |entry| entry.child = Some(1)).is_err());
    let swap: [fn(&mut Entry); 5] = [
        |entry| entry.content[0] = Segment::Chunks { first: 0, chunks: 2, len: 301 },
        |entry| entry.content[0] = Segment::Chunks { first: 2, chunks: 2, len: 300 },
        |entry| entry.content[0] = Segment::Chunks { first: u32::MAX, chunks: u32::MAX, len: 0 },
        |entry| entry.content[2] = Segment::List { list: 1, len: 5 },
        |entry| match &mut entry.content[3] {
            Segment::Rebuilt { parts, .. } => parts[0] = Segment::List { list: 1, len: 5 },
            _ => panic!("a reconstruction"),
        },
    ];
    for change in swap {
        assert!(with(5, change).is_err());
    }
    let child = Child { refs: ChunkId([0; 32]), tree: ChunkId([1; 32]) };
    let inner =
        TreeNode::Inner { children: vec![TreeChild { first_name: b"a".into(), entries: 1 }] };
    assert_eq!(inner.check_against(&RefsNode::Inner { children: vec![child] }), Ok(()));
    assert!(inner.check_against(&RefsNode::Inner { children: vec![child; 2] }).is_err());
    assert!(inner.check_against(&refs).is_err());
    assert!(tree.check_against(&RefsNode::List { chunks: vec![] }).is_err());
}

#[test]
fn cuts() {
    let names = || (0u32..).map(|i| i.to_le_bytes());
    let u16_of = |name: &[u8], at: usize| u16::from_le_bytes([hash(name)[at], hash(name)[at + 1]]);
    let marked = names().find(|name| u16_of(name, 0) % 1024 == 0).expect("one in 1,024");
    let plain = names().find(|name| u16_of(name, 0) % 1024 != 0).expect("most");
    assert!(!ends_leaf(&marked, 255, 0, 0) && ends_leaf(&marked, 256, 0, 0));
    assert!(!ends_leaf(&plain, 4095, 4 << 20, 65_536) && ends_leaf(&plain, 4096, 0, 0));
    assert!(ends_leaf(&plain, 1, (4 << 20) + 1, 0) && ends_leaf(&plain, 1, 0, 65_537));
    let marked = names().find(|name| u16_of(name, 2) % 256 == 0).expect("one in 256");
    let plain = names().find(|name| u16_of(name, 2) % 256 != 0).expect("most");
    assert!(!ends_inner(&marked, 63) && ends_inner(&marked, 64));
    assert!(!ends_inner(&plain, 1023) && ends_inner(&plain, 1024));
    let mut id = ChunkId([0xFF; 32]);
    assert!(!ends_list(&id, 8191) && ends_list(&id, 8192));
    id.0[30..].copy_from_slice(&[0x00, 0xF0]);
    assert!(!ends_list(&id, 511) && ends_list(&id, 512));
}

fn times() -> impl Strategy<Value = TimeSpec> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| TimeSpec { secs, nanos })
}

fn segments() -> impl Strategy<Value = Segment> {
    const LEN: u64 = 1 << 40;
    let flat = prop_oneof![
        (any::<u32>(), any::<u32>(), 0..LEN).prop_map(|(first, chunks, len)| Segment::Chunks {
            first,
            chunks,
            len
        }),
        (0..LEN).prop_map(|len| Segment::Hole { len }),
        (any::<u32>(), 0..LEN).prop_map(|(list, len)| Segment::List { list, len }),
    ];
    flat.prop_recursive(2, 8, 3, |inner| {
        let params = prop::collection::vec(any::<u8>(), 0..4);
        let parts = prop::collection::vec(inner, 0..3);
        (any::<u64>(), 0..LEN, any::<[u8; 32]>(), params, parts).prop_map(
            |(encoder, len, id, params, parts)| Segment::Rebuilt {
                encoder,
                len,
                id: ChunkId(id),
                params,
                parts,
            },
        )
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let name = prop::collection::vec(any::<u8>(), 1..20)
        .prop_filter("a name", |name| super::check_name(name).is_ok());
    let owner = (0u16..=0o7777, any::<u32>(), any::<u32>());
    let names = (prop::option::of(".{0,5}"), prop::option::of(".{0,5}"));
    let times = (times(), prop::option::of(times()), prop::option::of(times()));
    let xattrs = prop::collection::btree_map(
        prop::collection::vec(any::<u8>(), 0..5),
        prop::collection::vec(any::<u8>(), 0..5),
        0..3,
    );
    let content = prop_oneof![
        prop::collection::vec(segments(), 0..5).prop_map(|content| Entry {
            size: Some(content.iter().map(Segment::len).sum()),
            content,
            ..Entry::default()
        }),
        prop::option::of(any::<u32>()).prop_map(|child| Entry {
            kind: EntryKind::Directory,
            child,
            ..Entry::default()
        }),
        Just(Entry { kind: EntryKind::Symlink, target: Some(vec![1]), ..Entry::default() }),
        any::<(u32, u32)>().prop_map(|device| Entry {
            kind: EntryKind::CharDevice,
            device: Some(device),
            ..Entry::default()
        }),
    ];
    let rest = (xattrs, prop::option::of(any::<[u8; 16]>()), 0u64..2);
    (name, owner, names, times, rest, content).prop_map(
        |(name, (mode, uid, gid), (user, group), (mtime, ctime, btime), rest, content)| {
            let (xattrs, hard_link, flags) = rest;
            let xattrs = xattrs.into_iter().collect();
            Entry {
                name,
                mode,
                uid,
                gid,
                user,
                group,
                mtime,
                ctime,
                btime,
                xattrs,
                hard_link,
                flags,
                ..content
            }
        },
    )
}

proptest! {
    #[test]
    fn leaf_round_trip(entries in prop::collection::vec(entries(), 0..8)) {
        let mut entries = entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        let node = TreeNode::Leaf { entries };
        prop_assert_eq!(TreeNode::from_bytes(&node.to_bytes()), Ok(node));
    }

    #[test]
    fn any_bytes_are_taken_calmly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        tree_parses(&bytes);
        refs_parse(&bytes);
    }
}
