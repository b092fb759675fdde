//! What a session leaves beside its packs: its announcement, its sealed secrets, and the tombstone if it is fenced
//! (`docs/format.md`, 7.2). Its snapshot has a file of its own.

use super::cbor::{Decoder, decode_map, encode_map};
use super::id::SessionId;
use super::keys::SEALED_SECRET_LEN;
use super::kind::Kind;
use super::seal::Recipient;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

/// A writer's intent, stored before it reads the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub session: SessionId,
    pub epoch: u32,
    pub time_ns: i64,
    /// Dead sessions whose packs it takes over.
    pub adopts: Vec<SessionId>,
}

impl Session {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.session);
            m.uint(2, self.epoch);
            m.int(3, self.time_ns);
            m.bytes_list(4, &self.adopts);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Session> {
        decode_map(bytes, Kind::Session.name(), |m| {
            Ok(Session {
                session: SessionId(m.req(1, Decoder::fixed)?),
                epoch: m.req(2, Decoder::small)?,
                time_ns: m.req(3, Decoder::int)?,
                adopts: m.fixed_list(4, SessionId)?,
            })
        })
    }
}

/// A session's secret for one recipient, sealed to the key of an epoch (`keys::seal_secret`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// DATA, TREE or META.
    pub recipient: Recipient,
    pub epoch: u32,
    /// 1,168 bytes.
    pub sealed: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seals {
    pub session: SessionId,
    pub secrets: Vec<SealedSecret>,
}

impl SealedSecret {
    fn decode(decoder: &mut Decoder<'_>) -> Result<SealedSecret> {
        decoder.tuple(3, |d| {
            let recipient = d.small().map(Recipient::from_code)?;
            let recipient = recipient.filter(|r| *r != Recipient::Index);
            Ok(SealedSecret {
                recipient: recipient.ok_or_else(|| d.malformed("recipient of a sealed secret"))?,
                epoch: d.small()?,
                sealed: d.fixed::<SEALED_SECRET_LEN>()?.to_vec(),
            })
        })
    }
}

impl Seals {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.session);
            m.list(2, &self.secrets, |e, secret| {
                e.array(3);
                e.uint(secret.recipient.code().into());
                e.uint(secret.epoch.into());
                e.bytes(&secret.sealed);
            });
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Seals> {
        decode_map(bytes, Kind::Seals.name(), |m| {
            Ok(Seals {
                session: SessionId(m.req(1, Decoder::fixed)?),
                secrets: m.req(2, |d| d.list(SealedSecret::decode))?,
            })
        })
    }
}

/// Stands at the name of a snapshot that must never come: its session is fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    pub session: SessionId,
    pub time_ns: i64,
    pub reason: String,
}

impl Tombstone {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.session);
            m.int(2, self.time_ns);
            m.text(3, &self.reason);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Tombstone> {
        decode_map(bytes, Kind::Tombstone.name(), |m| {
            Ok(Tombstone {
                session: SessionId(m.req(1, Decoder::fixed)?),
                time_ns: m.req(2, Decoder::int)?,
                reason: m.req(3, Decoder::string)?,
            })
        })
    }
}

#[cfg(test)]
mod tests;
