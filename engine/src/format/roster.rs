//! The roster: who may do what, and with which keys (`docs/format.md`, 8.2); a chain from the root key.

use super::cbor::{Decoder, Encoder, Extra, decode_map, encode_map};
use super::id::{IdentityId, RepositoryId, SessionId, hash};
use super::keys::{KEM_PUBLIC_LEN, KemPublic, VerifyingKey};
use super::kind::Kind;
use super::record::Record;
use super::seal::Secret;
use super::slot::Role;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

pub const IDENTITIES_MAX: usize = 65_535;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// From 1; its name is `roster/<number>`.
    pub number: u32,
    /// H of the stored bytes of the last valid roster; none for the first.
    pub previous: Option<[u8; 32]>,
    pub root: VerifyingKey,
    pub identities: Vec<Identity>,
    /// Ascending, not empty.
    pub epochs: Vec<Epoch>,
    pub settings: Settings,
    pub grants: Vec<Grant>,
    pub time_ns: i64,
    pub extra: Extra,
}

/// A person or machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: IdentityId,
    pub name: String,
    pub role: Role,
    pub verifying: VerifyingKey,
    pub kem: KemPublic,
    pub added_ns: i64,
    pub state: State,
    /// Sessions that stay valid if it is revoked.
    pub sessions_kept: Option<Vec<SessionId>>,
    pub extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active = 1,
    Revoked = 2,
}

/// Public keys of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub number: u32,
    pub data: KemPublic,
    pub tree: KemPublic,
    pub meta: KemPublic,
    /// `index_key_hash` of the INDEX key.
    pub index_hash: [u8; 32],
    pub extra: Extra,
}

/// H("strongroom/1/index-key" ‖ INDEX key).
pub fn index_key_hash(key: &Secret) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"strongroom/1/index-key").update(&key.0);
    *hasher.finalize().as_bytes()
}

/// Against whose packs a writer deduplicates besides its own and the owners'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Own = 1,
    Attested = 2,
    All = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub trust: Trust,
    pub extra: Extra,
}

/// An epoch's secrets for an identity's role, sealed to its X-Wing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub identity: IdentityId,
    pub epoch: u32,
    pub sealed: Vec<u8>,
    pub extra: Extra,
}

impl Roster {
    pub fn name(number: u32) -> String {
        format!("roster/{number:08}")
    }

    pub fn identity(&self, id: IdentityId) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.id == id)
    }

    /// The newest epoch.
    pub fn epoch(&self) -> &Epoch {
        self.epochs.last().expect("a roster has an epoch")
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, self.number);
            m.opt_bytes(2, self.previous);
            m.bytes(3, self.root);
            m.list(4, &self.identities, |e, identity| identity.encode(e));
            m.list(5, &self.epochs, |e, epoch| epoch.encode(e));
            m.key(6).map(|m| {
                m.uint(1, self.settings.trust as u8);
                m.extra(&self.settings.extra);
            });
            m.list(7, &self.grants, |e, grant| grant.encode(e));
            m.int(8, self.time_ns);
            m.extra(&self.extra);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Roster> {
        let roster = decode_map(bytes, Kind::Roster.name(), |m| {
            Ok(Roster {
                number: m.req(1, Decoder::small)?,
                previous: m.opt(2, Decoder::fixed)?,
                root: VerifyingKey(m.req(3, Decoder::fixed)?),
                identities: m.req(4, |d| d.list(Identity::decode))?,
                epochs: m.req(5, |d| d.list(Epoch::decode))?,
                settings: m.req(6, Settings::decode)?,
                grants: m.req(7, |d| d.list(Grant::decode))?,
                time_ns: m.req(8, Decoder::int)?,
                extra: m.extra()?,
            })
        })?;
        roster.check()?;
        Ok(roster)
    }

    fn check(&self) -> Result<()> {
        let object = Kind::Roster.name();
        let malformed = |what| Err(FormatError::Malformed { object, what });
        if self.identities.len() > IDENTITIES_MAX {
            return Err(FormatError::Limit { object, what: "number of identities" });
        }
        let mut ids: Vec<_> = self.identities.iter().map(|identity| identity.id).collect();
        ids.sort_unstable();
        if ids.is_empty() || ids[0] == IdentityId::ROOT || !ids.is_sorted_by(|a, b| a < b) {
            return malformed("identities missing, repeated or named like the root");
        }
        let epochs: Vec<_> = self.epochs.iter().map(|epoch| epoch.number).collect();
        if epochs.is_empty() || epochs[0] == 0 || !epochs.is_sorted_by(|a, b| a < b) {
            return malformed("epochs missing or not ascending from 1");
        }
        Ok(())
    }
}

impl Identity {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(|m| {
            m.bytes(1, self.id);
            m.text(2, &self.name);
            m.uint(3, self.role.code());
            m.bytes(4, self.verifying);
            m.bytes(5, &self.kem);
            m.int(6, self.added_ns);
            m.uint(7, self.state as u8);
            if let Some(sessions) = &self.sessions_kept {
                m.bytes_list(8, sessions);
            }
            m.extra(&self.extra);
        });
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Identity> {
        decoder.map(|m| {
            Ok(Identity {
                id: IdentityId(m.req(1, Decoder::fixed)?),
                name: m.req(2, Decoder::string)?,
                role: m.req(3, Role::decode)?,
                verifying: VerifyingKey(m.req(4, Decoder::fixed)?),
                kem: m.req(5, kem_public)?,
                added_ns: m.req(6, Decoder::int)?,
                state: m.req(7, |d| match d.uint()? {
                    1 => Ok(State::Active),
                    2 => Ok(State::Revoked),
                    _ => Err(d.malformed("state of an identity")),
                })?,
                sessions_kept: m.opt(8, |d| d.list(|d| d.fixed().map(SessionId)))?,
                extra: m.extra()?,
            })
        })
    }
}

