//! The dedup index: which chunk is where. Index runs, memory-mapped from the local cache (or held, without a
//! cache), a few tables that say which of them has an id (`tiers`), and the claims of this session, so that no two
//! threads store one chunk twice. It does not decide what is stored; it does not know the store.
//!
//! Whatever the tables say, a row of a run has the last word, and the flags of its pack: the answers are those of a
//! plain list of the runs that the store lists, in the order of that listing.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Named, Result};
use crate::format::id::{ChunkId, IdentityId, ObjectHash, PackId};
use crate::format::index::{Location, Run, RunFrame};
use crate::repo::pack_list::PackList;
use crate::repo::segment::Segment;
use crate::repo::tiers::Tiers;

/// Claims are spread so that workers rarely wait for each other.
const CLAIM_SHARDS: usize = 64;

/// Which packs exist and what may be done with them, as one opening of the repository saw it.
#[derive(Debug, Default)]
pub struct Packs {
    /// Every pack in the store's listing, with its stored length in bytes.
    pub listed: PackList,
    /// In an undecided proposal or a verdict: still readable, but nothing new may rely on them.
    pub condemned: HashSet<PackId>,
    /// In a verdict: being deleted.
    pub doomed: HashSet<PackId>,
    /// Verdicts there were when all this was read: while no other has come, nothing was moved or
    /// merged away.
    pub verdicts: usize,
    /// Index runs in a verdict.
    pub doomed_runs: HashSet<ObjectHash>,
    /// Proven by an identity that can read.
    pub attested: HashSet<PackId>,
    /// Frames recorded as damaged, by pack and offset: treated as absent by writers.
    pub damaged: BTreeSet<(PackId, u64)>,
    /// A record of damaged frames could not be read: there may be more of them.
    pub unsure: bool,
}

impl Packs {
    /// Are frames of this pack recorded as damaged?
    pub fn has_damaged(&self, pack: &PackId) -> bool {
        self.damaged.range((*pack, 0)..=(*pack, u64::MAX)).next().is_some()
    }
}

/// Whose packs a writer may rely on (DESIGN.md, 5: dedup trust).
#[derive(Debug, Clone)]
pub struct Trusted {
    pub everyone: bool,
    pub attested: bool,
    pub authors: HashSet<IdentityId>,
}

#[derive(Debug)]
pub struct Index {
    packs: Packs,
    trusted: Trusted,
    runs: Tiers,
    claims: [Mutex<HashSet<ChunkId>>; CLAIM_SHARDS],
}

/// What a claim found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Stored already, or another thread of this session is storing it.
    Known,
    /// Ours to store now.
    New,
}

impl Index {
    /// `cache`: the folder for index runs.
    pub fn new(packs: Packs, trusted: Trusted, cache: Option<PathBuf>) -> Self {
        let claims = std::array::from_fn(|_| Mutex::default());
        Self { packs, trusted, runs: Tiers::open(cache), claims }
    }

    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Proves all that is cached before any of it is taken in; else each byte is proven when it is looked at.
    pub fn prove_cached(&mut self, threads: usize) -> Result<()> {
        self.runs.prove_cached(threads)
    }

    /// Takes in a run from the cache. `false`: it is not there, or the cached file is broken.
    pub fn add_cached(&self, name: &ObjectHash) -> bool {
        let Some(segment) = self.runs.cached(name) else { return false };
        self.judge(&segment);
        self.runs.take_cached(segment)
    }

    /// Everything that the store lists is taken in: deletes what is cached beyond that, and merges.
    pub fn settle(&self) {
        self.runs.settle();
    }

    /// Takes in the payload of a run that was fetched, opened and verified, or just written.
    pub fn add(&self, name: &ObjectHash, payload: Vec<u8>) -> Result<()> {
        let segment = self.kept(name, payload)?;
        self.judge(&segment);
        self.take(segment)
    }

    /// Adds what this session wrote, whose packs no listing shows yet, and lets go of their claims.
    pub fn add_own(&self, name: &ObjectHash, payload: Vec<u8>) -> Result<()> {
        let ids: Vec<ChunkId> = {
            let run = Run::new(&payload).named(&format!("index/{name}"))?;
            run.ids().iter().map(|id| ChunkId(*id)).collect()
        };
        let segment = self.kept(name, payload)?;
        for pack in 0..segment.packs().count() as u32 {
            segment.set(pack, true, true);
        }
        self.take(segment)?;
        for id in ids {
            self.shard(&id).lock().expect("no panic holds this lock").remove(&id);
        }
        Ok(())
    }

    /// Writes a payload to the cache, if there is one.
    fn kept(&self, name: &ObjectHash, payload: Vec<u8>) -> Result<Segment> {
        Run::new(&payload).and_then(|run| run.validate()).named(&format!("index/{name}"))?;
        let Some(folder) = self.runs.folder() else {
            let mut segment = Segment::hold(payload);
            segment.name = Some(*name);
            return Ok(segment);
        };
        let path = folder.join(format!("{name}.run"));
        Segment::cache(&path, name, &payload).map_err(|source| Error::Cache { path, source })
    }

    fn take(&self, segment: Segment) -> Result<()> {
        let path = segment.file().path().map(Path::to_owned).unwrap_or_default();
        if self.runs.take(segment) {
            return Ok(());
        }
        let source = std::io::ErrorKind::InvalidData.into();
        Err(Error::Cache { path, source })
    }

    /// What may be done with each of its packs.
    fn judge(&self, segment: &Segment) {
        for (place, pack) in (0..).zip(segment.packs()) {
            let sound = self.packs.listed.get(&pack.id) == Some(pack.len);
            let relied = sound
                && !self.packs.condemned.contains(&pack.id)
                && (self.trusted.everyone
                    || self.trusted.authors.contains(&pack.author)
                    || (self.trusted.attested && self.packs.attested.contains(&pack.id)));
            segment.set(place, sound, relied);
        }
    }

