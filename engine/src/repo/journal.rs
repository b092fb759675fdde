//! The client's own record of what it has backed up: path, stat, entry and chunks of each finished
//! file, and the packs that were stored. It is the parent for every role, write-only ones included,
//! and what an interrupted backup goes on from. Sealed under a key that only this identity has;
//! appended in blocks; a torn tail is dropped. Files are trusted for nothing but saving work: every
//! chunk is still looked up in the index. A journal that cannot be written costs nothing but that.
//!
//! Its writer holds a lock on it (`flock`) for as long as it lives, so a journal that can be locked
//! is that of a dead session; one that cannot is left alone.

mod past;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aws_lc_rs::aead;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::id::{ChunkId, PackId, SessionId, hash, to_hex};
use crate::format::pack::PackClass;
use crate::format::tree::{Entry, TreeNode, leaf_from_encoded, put_entry};
use crate::repo::Repo;
use crate::repo::journal::past::Reader;
use crate::repo::trees::Piece;
use crate::sys::fault;

pub use crate::repo::journal::past::{Past, Recall};

pub(super) const TAG_LEN: usize = 16;
const MAGIC: &[u8; 16] = b"strongroom-jrn-1";
/// Records gather until a block of this many plain bytes is sealed and appended.
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// What identifies an unchanged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    pub dev: u64,
    pub ino: u64,
    /// Read while it may still have been changing: never taken as unchanged.
    pub unsure: bool,
}

#[derive(Debug, Clone)]
pub struct Record {
    pub signature: Signature,
    /// Without content.
    pub entry: Entry,
    pub pieces: Vec<Piece>,
}

/// A pack whose content a session has made durable, whether or not an index run came to name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPack {
    pub id: PackId,
    pub len: u64,
    pub class: PackClass,
    /// H of its directory's plaintext: nobody else can put another in its place.
    pub directory: [u8; 32],
}

/// The journal being written.
pub struct Journal {
    inner: Mutex<Writing>,
    path: PathBuf,
    done: PathBuf,
    older: Vec<PathBuf>,
}

struct Writing {
    file: File,
    key: SealKey,
    block: Vec<u8>,
    count: u64,
    /// Why nothing is written any more.
    failure: Option<io::Error>,
}

/// Opens the journals for a set of source paths and starts a new one. `None`: the client has no cache.
pub fn open(
    repo: &Repo,
    roots: &[Vec<u8>],
    session: &SessionId,
) -> Result<Option<(Past, Journal)>> {
    let Some(cache) = repo.cache() else { return Ok(None) };
    let stem = format!("journal-{}", &to_hex(&hash(&roots.join(&0)))[..16]);
    let failed = |source| Error::Cache { path: cache.clone(), source };
    let done = cache.join(&stem);
    let mut parts = Vec::new();
    fault::pass("cache list").map_err(failed)?;
    for entry in std::fs::read_dir(cache).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let dead = name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_prefix('.'));
        if let Some(dead) = dead.and_then(SessionId::from_hex) {
            let modified = entry.metadata().and_then(|meta| meta.modified()).map_err(failed)?;
            parts.push((modified, dead, entry.path()));
        }
    }
    parts.sort_by_key(|(modified, _, _)| std::cmp::Reverse(*modified));
    let key = |salt: &[u8; 32]| SealKey::journal(repo, salt);
    let threads = repo.env().threads();
    let mut past = Past { files: Vec::new(), dead: Vec::new(), packs: Vec::new() };
    let mut older = Vec::new();
    for (_, dead, path) in parts {
        let Ok(file) = File::open(&path) else { continue };
        if is_held(&file) {
            continue;
        }
        if let Ok(Some(mut reader)) = Reader::new(file, &key, threads) {
            past.packs.append(&mut reader.packs);
            past.files.push(reader);
        }
        past.dead.push(dead);
        older.push(path);
    }
    let finished = File::open(&done).and_then(|file| Reader::new(file, &key, threads));
    past.files.extend(finished.ok().flatten());
    let path = cache.join(format!("{stem}.{session}"));
    let salt: [u8; 32] = repo.env().random();
    let writing = Writing::create(&path, &salt, SealKey::journal(repo, &salt)).map_err(failed)?;
    Ok(Some((past, Journal { inner: Mutex::new(writing), path, done, older })))
}

