//! A snapshot: the commit of a session (`docs/format.md`, 7.2). Sealed to META by the caller.

use std::collections::BTreeMap;

use super::cbor::{Decoder, Encoder, MapEncoder, decode_map, encode_map};
use super::id::{ChunkId, IdentityId, SessionId};
use super::kind::Kind;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

/// What the host's clock was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Unknown = 0,
    Synchronised = 1,
    NotSynchronised = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Archive = 1,
    /// Disaster recovery.
    Dr = 2,
}

/// A directory: its REFS node and its TREE node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Directory {
    pub refs: ChunkId,
    pub tree: ChunkId,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    /// Symlinks, sockets, devices.
    pub others: u64,
    /// Bytes of all files.
    pub bytes: u64,
    pub unread: u64,
    /// Changed while they were read.
    pub inconsistent: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    /// Bytes of chunks that were not in the repository, before encoding.
    pub bytes_new: u64,
    pub bytes_stored: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of this writer's snapshot.
    pub sequence: u64,
    /// H of the stored bytes of its previous one.
    pub previous: Option<[u8; 32]>,
    pub time_ns: i64,
    /// Local time less UTC, in seconds.
    pub utc_offset_s: i32,
    pub zone: Option<String>,
    pub clock: Clock,
    pub author: IdentityId,
    pub host: String,
    /// Tool and version.
    pub tool: String,
    /// Absolute source paths.
    pub roots: Vec<Vec<u8>>,
    /// "system", "study" …
    pub labels: BTreeMap<String, String>,
    pub tags: Vec<String>,
    pub class: Class,
    pub retain_until_ns: Option<i64>,
    pub counts: Counts,
    /// Of the command that fed standard input.
    pub exit_code: Option<u32>,
    pub root: Directory,
    pub parent: Option<SessionId>,
    pub end_ns: i64,
}

impl Counts {
    fn columns(&self) -> [u64; 11] {
        [
            self.files,
            self.directories,
            self.others,
            self.bytes,
            self.unread,
            self.inconsistent,
            self.files_new,
            self.files_changed,
            self.files_unchanged,
            self.bytes_new,
            self.bytes_stored,
        ]
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(|m| (1..).zip(self.columns()).for_each(|(key, count)| m.uint(key, count)));
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Counts> {
        decoder.map(|m| {
            let mut column = |key| m.req(key, Decoder::uint);
            Ok(Counts {
                files: column(1)?,
                directories: column(2)?,
                others: column(3)?,
                bytes: column(4)?,
                unread: column(5)?,
                inconsistent: column(6)?,
                files_new: column(7)?,
                files_changed: column(8)?,
                files_unchanged: column(9)?,
                bytes_new: column(10)?,
                bytes_stored: column(11)?,
            })
        })
    }
}

impl Directory {
    fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.refs.0);
        bytes[32..].copy_from_slice(&self.tree.0);
        bytes
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Directory> {
        let bytes = decoder.fixed::<64>()?;
        let half = |at: usize| ChunkId(bytes[at..at + 32].try_into().expect("32 bytes"));
        Ok(Directory { refs: half(0), tree: half(32) })
    }
}

impl Clock {
    fn decode(decoder: &mut Decoder<'_>) -> Result<Clock> {
        match decoder.uint()? {
            0 => Ok(Clock::Unknown),
            1 => Ok(Clock::Synchronised),
            2 => Ok(Clock::NotSynchronised),
            _ => Err(decoder.malformed("clock state")),
        }
    }
}

impl Class {
    fn decode(decoder: &mut Decoder<'_>) -> Result<Class> {
        match decoder.uint()? {
            1 => Ok(Class::Archive),
            2 => Ok(Class::Dr),
            _ => Err(decoder.malformed("snapshot class")),
        }
    }
}

fn labels(decoder: &mut Decoder<'_>) -> Result<BTreeMap<String, String>> {
    let entries = decoder.text_map()?;
    Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

impl Snapshot {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, self.sequence);
            m.opt_bytes(2, self.previous);
            m.int(3, self.time_ns);
            m.int(4, self.utc_offset_s.into());
            if let Some(zone) = &self.zone {
                m.text(5, zone);
            }
            m.uint(6, self.clock as u8);
            m.bytes(7, self.author);
            m.text(8, &self.host);
            m.text(9, &self.tool);
            m.bytes_list(10, &self.roots);
            m.key(11).text_map(self.labels.iter().map(|(key, value)| (&**key, &**value)));
            m.list(12, &self.tags, |e, tag| e.text(tag));
            m.uint(13, self.class as u8);
            self.encode_tail(m);
        })
    }

    fn encode_tail(&self, m: &mut MapEncoder<'_>) {
        if let Some(until) = self.retain_until_ns {
            m.int(14, until);
        }
        self.counts.encode(m.key(15));
        if let Some(code) = self.exit_code {
            m.uint(16, code);
        }
        m.bytes(17, self.root.to_bytes());
        m.opt_bytes(18, self.parent);
        m.int(19, self.end_ns);
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Snapshot> {
        decode_map(bytes, Kind::Snapshot.name(), |m| {
            Ok(Snapshot {
                sequence: m.req(1, Decoder::uint)?,
                previous: m.opt(2, Decoder::fixed)?,
                time_ns: m.req(3, Decoder::int)?,
                utc_offset_s: m.req(4, |d| {
                    let offset = d.int()?;
                    i32::try_from(offset).map_err(|_| d.malformed("an integer out of range"))
                })?,
                zone: m.opt(5, Decoder::string)?,
                clock: m.req(6, Clock::decode)?,
                author: IdentityId(m.req(7, Decoder::fixed)?),
                host: m.req(8, Decoder::string)?,
                tool: m.req(9, Decoder::string)?,
                roots: m.req(10, |d| d.list(|d| d.bytes().map(<[u8]>::to_vec)))?,
                labels: m.req(11, labels)?,
                tags: m.req(12, |d| d.list(Decoder::string))?,
                class: m.req(13, Class::decode)?,
                retain_until_ns: m.opt(14, Decoder::int)?,
                counts: m.req(15, Counts::decode)?,
                exit_code: m.opt(16, Decoder::small)?,
                root: m.req(17, Directory::decode)?,
                parent: m.opt(18, Decoder::fixed)?.map(SessionId),
                end_ns: m.req(19, Decoder::int)?,
            })
        })
    }
}

#[cfg(test)]
mod tests;