    /// May a new snapshot rely on this chunk being stored? A delta is as good as its bases.
    pub fn knows(&self, id: &ChunkId) -> bool {
        self.runs.look(|runs| {
            let full = |base: &ChunkId| {
                runs.any(base, &mut |segment, row| {
                    self.relied(segment, row).is_some_and(|(_, frame)| frame.bases == 0)
                })
            };
            runs.near_or_any(id, &mut |segment, row| {
                let (number, frame) = self.relied(segment, row)?;
                let is_whole =
                    frame.bases == 0 || segment.bases(&frame)?.all(|base| full(&base.id));
                is_whole.then_some(number)
            })
        })
    }

    /// The frame of the chunk in this row and its number, if it may be relied on.
    fn relied(&self, segment: &Segment, row: u32) -> Option<(u32, RunFrame)> {
        let (number, frame) = segment.frame_of(row)?;
        // The file may have been cut short after its bytes were proven: then what was read is made up.
        if !segment.relied(frame.pack) || segment.file().is_gone() {
            return None;
        }
        if !self.packs.damaged.is_empty() {
            let place = (segment.pack(frame.pack)?.id, frame.offset);
            return (!self.packs.damaged.contains(&place)).then_some((number, frame));
        }
        Some((number, frame))
    }

    /// Is the frame recorded as damaged?
    fn is_damaged(&self, place: &Location) -> bool {
        self.packs.damaged.contains(&(place.pack.id, place.frame.offset))
    }

    /// Claims a chunk for the caller to store, unless it is stored or claimed.
    pub fn claim(&self, id: &ChunkId) -> Claim {
        let mut shard = self.shard(id).lock().expect("no panic holds this lock");
        // The claim is looked at first and under the lock: a claim moves into a segment, never the other way.
        if shard.contains(id) || self.knows(id) {
            return Claim::Known;
        }
        shard.insert(*id);
        Claim::New
    }

    /// Gives a claim back: the source changed and the chunk never was what it seemed.
    pub fn release(&self, id: &ChunkId) {
        self.shard(id).lock().expect("no panic holds this lock").remove(id);
    }

    /// Is it stored, or being stored by this session?
    pub fn knows_or_claimed(&self, id: &ChunkId) -> bool {
        self.shard(id).lock().expect("no panic holds this lock").contains(id) || self.knows(id)
    }

    /// Every copy of a chunk in a pack that the listing shows: the ones a writer would rely on first, those recorded as
    /// damaged last.
    pub fn copies(&self, id: &ChunkId) -> Vec<Copy> {
        let mut copies = Vec::new();
        for copy in self.copies_anywhere(id) {
            if copy.segment.sound(copy.place.frame.pack) {
                let relied = copy.segment.relied(copy.place.frame.pack);
                copies.push(((self.is_damaged(&copy.place), !relied), copy));
            }
        }
        copies.sort_by_key(|(worse, _)| *worse);
        copies.into_iter().map(|(_, copy)| copy).collect()
    }

    /// What the runs say of a chunk, whatever has become of its packs, in the order of the runs.
    pub fn copies_anywhere(&self, id: &ChunkId) -> Vec<Copy> {
        let rows = self.rows(id);
        if rows.is_empty() {
            return Vec::new();
        }
        self.runs.look(|runs| {
            let copy = |(segment, row): &(u32, u32)| {
                let segment = runs.segment(*segment);
                // Whoever has a copy looks at more of its run.
                let place = segment.is_whole().then(|| segment.location(*row))??;
                Some(Copy { place, segment: segment.clone() })
            };
            rows.iter().filter_map(copy).collect()
        })
    }

    /// Numbers of the segments that have a chunk, and its rows there, ascending.
    pub fn rows(&self, id: &ChunkId) -> Vec<(u32, u32)> {
        self.runs.look(|runs| runs.rows(id))
    }

    /// The copy that something new is best built on: one that a new snapshot may rely on, full
    /// rather than a delta. A delta's bases are still to be asked for.
    pub fn relied_copy(&self, id: &ChunkId) -> Option<Copy> {
        let copies = self.copies(id).into_iter();
        let relied = |copy: &Copy| {
            copy.segment.relied(copy.place.frame.pack) && !self.is_damaged(&copy.place)
        };
        copies.filter(relied).min_by_key(|copy| copy.place.frame.bases != 0)
    }

    /// The runs as they are now.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.runs.look(|runs| runs.segments().to_vec())
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.look(|runs| runs.segments().len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has the cache turned out to be broken, so that another opening would say more?
    pub fn is_broken(&self) -> bool {
        self.runs.look(|runs| runs.broken().is_some())
    }

    /// An error if any run is not whole, or anything was read that is not what was written: asked by whoever deletes,
    /// before and after.
    pub fn stands(&self) -> Result<()> {
        self.runs.look(|runs| {
            if runs.segments().iter().all(|segment| segment.is_whole()) && runs.broken().is_none() {
                return Ok(());
            }
            let path = runs.broken().map(Path::to_owned).unwrap_or_default();
            Err(Error::Cache { path, source: std::io::ErrorKind::InvalidData.into() })
        })
    }

    fn shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        &self.claims[id.0[31] as usize % CLAIM_SHARDS]
    }
}

/// Where one copy of a chunk lies, with the run that says so.
#[derive(Debug, Clone)]
pub struct Copy {
    pub place: Location,
    pub segment: Arc<Segment>,
}

#[cfg(test)]
mod tests;
