//! Padding, key derivation against the RustCrypto crates, streams at every boundary, and every flip
//! and cut of a sealed body.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use proptest::prelude::{any, prop, proptest};

use super::{
    BLOCK_LEN, BLOCK_STORED_LEN, Context, Label, Recipient, Sealer, Secret, Suite, TAG_LEN,
    frame_aad, frame_nonce, open_body, padme, seal_body, sealed_stream_len,
};
use crate::error::FormatError;
use crate::format::id::{RepositoryId, SessionId, hash, to_hex};
use crate::format::kind::Kind;

fn context(suite: Suite, recipient: Recipient) -> Context {
    Context {
        suite,
        recipient,
        epoch: 7,
        repository: RepositoryId([0xaa; 16]),
        session: SessionId([0xbb; 16]),
        salt: [0xcc; 32],
    }
}

fn sealer(suite: Suite) -> Sealer {
    Sealer::new(&Secret([1; 32]), &context(suite, Recipient::Index), Label::PackDirectory)
}

#[test]
fn padme_table() {
    let table = [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
        (7, 7),
        (8, 8),
        (9, 10),
        (15, 16),
        (17, 18),
        (100, 104),
        (1000, 1024),
        (1025, 1088),
        (65_537, 67_584),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, 1_081_344),
        (1_000_000_000, 1_006_632_960),
        (1_099_511_640_121, 1_116_691_496_960),
    ];
    for (len, padded) in table {
        assert_eq!(padme(len), padded, "{len}");
    }
    for len in 2..100_000_u64 {
        let padded = padme(len);
        assert!(padded >= len && (padded - len) * 100 <= len * 12, "{len}");
        assert_eq!(padme(padded), padded);
    }
    padme(u64::MAX);
    sealed_stream_len(u64::MAX);
}

/// RFC 5869 as RustCrypto has it, over the bytes that format.md spells out.
#[test]
fn keys_are_those_of_another_hkdf() {
    for (label, text) in [
        (Label::Frame, b"strongroom/1/frame".to_vec()),
        (Label::Object(Kind::Snapshot), b"strongroom/1/object/\x08".to_vec()),
        (Label::PackDirectory, b"strongroom/1/pack-directory".to_vec()),
        (Label::PackTrailer, b"strongroom/1/pack-trailer".to_vec()),
    ] {
        let context = context(Suite::Aes256Gcm, Recipient::Data);
        let sealer = Sealer::new(&Secret([9; 32]), &context, label);
        let mut okm = [0; 64];
        let hkdf = hkdf::Hkdf::<sha2::Sha512>::new(Some(&context.salt), &[9; 32]);
        let info = [text, hash(&context.to_bytes()).to_vec()].concat();
        hkdf.expand(&info, &mut okm).unwrap();
        assert_eq!(sealer.commit(), &okm[32..]);

        let aad = frame_aad(sealer.context_hash(), 5, 1, 4, &[3; 32], &[]);
        let mut sealed = b"data".to_vec();
        sealer.seal_in_place(frame_nonce(5), &aad, &mut sealed);
        let cipher = aes_gcm::Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
        let nonce = aes_gcm::Nonce::try_from(frame_nonce(5).as_slice()).unwrap();
        let plain = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &aad }).unwrap();
        assert_eq!(plain, b"data");
    }
}

#[test]
fn context_bytes() {
    let context = context(Suite::ChaCha20Poly1305, Recipient::Meta);
    let bytes = context.to_bytes();
    let hex = ["01020300", "07000000", &"aa".repeat(16), &"bb".repeat(16), &"cc".repeat(32)];
    assert_eq!(to_hex(&bytes), hex.concat());
    assert_eq!(Context::from_bytes(&bytes), Ok(context));
    for (at, values) in [(0, [0, 2]), (1, [0, 3]), (2, [0, 5]), (3, [1, 0xff])] {
        for value in values {
            let mut bytes = bytes;
            bytes[at] = value;
            assert!(Context::from_bytes(&bytes).is_err(), "{at} {value}");
        }
    }
}

#[test]
fn streams_at_every_boundary() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let sealer = sealer(suite);
        for edge in [8, BLOCK_LEN, 2 * BLOCK_LEN, 3 * BLOCK_LEN] {
            for len in (edge - 8).saturating_sub(2)..=edge + 2 {
                let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let stored = sealer.seal_stream(&payload);
                assert_eq!(stored.len() as u64, sealed_stream_len(len as u64));
                assert_eq!(sealer.open_stream(&stored, "test").unwrap(), payload);
            }
        }
    }
}

