//! Sealing (`docs/format.md`, section 4): contexts, derived keys with their commitment, frames,
//! block streams, record bodies. Salts, secrets and ordinals come from the caller. The AEADs are
//! `cipher`'s, HKDF is aws-lc-rs.

mod cipher;

use std::fmt;

use aws_lc_rs::{constant_time, hkdf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use self::cipher::Cipher;

use super::id::{RepositoryId, SessionId, hash};
use super::kind::Kind;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

pub const TAG_LEN: usize = 16;
pub const COMMIT_LEN: usize = 32;
pub const CONTEXT_LEN: usize = 72;
/// Plain bytes of a block of a sealed stream; all but the last have as many.
pub const BLOCK_LEN: usize = 65_536;
/// A full block as it is stored. Block `i` starts at `i × BLOCK_STORED_LEN`.
pub const BLOCK_STORED_LEN: usize = BLOCK_LEN + TAG_LEN;
/// The payload's length, in front of it in block 0 of a stream.
pub const STREAM_HEADER_LEN: usize = 8;
/// What stands before the sealed stream in a record body.
pub const BODY_HEADER_LEN: usize = CONTEXT_LEN + COMMIT_LEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
}

impl Suite {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Suite> {
        match code {
            1 => Some(Suite::Aes256Gcm),
            2 => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Whose key opens what is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Recipient {
    Data = 1,
    Tree = 2,
    Meta = 3,
    Index = 4,
}

impl Recipient {
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Recipient> {
        match code {
            1 => Some(Recipient::Data),
            2 => Some(Recipient::Tree),
            3 => Some(Recipient::Meta),
            4 => Some(Recipient::Index),
            _ => None,
        }
    }
}

/// 32 secret bytes: wiped when dropped, not shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a derived key belongs to; stored in the clear beside what it seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    pub suite: Suite,
    pub recipient: Recipient,
    pub epoch: u32,
    pub repository: RepositoryId,
    /// Zero where there is none.
    pub session: SessionId,
    pub salt: [u8; 32],
}

impl Context {
    pub fn to_bytes(&self) -> [u8; CONTEXT_LEN] {
        let mut bytes = [0; CONTEXT_LEN];
        bytes[0] = 1;
        bytes[1] = self.suite.code();
        bytes[2] = self.recipient.code();
        bytes[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.repository.0);
        bytes[24..40].copy_from_slice(&self.session.0);
        bytes[40..].copy_from_slice(&self.salt);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; CONTEXT_LEN]) -> Result<Context> {
        let object = "sealing context";
        let unsupported =
            |what, code| FormatError::Unsupported { object, feature: format!("{what} {code}") };
        if bytes[0] != 1 {
            return Err(FormatError::Newer { object, version: bytes[0].into() });
        }
        if bytes[3] != 0 {
            return Err(FormatError::Malformed { object, what: "a byte that must be zero" });
        }
        Ok(Context {
            suite: Suite::from_code(bytes[1]).ok_or_else(|| unsupported("suite", bytes[1]))?,
            recipient: Recipient::from_code(bytes[2])
                .ok_or_else(|| unsupported("recipient", bytes[2]))?,
            epoch: u32::from_le_bytes(part(bytes, 4)),
            repository: RepositoryId(part(bytes, 8)),
            session: SessionId(part(bytes, 24)),
            salt: part(bytes, 40),
        })
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

/// What a key is derived for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    Frame,
    Object(Kind),
    PackDirectory,
    PackTrailer,
}

impl Label {
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Label::Frame => b"strongroom/1/frame".to_vec(),
            Label::Object(kind) => [b"strongroom/1/object/", [kind.code()].as_slice()].concat(),
            Label::PackDirectory => b"strongroom/1/pack-directory".to_vec(),
            Label::PackTrailer => b"strongroom/1/pack-trailer".to_vec(),
        }
    }
}

struct Okm64;

impl hkdf::KeyType for Okm64 {
    fn len(&self) -> usize {
        64
    }
}

/// HKDF-SHA-512 with 64 bytes of output: key and commitment.
pub(crate) fn derive(ikm: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> (Secret, [u8; COMMIT_LEN]) {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA512, salt).extract(ikm);
    let mut okm = Zeroizing::new([0; 64]);
    let filled = prk.expand(info, Okm64).and_then(|filler| filler.fill(okm.as_mut()));
    filled.expect("64 bytes are within HKDF's limit");
    (Secret(part(okm.as_ref(), 0)), part(okm.as_ref(), 32))
}

