//! The envelope: golden bytes, every flip and cut, what a signature binds, rot told from the name alone.

use proptest::prelude::{any, prop, proptest};

use super::{Kind, Record, check_rot};
use crate::error::FormatError;
use crate::format::id::{IdentityId, RepositoryId, hash, to_hex};
use crate::format::keys::SigningKey;

const REPOSITORY: RepositoryId = RepositoryId([0xaa; 16]);
const AUTHOR: IdentityId = IdentityId([0xbb; 16]);
const STATED: &str = "sessions/cccccccccccccccccccccccccccccccc";

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn build(kind: Kind, name: &str) -> Vec<u8> {
    Record::build(kind, b"a body", name, &[(AUTHOR, 3, &key())], REPOSITORY)
}

fn check(bytes: &[u8], kind: Kind, name: &str) -> Result<u32, FormatError> {
    let record = Record::parse(bytes, &[kind])?;
    record.verify(REPOSITORY, name, AUTHOR, &key().verifying_key()).map(|s| s.roster)
}

#[test]
fn golden() {
    let stated = build(Kind::Session, STATED);
    assert_eq!(to_hex(&stated[..22]), "5354524f4e47524d04010000060000006120626f6479");
    assert_eq!(
        to_hex(&stated[22..46]),
        ["01", "01", &"bb".repeat(16), "03000000", "4000"].concat()
    );
    assert_eq!(stated.len(), 46 + 64 + 32);
    assert_eq!(
        to_hex(&hash(&stated)),
        "991d9bbf00d99801d4e1be8c1ed2f867e2d500b6817764dfa65da4e62a677026"
    );
    assert_eq!(
        to_hex(&hash(&build(Kind::Attestation, "attest/"))),
        "832ef9849917ed05295f70b74432c248b3c8173e3fbed442d4129a5ebd5311ec"
    );
    let repo = Record::build(Kind::Repo, b"a body", "repo.cbor", &[], REPOSITORY);
    assert_eq!(to_hex(&repo[22..23]), "00");
    assert_eq!(repo.len(), 22 + 1 + 32);
}

/// The signed bytes, spelled out as format.md has them.
#[test]
fn signed_bytes() {
    for (kind, name, signed_name) in [
        (Kind::Session, STATED, STATED),
        (Kind::Damage, "damaged/0123", "damaged/"),
        (Kind::IndexRun, "index/", "index/"),
    ] {
        let bytes = build(kind, name);
        let record = Record::parse(&bytes, &[kind]).unwrap();
        let message = [
            b"strongroom/1/".as_slice(),
            &[kind as u8],
            &[0xaa; 16],
            &[0xbb; 16],
            &[3, 0, 0, 0],
            signed_name.as_bytes(),
            &hash(&bytes[..22]),
        ]
        .concat();
        let key = key().verifying_key();
        key.verify(&message, &record.signatures[0].bytes, "test").unwrap();
    }
}

#[test]
fn every_flip_and_cut_is_rejected() {
    for (kind, name) in [(Kind::Session, STATED), (Kind::Attestation, "attest/")] {
        let bytes = build(kind, name);
        assert_eq!(check(&bytes, kind, name), Ok(3));
        for at in 0..bytes.len() {
            for flip in [1, 2, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(check(&bytes, kind, name).is_err(), "{kind:?} {at} {flip}");
            }
            assert!(check(&bytes[..at], kind, name).is_err(), "{kind:?} cut at {at}");
        }
        assert!(check(&[bytes.as_slice(), &[0]].concat(), kind, name).is_err());
    }
}

#[test]
fn a_signature_binds_repository_name_identity_and_key() {
    let bytes = build(Kind::Session, STATED);
    let record = Record::parse(&bytes, &[Kind::Session]).unwrap();
    let (key, other) = (key().verifying_key(), SigningKey::from_seed(&[2; 32]).verifying_key());
    assert!(record.verify(REPOSITORY, STATED, AUTHOR, &key).is_ok());
    assert!(record.verify(RepositoryId([0; 16]), STATED, AUTHOR, &key).is_err());
    assert!(record.verify(REPOSITORY, "sessions/other", AUTHOR, &key).is_err());
    assert!(record.verify(REPOSITORY, STATED, IdentityId::ROOT, &key).is_err());
    assert!(record.verify(REPOSITORY, STATED, AUTHOR, &other).is_err());
}

