//! Identity and epoch keys: Ed25519 signatures (aws-lc-rs) and secrets sealed with HPKE over X-Wing
//! (`docs/format.md`, 7.2). The `hpke` crate is unaudited; the tests pin its wire behaviour.

use std::convert::Infallible;
use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::id::{RepositoryId, SessionId, hash, to_hex};
use super::seal::{Recipient, Secret};
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;
type Aead = hpke::aead::ChaCha20Poly1305;
type Kdf = hpke::kdf::HkdfSha512;
type XWing = hpke::kem::XWing;

pub const SIGNATURE_LEN: usize = 64;
pub const KEM_PUBLIC_LEN: usize = 1216;
/// enc [1120] ‖ ciphertext [48].
pub const SEALED_SECRET_LEN: usize = ENC_LEN + 48;
const ENC_LEN: usize = 1120;

// ---- signatures ----

/// Ed25519 (RFC 8032) from its 32-byte seed.
pub struct SigningKey {
    seed: Secret,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    pub fn from_seed(seed: &[u8; 32]) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every seed is a key");
        SigningKey { seed: Secret(*seed), pair }
    }

    pub fn seed(&self) -> &[u8; 32] {
        &self.seed.0
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        let public = self.pair.public_key().as_ref();
        VerifyingKey(public.try_into().expect("a public key has 32 bytes"))
    }

    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("a signature has 64 bytes")
    }
}

impl Clone for SigningKey {
    fn clone(&self) -> Self {
        SigningKey::from_seed(self.seed())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(… {:?})", self.verifying_key())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// Strict: aws-lc refuses a non-canonical S and compares R as bytes, but takes any key; we refuse weak ones.
    pub fn verify(&self, message: &[u8], signature: &[u8], object: &'static str) -> Result<()> {
        let invalid = |what| FormatError::Signature { object, what };
        if self.is_weak() {
            return Err(invalid("the verifying key is weak"));
        }
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).map_err(|_| invalid("it does not match"))
    }

    /// Of small order, or not the canonical encoding of its point.
    pub fn is_weak(&self) -> bool {
        /// p = 2²⁵⁵ − 19, little-endian like everything here.
        const P: [u8; 32] = edge(0xed, 0xff, 0x7f);
        /// The y of all eight points of small order: 1; p − 1; 0; and ± those of order 8.
        const SMALL_ORDER: [[u8; 32]; 5] = [
            edge(1, 0, 0),
            edge(0xec, 0xff, 0x7f),
            [0; 32],
            [
                0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
                0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
                0x6d, 0x53, 0xfc, 0x05,
            ],
            [
                0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
                0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
                0x92, 0xac, 0x03, 0x7a,
            ],
        ];
        let mut y = self.0;
        y[31] &= 0x7f;
        // An encoding with y < p is canonical unless x is 0 with its sign set, and then y is ±1: of small order.
        y.iter().rev().ge(P.iter().rev()) || SMALL_ORDER.contains(&y)
    }
}

const fn edge(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

impl AsRef<[u8]> for VerifyingKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", &to_hex(&self.0)[..8])
    }
}

// ---- sealed secrets ----

/// An X-Wing secret key: its 32-byte seed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KemSecret(pub [u8; 32]);

impl KemSecret {
    fn key(&self) -> <XWing as Kem>::PrivateKey {
        <XWing as Kem>::PrivateKey::from_bytes(&self.0).expect("every seed is a key")
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret(…)")
    }
}

/// An X-Wing public key.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublic(pub Box<[u8; KEM_PUBLIC_LEN]>);

impl AsRef<[u8]> for KemPublic {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublic(H {})", &to_hex(&hash(self.as_ref()))[..8])
    }
}

pub fn kem_public(secret: &KemSecret) -> KemPublic {
    let public = XWing::sk_to_pk(&secret.key()).to_bytes();
    let public: Box<[u8]> = public.as_slice().into();
    KemPublic(public.try_into().expect("a public key has 1216 bytes"))
}

/// What a sealed secret is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealInfo {
    pub repository: RepositoryId,
    pub epoch: u32,
    pub recipient: Recipient,
    pub session: SessionId,
}

impl SealInfo {
    fn to_bytes(self) -> Vec<u8> {
        [
            b"strongroom/1/seal".as_slice(),
            &self.repository.0,
            &self.epoch.to_le_bytes(),
            &[self.recipient.code()],
            &self.session.0,
        ]
        .concat()
    }
}

const SEALED: &str = "sealed secret";

/// 1,168 bytes. `randomness` must be fresh and secret: whoever has it can open them.
pub fn seal_secret(
    to: &KemPublic,
    info: &SealInfo,
    secret: &Secret,
    randomness: [u8; 64],
) -> Result<Vec<u8>> {
    let to = <XWing as Kem>::PublicKey::from_bytes(to.as_ref()).map_err(|_| {
        FormatError::Malformed { object: "public key", what: "it is not an X-Wing key" }
    })?;
    let mut given = Given { bytes: Zeroizing::new(randomness), used: 0 };
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<Aead, Kdf, XWing>(
        &OpModeS::Base,
        &to,
        &info.to_bytes(),
        &secret.0,
        &[],
        &mut given,
    )
    .map_err(|_| FormatError::Malformed { object: SEALED, what: "HPKE could not seal it" })?;
    let sealed = [enc.to_bytes().as_slice(), &ciphertext].concat();
    assert_eq!(sealed.len(), SEALED_SECRET_LEN);
    assert_eq!(given.used, given.bytes.len(), "HPKE draws 64 bytes: the wire behaviour is pinned");
    Ok(sealed)
}

pub fn open_secret(with: &KemSecret, info: &SealInfo, sealed: &[u8]) -> Result<Secret> {
    if sealed.len() != SEALED_SECRET_LEN {
        let what = "a sealed secret of another length";
        return Err(FormatError::Malformed { object: SEALED, what });
    }
    let altered = |_| FormatError::Altered { object: SEALED };
    let (enc, ciphertext) = sealed.split_at(ENC_LEN);
    let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).map_err(altered)?;
    let plain = hpke::single_shot_open::<Aead, Kdf, XWing>(
        &OpModeR::Base,
        &with.key(),
        &enc,
        &info.to_bytes(),
        ciphertext,
        &[],
    );
    let plain = Zeroizing::new(plain.map_err(altered)?);
    let secret = plain.as_slice().try_into().expect("48 bytes less a tag of 16");
    Ok(Secret(secret))
}

/// Hands out the bytes it was given, once, as the random numbers that hpke asks for.
struct Given {
    bytes: Zeroizing<[u8; 64]>,
    used: usize,
}

impl rand_core::TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> std::result::Result<(), Infallible> {
        let end = self.used + into.len();
        assert!(end <= self.bytes.len(), "hpke draws more randomness than X-Wing needs");
        into.copy_from_slice(&self.bytes[self.used..end]);
        self.used = end;
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Given {}

#[cfg(test)]
mod tests;
