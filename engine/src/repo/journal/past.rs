//! Journals of earlier runs, read: which record a path has.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::format::id::{SessionId, hash};
use crate::repo::journal::{
    BLOCK_BYTES_MAX, MAGIC, Record, SealKey, StoredPack, TAG_LEN, decode, decode_pack, split,
};
use crate::repo::parallel;
use crate::sys::fault;

/// How far ahead the next record is looked for before the place of a path is looked up: some for each of many threads.
const AHEAD_RECORDS: usize = 32;
/// A longer block, which a huge file makes, is opened again for every record.
const RECALL_BYTES_MAX: usize = 1 << 20;
/// Each holds a block.
const SCAN_THREADS_MAX: usize = 4;

/// Journals of earlier runs, the newest first.
pub struct Past {
    pub(super) files: Vec<Reader>,
    /// The unfinished sessions among them: the new one adopts them.
    pub dead: Vec<SessionId>,
    /// What those stored.
    pub packs: Vec<StoredPack>,
}

pub(super) struct Reader {
    file: File,
    key: SealKey,
    blocks: Vec<(u64, u32)>,
    /// In order, so the newest of a path is the last of its key: 12 bytes a file, and no more.
    places: Vec<Place>,
    pub(super) packs: Vec<StoredPack>,
}

/// Where one thread found its last record. The walk meets files in the order of last time, so the
/// next one lies close behind, with those of other threads between.
#[derive(Default)]
pub struct Recall(Option<Open>);

/// A block that is open, and where in it to go on.
#[derive(Default)]
struct Open {
    reader: usize,
    number: u32,
    block: Vec<u8>,
    next: usize,
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

impl Past {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The newest record of a path. Each thread hands in a `Recall` of its own.
    pub fn find(&self, path: &[u8], recall: &mut Recall) -> Option<Record> {
        let mut files = self.files.iter().enumerate();
        files.find_map(|(number, file)| file.find(path, number, recall))
    }
}

impl Reader {
    /// `None`: not there, or not ours.
    pub(super) fn new(
        mut file: File,
        key: &dyn Fn(&[u8; 32]) -> SealKey,
        threads: usize,
    ) -> io::Result<Option<Self>> {
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
        };
        reader.list(48)?;
        reader.scan(threads);
        reader.places.sort_unstable();
        Ok(Some(reader))
    }

    /// Where the blocks are, as far as their lengths can be true.
    fn list(&mut self, mut offset: u64) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let mut len = [0; 4];
        while offset + 4 <= end && self.file.read_exact_at(&mut len, offset).is_ok() {
            let len = u32::from_le_bytes(len);
            offset += 4;
            let bytes = len as usize;
            if !(TAG_LEN..=BLOCK_BYTES_MAX).contains(&bytes) || end - offset < u64::from(len) {
                break;
            }
            self.blocks.push((offset, len));
            offset += u64::from(len);
        }
        Ok(())
    }

    /// Indexes every block up to the first that is torn.
    fn scan(&mut self, threads: usize) {
        let torn = AtomicUsize::new(self.blocks.len());
        let found = Mutex::new((Vec::new(), Vec::new()));
        let numbers: Vec<usize> = (0..self.blocks.len()).collect();
        let scanned =
            parallel::each(threads.min(SCAN_THREADS_MAX), &numbers, Vec::new, |plain, &number| {
                if !self.open_block(number, plain) {
                    torn.fetch_min(number, Ordering::Relaxed);
                    return Ok(());
                }
                let (mut places, mut packs) = (Vec::new(), Vec::new());
                let mut rest = &plain[..];
                while let Some((path, record, after)) = split(rest) {
                    let (block, offset) = (number as u32, (plain.len() - rest.len()) as u32);
                    match path {
                        [] => packs.extend(decode_pack(record).map(|pack| (number, pack))),
                        path => places.push(Place { key: path_key(path), block, offset }),
                    }
                    rest = after;
                }
                let mut found = found.lock().expect("no panic holds this lock");
                found.0.append(&mut places);
                found.1.append(&mut packs);
                Ok(())
            });
        scanned.expect("no block is an error");
        let torn = torn.into_inner();
        let (mut places, mut packs) = found.into_inner().expect("no panic holds this lock");
        places.retain(|place: &Place| (place.block as usize) < torn);
        packs.retain(|&(number, _)| number < torn);
        packs.sort_by_key(|&(number, _)| number);
        self.blocks.truncate(torn);
        self.places = places;
        self.packs = packs.into_iter().map(|(_, pack)| pack).collect();
    }

    /// Replaces `bytes` by a block's plain bytes. `false`: it cannot be read, or is not what was sealed.
    fn open_block(&self, number: usize, bytes: &mut Vec<u8>) -> bool {
        let (offset, len) = self.blocks[number];
        bytes.resize(len as usize, 0);
        fault::pass("cache read").and_then(|()| self.file.read_exact_at(bytes, offset)).is_ok()
            && self.key.open(number as u64, bytes)
    }

    fn find(&self, path: &[u8], reader: usize, recall: &mut Recall) -> Option<Record> {
        let open = recall.0.as_mut().filter(|open| open.reader == reader);
        if let Some(record) = open.and_then(|open| open.ahead(path)) {
            return decode(record);
        }
        let key = path_key(path);
        let end = self.places.partition_point(|place| place.key <= key);
        let places = self.places[..end].iter().rev().take_while(|place| place.key == key);
        for place in places {
            let open = self.open_at(place, reader, recall)?;
            let (found, record, after) = split(&open.block[open.next..])?;
            if found == path {
                let record = decode(record);
                open.next = open.block.len() - after.len();
                recall.0.take_if(|open| open.block.len() > RECALL_BYTES_MAX);
                return record;
            }
        }
        None
    }

    /// The block of a record that comes next.
    fn open_at<'r>(
        &self,
        place: &Place,
        reader: usize,
        recall: &'r mut Recall,
    ) -> Option<&'r mut Open> {
        let mut open = recall.0.take().unwrap_or_default();
        if (open.reader, open.number) != (reader, place.block) || open.block.is_empty() {
            (open.reader, open.number) = (reader, place.block);
            if !self.open_block(place.block as usize, &mut open.block) {
                return None;
            }
        }
        open.next = place.offset as usize;
        Some(recall.0.insert(open))
    }
}

impl Open {
    /// The record of a path, if it is one of the next.
    fn ahead(&mut self, path: &[u8]) -> Option<&[u8]> {
        let mut rest = self.block.get(self.next..)?;
        for _ in 0..AHEAD_RECORDS {
            let (found, record, after) = split(rest)?;
            if found == path {
                self.next = self.block.len() - after.len();
                return Some(record);
            }
            rest = after;
        }
        None
    }
}

fn path_key(path: &[u8]) -> u32 {
    u32::from_le_bytes(hash(path)[..4].try_into().expect("four bytes"))
}
