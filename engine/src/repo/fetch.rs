//! Reading chunks back: which frame, fetch, open, decode, verify. Every copy of a chunk is tried
//! before damage is reported. A small cache of decoded frames serves trees and single files;
//! restore plans its own reads.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Named, Result};
use crate::format::codec::{Codec, Decoder};
use crate::format::id::{ChunkId, IdKey, PackId};
use crate::format::index::{PackRow, RunFrame};
use crate::format::pack::{BaseRow, ContextRow, base_rows_bytes};
use crate::format::seal::{Context, Label, Sealer, frame_aad, frame_nonce};
use crate::repo::Repo;
use crate::repo::damage::{Suspects, is_proof};
use crate::repo::lookup::{Copy, Index};
use crate::repo::packer::pack_name;
pub use crate::repo::recent::Plain;
use crate::repo::recent::Recent;
use crate::sys::buffer::PageBuffer;

/// Reads from packs are on this grid, so that the store does not learn where frames begin.
pub const GRID_BYTES: u64 = 64 << 10;
/// Decoded frames kept, in plain bytes.
pub const RECENT_BYTES: usize = 32 << 20;

/// Everything needed to fetch and open one frame.
#[derive(Debug, Clone)]
pub struct FrameAt {
    pub pack: PackRow,
    pub row: RunFrame,
    /// H of its chunk rows.
    pub table_hash: [u8; 32],
    pub context: ContextRow,
    pub bases: Vec<BaseRow>,
}

impl FrameAt {
    pub fn of(copy: &Copy) -> Self {
        let (run, place) = (copy.segment.run(), &copy.place);
        Self {
            pack: place.pack,
            row: place.frame,
            table_hash: place.table_hash(),
            context: run.context(place.frame.context).expect("validated with the run"),
            bases: run.bases(&place.frame).expect("validated with the run").collect(),
        }
    }

    fn named(&self) -> String {
        format!("{} frame at {}", pack_name(&self.pack.id), self.row.offset)
    }
}

pub struct Fetcher<'r> {
    repo: &'r Repo,
    index: &'r Index,
    openers: Mutex<HashMap<[u8; 72], Arc<Sealer>>>,
    recent: Recent<(PackId, u64)>,
    suspects: Suspects,
    /// What a later listing shows: while a long restore runs, a prune may move frames and delete
    /// packs.
    later: Mutex<Option<Arc<Index>>>,
}

impl<'r> Fetcher<'r> {
    pub fn new(repo: &'r Repo, index: &'r Index) -> Self {
        let (openers, suspects, later) = Default::default();
        Self { repo, index, openers, recent: Recent::new(RECENT_BYTES), suspects, later }
    }