pub(crate) fn check_commit(a: &[u8; 32], b: &[u8; 32], object: &'static str) -> Result<()> {
    constant_time::verify_slices_are_equal(a, b).map_err(|_| FormatError::Commitment { object })
}

/// The key that one secret gives for one context and label. `Sync`: worker threads share it.
pub struct Sealer {
    key: Cipher,
    commit: [u8; COMMIT_LEN],
    context_hash: [u8; 32],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    pub fn new(secret: &Secret, context: &Context, label: Label) -> Sealer {
        let context_hash = hash(&context.to_bytes());
        let (key, commit) =
            derive(&secret.0, &context.salt, &[&label.to_bytes(), context_hash.as_slice()]);
        Sealer { key: Cipher::new(context.suite, &key.0), commit, context_hash }
    }

    /// For reading: the stored commitment must be that of the derived key.
    pub fn opening(
        secret: &Secret,
        context: &Context,
        label: Label,
        commit: &[u8; COMMIT_LEN],
        object: &'static str,
    ) -> Result<Sealer> {
        let sealer = Sealer::new(secret, context, label);
        check_commit(&sealer.commit, commit, object)?;
        Ok(sealer)
    }

    pub fn commit(&self) -> &[u8; COMMIT_LEN] {
        &self.commit
    }

    pub fn context_hash(&self) -> &[u8; 32] {
        &self.context_hash
    }

    /// Encrypts `buf` and appends the tag. A nonce must never be used twice.
    pub fn seal_in_place(&self, nonce: [u8; 12], aad: &[u8], buf: &mut Vec<u8>) {
        let tag = self.seal_slice_in_place(nonce, aad, buf);
        buf.extend_from_slice(&tag);
    }

    /// Encrypts `buf` and returns the tag. A nonce must never be used twice.
    pub fn seal_slice_in_place(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        buf: &mut [u8],
    ) -> [u8; TAG_LEN] {
        self.key.seal(nonce, aad, buf)
    }

    /// Decrypts ciphertext and tag; the plain bytes are a prefix of `buf`.
    pub fn open_in_place<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        buf: &'a mut [u8],
        object: &'static str,
    ) -> Result<&'a mut [u8]> {
        self.key.open(nonce, aad, buf).map_err(|_| FormatError::Altered { object })
    }

    /// Pads and seals a payload in blocks.
    pub fn seal_stream(&self, payload: &[u8]) -> Vec<u8> {
        let plain_len = padme((STREAM_HEADER_LEN + payload.len()) as u64) as usize;
        let mut out = Vec::with_capacity(sealed_stream_len(payload.len() as u64) as usize);
        let mut unsealed = payload;
        for start in (0..plain_len).step_by(BLOCK_LEN) {
            let (block, at) = (start / BLOCK_LEN, out.len());
            let len = BLOCK_LEN.min(plain_len - start);
            if block == 0 {
                out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
            }
            let room = len - (out.len() - at);
            let (now, later) = unsealed.split_at(room.min(unsealed.len()));
            unsealed = later;
            out.extend_from_slice(now);
            out.resize(at + len, 0);
            let nonce = block_nonce(block as u64, start + len == plain_len);
            let tag = self.seal_slice_in_place(nonce, &self.context_hash, &mut out[at..]);
            out.extend_from_slice(&tag);
        }
        out
    }

    /// Opens a whole stream and returns its payload.
    pub fn open_stream(&self, stored: &[u8], object: &'static str) -> Result<Vec<u8>> {
        let mut plain = self.open_stream_blocks(0, stored, true, object)?;
        let malformed = |what| FormatError::Malformed { object, what };
        if plain.len() < STREAM_HEADER_LEN {
            return Err(malformed("a sealed stream without a length"));
        }
        let len = u64::from_le_bytes(part(&plain, 0));
        let padded = len.checked_add(STREAM_HEADER_LEN as u64).map(padme);
        if padded != Some(plain.len() as u64) {
            return Err(malformed("the length of a sealed stream"));
        }
        let end = STREAM_HEADER_LEN + len as usize;
        if plain[end..].iter().any(|byte| *byte != 0) {
            return Err(malformed("padding that is not zero"));
        }
        plain.copy_within(STREAM_HEADER_LEN..end, 0);
        plain.truncate(len as usize);
        Ok(plain)
    }

    /// Opens whole blocks from `first_block` on; `ends`: the last of them is the stream's last. Block 0 begins with the
    /// payload's length, the last blocks end with padding: only a caller who opens block 0 knows where.
    pub fn open_stream_blocks(
        &self,
        first_block: u64,
        stored: &[u8],
        ends: bool,
        object: &'static str,
    ) -> Result<Vec<u8>> {
        let blocks = stored.len().div_ceil(BLOCK_STORED_LEN);
        let cut = stored.len() % BLOCK_STORED_LEN;
        if (ends && blocks == 0) || (1..=TAG_LEN).contains(&cut) || (!ends && cut != 0) {
            return Err(FormatError::Truncated { object });
        }
        let mut plain = Vec::with_capacity(stored.len());
        for (i, block) in stored.chunks(BLOCK_STORED_LEN).enumerate() {
            let start = plain.len();
            plain.extend_from_slice(block);
            let nonce = block_nonce(first_block + i as u64, ends && i + 1 == blocks);
            self.open_in_place(nonce, &self.context_hash, &mut plain[start..], object)?;
            plain.truncate(start + block.len() - TAG_LEN);
        }
        Ok(plain)
    }
}

