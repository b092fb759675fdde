//! RFC 8032 and X-Wing vectors, weak keys, and the pinned wire behaviour of the hpke crate: checked
//! against a key schedule written out here from RFC 9180.

use aws_lc_rs::aead;
use ed25519_dalek::{Signature, VerifyingKey as Dalek};
use hpke::kem::Kem as _;
use hpke::{Deserializable, Serializable};
use proptest::prelude::proptest;
use sha2::Digest;

use super::{
    Given, KemPublic, KemSecret, SealInfo, SigningKey, VerifyingKey, XWing, Zeroizing, kem_public,
    open_secret, seal_secret,
};
use crate::format::id::{RepositoryId, SessionId, from_hex, hash, to_hex};
use crate::format::seal::{Recipient, Secret};

fn h<const N: usize>(hex: &str) -> [u8; N] {
    from_hex(hex).unwrap()
}

/// RFC 8032, 7.1, tests 1 and 2.
#[test]
fn ed25519_vectors() {
    let vectors: [(&str, &str, &[u8], &str); 2] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ];
    for (seed, public, message, signature) in vectors {
        let key = SigningKey::from_seed(&h(seed));
        assert_eq!(key.verifying_key(), VerifyingKey(h(public)));
        assert_eq!(to_hex(&key.sign(message)), signature);
        assert!(key.verifying_key().verify(message, &h::<64>(signature), "test").is_ok());
        assert!(key.verifying_key().verify(b"other", &h::<64>(signature), "test").is_err());
    }
}

#[test]
fn s_must_be_canonical() {
    let key = SigningKey::from_seed(&[7; 32]);
    let mut signature = key.sign(b"m");
    let order = h::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0;
    for (s, l) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*s) + u16::from(l) + carry;
        (*s, carry) = (sum as u8, sum >> 8);
    }
    assert!(key.verifying_key().verify(b"m", &signature, "test").is_err());
}

/// With a key of small order and R = its encoding of the neutral element, S = 0 verifies many
/// messages: must never pass.
#[test]
fn weak_keys() {
    let neutral = "0100000000000000000000000000000000000000000000000000000000000000";
    let signature: [u8; 64] = [h::<32>(neutral), [0; 32]].concat().try_into().unwrap();
    let mut weak = 0;
    for y in 0..=255_u8 {
        // every y below 2²⁵⁵ that begins in an interesting way, with both signs
        for rest in [0, 0xff] {
            for last in [rest & 0x7f, rest | 0x80] {
                let mut bytes = [rest; 32];
                (bytes[0], bytes[31]) = (y, last);
                weak += usize::from(agrees_with_dalek(bytes, &signature));
            }
        }
    }
    assert!(weak > 0, "no weak key was tried");
    for order_8 in [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        assert!(agrees_with_dalek(h(order_8), &signature), "{order_8}");
    }
}

/// Whether the key is weak; dalek must think so too, where it can read the key at all.
fn agrees_with_dalek(bytes: [u8; 32], signature: &[u8; 64]) -> bool {
    let ours = VerifyingKey(bytes);
    assert!(ours.verify(b"m", signature, "test").is_err(), "{bytes:02x?}");
    let Ok(dalek) = Dalek::from_bytes(&bytes) else {
        return ours.is_weak();
    };
    let canonical = dalek.to_edwards().compress().to_bytes() == bytes;
    assert_eq!(ours.is_weak(), dalek.is_weak() || !canonical, "{bytes:02x?}");
    ours.is_weak()
}

const SEED: &str = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26";
const ESEED: &str = "3cb1eea988004b93103cfb0aeefd2a686e01fa4a58e8a3639ca8a1e3f9ae57e235b8cc873c23dc62b8d260169afa2f75ab916a58d974918835d25e6a435085b2";

