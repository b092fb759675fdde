//! Control records: forgetting, holding, deleting, damage, attestation (`docs/format.md`, 7.4).
//! What they mean and in which order they are written and read is not decided here.

use super::cbor::{Decoder, Map, MapEncoder, decode_map, encode_map};
use super::id::{HoldId, ObjectHash, PackId, SessionId};
use super::kind::Kind;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub snapshot: SessionId,
    pub time_ns: i64,
    pub reason: String,
    /// The retention policy that chose it.
    pub policy: Option<String>,
    /// H of the snapshot's stored bytes.
    pub stored_hash: [u8; 32],
}

impl Forgotten {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.snapshot);
            m.int(2, self.time_ns);
            m.text(3, &self.reason);
            if let Some(policy) = &self.policy {
                m.text(4, policy);
            }
            m.bytes(5, self.stored_hash);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Forgotten> {
        decode_map(bytes, Kind::Forgotten.name(), |m| {
            Ok(Forgotten {
                snapshot: SessionId(m.req(1, Decoder::fixed)?),
                time_ns: m.req(2, Decoder::int)?,
                reason: m.req(3, Decoder::string)?,
                policy: m.opt(4, Decoder::string)?,
                stored_hash: m.req(5, Decoder::fixed)?,
            })
        })
    }
}

/// This snapshot survives every policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub snapshot: SessionId,
    pub time_ns: i64,
    pub reason: String,
}

impl Hold {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.snapshot);
            m.int(2, self.time_ns);
            m.text(3, &self.reason);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Hold> {
        decode_map(bytes, Kind::Hold.name(), |m| {
            Ok(Hold {
                snapshot: SessionId(m.req(1, Decoder::fixed)?),
                time_ns: m.req(2, Decoder::int)?,
                reason: m.req(3, Decoder::string)?,
            })
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub hold: HoldId,
    pub time_ns: i64,
    pub reason: String,
}

impl Release {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes(1, self.hold);
            m.int(2, self.time_ns);
            m.text(3, &self.reason);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Release> {
        decode_map(bytes, Kind::Release.name(), |m| {
            Ok(Release {
                hold: HoldId(m.req(1, Decoder::fixed)?),
                time_ns: m.req(2, Decoder::int)?,
                reason: m.req(3, Decoder::string)?,
            })
        })
    }
}

/// Objects that a generation proposes or decides to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doomed {
    pub packs: Vec<PackId>,
    pub runs: Vec<ObjectHash>,
    pub snapshots: Vec<SessionId>,
    /// Closed sessions: their announcements and seals.
    pub sessions: Vec<SessionId>,
}

impl Doomed {
    fn encode(&self, m: &mut MapEncoder<'_>) {
        m.bytes_list(2, &self.packs);
        m.bytes_list(3, &self.runs);
        m.bytes_list(4, &self.snapshots);
        m.bytes_list(5, &self.sessions);
    }

    fn decode(m: &mut Map<'_, '_>) -> Result<Doomed> {
        Ok(Doomed {
            packs: m.fixed_list(2, PackId)?,
            runs: m.fixed_list(3, ObjectHash)?,
            snapshots: m.fixed_list(4, SessionId)?,
            sessions: m.fixed_list(5, SessionId)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub generation: u32,
    pub doomed: Doomed,
    pub time_ns: i64,
    /// H of the stored bytes of the verdict before; none for the first generation.
    pub previous_verdict: Option<[u8; 32]>,
}

impl Proposal {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, self.generation);
            self.doomed.encode(m);
            m.int(6, self.time_ns);
            m.opt_bytes(7, self.previous_verdict);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Proposal> {
        decode_map(bytes, Kind::Proposal.name(), |m| {
            Ok(Proposal {
                generation: m.req(1, Decoder::small)?,
                doomed: Doomed::decode(m)?,
                time_ns: m.req(6, Decoder::int)?,
                previous_verdict: m.opt(7, Decoder::fixed)?,
            })
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub generation: u32,
    pub doomed: Doomed,
    pub time_ns: i64,
    /// H of the stored bytes of its proposal.
    pub proposal: [u8; 32],
}

impl Verdict {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, self.generation);
            self.doomed.encode(m);
            m.int(6, self.time_ns);
            m.bytes(7, self.proposal);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Verdict> {
        decode_map(bytes, Kind::Verdict.name(), |m| {
            Ok(Verdict {
                generation: m.req(1, Decoder::small)?,
                doomed: Doomed::decode(m)?,
                time_ns: m.req(6, Decoder::int)?,
                proposal: m.req(7, Decoder::fixed)?,
            })
        })
    }
}

/// A frame, by where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DamagedFrame {
    pub pack: PackId,
    /// In the pack, in bytes.
    pub offset: u64,
    /// Stored length in bytes.
    pub stored: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub frames: Vec<DamagedFrame>,
    pub time_ns: i64,
    /// How it was found.
    pub found: String,
}

impl Damage {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.list(1, &self.frames, |e, frame| {
                e.array(3);
                e.bytes(&frame.pack.0);
                e.uint(frame.offset);
                e.uint(frame.stored.into());
            });
            m.int(2, self.time_ns);
            m.text(3, &self.found);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Damage> {
        decode_map(bytes, Kind::Damage.name(), |m| {
            let frame = |d: &mut Decoder<'_>| {
                let pack = PackId(d.fixed()?);
                Ok(DamagedFrame { pack, offset: d.uint()?, stored: d.small()? })
            };
            Ok(Damage {
                frames: m.req(1, |d| d.list(|d| d.tuple(3, frame)))?,
                time_ns: m.req(2, Decoder::int)?,
                found: m.req(3, Decoder::string)?,
            })
        })
    }
}

/// These packs were decoded, and their chunk ids are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    pub packs: Vec<PackId>,
    pub time_ns: i64,
}

impl Attestation {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.bytes_list(1, &self.packs);
            m.int(2, self.time_ns);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Attestation> {
        decode_map(bytes, Kind::Attestation.name(), |m| {
            Ok(Attestation { packs: m.fixed_list(1, PackId)?, time_ns: m.req(2, Decoder::int)? })
        })
    }
}

#[cfg(test)]
mod tests;
