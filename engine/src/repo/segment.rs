//! One index run, opened: its payload with a fuse filter behind it, mapped from the cache or held in memory.
//! The cached file is `payload ‖ filter ‖ payload length u64 ‖ H of all before`; it is the client's own, and one that
//! does not match its hash is fetched again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

use crate::format::id::{ChunkId, ObjectHash, hash};
use crate::format::index::Run;
use crate::sys::fault;
use crate::sys::map::GuardedMap;

const FOOTER: usize = 8 + 32;
const SOUND: u8 = 1;
const RELIED: u8 = 2;

#[derive(Debug)]
pub struct Segment {
    /// Of the run in the store; none for what was put together here.
    pub name: Option<ObjectHash>,
    bytes: Bytes,
    payload_len: usize,
    filter_end: usize,
    /// What may be done with each pack of the run.
    packs: Vec<AtomicU8>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(GuardedMap),
    Held(Vec<u8>),
}

impl Segment {
    /// Keeps a validated payload in memory.
    pub fn hold(mut payload: Vec<u8>) -> Self {
        let payload_len = payload.len();
        let filter = filter_of(&payload);
        payload.extend_from_slice(&filter);
        let filter_end = payload.len();
        Self::new(Bytes::Held(payload), payload_len, filter_end)
    }

    /// Writes a validated payload to the cache, mode 0600, and maps it.
    pub fn cache(path: &Path, payload: &[u8]) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        fault::pass("cache create")?;
        let filter = filter_of(payload);
        let mut hasher = blake3::Hasher::new();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        for part in [payload, &filter, &(payload.len() as u64).to_le_bytes()] {
            hasher.update(part);
            fault::write("cache write", part, |part| file.write_all(part))?;
        }
        file.write_all(hasher.finalize().as_bytes())?;
        drop(file);
        fault::pass("cache rename")?;
        std::fs::rename(&temporary, path)?;
        Self::map(path)
    }

    pub fn map(path: &Path) -> io::Result<Self> {
        fault::pass("cache open")?;
        let file = File::open(path)?;
        // The file is ours, complete before it gets its name, and never written again.
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let map = GuardedMap::map(&file, 0, length)?;
        let broken =
            || io::Error::new(io::ErrorKind::InvalidData, "the cached index run is broken");
        let filter_end = map.len().checked_sub(FOOTER).ok_or_else(broken)?;
        let (body, sum) = map.split_at(map.len() - 32);
        if hash(body) != sum {
            return Err(broken());
        }
        let length: [u8; 8] = body[filter_end..].try_into().expect("eight bytes");
        let payload_len = usize::try_from(u64::from_le_bytes(length)).map_err(|_| broken())?;
        if payload_len > filter_end || Run::new(&map[..payload_len]).is_err() {
            return Err(broken());
        }
        Ok(Self::new(Bytes::Mapped(map), payload_len, filter_end))
    }

    fn new(bytes: Bytes, payload_len: usize, filter_end: usize) -> Self {
        let mut segment = Self { name: None, bytes, payload_len, filter_end, packs: Vec::new() };
        let packs = segment.run().packs().count();
        segment.packs = (0..packs).map(|_| AtomicU8::new(0)).collect();
        segment
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Held(bytes) => bytes,
        }
    }

    pub fn run(&self) -> Run<'_> {
        Run::new(&self.bytes()[..self.payload_len]).expect("checked when it was opened")
    }

    /// `false` is certain, `true` is right in 255 of 256 cases.
    pub fn may_hold(&self, id: &ChunkId) -> bool {
        let filter = &self.bytes()[self.payload_len..self.filter_end];
        match filter.split_at_checked(BinaryFuse8::DESCRIPTOR_LEN) {
            Some((descriptor, prints)) if !prints.is_empty() => {
                BinaryFuse8Ref::from_dma(descriptor, prints).contains(&key(&id.0))
            }
            _ => true,
        }
    }

    /// The pack is in the store's listing with the stated length.
    pub fn sound(&self, pack: u32) -> bool {
        self.packs[pack as usize].load(Ordering::Relaxed) & SOUND != 0
    }

    /// A new snapshot may rely on the pack.
    pub fn relied(&self, pack: u32) -> bool {
        self.packs[pack as usize].load(Ordering::Relaxed) & RELIED != 0
    }

    pub fn set(&self, pack: u32, sound: bool, relied: bool) {
        let flags = if sound { SOUND } else { 0 } | if relied { RELIED } else { 0 };
        self.packs[pack as usize].store(flags, Ordering::Relaxed);
    }
}

/// Ids are uniform; eight of their bytes serve as the filter's key.
fn key(id: &[u8; 32]) -> u64 {
    u64::from_le_bytes(id[..8].try_into().expect("eight bytes"))
}

fn filter_of(payload: &[u8]) -> Vec<u8> {
    let run = Run::new(payload).expect("validated by the caller");
    let mut keys: Vec<u64> = run.ids().iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    // Tiny or unlucky runs do without: the search behind it is exact.
    if keys.len() < 16 {
        return Vec::new();
    }
    let Ok(filter) = BinaryFuse8::try_from(keys) else { return Vec::new() };
    let mut bytes = vec![0; BinaryFuse8::DESCRIPTOR_LEN];
    filter.dma_copy_descriptor_to(&mut bytes);
    bytes.extend_from_slice(filter.dma_fingerprints());
    bytes
}