/// Does its writer live? Where a file system has no locks, nobody's is taken to.
pub(super) fn is_held(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

impl Journal {
    /// The record is as it was afterwards.
    pub fn append(&self, path: &[u8], record: &mut Record) {
        let mut bytes = Vec::with_capacity(256 + path.len() + record.pieces.len() * 37);
        encode(path, record, &mut bytes);
        self.write(&bytes, BLOCK_BYTES);
    }

    /// Right after the store said that its content is durable. What was finished before goes out with it: files
    /// whose chunks are in packs that were not stored would have to be read again anyway.
    pub fn append_pack(&self, pack: &StoredPack) {
        let mut bytes = Vec::with_capacity(PACK_RECORD);
        encode_pack(pack, &mut bytes);
        self.write(&bytes, 0);
    }

    fn write(&self, record: &[u8], block_bytes: usize) {
        let mut writing = self.inner.lock().expect("no panic holds this lock");
        if record.len() > BLOCK_BYTES {
            // A block for itself: who looks for its neighbours need not open it.
            writing.flush();
        }
        writing.block.extend_from_slice(record);
        if writing.block.len() >= block_bytes {
            writing.flush();
        }
    }

    /// The session has committed: this is the parent from now on, what came before is done with.
    /// An error says that this, or something before it, could not be written: the next backup reads more than it
    /// would have to.
    pub fn commit(self) -> Result<()> {
        let failed = |source| Error::Cache { path: self.path.clone(), source };
        let mut writing = self.inner.lock().expect("no panic holds this lock");
        writing.flush();
        if let Some(failure) = writing.failure.take() {
            let _ = std::fs::remove_file(&self.path);
            return Err(failed(failure));
        }
        fault::pass("cache rename")
            .and_then(|()| std::fs::rename(&self.path, &self.done))
            .map_err(failed)?;
        for older in &self.older {
            let _ = std::fs::remove_file(older);
        }
        Ok(())
    }

    /// A dry run leaves nothing.
    pub fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Writing {
    fn create(path: &Path, salt: &[u8; 32], key: SealKey) -> io::Result<Self> {
        fault::pass("cache create")?;
        // It gets its name when it is locked: nobody sees it without.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        fault::write("cache write", &[&MAGIC[..], salt].concat(), |head| file.write_all(head))?;
        fault::pass("cache rename")?;
        std::fs::rename(&fresh, path)?;
        let block = Vec::with_capacity(BLOCK_BYTES * 2);
        Ok(Self { file, key, block, count: 0, failure: None })
    }

    /// After a failure the end of the file is unknown, so nothing more is written.
    fn flush(&mut self) {
        if self.failure.is_none() && !self.block.is_empty() {
            self.key.seal(self.count, &mut self.block);
            self.count += 1;
            let len = (self.block.len() as u32).to_le_bytes();
            let file = &mut self.file;
            let written =
                fault::write("cache write", &len, |len| file.write_all(len)).and_then(|()| {
                    fault::write("cache write", &self.block, |block| file.write_all(block))
                });
            self.failure = written.err();
        }
        self.block.clear();
    }
}

/// AES-256-GCM under a key for one file of the client's own; the block number is the nonce.
pub(super) struct SealKey(aead::LessSafeKey);

impl SealKey {
    fn journal(repo: &Repo, salt: &[u8; 32]) -> Self {
        Self::new("strongroom 1 client journal", repo, salt)
    }

    pub(super) fn bases(repo: &Repo, salt: &[u8; 32]) -> Self {
        Self::new("strongroom 1 client bases", repo, salt)
    }

    fn new(context: &str, repo: &Repo, salt: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&repo.bundle().signing.0).update(salt);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, hasher.finalize().as_bytes());
        Self(aead::LessSafeKey::new(key.expect("the key has 32 bytes")))
    }

    fn nonce(block: u64) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&block.to_le_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn seal(&self, block: u64, bytes: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(Self::nonce(block), aead::Aad::empty(), bytes)
            .expect("a block is far below the limit of the cipher");
    }

    /// `false`: not what was sealed.
    pub(super) fn open(&self, block: u64, bytes: &mut Vec<u8>) -> bool {
        let opened = self.0.open_in_place(Self::nonce(block), aead::Aad::empty(), bytes);
        let Ok(len) = opened.map(|plain| plain.len()) else { return false };
        bytes.truncate(len);
        true
    }
}

