//! The envelope of every object but packs: header, body, signatures, end hash (`docs/format.md`,
//! section 3). It does not look into bodies, and does not know who may sign what: that is the
//! roster's.

pub use super::kind::{Kind, kinds_at};

use super::id::{IdentityId, RepositoryId, hash, to_hex};
use super::keys::{SIGNATURE_LEN, SigningKey, VerifyingKey};
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

pub const MAGIC: &[u8; 8] = b"STRONGRM";
pub const VERSION: u8 = 1;
pub const HEADER_LEN: usize = 16;
pub const SIGNATURES_MAX: usize = 4;
const ED25519: u8 = 1;
const END_HASH_LEN: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// All zero: the root key.
    pub identity: IdentityId,
    /// The newest roster number that the signer knew.
    pub roster: u32,
    pub bytes: [u8; SIGNATURE_LEN],
}

/// A record's parts, borrowed from its stored bytes.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub kind: Kind,
    pub body: &'a [u8],
    pub signatures: Vec<Signature>,
    /// H(header ‖ body): what the signatures cover.
    pub signed_hash: [u8; 32],
}

/// Largest stored length of a record.
pub fn stored_len_max(kind: Kind) -> usize {
    if kind == Kind::IndexRun { 1 << 30 } else { 64 << 20 }
}