/// draft-connolly-cfrg-xwing-kem, test-vectors.json: seed, eseed, ss, SHA-256 of pk and of ct.
#[test]
fn xwing_vectors() {
    assert_eq!(XWing::KEM_ID, 0x647a);
    let vectors = [
        (
            SEED,
            ESEED,
            "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
            "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb",
            "17cd532d657e44c897ca6583e548a5424fc70bf54f99515a4d2bcf99e3469f33",
        ),
        (
            "badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea",
            "17cda7cfad765f5623474d368ccca8af0007cd9f5e4c849f167a580b14aabdefaee7eef47cb0fca9767be1fda69419dfb927e9df07348b196691abaeb580b32d",
            "f2e86241c64d60f6649fbc6c5b7d17180b780a3f34355e64a85749949c45f150",
            "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916",
            "1661ea86d608a1924ba30840cb0a65f13ae051e3aec9cf0f064efc0bc92f2154",
        ),
        (
            "ef58538b8d23f87732ea63b02b4fa0f4873360e2841928cd60dd4cee8cc0d4c9",
            "22a96188d032675c8ac850933c7aff1533b94c834adbb69c6115bad4692d8619f90b0cdf8a7b9c264029ac185b70b83f2801f2f4b3f70c593ea3aeeb613a7f1b",
            "953f7f4e8c5b5049bdc771d1dffada0dd961477d1a2ae0988baa7ea6898d893f",
            "6b080d6b84f095342092fa7a22423e58bd681397ad0ef00eac92bd254db4fa95",
            "d3ca5578500344b5896cffc4fd740c9311946b82951df155e6fd86a7966b43c6",
        ),
    ];
    let sha256 = |bytes: &[u8]| to_hex(&sha2::Sha256::digest(bytes));
    for (seed, eseed, shared, public_hash, ct_hash) in vectors {
        let secret = KemSecret(h(seed));
        assert_eq!(sha256(kem_public(&secret).as_ref()), public_hash);
        let public = XWing::sk_to_pk(&secret.key());
        let mut given = Given { bytes: Zeroizing::new(h(eseed)), used: 0 };
        let (ss, enc) = XWing::encap_with_rng(&public, None, &mut given).unwrap();
        assert_eq!((to_hex(&ss.0).as_str(), sha256(&enc.to_bytes()).as_str()), (shared, ct_hash));
        let ss = XWing::decap(&secret.key(), None, &enc).unwrap();
        assert_eq!(to_hex(&ss.0), shared);
    }
}

fn info() -> SealInfo {
    SealInfo {
        repository: RepositoryId([0xaa; 16]),
        epoch: 0x0102_0304,
        recipient: Recipient::Tree,
        session: SessionId([0xbb; 16]),
    }
}

fn sealed() -> Vec<u8> {
    let to = kem_public(&KemSecret(h(SEED)));
    seal_secret(&to, &info(), &Secret([0x42; 32]), h(ESEED)).unwrap()
}

#[test]
fn golden_sealed_secret() {
    let sealed = sealed();
    assert_eq!(sealed.len(), 1168);
    // enc is the X-Wing vector's; the ciphertext is ours.
    assert_eq!(
        to_hex(&sha2::Sha256::digest(&sealed[..1120])),
        "17cd532d657e44c897ca6583e548a5424fc70bf54f99515a4d2bcf99e3469f33"
    );
    assert_eq!(
        to_hex(&sealed[1120..]),
        "9da04e583a6e18ed09cdd20ac222c24cf6b9771ec1834ce0877b55352fcce0cb3fa2c0f08bc05ea602614ef01e6cc33b"
    );
    assert_eq!(
        to_hex(&hash(&sealed)),
        "c763d61f44691b60b5439d8fb779332b0ac8e668d8385e05f326afa8cb941eea"
    );
}