/// Record: `length of the rest u32 ‖ path length u32 ‖ path ‖ dev u64 ‖ ino u64 ‖ unsure u8 ‖ size
/// u64 ‖ entry length u32 ‖ entry as a one-entry TREE leaf ‖ pieces`; a piece is `0 ‖ length u32 ‖
/// id` or `1 ‖ hole length u64`.
fn encode(path: &[u8], record: &mut Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    out.extend_from_slice(&record.signature.dev.to_le_bytes());
    out.extend_from_slice(&record.signature.ino.to_le_bytes());
    out.push(u8::from(record.signature.unsure));
    // Without its size: that is proven by content, which is kept apart.
    let size = record.entry.size.take();
    let mut entry = Vec::with_capacity(128 + record.entry.name.len());
    put_entry(&record.entry, &mut entry);
    record.entry.size = size;
    let entry = leaf_from_encoded(1, &entry);
    out.extend_from_slice(&size.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    out.extend_from_slice(&entry);
    for piece in &record.pieces {
        match piece {
            Piece::Chunk { id, len } => {
                out.push(0);
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(&id.0);
            }
            Piece::Hole { len } => {
                out.push(1);
                out.extend_from_slice(&len.to_le_bytes());
            }
        }
    }
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
}

/// `length of the rest u32 ‖ 0 u32 (no path) ‖ id ‖ length u64 ‖ class u8 ‖ H(directory)`.
const PACK_RECORD: usize = 4 + 4 + 32 + 8 + 1 + 32;

fn encode_pack(pack: &StoredPack, out: &mut Vec<u8>) {
    out.extend_from_slice(&(PACK_RECORD as u32 - 4).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&pack.id.0);
    out.extend_from_slice(&pack.len.to_le_bytes());
    out.push(pack.class as u8);
    out.extend_from_slice(&pack.directory);
}

fn decode_pack(mut bytes: &[u8]) -> Option<StoredPack> {
    let id = PackId(take(&mut bytes, 32)?.try_into().ok()?);
    let len = take_u64(&mut bytes)?;
    let class = PackClass::from_u8(take(&mut bytes, 1)?[0])?;
    let directory = take(&mut bytes, 32)?.try_into().ok()?;
    Some(StoredPack { id, len, class, directory })
}

fn take<'b>(bytes: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes, 4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes, 8).map(|eight| u64::from_le_bytes(eight.try_into().expect("eight bytes")))
}

/// Path, the record behind it, and what follows the record.
fn split(mut bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let len = take_u32(&mut bytes)? as usize;
    let (mut record, after) = bytes.split_at_checked(len)?;
    let path_len = take_u32(&mut record)? as usize;
    let path = take(&mut record, path_len)?;
    Some((path, record, after))
}

fn decode(mut bytes: &[u8]) -> Option<Record> {
    let dev = take_u64(&mut bytes)?;
    let ino = take_u64(&mut bytes)?;
    let unsure = take(&mut bytes, 1)?[0] != 0;
    let size = take_u64(&mut bytes)?;
    let entry_len = take_u32(&mut bytes)? as usize;
    let TreeNode::Leaf { mut entries } = TreeNode::from_bytes(take(&mut bytes, entry_len)?).ok()?
    else {
        return None;
    };
    let entry = Entry { size: Some(size), ..entries.pop()? };
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        pieces.push(match take(&mut bytes, 1)?[0] {
            0 => {
                let len = take_u32(&mut bytes)?;
                Piece::Chunk { id: ChunkId(take(&mut bytes, 32)?.try_into().ok()?), len }
            }
            _ => Piece::Hole { len: take_u64(&mut bytes)? },
        });
    }
    Some(Record { signature: Signature { dev, ino, unsure }, entry, pieces })
}
