//! Can a chunk be had? Answers from what the checks of runs and packs have found so far, and lays
//! the blame on objects if it cannot.

use std::collections::HashMap;

use super::Check;
use super::findings::DamageIndex;
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
}

pub struct Health<'a> {
    check: &'a Check<'a>,
    index: &'a Index,
    bad: Bad,
}

impl<'a> Health<'a> {
    pub fn new(check: &'a Check<'a>, index: &'a Index, bad: Bad) -> Self {
        Self { check, index, bad }
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
        for segment in self.index.segments() {
            let gone = segment.run().find(id).filter(|place| !segment.sound(place.frame.pack));
            blame.extend(gone.map(|place| self.gone(&place.pack.id)));
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
