//! The reader takes exactly what the writer makes; ciborium is the second opinion.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::{DEPTH_MAX, Decoder, decode, decode_map, encode, encode_map};
use crate::error::FormatError;

fn skip(bytes: &[u8]) -> Result<(), FormatError> {
    decode(bytes, "test", |d| d.skip().map(drop))
}

#[test]
fn strictness() {
    let good: [&[u8]; 12] = [
        &[0x00],
        &[0x18, 0x18],
        &[0x19, 0x01, 0x00],
        &[0x1a, 0x00, 0x01, 0x00, 0x00],
        &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x41, 0x00],
        &[0x61, b'a'],
        &[0x80],
        &[0xa2, 0x01, 0x00, 0x18, 0x80, 0xf6],
        &[0xa2, 0x61, b'b', 0xf4, 0x62, b'a', b'a', 0xf5],
        &[0x82, 0x80, 0xa0],
    ];
    for bytes in good {
        assert_eq!(skip(bytes), Ok(()), "{bytes:02x?}");
    }
    let bad: [(&str, &[u8]); 20] = [
        ("nothing", &[]),
        ("trailing", &[0x00, 0x00]),
        ("23 in two bytes", &[0x18, 0x17]),
        ("255 in three", &[0x19, 0x00, 0xff]),
        ("65535 in five", &[0x1a, 0x00, 0x00, 0xff, 0xff]),
        ("u32 in nine", &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ("long length", &[0x58, 0x01, 0x00]),
        ("long count", &[0x98, 0x01, 0x00]),
        ("indefinite bytes", &[0x5f, 0x41, 0x00, 0xff]),
        ("indefinite array", &[0x9f, 0xff]),
        ("indefinite map", &[0xbf, 0xff]),
        ("reserved", &[0x1c]),
        ("tag", &[0xc0, 0x00]),
        ("float", &[0xf9, 0x3c, 0x00]),
        ("undefined", &[0xf7]),
        ("not UTF-8", &[0x61, 0xff]),
        ("repeated key", &[0xa2, 0x01, 0x00, 0x01, 0x00]),
        ("unsorted keys", &[0xa2, 0x02, 0x00, 0x01, 0x00]),
        ("longer text key first", &[0xa2, 0x62, b'a', b'a', 0x00, 0x61, b'b', 0x00]),
        ("huge length", &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, bytes) in bad {
        assert!(skip(bytes).is_err(), "{what}");
    }
}

#[test]
fn claimed_lengths_allocate_nothing() {
    for head in [0x9b_u8, 0xbb, 0x5b, 0x7b] {
        let mut bytes = vec![head];
        bytes.extend_from_slice(&(u64::MAX).to_be_bytes());
        assert_eq!(skip(&bytes), Err(FormatError::Truncated { object: "test" }));
    }
    let items = decode(&[0x9a, 0, 1, 0, 0, 0], "test", |d| d.list(Decoder::uint));
    assert_eq!(items, Err(FormatError::Truncated { object: "test" }));
}

#[test]
fn depth() {
    let nested = |depth: u8| [vec![0x81; depth.into()], vec![0]].concat();
    assert_eq!(skip(&nested(DEPTH_MAX)), Ok(()));
    let limit = FormatError::Limit { object: "test", what: "nesting depth" };
    assert_eq!(skip(&nested(DEPTH_MAX + 1)), Err(limit));
}

#[test]
fn unknown_keys() {
    let read = |bytes: &[u8]| {
        decode_map(bytes, "test", |m| Ok((m.req(1, Decoder::uint)?, m.opt(3, Decoder::text)?)))
            .map(|(n, _)| n)
    };
    let map = |keys: &[u64]| encode_map(|m| keys.iter().for_each(|k| m.uint(*k, 7u8)));
    let unsupported =
        |key| Err(FormatError::Unsupported { object: "test", feature: format!("key {key}") });
    assert_eq!(read(&map(&[1])), Ok(7));
    assert_eq!(read(&map(&[1, 128, 1000])), Ok(7));
    assert_eq!(read(&map(&[0, 1])), unsupported(0));
    assert_eq!(read(&map(&[1, 2])), unsupported(2));
    assert_eq!(read(&map(&[1, 127, 128])), unsupported(127));
    let what = "a required key is missing";
    assert_eq!(read(&map(&[128])), Err(FormatError::Malformed { object: "test", what }));

    let bytes = map(&[1, 128, 1000]);
    let extra = decode_map(&bytes, "test", |m| {
        m.req(1, Decoder::uint)?;
        m.extra()
    });
    let extra = extra.unwrap();
    assert_eq!(extra, vec![(128, vec![7]), (1000, vec![7])]);
    let again = encode_map(|m| {
        m.uint(1, 7u8);
        m.extra(&extra);
    });
    assert_eq!(again, bytes);
}

#[test]
fn maps_of_24_entries_and_more() {
    for n in [0_u64, 1, 23, 24, 255, 256] {
        let bytes = encode_map(|m| (0..n).for_each(|key| m.uint(key, key)));
        let sum = decode_map(&bytes, "test", |m| {
            (0..n).try_fold(0, |sum, key| Ok(sum + m.req(key, Decoder::uint)?))
        });
        assert_eq!(sum, Ok((0..n).sum()));
    }
}

#[test]
fn integers() {
    for n in [0, 1, 23, 24, -1, -24, -25, -256, -257, i64::MIN, i64::MAX] {
        assert_eq!(decode(&encode(|e| e.int(n)), "test", Decoder::int), Ok(n));
    }
    assert!(decode(&encode(|e| e.uint(1 << 63)), "test", Decoder::int).is_err());
    assert!(decode(&encode(|e| e.uint(256)), "test", Decoder::small::<u8>).is_err());
    assert!(decode(&encode(|e| e.int(-1)), "test", Decoder::uint).is_err());
}

fn value() -> impl Strategy<Value = ciborium::Value> {
    use ciborium::Value;
    let leaf = prop_oneof![
        any::<u64>().prop_map(|n| Value::Integer(n.into())),
        any::<i64>().prop_map(|n| Value::Integer(n.into())),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        any::<String>().prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(any::<u16>(), inner, 0..6).prop_map(|map| {
                let key = |(k, v): (u16, _)| (Value::Integer(k.into()), v);
                Value::Map(map.into_iter().map(key).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn ciborium_agrees(value in value()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        assert_eq!(skip(&bytes), Ok(()));
    }

    #[test]
    fn what_is_accepted_has_one_form(bytes in any::<Vec<u8>>()) {
        if skip(&bytes).is_ok() {
            let value: ciborium::Value = ciborium::from_reader(bytes.as_slice()).unwrap();
            let mut again = Vec::new();
            ciborium::into_writer(&value, &mut again).unwrap();
            assert_eq!(again, bytes);
        }
    }
}