impl<'a> Record<'a> {
    /// The stored bytes. `name` is the whole name in the store, or for content names at least its folder (`index/`).
    pub fn build(
        kind: Kind,
        body: &[u8],
        name: &str,
        signers: &[(IdentityId, u32, &SigningKey)],
        repository: RepositoryId,
    ) -> Vec<u8> {
        assert!(signers.len() <= SIGNATURES_MAX);
        let mut out = Vec::with_capacity(HEADER_LEN + body.len() + 1 + signers.len() * 87 + 32);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[kind.code(), VERSION, 0, 0]);
        let body_len = u32::try_from(body.len()).expect("a body within its limit");
        out.extend_from_slice(&body_len.to_le_bytes());
        out.extend_from_slice(body);
        let signed_hash = hash(&out);
        out.push(signers.len() as u8);
        for (identity, roster, key) in signers {
            let message = signed_message(kind, repository, *identity, *roster, name, &signed_hash);
            out.push(ED25519);
            out.extend_from_slice(&identity.0);
            out.extend_from_slice(&roster.to_le_bytes());
            out.extend_from_slice(&(SIGNATURE_LEN as u16).to_le_bytes());
            out.extend_from_slice(&key.sign(&message));
        }
        if kind.stated() {
            let end = hash(&out);
            out.extend_from_slice(&end);
        }
        assert!(out.len() <= stored_len_max(kind), "{kind:?} exceeds its limit");
        out
    }

    /// Checks the form and, where the name is stated, the end hash. Not the signatures.
    pub fn parse(bytes: &'a [u8], expected: &[Kind]) -> Result<Record<'a>> {
        let (kind, body_len) = parse_header(bytes, expected)?;
        let object = kind.name();
        if bytes.len() > stored_len_max(kind) {
            return Err(FormatError::Limit { object, what: "its length" });
        }
        let mut rest = bytes;
        if kind.stated() {
            rest = check_end_hash(bytes, object)?;
        }
        let signed = take(&mut rest, HEADER_LEN.saturating_add(body_len), object)?;
        let count = usize::from(take(&mut rest, 1, object)?[0]);
        if count > SIGNATURES_MAX {
            return Err(FormatError::Limit { object, what: "number of signatures" });
        }
        let signatures: Result<_> =
            (0..count).map(|_| parse_signature(&mut rest, object)).collect();
        let signatures = signatures?;
        if !rest.is_empty() {
            return Err(FormatError::Malformed { object, what: "bytes follow its end" });
        }
        Ok(Record { kind, body: &signed[HEADER_LEN..], signatures, signed_hash: hash(signed) })
    }

    /// Checks the signature of one identity; the caller knows its key from the roster, and must be
    /// able to see the roster that the returned signature cites.
    pub fn verify(
        &self,
        repository: RepositoryId,
        name: &str,
        identity: IdentityId,
        key: &VerifyingKey,
    ) -> Result<&Signature> {
        let object = self.kind.name();
        let mut theirs = self.signatures.iter().filter(|s| s.identity == identity).peekable();
        if theirs.peek().is_none() {
            return Err(FormatError::Signature { object, what: "this identity did not sign it" });
        }
        let mut result = Err(FormatError::Signature { object, what: "it does not match" });
        for signature in theirs {
            let (roster, hash) = (signature.roster, &self.signed_hash);
            let message = signed_message(self.kind, repository, identity, roster, name, hash);
            result = key.verify(&message, &signature.bytes, object).map(|()| signature);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize, object: &'static str) -> Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len).ok_or(FormatError::Truncated { object })?;
    *rest = after;
    Ok(taken)
}

fn parse_header(bytes: &[u8], expected: &[Kind]) -> Result<(Kind, usize)> {
    let wanted = expected.first().expect("some kind is expected").name();
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(FormatError::Truncated { object: wanted });
    };
    if &header[..8] != MAGIC {
        return Err(FormatError::NotOurs { object: wanted });
    }
    let kind = Kind::from_code(header[8]).filter(|kind| expected.contains(kind));
    let kind = kind.ok_or(FormatError::Kind { expected: wanted, found: header[8] })?;
    let object = kind.name();
    if header[9] != VERSION {
        return Err(FormatError::Newer { object, version: header[9].into() });
    }
    if header[10..12] != [0, 0] {
        return Err(FormatError::Malformed { object, what: "a byte that must be zero" });
    }
    let body_len = u32::from_le_bytes(header[12..].try_into().expect("four bytes"));
    Ok((kind, body_len as usize))
}

fn parse_signature(rest: &mut &[u8], object: &'static str) -> Result<Signature> {
    let algorithm = take(rest, 1, object)?[0];
    if algorithm != ED25519 {
        let feature = format!("signature algorithm {algorithm}");
        return Err(FormatError::Unsupported { object, feature });
    }
    let identity = IdentityId(take(rest, 16, object)?.try_into().expect("16 bytes"));
    let roster = u32::from_le_bytes(take(rest, 4, object)?.try_into().expect("4 bytes"));
    let len = u16::from_le_bytes(take(rest, 2, object)?.try_into().expect("2 bytes"));
    if usize::from(len) != SIGNATURE_LEN {
        return Err(FormatError::Malformed { object, what: "length of a signature" });
    }
    let bytes = take(rest, SIGNATURE_LEN, object)?.try_into().expect("64 bytes");
    Ok(Signature { identity, roster, bytes })
}

/// The bytes before the end hash.
fn check_end_hash<'a>(bytes: &'a [u8], object: &'static str) -> Result<&'a [u8]> {
    let at = bytes.len().checked_sub(END_HASH_LEN).ok_or(FormatError::Truncated { object })?;
    let (before, end) = bytes.split_at(at);
    if hash(before) == end { Ok(before) } else { Err(FormatError::Rot { object }) }
}

/// What of a name is signed: all of a stated one, the folder with its slash of a content name.
fn signing_name(kind: Kind, name: &str) -> &str {
    if kind.stated() {
        return name;
    }
    let folder = name.find('/').expect("content names stand in a folder");
    &name[..=folder]
}

fn signed_message(
    kind: Kind,
    repository: RepositoryId,
    identity: IdentityId,
    roster: u32,
    name: &str,
    signed_hash: &[u8; 32],
) -> Vec<u8> {
    [
        b"strongroom/1/".as_slice(),
        &[kind.code()],
        &repository.0,
        &identity.0,
        &roster.to_le_bytes(),
        signing_name(kind, name).as_bytes(),
        signed_hash,
    ]
    .concat()
}

/// Whether the bytes under a name are what was stored there, told without any key. Names that are
/// none of ours pass: their objects are ignored.
pub fn check_rot(name: &str, bytes: &[u8]) -> Result<()> {
    let Some(kind) = kinds_at(name).first() else {
        return Ok(());
    };
    let object = kind.name();
    if kind.stated() {
        return check_end_hash(bytes, object).map(drop);
    }
    let stated = name.rsplit('/').next().unwrap_or_default();
    if to_hex(&hash(bytes)) == stated { Ok(()) } else { Err(FormatError::Rot { object }) }
}

#[cfg(test)]
mod tests;
