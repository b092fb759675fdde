//! The dedup index: which chunk is where. Sorted runs, memory-mapped from the local cache (or held, without a cache),
//! a fuse filter in front of each, and the claims of this session, so that no two threads store one chunk twice.
//! It does not decide what is stored; it does not know the store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use crate::error::{Error, Named, Result};
use crate::format::id::{ChunkId, IdentityId, ObjectHash, PackId};
use crate::format::index::{Location, Run};
use crate::repo::segment::Segment;

/// Claims are spread so that workers rarely wait for each other.
const CLAIM_SHARDS: usize = 64;

/// Which packs exist and what may be done with them, as one opening of the repository saw it.
#[derive(Debug, Default)]
pub struct Packs {
    /// Every pack in the store's listing, with its stored length in bytes.
    pub listed: HashMap<PackId, u64>,
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
    segments: RwLock<Vec<Arc<Segment>>>,
    claims: [Mutex<HashSet<ChunkId>>; CLAIM_SHARDS],
    cache: Option<PathBuf>,
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
    pub fn new(packs: Packs, trusted: Trusted, cache: Option<PathBuf>) -> Self {
        let claims = std::array::from_fn(|_| Mutex::default());
        Self { packs, trusted, segments: RwLock::default(), claims, cache }
    }

    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Takes in a run from the cache. `false`: it is not there, or the cached file is broken.
    pub fn add_cached(&self, name: &ObjectHash) -> bool {
        let Some(cache) = &self.cache else { return false };
        let path = cache.join(format!("{name}.run"));
        let Ok(segment) = Segment::map(&path) else {
            let _ = std::fs::remove_file(path);
            return false;
        };
        self.push(segment, name);
        true
    }

    /// Deletes cached runs that the store no longer has. A fresh one that another process is just writing may be among
    /// them: it is fetched again.
    pub fn sweep_cache(&self, listed: &[ObjectHash]) {
        let Some(Ok(files)) = self.cache.as_ref().map(std::fs::read_dir) else { return };
        let listed: HashSet<String> = listed.iter().map(|name| format!("{name}.run")).collect();
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".run") && !listed.contains(&*name) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// Takes in the payload of a run that was fetched, opened and verified, or just written.
    pub fn add(&self, name: &ObjectHash, payload: Vec<u8>) -> Result<()> {
        Run::new(&payload).and_then(|run| run.validate()).named(&format!("index/{name}"))?;
        let segment = match &self.cache {
            Some(cache) => {
                let path = cache.join(format!("{name}.run"));
                Segment::cache(&path, &payload).map_err(|source| Error::Cache { path, source })?
            }
            None => Segment::hold(payload),
        };
        self.push(segment, name);
        Ok(())
    }

    /// Adds what this session wrote, whose packs no listing shows yet, and lets go of their claims.
    pub fn add_own(&self, name: &ObjectHash, payload: Vec<u8>) -> Result<()> {
        let ids: Vec<ChunkId> = {
            let run = Run::new(&payload).named(&format!("index/{name}"))?;
            run.ids().iter().map(|id| ChunkId(*id)).collect()
        };
        self.add(name, payload)?;
        let segments = self.segments.read().expect("no panic holds this lock");
        let own = segments.last().expect("just added");
        for pack in 0..own.run().packs().count() as u32 {
            own.set(pack, true, true);
        }
        drop(segments);
        for id in ids {
            self.shard(&id).lock().expect("no panic holds this lock").remove(&id);
        }
        Ok(())
    }

    fn push(&self, mut segment: Segment, name: &ObjectHash) {
        segment.name = Some(*name);
        let run = segment.run();
        for (place, pack) in (0..).zip(run.packs()) {
            let sound = self.packs.listed.get(&pack.id) == Some(&pack.len);
            let relied = sound
                && !self.packs.condemned.contains(&pack.id)
                && (self.trusted.everyone
                    || self.trusted.authors.contains(&pack.author)
                    || (self.trusted.attested && self.packs.attested.contains(&pack.id)));
            segment.set(place, sound, relied);
        }
        self.segments.write().expect("no panic holds this lock").push(Arc::new(segment));
    }

    /// May a new snapshot rely on this chunk being stored? A delta is as good as its bases.
    pub fn knows(&self, id: &ChunkId) -> bool {
        let segments = self.segments.read().expect("no panic holds this lock");
        self.relies(&segments, id, |run, place| {
            let bases = || run.bases(&place.frame).expect("validated with the run");
            let full = |_: &Run, base: &Location| base.frame.bases == 0;
            place.frame.bases == 0 || bases().all(|base| self.relies(&segments, &base.id, full))
        })
    }

    /// Is there a copy that may be relied on, and that `also` is true for?
    fn relies(
        &self,
        segments: &[Arc<Segment>],
        id: &ChunkId,
        also: impl Fn(&Run, &Location) -> bool,
    ) -> bool {
        let relies = |segment: &Segment| {
            let run = segment.run();
            run.find(id).any(|place| {
                segment.relied(place.frame.pack) && !self.is_damaged(&place) && also(&run, &place)
            })
        };
        segments.iter().any(|segment| segment.may_hold(id) && relies(segment))
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
        for segment in self.segments().iter().filter(|segment| segment.may_hold(id)) {
            let run = segment.run();
            for place in run.find(id) {
                if segment.sound(place.frame.pack) {
                    let worse = (self.is_damaged(&place), !segment.relied(place.frame.pack));
                    copies.push((worse, Copy { place, segment: segment.clone() }));
                }
            }
        }
        copies.sort_by_key(|(worse, _)| *worse);
        copies.into_iter().map(|(_, copy)| copy).collect()
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
        self.segments.read().expect("no panic holds this lock").clone()
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
