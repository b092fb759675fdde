//! `repo.cbor`: what never changes in a repository (`docs/format.md`, 7.1).

use super::cbor::{Decoder, Encoder, decode_map, encode_map};
use super::id::RepositoryId;
use super::kind::Kind;
use super::seal::Suite;
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

pub const PACK_SIZE_MAX: u64 = 1 << 30;
pub const CHUNK_LEN_MAX: u32 = 16 << 20;
pub const CHUNK_LEN_MIN: u32 = 64;
/// Required features that this program knows.
const FEATURES: [&str; 0] = [];

/// How content is cut into chunks; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkerSpec {
    WindowedMinimum { min: u32, max: u32 },
    FastCdc { min: u32, average: u32, max: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoFile {
    /// Required features. Reading refuses unknown ones, so a read value holds only known ones.
    pub features: Vec<String>,
    pub repository: RepositoryId,
    pub suite: Suite,
    pub chunker: ChunkerSpec,
    /// Stored length of a full pack, in bytes.
    pub pack_size: u64,
    pub created_ns: i64,
}

impl Default for ChunkerSpec {
    fn default() -> Self {
        Self::windowed_minimum(1 << 20)
    }
}

impl ChunkerSpec {
    /// From half the mean to one and a half, in bytes.
    pub fn windowed_minimum(mean: u32) -> Self {
        ChunkerSpec::WindowedMinimum { min: mean / 2, max: mean / 2 * 3 }
    }

    /// From half the mean to eight times the mean, in bytes.
    pub fn fast_cdc(mean: u32) -> Self {
        let max = mean.saturating_mul(8).min(CHUNK_LEN_MAX);
        ChunkerSpec::FastCdc { min: mean / 2, average: mean, max }
    }

    /// The smallest chunk but for the last of a file, in bytes.
    pub fn min_bytes(&self) -> u32 {
        match *self {
            ChunkerSpec::WindowedMinimum { min, .. } | ChunkerSpec::FastCdc { min, .. } => min,
        }
    }

    /// The largest chunk, in bytes.
    pub fn max_bytes(&self) -> u32 {
        match *self {
            ChunkerSpec::WindowedMinimum { max, .. } | ChunkerSpec::FastCdc { max, .. } => max,
        }
    }

    /// Can a chunker work with these sizes? (The bounds of FastCDC are those of its crate.)
    pub fn is_valid(&self) -> bool {
        let size = |s: u32| (CHUNK_LEN_MIN..=CHUNK_LEN_MAX).contains(&s) && s.is_multiple_of(2);
        match *self {
            ChunkerSpec::WindowedMinimum { min, max } => size(min) && size(max) && min < max,
            ChunkerSpec::FastCdc { min, average, max } => {
                let crate_bounds =
                    min <= 1 << 20 && (256..=4 << 20).contains(&average) && max >= 1024;
                size(min)
                    && size(average)
                    && size(max)
                    && min <= average
                    && average < max
                    && crate_bounds
            }
        }
    }

    fn encode(self, encoder: &mut Encoder) {
        encoder.map(|m| match self {
            ChunkerSpec::WindowedMinimum { min, max } => {
                m.uint(1, 1u8);
                m.uint(2, min);
                m.uint(4, max);
            }
            ChunkerSpec::FastCdc { min, average, max } => {
                m.uint(1, 2u8);
                m.uint(2, min);
                m.uint(3, average);
                m.uint(4, max);
            }
        });
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<ChunkerSpec> {
        decoder.map(|m| {
            let code = m.req(1, Decoder::uint)?;
            if !(1..=2).contains(&code) {
                return Err(unsupported(format!("chunker {code}")));
            }
            let min = m.req(2, Decoder::small)?;
            let average = if code == 2 { Some(m.req(3, Decoder::small)?) } else { None };
            let max = m.req(4, Decoder::small)?;
            if min == 0 || min > average.unwrap_or(min) || average.unwrap_or(min) > max {
                return Err(m.malformed("chunk sizes that do not ascend from 1"));
            }
            if max > CHUNK_LEN_MAX {
                return Err(m.limit("chunk size"));
            }
            Ok(match average {
                None => ChunkerSpec::WindowedMinimum { min, max },
                Some(average) => ChunkerSpec::FastCdc { min, average, max },
            })
        })
    }
}

fn unsupported(feature: String) -> FormatError {
    FormatError::Unsupported { object: Kind::Repo.name(), feature }
}

impl RepoFile {
    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, 1u8);
            m.list(2, &self.features, |e, feature| e.text(feature));
            m.bytes(3, self.repository);
            m.uint(4, self.suite.code());
            self.chunker.encode(m.key(5));
            m.uint(6, self.pack_size);
            m.int(7, self.created_ns);
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<RepoFile> {
        decode_map(bytes, Kind::Repo.name(), |m| {
            let version = m.req(1, Decoder::uint)?;
            if version != 1 {
                return Err(FormatError::Newer { object: m.object(), version });
            }
            let features = m.req(2, |d| d.list(Decoder::string))?;
            if let Some(unknown) = features.iter().find(|f| !FEATURES.contains(&f.as_str())) {
                return Err(unsupported(unknown.clone()));
            }
            let repository = RepositoryId(m.req(3, Decoder::fixed)?);
            let suite = m.req(4, Decoder::uint)?;
            let known = u8::try_from(suite).ok().and_then(Suite::from_code);
            let suite = known.ok_or_else(|| unsupported(format!("suite {suite}")))?;
            let chunker = m.req(5, ChunkerSpec::decode)?;
            let pack_size = m.req(6, Decoder::uint)?;
            if pack_size > PACK_SIZE_MAX {
                return Err(m.limit("pack size"));
            }
            let created_ns = m.req(7, Decoder::int)?;
            Ok(RepoFile { features, repository, suite, chunker, pack_size, created_ns })
        })
    }
}

#[cfg(test)]
mod tests;