fn kem_public(decoder: &mut Decoder<'_>) -> Result<KemPublic> {
    let bytes: &[u8; KEM_PUBLIC_LEN] = &decoder.fixed()?;
    Ok(KemPublic(Box::new(*bytes)))
}

impl Epoch {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(|m| {
            m.uint(1, self.number);
            m.bytes(2, &self.data);
            m.bytes(3, &self.tree);
            m.bytes(4, &self.meta);
            m.bytes(5, self.index_hash);
            m.extra(&self.extra);
        });
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Epoch> {
        decoder.map(|m| {
            Ok(Epoch {
                number: m.req(1, Decoder::small)?,
                data: m.req(2, kem_public)?,
                tree: m.req(3, kem_public)?,
                meta: m.req(4, kem_public)?,
                index_hash: m.req(5, Decoder::fixed)?,
                extra: m.extra()?,
            })
        })
    }
}

impl Settings {
    fn decode(decoder: &mut Decoder<'_>) -> Result<Settings> {
        decoder.map(|m| {
            let trust = m.req(1, |d| match d.uint()? {
                1 => Ok(Trust::Own),
                2 => Ok(Trust::Attested),
                3 => Ok(Trust::All),
                _ => Err(d.malformed("deduplication trust")),
            })?;
            Ok(Settings { trust, extra: m.extra()? })
        })
    }
}

impl Grant {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(|m| {
            m.bytes(1, self.identity);
            m.uint(2, self.epoch);
            m.bytes(3, &self.sealed);
            m.extra(&self.extra);
        });
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Grant> {
        decoder.map(|m| {
            Ok(Grant {
                identity: IdentityId(m.req(1, Decoder::fixed)?),
                epoch: m.req(2, Decoder::small)?,
                sealed: m.req(3, Decoder::bytes)?.to_vec(),
                extra: m.extra()?,
            })
        })
    }
}

// ---- the chain ----

/// A valid roster with H of its stored bytes.
pub type Link = (Roster, [u8; 32]);

/// Decides whether the object stored at `roster/<number>` continues the chain after `previous`, the
/// last valid roster below it. `root` comes from the slot. On an error the object is void: the
/// caller skips it and goes on with the same `previous`.
pub fn validate_next(
    repository: RepositoryId,
    root: &VerifyingKey,
    previous: Option<&Link>,
    number: u32,
    stored: &[u8],
) -> Result<Link> {
    let record = Record::parse(stored, &[Kind::Roster])?;
    let next = Roster::from_cbor(record.body)?;
    let malformed = |what| FormatError::Malformed { object: Kind::Roster.name(), what };
    if next.number != number {
        return Err(malformed("its number is not that of its name"));
    }
    if next.root != *root {
        return Err(malformed("another root key"));
    }
    if next.previous != previous.map(|(_, hash)| *hash) {
        return Err(malformed("it does not follow the last valid roster"));
    }
    match previous {
        None if number != 1 => return Err(malformed("the chain begins with roster 1")),
        Some((roster, _)) if roster.number >= number => {
            return Err(malformed("its number does not ascend"));
        }
        _ => {}
    }
    check_signer(&record, repository, root, previous.map(|(roster, _)| roster), &next)?;
    Ok((next, hash(stored)))
}

fn check_signer(
    record: &Record<'_>,
    repository: RepositoryId,
    root: &VerifyingKey,
    previous: Option<&Roster>,
    next: &Roster,
) -> Result<()> {
    let name = Roster::name(next.number);
    let cites = previous.map_or(0, |roster| roster.number);
    let verified = |identity, key: &VerifyingKey| {
        let signature = record.verify(repository, &name, identity, key);
        signature.is_ok_and(|signature| signature.roster == cites)
    };
    if verified(IdentityId::ROOT, root) {
        return Ok(());
    }
    let unsigned = |what| FormatError::Signature { object: Kind::Roster.name(), what };
    let previous = previous.ok_or_else(|| unsigned("the root key did not sign it"))?;
    let admin = record.signatures.iter().any(|signature| {
        previous.identity(signature.identity).is_some_and(|signer| {
            (signer.role, signer.state) == (Role::Admin, State::Active)
                && verified(signer.id, &signer.verifying)
        })
    });
    if !admin {
        return Err(unsigned("neither the root key nor an active admin signed it"));
    }
    if !only_backups_differ(previous, next) {
        return Err(unsigned("an admin may change nothing but backup identities"));
    }
    Ok(())
}

/// Whether nothing changed but identities that had and have the role backup.
fn only_backups_differ(previous: &Roster, next: &Roster) -> bool {
    let others = |roster: &Roster| -> Vec<Identity> {
        let others = roster.identities.iter().filter(|identity| identity.role != Role::Backup);
        others.cloned().collect()
    };
    others(previous) == others(next)
        && previous.epochs == next.epochs
        && previous.settings == next.settings
        && previous.grants == next.grants
        && previous.extra == next.extra
}

#[cfg(test)]
mod tests;
