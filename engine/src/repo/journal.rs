//! The client's own record of what it has backed up: path, stat, entry and chunks of each finished
//! file, and the packs that were stored. It is the parent for every role, write-only ones included,
//! and what an interrupted backup goes on from. Sealed under a key that only this identity has;
//! appended in blocks; a torn tail is dropped. Files are trusted for nothing but saving work: every
//! chunk is still looked up in the index. A journal that cannot be written costs nothing but that.
//!
//! Its writer holds a lock on it (`flock`) for as long as it lives, so a journal that can be locked
//! is that of a dead session; one that cannot is left alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::id::{ChunkId, PackId, SessionId, hash, to_hex};
use crate::format::pack::PackClass;
use crate::format::tree::{Entry, TreeNode, leaf_from_encoded, put_entry};
use crate::repo::Repo;
use crate::repo::trees::Piece;
use crate::sys::fault;

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

/// Journals of earlier runs, the newest first.
pub struct Past {
    files: Vec<Reader>,
    /// The unfinished sessions among them: the new one adopts them.
    pub dead: Vec<SessionId>,
    /// What those stored.
    pub packs: Vec<StoredPack>,
}

struct Reader {
    file: File,
    key: SealKey,
    blocks: Vec<(u64, u32)>,
    /// In order, so the newest of a path is the last of its key: 12 bytes a file, and no more.
    places: Vec<Place>,
    packs: Vec<StoredPack>,
    recent: Mutex<Option<(u32, Arc<Vec<u8>>)>>,
}

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// First 4 bytes of H(path): paths may share it.
    key: u32,
    block: u32,
    /// In the block's plain bytes.
    offset: u32,
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
    let mut past = Past { files: Vec::new(), dead: Vec::new(), packs: Vec::new() };
    let mut older = Vec::new();
    for (_, dead, path) in parts {
        let Ok(file) = File::open(&path) else { continue };
        if is_held(&file) {
            continue;
        }
        if let Ok(Some(mut reader)) = Reader::new(file, &key) {
            past.packs.append(&mut reader.packs);
            past.files.push(reader);
        }
        past.dead.push(dead);
        older.push(path);
    }
    let finished = File::open(&done).and_then(|file| Reader::new(file, &key));
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

impl Past {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The newest record of a path.
    pub fn find(&self, path: &[u8]) -> Option<Record> {
        self.files.iter().find_map(|file| file.find(path))
    }
}

impl Journal {
    pub fn append(&self, path: &[u8], record: &Record) {
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

impl Reader {
    /// `None`: not there, or not ours.
    fn new(mut file: File, key: &dyn Fn(&[u8; 32]) -> SealKey) -> io::Result<Option<Self>> {
        fault::pass("cache read")?;
        let mut head = [0; 48];
        file.read_exact(&mut head)?;
        if &head[..16] != MAGIC {
            return Ok(None);
        }
        let salt: [u8; 32] = head[16..].try_into().expect("32 bytes");
        let mut reader = Self {
            file,
            key: key(&salt),
            blocks: Vec::new(),
            places: Vec::new(),
            packs: Vec::new(),
            recent: Mutex::default(),
        };
        reader.scan(48);
        reader.places.sort_unstable();
        Ok(Some(reader))
    }

    /// Indexes every block up to the first that is torn.
    fn scan(&mut self, mut offset: u64) {
        loop {
            let mut len = [0; 4];
            if self.file.read_exact_at(&mut len, offset).is_err() {
                return;
            }
            self.blocks.push((offset + 4, u32::from_le_bytes(len)));
            let number = self.blocks.len() - 1;
            let Some(plain) = self.open_block(number) else {
                self.blocks.pop();
                return;
            };
            let mut rest = &plain[..];
            while let Some((path, record, after)) = split(rest) {
                let (block, offset) = (number as u32, (plain.len() - rest.len()) as u32);
                match path {
                    [] => self.packs.extend(decode_pack(record)),
                    path => self.places.push(Place { key: path_key(path), block, offset }),
                }
                rest = after;
            }
            offset += 4 + u64::from(u32::from_le_bytes(len));
        }
    }

    fn open_block(&self, number: usize) -> Option<Vec<u8>> {
        let (offset, len) = self.blocks[number];
        if (len as usize) < TAG_LEN || len as usize > BLOCK_BYTES_MAX {
            return None;
        }
        if self.file.metadata().ok()?.len() < offset + u64::from(len) {
            return None;
        }
        fault::pass("cache read").ok()?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        self.key.open(number as u64, &mut bytes).then_some(bytes)
    }

    fn find(&self, path: &[u8]) -> Option<Record> {
        let key = path_key(path);
        let end = self.places.partition_point(|place| place.key <= key);
        let places = self.places[..end].iter().rev().take_while(|place| place.key == key);
        for place in places {
            let block = self.block(place.block)?;
            let (found, record, _) = split(&block[place.offset as usize..])?;
            if found == path {
                return decode(record);
            }
        }
        None
    }

    fn block(&self, number: u32) -> Option<Arc<Vec<u8>>> {
        let recent = self.recent.lock().expect("no panic holds this lock").clone();
        if let Some((_, block)) = recent.filter(|(of, _)| *of == number) {
            return Some(block);
        }
        let block = Arc::new(self.open_block(number as usize)?);
        *self.recent.lock().expect("no panic holds this lock") = Some((number, block.clone()));
        Some(block)
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

fn path_key(path: &[u8]) -> u32 {
    u32::from_le_bytes(hash(path)[..4].try_into().expect("four bytes"))
}

/// Record: `length of the rest u32 ‖ path length u32 ‖ path ‖ dev u64 ‖ ino u64 ‖ unsure u8 ‖ size
/// u64 ‖ entry length u32 ‖ entry as a one-entry TREE leaf ‖ pieces`; a piece is `0 ‖ length u32 ‖
/// id` or `1 ‖ hole length u64`.
fn encode(path: &[u8], record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    out.extend_from_slice(&record.signature.dev.to_le_bytes());
    out.extend_from_slice(&record.signature.ino.to_le_bytes());
    out.push(u8::from(record.signature.unsure));
    // Without its size: that is proven by content, which is kept apart.
    let bare = Entry { size: None, ..record.entry.clone() };
    let mut entry = Vec::new();
    put_entry(&bare, &mut entry);
    let entry = leaf_from_encoded(1, &entry);
    out.extend_from_slice(&record.entry.size.unwrap_or(0).to_le_bytes());
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
