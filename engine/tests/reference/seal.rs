//! Section 4 (contexts, sealed streams) and sealed secrets (7.2).

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use hkdf::Hkdf;
use hpke::{Deserializable, Kem, OpModeR, Serializable};
use sha2::Sha512;

use super::{Cursor, Id, Result, Short, h, need, padme};

type XWing = hpke::kem::XWing;

pub const CONTEXT_LEN: usize = 72;
const BLOCK_LEN: usize = 65_536;
const TAG_LEN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    Data = 1,
    Tree,
    Meta,
    Index,
}

impl Recipient {
    pub fn from_code(code: u8) -> Result<Self> {
        let all = [Self::Data, Self::Tree, Self::Meta, Self::Index];
        let found = all.into_iter().find(|recipient| *recipient as u8 == code);
        found.ok_or_else(|| format!("unknown recipient {code}"))
    }
}

/// 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Context {
    pub suite: u8,
    pub recipient: Recipient,
    pub epoch: u32,
    pub repository: Short,
    pub session: Short,
    pub bytes: [u8; CONTEXT_LEN],
}

impl Context {
    pub fn parse(bytes: [u8; CONTEXT_LEN]) -> Result<Self> {
        let mut cursor = Cursor(&bytes);
        need(cursor.u8()? == 1, "version of a context")?;
        let suite = cursor.u8()?;
        let recipient = Recipient::from_code(cursor.u8()?)?;
        cursor.zero(1)?;
        let (epoch, repository, session) = (cursor.u32()?, cursor.array()?, cursor.array()?);
        cursor.take(32)?;
        cursor.end()?;
        Ok(Self { suite, recipient, epoch, repository, session, bytes })
    }
}

/// key32 ‖ commit32.
pub fn hkdf(ikm: &[u8], salt: &[u8], info: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut okm = [0; 64];
    Hkdf::<Sha512>::new(Some(salt), ikm).expand(info, &mut okm).expect("64 bytes are few");
    let (key, commit) = okm.split_at(32);
    (key.try_into().expect("32"), commit.try_into().expect("32"))
}

pub fn frame_label() -> Vec<u8> {
    b"strongroom/1/frame".to_vec()
}

pub fn object_label(kind: u8) -> Vec<u8> {
    [b"strongroom/1/object/".as_slice(), &[kind]].concat()
}

/// A key that fits its commitment.
pub struct Opener {
    context_hash: Id,
    key: [u8; 32],
    suite: u8,
}

impl Opener {
    pub fn new(secret: &[u8; 32], context: &Context, label: &[u8], commit: &[u8]) -> Result<Self> {
        let context_hash = h(&context.bytes);
        let salt = &context.bytes[40..];
        let (key, derived) = hkdf(secret, salt, &[label, &context_hash].concat());
        need(derived == commit, "commitment")?;
        Ok(Self { context_hash, key, suite: context.suite })
    }

    pub fn context_hash(&self) -> &Id {
        &self.context_hash
    }

    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let payload = Payload { msg: sealed, aad };
        let opened = match self.suite {
            1 => Aes256Gcm::new(&self.key.into()).decrypt(&(*nonce).into(), payload),
            2 => ChaCha20Poly1305::new(&self.key.into()).decrypt(&(*nonce).into(), payload),
            suite => return Err(format!("unknown suite {suite}")),
        };
        opened.map_err(|_| "authentication tag".to_owned())
    }

    /// The payload of a sealed stream, 4.2.
    pub fn open_stream(&self, stream: &[u8]) -> Result<Vec<u8>> {
        let blocks: Vec<_> = stream.chunks(BLOCK_LEN + TAG_LEN).collect();
        let mut plain = Vec::new();
        for (i, block) in blocks.iter().enumerate() {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&(i as u64).to_le_bytes());
            nonce[8] = u8::from(i + 1 == blocks.len());
            let opened = self.open(&nonce, &self.context_hash, block)?;
            need(!opened.is_empty(), "a block is empty")?;
            plain.extend(opened);
        }
        let mut cursor = Cursor(&plain);
        let len = cursor.u64()?;
        let payload = cursor.take(usize::try_from(len).map_err(|_| "payload length")?)?;
        need(plain.len() as u64 == padme(8 + len), "length of a padded stream")?;
        cursor.zero(cursor.0.len())?;
        Ok(payload.to_vec())
    }
}

/// Opens the secret that a session sealed to a recipient, 7.2.
pub fn open_secret(seed: &[u8; 32], info: &[u8], sealed: &[u8]) -> Result<[u8; 32]> {
    type Aead = hpke::aead::ChaCha20Poly1305;
    type Kdf = hpke::kdf::HkdfSha512;
    let (enc, ciphertext) = sealed.split_at_checked(1120).ok_or("sealed secret is short")?;
    let failed = |error: hpke::HpkeError| format!("sealed secret: {error}");
    let key = <XWing as Kem>::PrivateKey::from_bytes(seed).map_err(failed)?;
    let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).map_err(failed)?;
    let mode = OpModeR::<XWing>::Base;
    let plain =
        hpke::single_shot_open::<Aead, Kdf, XWing>(&mode, &key, &enc, info, ciphertext, b"");
    super::fixed(plain.map_err(failed)?)
}

pub fn kem_public(seed: &[u8; 32]) -> Vec<u8> {
    let key = <XWing as Kem>::PrivateKey::from_bytes(seed).expect("every seed is a key");
    XWing::sk_to_pk(&key).to_bytes().to_vec()
}
