use std::io::Write;
use crate::{error::Error, repo::*};
pub use crate::format::tree::{Entry, EntryKind, TimeSpec};
pub fn list(_: &Repo, _: &SnapshotInfo, _: &[u8], _: bool, _: &mut dyn FnMut(&[u8], &Entry) -> Result<(), Error>) -> Result<(), Error> { unimplemented!() }
pub fn dump(_: &Repo, _: &SnapshotInfo, path: &[u8], out: &mut dyn Write) -> Result<u64, Error> { for _ in 0..100000 { out.write_all(b"content of the file\n").map_err(|source| Error::Output { source })?; } Ok(20) }
pub fn stats(_: &Repo) -> Result<Stats, Error> { Ok(Stats { snapshots: 5, packs: 1234, pack_bytes: 80 << 30, index_runs: 12, index_bytes: 9 << 20, other_objects: 20, other_bytes: 31 << 10, chunks: 123456, chunk_bytes: 123 << 30, frames_by_codec: vec![CodecStats { codec: "stored".into(), frames: 1000, plain_bytes: 1 << 30, stored_bytes: 1 << 30 }, CodecStats { codec: "zstd".into(), frames: 100000, plain_bytes: 122 << 30, stored_bytes: 79 << 30 }], snapshot_bytes: Some(800 << 30) }) }
pub struct Stats { pub snapshots: u64, pub packs: u64, pub pack_bytes: u64, pub index_runs: u64, pub index_bytes: u64, pub other_objects: u64, pub other_bytes: u64, pub chunks: u64, pub chunk_bytes: u64, pub frames_by_codec: Vec<CodecStats>, pub snapshot_bytes: Option<u64> }
pub struct CodecStats { pub codec: String, pub frames: u64, pub plain_bytes: u64, pub stored_bytes: u64 }