    pub fn repo(&self) -> &'r Repo {
        self.repo
    }

    /// What looked damaged so far.
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    pub fn index(&self) -> &'r Index {
        self.index
    }

    /// The plain bytes of a chunk, proven by its id under `key`.
    pub fn chunk(&self, id: &ChunkId, key: &IdKey) -> Result<Vec<u8>> {
        let copies = self.copies(id);
        match self.any_of(&copies, id, key) {
            Err(error @ (Error::Role { .. } | Error::Interrupted)) => Err(error),
            Err(error) if self.list_again() => {
                self.any_of(&self.copies(id), id, key).map_err(|_| error)
            }
            found => found,
        }
    }

    fn copies(&self, id: &ChunkId) -> Vec<Copy> {
        let later = self.later.lock().expect("no panic holds this lock").clone();
        later.as_deref().unwrap_or(self.index).copies(id)
    }

    fn any_of(&self, copies: &[Copy], id: &ChunkId, key: &IdKey) -> Result<Vec<u8>> {
        let mut cause = "no index run names a pack that holds it".to_owned();
        for copy in copies {
            match self.chunk_of(copy, id, key) {
                Ok(plain) => return Ok(plain),
                Err(error @ (Error::Role { .. } | Error::Interrupted)) => return Err(error),
                Err(error) => cause = error.to_string(),
            }
        }
        Err(Error::Damaged { what: format!("chunk {id}"), cause })
    }

    /// Lists the store again if there has been a verdict since (a prune moves frames and merges runs
    /// before it deletes), or the cache turned out to be broken. `true`: there is a new listing.
    fn list_again(&self) -> bool {
        let mut later = self.later.lock().expect("no panic holds this lock");
        let last = later.as_deref().unwrap_or(self.index);
        let seen = last.packs().verdicts;
        if !last.is_broken() && self.repo.verdicts().is_ok_and(|now| now == seen) {
            return false;
        }
        match self.repo.index() {
            Ok(index) => {
                *later = Some(Arc::new(index));
                true
            }
            Err(_) => false,
        }
    }

    fn chunk_of(&self, copy: &Copy, id: &ChunkId, key: &IdKey) -> Result<Vec<u8>> {
        let (plain, range) = self.place_of(copy, id, key)?;
        Ok(plain[range].to_vec())
    }

    /// The frame's plain bytes, and where in them the chunk is, proven by its id.
    fn place_of(&self, copy: &Copy, id: &ChunkId, key: &IdKey) -> Result<(Plain, Range<usize>)> {
        let frame = FrameAt::of(copy);
        let plain = self.cached(&frame)?;
        let row = &copy.place.chunk;
        let start = row.offset as usize;
        let range = start..start + row.len as usize;
        if plain.get(range.clone()).is_none_or(|chunk| key.id(chunk) != *id) {
            self.suspects.add(&frame, Some(*row));
            let cause = format!("its bytes are not those of chunk {id}");
            return Err(Error::Damaged { what: frame.named(), cause });
        }
        Ok((plain, range))
    }

    /// A base chunk, from any copy that is no delta: the frame's plain bytes, and where in them it
    /// is, proven by its id.
    pub fn base(&self, id: &ChunkId) -> Result<(Plain, Range<usize>)> {
        let key = self.repo.id_key()?;
        let full = self.copies(id).into_iter().filter(|copy| copy.place.frame.bases == 0);
        full.map(|copy| self.place_of(&copy, id, key)).find_map(|plain| plain.ok()).ok_or_else(
            || {
                let cause = "no copy of it can be read".to_owned();
                Error::Damaged { what: format!("base chunk {id}"), cause }
            },
        )
    }

    fn cached(&self, frame: &FrameAt) -> Result<Plain> {
        let place = (frame.pack.id, frame.row.offset);
        if let Some(plain) = self.recent.get(&place) {
            return Ok(plain);
        }
        let plain = Arc::new(self.frame(frame, &mut Decoder::new())?);
        self.recent.put(place, plain.clone());
        Ok(plain)
    }

    /// Fetches, opens and decodes one frame.
    pub fn frame(&self, frame: &FrameAt, decoder: &mut Decoder) -> Result<Vec<u8>> {
        let FrameAt { pack, row, .. } = frame;
        let start = row.offset / GRID_BYTES * GRID_BYTES;
        let end = (row.offset + u64::from(row.stored)).next_multiple_of(GRID_BYTES);
        let mut buffer = PageBuffer::default();
        let bytes = buffer.room((end.min(pack.len) - start) as usize);
        let arrived = self.repo.store().get_range(&pack_name(&pack.id), start, bytes);
        self.suspect(frame, arrived.map_err(Error::from))?;
        let from = (row.offset - start) as usize;
        let stored = bytes
            .get_mut(from..from + row.stored as usize)
            .ok_or_else(|| Error::Damaged { what: frame.named(), cause: "cut short".to_owned() })?;
        let mut plain = Vec::new();
        let opened = self.open(frame, stored, decoder, &mut plain)?;
        if frame.row.codec == Codec::Stored as u8 {
            return Ok(opened.to_vec());
        }
        Ok(plain)
    }

    /// Opens a frame that was fetched, in place, and decodes it, into `plain` unless it is stored as
    /// it is. The chunks inside are still to be verified by their ids.
    pub fn open<'b>(
        &self,
        frame: &FrameAt,
        stored: &'b mut [u8],
        decoder: &mut Decoder,
        plain: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let name = frame.named();
        let sealer = self.opener(frame)?;
        let base_rows = base_rows_bytes(&frame.bases);
        let aad = frame_aad(
            sealer.context_hash(),
            frame.row.ordinal,
            frame.row.codec,
            frame.row.plain,
            &frame.table_hash,
            &base_rows,
        );
        let nonce = frame_nonce(frame.row.ordinal);
        let encoded = sealer.open_in_place(nonce, &aad, stored, "frame").named(&name);
        let encoded = self.suspect(frame, encoded)?;
        let prefix = self.prefix(&frame.bases)?;
        plain.clear();
        let bases: &[&[u8]] = if frame.bases.is_empty() { &[] } else { &[&prefix] };
        let row = &frame.row;
        let decoded = decoder.decode_in_place(row.codec, encoded, row.plain, bases, plain);
        self.suspect(frame, decoded.named(&name))
    }

    /// Notes a frame whose own bytes are bad.
    fn suspect<T>(&self, frame: &FrameAt, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if is_proof(error) {
                self.suspects.add(frame, None);
            }
        })
    }

    /// The base ranges of a delta, concatenated. Bases are never deltas themselves.
    fn prefix(&self, bases: &[BaseRow]) -> Result<Vec<u8>> {
        let mut prefix = Vec::new();
        for base in bases {
            let (plain, chunk) = self.base(&base.id)?;
            let start = base.start as usize;
            let range = plain[chunk].get(start..start.saturating_add(base.len as usize));
            prefix.extend_from_slice(range.ok_or_else(|| {
                let cause = "it is too short".to_owned();
                Error::Damaged { what: format!("base chunk {}", base.id), cause }
            })?);
        }
        Ok(prefix)
    }

    fn opener(&self, frame: &FrameAt) -> Result<Arc<Sealer>> {
        let known = self.openers.lock().expect("no panic holds this lock");
        if let Some(sealer) = known.get(&frame.context.context) {
            return Ok(sealer.clone());
        }
        drop(known);
        let name = frame.named();
        let context = Context::from_bytes(&frame.context.context).named(&name)?;
        let secret = self.repo.frame_secret(&context, &frame.pack.id, frame.pack.len)?;
        let commit = &frame.context.commit;
        let sealer = Sealer::opening(&secret, &context, Label::Frame, commit, "frame");
        let sealer = Arc::new(self.suspect(frame, sealer.named(&name))?);
        let mut known = self.openers.lock().expect("no panic holds this lock");
        known.insert(frame.context.context, sealer.clone());
        Ok(sealer)
    }
}