/// RFC 9180, 5.1 with the shared secret of the first X-Wing vector.
#[test]
fn another_key_schedule_opens_it() {
    let sealed = sealed();
    let suite = b"HPKE\x64\x7a\x00\x03\x00\x03";
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
        let ikm = [b"HPKE-v1".as_slice(), suite, label, ikm].concat();
        hkdf::Hkdf::<sha2::Sha512>::extract(Some(salt), &ikm).0
    };
    let info_bytes =
        [b"strongroom/1/seal".as_slice(), &[0xaa; 16], &[4, 3, 2, 1], &[2], &[0xbb; 16]].concat();
    let psk_id_hash = extract(&[], b"psk_id_hash", &[]);
    let info_hash = extract(&[], b"info_hash", &info_bytes);
    let schedule = [[0].as_slice(), &psk_id_hash, &info_hash].concat();
    let shared = h::<32>("d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384");
    let secret = extract(&shared, b"secret", &[]);
    let expand = |label: &[u8], out: &mut [u8]| {
        let len = (out.len() as u16).to_be_bytes();
        let info = [len.as_slice(), b"HPKE-v1", suite, label, &schedule].concat();
        hkdf::Hkdf::<sha2::Sha512>::from_prk(&secret).unwrap().expand(&info, out).unwrap();
    };
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    expand(b"key", &mut key);
    expand(b"base_nonce", &mut nonce);
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &key).unwrap();
    let mut ciphertext = sealed[1120..].to_vec();
    let plain = aead::LessSafeKey::new(key)
        .open_in_place(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::empty(),
            &mut ciphertext,
        )
        .unwrap();
    assert_eq!(plain, [0x42; 32]);
}

#[test]
fn sealed_secrets_are_bound() {
    let sealed = sealed();
    let secret = KemSecret(h(SEED));
    assert_eq!(open_secret(&secret, &info(), &sealed), Ok(Secret([0x42; 32])));
    let others = [
        SealInfo { epoch: 1, ..info() },
        SealInfo { recipient: Recipient::Data, ..info() },
        SealInfo { session: SessionId([0; 16]), ..info() },
        SealInfo { repository: RepositoryId([0; 16]), ..info() },
    ];
    for other in others {
        assert!(open_secret(&secret, &other, &sealed).is_err());
    }
    assert!(open_secret(&KemSecret([1; 32]), &info(), &sealed).is_err());
    for at in (0..sealed.len()).step_by(13).chain(1120..sealed.len()) {
        let mut sealed = sealed.clone();
        sealed[at] ^= 1;
        assert!(open_secret(&secret, &info(), &sealed).is_err(), "{at}");
    }
    assert!(open_secret(&secret, &info(), &sealed[1..]).is_err());
}

#[test]
fn bad_public_keys_are_refused() {
    let bad = KemPublic(Box::new([0xff; 1216]));
    assert!(seal_secret(&bad, &info(), &Secret([0; 32]), [0; 64]).is_err());
    assert!(<XWing as hpke::Kem>::PublicKey::from_bytes(bad.as_ref()).is_err());
}

#[test]
fn secrets_do_not_show() {
    assert_eq!(format!("{:?}", KemSecret([0x41; 32])), "KemSecret(…)");
    let shown = format!("{:?}", SigningKey::from_seed(&[0x41; 32]));
    assert!(!shown.contains("41414141"), "{shown}");
}

proptest! {
    #[test]
    fn dalek_agrees(seed: [u8; 32], message: Vec<u8>) {
        let key = SigningKey::from_seed(&seed);
        let signature = Signature::from_bytes(&key.sign(&message));
        let dalek = Dalek::from_bytes(&key.verifying_key().0).unwrap();
        assert!(dalek.verify_strict(&message, &signature).is_ok());
        assert!(!key.verifying_key().is_weak());
    }

    #[test]
    fn sealed_secrets_come_back(seed: [u8; 32], secret: [u8; 32], a: [u8; 32], b: [u8; 32]) {
        let randomness = [a, b].concat().try_into().unwrap();
        let with = KemSecret(seed);
        let sealed = seal_secret(&kem_public(&with), &info(), &Secret(secret), randomness).unwrap();
        assert_eq!(open_secret(&with, &info(), &sealed), Ok(Secret(secret)));
    }
}