#[test]
fn several_signers() {
    let (a, b) = (key(), SigningKey::from_seed(&[2; 32]));
    let signers = [(AUTHOR, 3, &a), (IdentityId::ROOT, 4, &b), (AUTHOR, 5, &a), (AUTHOR, 6, &b)];
    let bytes = Record::build(Kind::Verdict, b"", "retired/00000001.verdict", &signers, REPOSITORY);
    let record = Record::parse(&bytes, &[Kind::Proposal, Kind::Verdict]).unwrap();
    let verify = |id, key: &SigningKey| {
        let signature =
            record.verify(REPOSITORY, "retired/00000001.verdict", id, &key.verifying_key());
        signature.map(|signature| signature.roster).ok()
    };
    assert_eq!(verify(AUTHOR, &a), Some(3));
    assert_eq!(verify(AUTHOR, &b), Some(6));
    assert_eq!(verify(IdentityId::ROOT, &b), Some(4));
    assert_eq!(verify(IdentityId::ROOT, &a), None);
}

#[test]
fn errors_name_the_fault() {
    let bytes = build(Kind::Attestation, "attest/");
    let with = |at: usize, value| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Record::parse(&bytes, &[Kind::Attestation]).unwrap_err()
    };
    let object = "attestation";
    assert_eq!(with(0, 0), FormatError::NotOurs { object });
    assert_eq!(with(8, 4), FormatError::Kind { expected: object, found: 4 });
    assert_eq!(with(9, 2), FormatError::Newer { object, version: 2 });
    assert!(matches!(with(10, 1), FormatError::Malformed { .. }));
    assert!(matches!(with(15, 0xff), FormatError::Truncated { .. }));
    assert!(matches!(with(22, 5), FormatError::Limit { .. }));
    let feature = "signature algorithm 2".into();
    assert_eq!(with(23, 2), FormatError::Unsupported { object, feature });
}

#[test]
fn rot() {
    let content = build(Kind::Attestation, "attest/");
    let mut pack = b"STRONGRM\x06 any bytes".to_vec();
    let pack_hash = to_hex(&hash(&pack));
    let cases = [
        (STATED.to_owned(), build(Kind::Session, STATED)),
        (format!("attest/{}", to_hex(&hash(&content))), content),
        (format!("packs/{}/{pack_hash}", &pack_hash[..2]), pack.clone()),
    ];
    for (name, bytes) in cases {
        assert_eq!(check_rot(&name, &bytes), Ok(()));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(matches!(check_rot(&name, &bytes), Err(FormatError::Rot { .. })));
            assert!(check_rot(&name, &bytes[..at]).is_err());
        }
    }
    pack.push(0);
    assert_eq!(check_rot("not/ours", &pack), Ok(()));
}

proptest! {
    #[test]
    fn records_come_back(
        body in prop::collection::vec(any::<u8>(), 0..500),
        code in 1_u8..=16,
        signers in 0_usize..=4,
    ) {
        let kind = Kind::from_code(code).unwrap();
        let key = key();
        let signers = vec![(AUTHOR, 9, &key); signers];
        let bytes = Record::build(kind, &body, "folder/name", &signers, REPOSITORY);
        let record = Record::parse(&bytes, &Kind::ALL).unwrap();
        assert_eq!((record.kind, record.body, record.signatures.len()), (kind, &*body, signers.len()));
        assert_eq!(record.verify(REPOSITORY, "folder/name", AUTHOR, &key.verifying_key()).is_ok(), !signers.is_empty());
    }

    #[test]
    fn parse_never_panics(bytes: Vec<u8>, code in 1_u8..=16) {
        let header = [b"STRONGRM".as_slice(), &[code, 1, 0, 0], &bytes].concat();
        let _ = Record::parse(&header, &Kind::ALL);
        let _ = Record::parse(&bytes, &Kind::ALL);
    }
}