#[test]
fn ranges_of_streams() {
    let sealer = sealer(Suite::Aes256Gcm);
    let payload: Vec<u8> = (0..300_000_u32).map(|i| (i / 7) as u8).collect();
    let stored = sealer.seal_stream(&payload);
    let whole = sealer.open_stream_blocks(0, &stored, true, "test").unwrap();
    assert_eq!(whole[8..payload.len() + 8], payload);
    let blocks = stored.len().div_ceil(BLOCK_STORED_LEN);
    for first in 0..blocks {
        for last in first..blocks {
            let end = stored.len().min((last + 1) * BLOCK_STORED_LEN);
            let part = &stored[first * BLOCK_STORED_LEN..end];
            let ends = last + 1 == blocks;
            let plain = sealer.open_stream_blocks(first as u64, part, ends, "test").unwrap();
            let at = first * BLOCK_LEN;
            assert_eq!(plain, whole[at..at + plain.len()]);
            assert!(sealer.open_stream_blocks(first as u64 + 1, part, ends, "test").is_err());
            assert!(sealer.open_stream_blocks(first as u64, part, !ends, "test").is_err());
        }
    }
}

#[test]
fn cut_and_reordered_blocks() {
    let sealer = sealer(Suite::ChaCha20Poly1305);
    let stored = sealer.seal_stream(&vec![5; 200_000]);
    for len in [0, 1, TAG_LEN, BLOCK_STORED_LEN - 1, BLOCK_STORED_LEN, 2 * BLOCK_STORED_LEN] {
        assert!(sealer.open_stream(&stored[..len], "test").is_err(), "{len}");
    }
    let (a, rest) = stored.split_at(BLOCK_STORED_LEN);
    let (b, rest) = rest.split_at(BLOCK_STORED_LEN);
    assert!(sealer.open_stream(&[b, a, rest].concat(), "test").is_err());
    assert!(sealer.open_stream(&[stored.as_slice(), a].concat(), "test").is_err());
}

/// What an honest writer never makes, sealed with the right key.
#[test]
fn wrong_lengths_and_padding_inside_the_seal() {
    let sealer = sealer(Suite::Aes256Gcm);
    let open = |plain: &[u8]| {
        let mut block = plain.to_vec();
        let mut nonce = frame_nonce(0);
        nonce[8] = 1;
        sealer.seal_in_place(nonce, sealer.context_hash(), &mut block);
        sealer.open_stream(&block, "test")
    };
    let head = |len: u64| len.to_le_bytes().to_vec();
    assert_eq!(open(&[head(1), vec![9, 0]].concat()), Ok(vec![9]));
    assert!(open(&[head(1), vec![9, 1]].concat()).is_err(), "padding");
    assert!(open(&[head(1), vec![9]].concat()).is_err(), "unpadded");
    assert!(open(&[head(0), vec![0, 0]].concat()).is_err(), "padded twice");
    assert!(open(&[head(u64::MAX), vec![0, 0]].concat()).is_err(), "huge length");
    assert!(open(&head(0)[..7]).is_err(), "no length");
}

#[test]
fn golden_bodies() {
    let golden = [
        (Suite::Aes256Gcm, "6f8ffd781f61610ddba41400e0166d5195bd9e3bfa27515cebb43f00ba42242f"),
        (
            Suite::ChaCha20Poly1305,
            "29695cde9081b476a7a4edfa3a7280e2eb70772725d4fe8d9369d9356a1ad20b",
        ),
    ];
    for (suite, hex) in golden {
        let context = context(suite, Recipient::Index);
        let body = seal_body(&Secret([1; 32]), &context, Kind::Hold, b"a payload");
        assert_eq!(to_hex(&hash(&body)), hex);
    }
}

#[test]
fn every_flip_and_cut_of_a_body_is_rejected() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let context = context(suite, Recipient::Index);
        let body = seal_body(&Secret([1; 32]), &context, Kind::Damage, b"where it is damaged");
        let open = |body: &[u8]| open_body(body, Kind::Damage, |_| Ok(Secret([1; 32])));
        assert_eq!(open(&body), Ok((context, b"where it is damaged".to_vec())));
        for at in 0..body.len() {
            for flip in [1, 0x80, 0xff] {
                let mut body = body.clone();
                body[at] ^= flip;
                assert!(open(&body).is_err(), "{at} {flip}");
            }
            assert!(open(&body[..at]).is_err(), "cut at {at}");
        }
        assert!(open(&[body.as_slice(), &[0]].concat()).is_err());
        let wrong = open_body(&body, Kind::Damage, |_| Ok(Secret([2; 32])));
        assert_eq!(wrong, Err(FormatError::Commitment { object: "damage record" }));
        assert!(open_body(&body, Kind::Hold, |_| Ok(Secret([1; 32]))).is_err(), "other label");
    }
}

#[test]
fn secrets_do_not_show() {
    assert_eq!(format!("{:?}", Secret([0x41; 32])), "Secret(…)");
    assert_eq!(format!("{:?}", sealer(Suite::Aes256Gcm)), "Sealer(…)");
}

proptest! {
    #[test]
    fn bodies_come_back(
        payload in prop::collection::vec(any::<u8>(), 0..3000),
        secret: [u8; 32],
        salt: [u8; 32],
        epoch: u32,
    ) {
        let context =
            Context { salt, epoch, ..context(Suite::Aes256Gcm, Recipient::Meta) };
        let body = seal_body(&Secret(secret), &context, Kind::Snapshot, &payload);
        let (found, opened) = open_body(&body, Kind::Snapshot, |_| Ok(Secret(secret))).unwrap();
        assert_eq!((found, opened), (context, payload));
    }
}
