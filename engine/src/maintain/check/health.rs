//! Can a chunk be had? Answers from what the checks of runs and packs have found so far, and lays
//! the blame on objects if it cannot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Check;
use super::findings::DamageIndex;
use crate::format::control::DamagedFrame;
use crate::format::id::{ChunkId, PackId};
use crate::repo::lookup::Index;
use crate::repo::packer::pack_name;

/// What is wrong with packs, as far as chunks are concerned.
#[derive(Default)]
pub struct Bad {
    /// Missing, or of another length than a run says.
    pub packs: HashMap<PackId, DamageIndex>,
    /// Copies whose bytes were read and are not theirs.
    pub chunks: HashMap<(PackId, ChunkId), DamageIndex>,
    /// Chunks of packs that no run names.
    pub unnamed: HashMap<ChunkId, PackId>,
    /// Packs that no run names.
    pub unnamed_packs: u64,
    /// Packs that have rotted: with the frames that are to be stored again, if it is not for a bad frame.
    pub rotten: BTreeMap<PackId, Rotten>,
}

#[derive(Clone, Debug)]
pub struct Rotten {
    pub len: u64,
    /// Their header or directory is bad. Else the hash of the whole pack is wrong, which a bad frame may explain.
    pub structure: bool,
    pub frames: Vec<DamagedFrame>,
}

pub struct Health<'a> {
    check: &'a Check<'a>,
    index: &'a Index,
    bad: Bad,
    /// Packs of bad copies.
    bad_frames_in: HashSet<PackId>,
    /// A chunk was asked for that nothing knows of.
    missed: AtomicBool,
}

impl<'a> Health<'a> {
    pub fn new(check: &'a Check<'a>, index: &'a Index, bad: Bad) -> Self {
        let bad_frames_in = bad.chunks.keys().map(|(pack, _)| *pack).collect();
        Self { check, index, bad, bad_frames_in, missed: AtomicBool::new(false) }
    }

    /// Are frames of this pack known to be bad? Then its bytes cannot match its name.
    pub fn explains_rot(&self, pack: &PackId) -> bool {
        self.bad_frames_in.contains(pack)
    }

    pub fn bad(&self) -> &Bad {
        &self.bad
    }

    /// Every pack that is there is named by a run that can be read, and nothing that was asked for is unknown.
    pub fn all_named(&self) -> bool {
        self.bad.unnamed_packs == 0 && !self.missed.load(Ordering::Relaxed)
    }

    /// Is there a sound copy, in another pack than this?
    pub fn has_copy(&self, id: &ChunkId, except: Option<PackId>) -> bool {
        self.index.copies(id).iter().any(|copy| {
            let pack = copy.place.pack.id;
            Some(pack) != except && !self.bad.chunks.contains_key(&(pack, *id))
        })
    }

    /// Has everything that runs say of a pack a sound copy in another? What no run names may be anything.
    pub fn has_copies(&self, pack: &PackId) -> bool {
        let mut named = false;
        self.index.segments().iter().all(|segment| {
            let run = segment.run();
            let Some(of) = run.packs().position(|row| row.id == *pack) else { return true };
            named = true;
            let chunks = (0..run.len()).filter_map(|position| run.location(position));
            let mut here = chunks.filter(|place| place.frame.pack as usize == of);
            here.all(|place| self.has_copy(&place.chunk.id, Some(*pack)))
        }) && named
    }

    /// Empty: a sound copy is there. Else the damages that leave none. `len` is what a reference says, in bytes.
    pub fn missing(&self, id: &ChunkId, len: Option<u32>) -> Vec<DamageIndex> {
        let mut blame = Vec::new();
        for copy in self.index.copies(id) {
            let pack = copy.place.pack.id;
            if len.is_some_and(|len| len != copy.place.chunk.len) {
                let what = format!("chunk {id} has another length than directories say");
                blame.push(self.check.findings.damage(pack_name(&pack).as_str(), &what));
                continue;
            }
            match self.bad.chunks.get(&(pack, *id)) {
                Some(damage) => blame.push(*damage),
                None => return Vec::new(),
            }
        }
        for copy in self.index.copies_anywhere(id) {
            if !copy.segment.sound(copy.place.frame.pack) {
                blame.push(self.gone(&copy.place.pack.id));
            }
        }
        if blame.is_empty() {
            blame.push(self.unknown(id));
        }
        blame.sort_unstable();
        blame.dedup();
        blame
    }

    fn gone(&self, pack: &PackId) -> DamageIndex {
        let by_verdict = || {
            let what = "it is gone, though snapshots need it";
            self.check.findings.damage(pack_name(pack).as_str(), what)
        };
        self.bad.packs.get(pack).copied().unwrap_or_else(by_verdict)
    }

    fn unknown(&self, id: &ChunkId) -> DamageIndex {
        self.missed.store(true, Ordering::Relaxed);
        match self.bad.unnamed.get(id) {
            Some(pack) => {
                let what = "no index run that can be read names it, though snapshots need it";
                self.check.findings.damage(pack_name(pack).as_str(), what)
            }
            None => {
                let what =
                    "no index run that can be read, and no pack, has chunks that snapshots need";
                self.check.findings.damage("index", what)
            }
        }
    }

    /// The object to name for something that is wrong inside a chunk.
    pub fn object_of(&self, id: &ChunkId) -> String {
        let copy = self.index.copies(id).into_iter().next();
        copy.map_or_else(
            || format!("chunk {id}"),
            |copy| pack_name(&copy.place.pack.id).to_string(),
        )
    }

    /// Where the first copy lies: chunks near each other are best fetched one after the other.
    pub fn place_of(&self, id: &ChunkId) -> (PackId, u64) {
        let copy = self.index.copies(id).into_iter().next();
        copy.map_or((PackId([0; 32]), 0), |copy| (copy.place.pack.id, copy.place.frame.offset))
    }
}