fn block_nonce(block: u64, last: bool) -> [u8; 12] {
    let mut nonce = frame_nonce(block);
    nonce[8] = last.into();
    nonce
}

/// Stored length of the stream that seals a payload.
pub fn sealed_stream_len(payload_len: u64) -> u64 {
    let plain_len = padme(payload_len.saturating_add(STREAM_HEADER_LEN as u64));
    let tags = plain_len.div_ceil(BLOCK_LEN as u64) * TAG_LEN as u64;
    plain_len.saturating_add(tags)
}

/// The length to pad to: leaks O(log log L) bits (PURBs, Nikitin et al. 2019).
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let e = len.ilog2();
    let s = e.ilog2() + 1;
    let mask = (1 << (e - s)) - 1;
    len.saturating_add(mask) & !mask
}

pub fn frame_nonce(ordinal: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&ordinal.to_le_bytes());
    nonce
}

/// Associated data of a frame. `chunk_rows_hash` is H of its 40-byte chunk rows, `base_rows` are its 40-byte base rows.
pub fn frame_aad(
    context_hash: &[u8; 32],
    ordinal: u64,
    codec: u8,
    plain_len: u32,
    chunk_rows_hash: &[u8; 32],
    base_rows: &[u8],
) -> Vec<u8> {
    let mut aad = Vec::with_capacity(81 + base_rows.len());
    aad.extend_from_slice(context_hash);
    aad.extend_from_slice(&frame_nonce(ordinal));
    aad.push(codec);
    aad.extend_from_slice(&plain_len.to_le_bytes());
    aad.extend_from_slice(chunk_rows_hash);
    aad.extend_from_slice(base_rows);
    aad
}

/// Who may open the bodies of a kind; none: they are not sealed.
pub fn recipient_of(kind: Kind) -> Option<Recipient> {
    match kind {
        Kind::Snapshot => Some(Recipient::Meta),
        Kind::IndexRun | Kind::Forgotten | Kind::Hold | Kind::Release | Kind::Damage => {
            Some(Recipient::Index)
        }
        _ => None,
    }
}

/// context ‖ commit ‖ sealed stream. The salt in `context` must be fresh.
pub fn seal_body(secret: &Secret, context: &Context, kind: Kind, payload: &[u8]) -> Vec<u8> {
    assert_eq!(recipient_of(kind), Some(context.recipient), "{kind:?} is sealed to another");
    let sealer = Sealer::new(secret, context, Label::Object(kind));
    [context.to_bytes().as_slice(), sealer.commit(), &sealer.seal_stream(payload)].concat()
}

/// Context and commitment that a sealed body begins with, and the stored stream behind them. For
/// ranged reads, `body` may be a prefix.
pub fn body_header(body: &[u8], kind: Kind) -> Result<(Context, [u8; COMMIT_LEN], &[u8])> {
    let object = kind.name();
    let (header, stream) =
        body.split_at_checked(BODY_HEADER_LEN).ok_or(FormatError::Truncated { object })?;
    let context = Context::from_bytes(&part(header, 0))?;
    if recipient_of(kind) != Some(context.recipient) {
        return Err(FormatError::Malformed { object, what: "sealed to another recipient" });
    }
    Ok((context, part(header, CONTEXT_LEN), stream))
}

/// Opens a sealed body with the secret that `secret_for` has for its context.
pub fn open_body(
    body: &[u8],
    kind: Kind,
    secret_for: impl FnOnce(&Context) -> Result<Secret>,
) -> Result<(Context, Vec<u8>)> {
    let (context, commit, stream) = body_header(body, kind)?;
    let secret = secret_for(&context)?;
    let sealer = Sealer::opening(&secret, &context, Label::Object(kind), &commit, kind.name())?;
    Ok((context, sealer.open_stream(stream, kind.name())?))
}

#[cfg(test)]
mod tests;
