//! Sections 2 and 3: names, the frame around every object but packs, end hashes, content names,
//! signatures.

use ed25519_dalek::{Signature, VerifyingKey};

use super::{Cursor, Id, Result, Short, from_hex, h, hex, need};

pub const ROOT: Short = [0; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Content,
    Stated,
}

pub struct Record<'b> {
    pub kind: u8,
    pub body: &'b [u8],
    pub signatures: Vec<Signed>,
    /// H(header ‖ body).
    hash: Id,
    /// As it is signed.
    name: String,
}

pub struct Signed {
    pub identity: Short,
    pub roster: u32,
    signature: [u8; 64],
}

/// The kinds that may stand under a name, and how it is named. `None`: not ours.
fn kinds(name: &str) -> Option<(&'static [u8], Named)> {
    use Named::{Content, Stated};
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    let hash = from_hex::<32>(last).is_ok();
    let short = from_hex::<16>(last).is_ok();
    let number = |last: &str| last.len() == 8 && last.bytes().all(|b| b.is_ascii_digit());
    Some(match folder {
        "" if last == "repo.cbor" => (&[1], Stated),
        "slots" if hash => (&[2], Content),
        "roster" if number(last) => (&[3], Stated),
        "sessions" if short => (&[4], Stated),
        "seals" if short => (&[5], Stated),
        "index" if hash => (&[7], Content),
        "snapshots" if short => (&[8, 9], Stated),
        "forgotten" if short => (&[10], Stated),
        "holds" if short => (&[11], Stated),
        "holds" if last.strip_suffix(".released").is_some_and(|id| from_hex::<16>(id).is_ok()) => {
            (&[12], Stated)
        }
        "retired" if number(last) => (&[13], Stated),
        "retired" if last.strip_suffix(".verdict").is_some_and(number) => (&[14], Stated),
        "damaged" if hash => (&[15], Content),
        "attest" if hash => (&[16], Content),
        _ => return None,
    })
}

/// `Ok(None)`: an object under a name that is not ours.
pub fn parse<'b>(name: &str, bytes: &'b [u8]) -> Result<Option<Record<'b>>> {
    let Some((kinds, named)) = kinds(name) else { return Ok(None) };
    let mut rest = bytes;
    if named == Named::Stated {
        let (before, end) =
            bytes.split_at_checked(bytes.len().wrapping_sub(32)).ok_or("cut short")?;
        need(h(before) == end, "end hash")?;
        rest = before;
    } else {
        need(name.ends_with(&hex(&h(bytes))), "content name")?;
    }
    let mut cursor = Cursor(rest);
    need(cursor.take(8)? == b"STRONGRM", "magic")?;
    let kind = cursor.u8()?;
    need(kinds.contains(&kind), "kind")?;
    need(cursor.u8()? == 1, "version")?;
    cursor.zero(2)?;
    let body_len = cursor.u32()? as usize;
    let body = cursor.take(body_len)?;
    let hash = h(&bytes[..16 + body_len]);
    let count = cursor.u8()?;
    need(count <= 4, "number of signatures")?;
    let signatures = (0..count).map(|_| signature(&mut cursor)).collect::<Result<_>>()?;
    cursor.end()?;
    let folder = name.rfind('/').map_or(0, |at| at + 1);
    let name = if named == Named::Content { &name[..folder] } else { name };
    Ok(Some(Record { kind, body, signatures, hash, name: name.to_owned() }))
}

fn signature(cursor: &mut Cursor<'_>) -> Result<Signed> {
    need(cursor.u8()? == 1, "signature algorithm")?;
    let (identity, roster) = (cursor.array()?, cursor.u32()?);
    need(cursor.u16()? == 64, "length of a signature")?;
    Ok(Signed { identity, roster, signature: cursor.array()? })
}

/// The roles that may sign a kind, by code: the last column of section 2.
pub fn signers(kind: u8) -> &'static [u64] {
    match kind {
        4 | 5 | 8 => &[1, 5],
        7 | 9 => &[1, 4, 5],
        10..=14 => &[4, 5],
        15 => &[1, 2, 3, 4, 5],
        16 => &[2, 5],
        _ => &[],
    }
}

impl Record<'_> {
    pub fn verify(&self, signed: &Signed, repository: &Short, key: &[u8; 32]) -> Result<()> {
        let message = [
            b"strongroom/1/".as_slice(),
            &[self.kind],
            repository,
            &signed.identity,
            &signed.roster.to_le_bytes(),
            self.name.as_bytes(),
            &self.hash,
        ];
        let key = VerifyingKey::from_bytes(key).map_err(|error| error.to_string())?;
        let signature = Signature::from_bytes(&signed.signature);
        key.verify_strict(&message.concat(), &signature)
            .map_err(|error| format!("signature: {error}"))
    }
}
