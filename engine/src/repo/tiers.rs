//! The index runs of one opening, and the few tables that say which of them has an id. A new run is a table of its
//! own; tables are merged so that each is more than four times as large as all newer ones together: a look-up asks
//! about log5(chunks / chunks of a run) of them, and a chunk's eight bytes are written anew about as often. Files
//! with few runs are put together in the same way, up to 64 MiB. Both are the client's own: the store's runs stay
//! as they are, and what a merge cannot write is left as it was.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::error::Result;
use crate::format::id::{ChunkId, ObjectHash, hash};
use crate::repo::catalogue::Catalogue;
use crate::repo::checked::Checked;
use crate::repo::segment::Segment;
use crate::repo::tier::{Broken, Tier};

/// A table grows until the next older one is so many times larger than it and all newer ones.
const GROWTH: u64 = 4;
/// Tables below are made again at each opening rather than kept in a file.
const FILE_CHUNKS: u64 = if cfg!(test) { 64 } else { 16 << 10 };
/// So many small files with runs are put together.
const SMALL_FILES: usize = if cfg!(test) { 4 } else { 16 };
const SMALL_FILE_BYTES: usize = 64 << 20;
/// Places behind which each thread expects its next chunk: it may write, or have written, to several packs by turns.
const HINTS: usize = 4;

#[derive(Debug)]
pub struct Tiers {
    folder: Option<PathBuf>,
    /// What was cached when we opened, until it is settled what is taken in.
    cached: Mutex<Catalogue>,
    loaded: Vec<Arc<Tier>>,
    runs: RwLock<Runs>,
    /// Held by whoever adds; the tables change under it only.
    growing: Mutex<()>,
}

/// Of one moment.
#[derive(Debug, Default)]
pub struct Runs {
    segments: Vec<Arc<Segment>>,
    /// The largest first, but for those that are not settled yet.
    tiers: Vec<Arc<Tier>>,
    /// So many of the tables are not to be merged yet: segments may still be assigned to them.
    unsettled: usize,
    small: Vec<Small>,
}

/// A file with few runs.
#[derive(Debug)]
struct Small {
    file: Arc<Checked>,
    segments: Vec<u32>,
}

thread_local! {
    /// Segment and number in pack order of the chunks that may come next, and which of them is replaced next. Only ever
    /// compared with, never believed: what stands here after another index was asked does no harm.
    static NEXT: Cell<([(u32, u32); HINTS], usize)> = const { Cell::new(([(u32::MAX, 0); HINTS], 0)) };
}

impl Tiers {
    pub fn open(folder: Option<PathBuf>) -> Self {
        let (cached, loaded) = folder.as_deref().map(Catalogue::open).unwrap_or_default();
        let runs = Runs { tiers: loaded.clone(), unsettled: loaded.len(), ..Runs::default() };
        let (cached, runs) = (Mutex::new(cached), RwLock::new(runs));
        Self { folder, cached, loaded, runs, growing: Mutex::default() }
    }

    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub fn prove_cached(&mut self, threads: usize) -> Result<()> {
        self.cached.get_mut().expect("no panic holds this lock").prove(threads)
    }

    pub fn cached(&self, name: &ObjectHash) -> Option<Segment> {
        self.catalogue().run(name)
    }

    /// Takes in what `cached` gave. `false`: it is broken.
    pub fn take_cached(&self, segment: Segment) -> bool {
        let _growing = self.grow_alone();
        self.add(Arc::new(segment), false)
    }

    /// Takes in a fresh one. `false`: it is broken.
    pub fn take(&self, segment: Segment) -> bool {
        let _growing = self.grow_alone();
        let added = self.add(Arc::new(segment), true);
        self.merge();
        self.bundle();
        added
    }

    /// Everything that is listed is taken in.
    pub fn settle(&self) {
        let _growing = self.grow_alone();
        let cached = std::mem::take(&mut *self.catalogue());
        {
            let mut runs = self.runs.write().expect("no panic holds this lock");
            runs.find_small();
            runs.unsettled = 0;
            let of = runs.tiers.iter().map(|tier| (tier.chunks(), tier.clone()));
            let (live, gone): (Vec<_>, Vec<_>) = of.partition(|((_, live), _)| *live > 0);
            gone.iter().for_each(|(_, tier)| forget(tier.path()));
            runs.tiers = live.into_iter().map(|(_, tier)| tier).collect();
        }
        cached.sweep();
        drop(cached);
        self.merge();
        self.bundle();
    }

    pub fn look<T>(&self, look: impl FnOnce(&Runs) -> T) -> T {
        look(&self.runs.read().expect("no panic holds this lock"))
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.cached.lock().expect("no panic holds this lock")
    }

    fn grow_alone(&self) -> MutexGuard<'_, ()> {
        self.growing.lock().expect("no panic holds this lock")
    }

    fn add(&self, segment: Arc<Segment>, fresh: bool) -> bool {
        let number = self.look(|runs| runs.segments.len() as u32);
        let name = segment.name.unwrap_or(ObjectHash([0; 32]));
        let covered = self.catalogue().tier_of(&name).filter(|(tier, run)| {
            self.loaded[*tier as usize].runs()[*run as usize].1 == segment.len()
        });
        let tier = match covered {
            Some((tier, run)) => {
                self.loaded[tier as usize].assign(run, number);
                None
            }
            None => match Tier::of(&segment, number) {
                Some(tier) => Some(Arc::new(tier)),
                None => return false,
            },
        };
        let mut runs = self.runs.write().expect("no panic holds this lock");
        let file = segment.file().clone();
        runs.segments.push(segment);
        runs.tiers.extend(tier);
        if fresh && file.path().is_some() && file.len() < SMALL_FILE_BYTES {
            runs.small.push(Small { file, segments: vec![number] });
        }
        true
    }

    /// Merges tables until each is large enough beside the newer ones.
    fn merge(&self) {
        self.heal();
        loop {
            let (from, tiers) = self.look(|runs| {
                let (tiers, fixed) = (&runs.tiers, runs.unsettled);
                let mut sizes = tiers[fixed..].iter().map(|tier| tier.chunks().1).collect();
                let from = fixed + suffix(&mut sizes);
                let from = if tiers.len() - from > 1 { from } else { tiers.len() };
                // One that is mostly of runs that are gone is merged alone.
                let worn = |tier: &Arc<Tier>| tier.chunks().1 * 2 < tier.chunks().0;
                match tiers[fixed..].iter().position(worn) {
                    Some(at) if from == tiers.len() => {
                        (fixed + at, vec![tiers[fixed + at].clone()])
                    }
                    _ => (from, tiers[from..].to_vec()),
                }
            });
            let Some(merged) = self.merged(&tiers) else { return };
            let mut runs = self.runs.write().expect("no panic holds this lock");
            runs.tiers.splice(from..from + tiers.len(), [Arc::new(merged)]);
            drop(runs);
            tiers.iter().for_each(|tier| forget(tier.path()));
        }
    }

    /// `None`: there is nothing to merge, or it cannot be done.
    fn merged(&self, tiers: &[Arc<Tier>]) -> Option<Tier> {
        let tiers: Vec<&Tier> = tiers.iter().map(|tier| &**tier).collect();
        if tiers.is_empty() {
            return None;
        }
        let chunks: u64 = tiers.iter().map(|tier| tier.chunks().1).sum();
        let folder = self.folder.as_ref().filter(|_| chunks >= FILE_CHUNKS);
        let path = folder.map(|folder| folder.join(Tier::name_of(&tiers)));
        Tier::merge(&tiers, path.as_deref()).ok().flatten()
    }

    /// A table that turned out to be broken is made again from its runs.
    fn heal(&self) {
        let broken = |tier: &&Arc<Tier>| tier.is_broken();
        let tiers: Vec<_> =
            self.look(|runs| runs.tiers[runs.unsettled..].iter().filter(broken).cloned().collect());
        for tier in tiers {
            let segments: Vec<_> = self.look(|runs| {
                let of = |number: u32| (number, runs.segments[number as usize].clone());
                tier.segments().map(of).collect()
            });
            let made = segments.iter().filter_map(|(number, segment)| Tier::of(segment, *number));
            let made: Vec<_> = made.map(Arc::new).collect();
            let mut runs = self.runs.write().expect("no panic holds this lock");
            runs.tiers.retain(|other| !Arc::ptr_eq(other, &tier));
            runs.tiers.extend(made);
        }
    }

    /// Puts files with few runs together.
    fn bundle(&self) {
        let Some(folder) = &self.folder else { return };
        // What is broken is fetched again by whoever opens next.
        let mut runs = self.runs.write().expect("no panic holds this lock");
        runs.small.retain(|small| !small.file.is_broken());
        drop(runs);
        let (from, numbers, segments) = self.look(|runs| {
            if runs.small.len() < SMALL_FILES {
                return (0, Vec::new(), Vec::new());
            }
            let from =
                suffix(&mut runs.small.iter().map(|small| small.file.len() as u64).collect());
            let numbers = runs.small[from..].iter().flat_map(|small| small.segments.clone());
            let numbers: Vec<u32> = numbers.collect();
            let segments = numbers.iter().map(|n| runs.segments[*n as usize].clone()).collect();
            (from, numbers, segments)
        });
        if segments.len() < 2 {
            return;
        }
        let names: Vec<u8> =
            segments.iter().flat_map(|s: &Arc<Segment>| s.name).flat_map(|n| n.0).collect();
        let path = folder.join(format!("{}.runs", ObjectHash(hash(&names))));
        let Ok(moved) = Segment::bundle(&path, &segments) else { return };
        let mut runs = self.runs.write().expect("no panic holds this lock");
        let old = runs.small.split_off(from);
        let file = moved[0].file().clone();
        for (number, segment) in numbers.iter().zip(moved) {
            runs.segments[*number as usize] = Arc::new(segment);
        }
        if file.len() < SMALL_FILE_BYTES {
            runs.small.push(Small { file, segments: numbers });
        }
        drop(runs);
        old.iter().for_each(|small| forget(small.file.path().filter(|old| **old != path)));
    }
}

impl Runs {
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub fn segment(&self, number: u32) -> &Arc<Segment> {
        &self.segments[number as usize]
    }

    /// A file whose bytes turned out not to be what was written, or that lost some after they were proven.
    pub fn broken(&self) -> Option<&Path> {
        let files = self.segments.iter().map(|segment| segment.file());
        let tiers = self.tiers.iter().filter(|tier| tier.is_gone());
        let file = files.into_iter().find(|file| file.is_broken());
        file.and_then(|file| file.path()).or(tiers.into_iter().find_map(|tier| tier.path()))
    }

    /// Segments and rows that have the id, ascending.
    pub fn rows(&self, id: &ChunkId) -> Vec<(u32, u32)> {
        let mut rows = Vec::new();
        let _ = self.each(id, &mut |segment, row| {
            rows.push((segment, row));
            ControlFlow::Continue(())
        });
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Is there a row of the id that `is_good`?
    pub fn any(&self, id: &ChunkId, is_good: &mut dyn FnMut(&Segment, u32) -> bool) -> bool {
        let good = |segment, row| match is_good(self.segment(segment), row) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        self.each(id, &mut { good }).is_break()
    }

    /// As `any`, but first where this thread's last ones were found: what was stored together is mostly asked for
    /// together. `is_good` gives the number of the row's frame.
    pub fn near_or_any(
        &self,
        id: &ChunkId,
        is_good: &mut dyn FnMut(&Segment, u32) -> Option<u32>,
    ) -> bool {
        let (mut next, turn) = NEXT.get();
        for hint in &mut next {
            let near = self.segments.get(hint.0 as usize);
            let Some((segment, (number, row))) = near.and_then(|s| Some((s, s.near(hint.1, id)?)))
            else {
                continue;
            };
            if is_good(segment, row).is_some() {
                hint.1 = number + 1;
                NEXT.set((next, turn));
                return true;
            }
        }
        let mut found = None;
        let is_found = self.each(id, &mut |number, row| {
            let segment = self.segment(number);
            let Some(frame) = is_good(segment, row) else { return ControlFlow::Continue(()) };
            found = segment.order(row, frame).map(|order| (number, order + 1));
            ControlFlow::Break(())
        });
        if let Some(hint) = found {
            next[turn] = hint;
            NEXT.set((next, (turn + 1) % HINTS));
        }
        is_found.is_break()
    }

    fn each(
        &self,
        id: &ChunkId,
        each: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // The large ones are in no cache: they are waited for together.
        self.tiers.iter().for_each(|tier| tier.ahead(id));
        for tier in &self.tiers {
            let found =
                tier.find(id, &mut |segment, row| match self.segment(segment).has(row, id) {
                    true => each(segment, row),
                    false => ControlFlow::Continue(()),
                });
            match found {
                Ok(found) => found?,
                // What it says cannot be believed: its runs are asked themselves.
                Err(Broken) => {
                    for segment in tier.segments() {
                        for row in self.segment(segment).run().positions(id) {
                            each(segment, row)?;
                        }
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Files with few runs, or with few that are still listed.
    fn find_small(&mut self) {
        let mut files: HashMap<*const Checked, (usize, Small)> = HashMap::new();
        for (number, segment) in (0..).zip(&self.segments) {
            let file = segment.file();
            let empty = || (0, Small { file: file.clone(), segments: Vec::new() });
            let (bytes, small) = files.entry(Arc::as_ptr(file)).or_insert_with(empty);
            *bytes += segment.stored_len();
            small.segments.push(number);
        }
        let is_small = |(bytes, small): &(usize, Small)| {
            let len = small.file.len();
            small.file.path().is_some() && (len < SMALL_FILE_BYTES || bytes * 2 < len)
        };
        self.small = files.into_values().filter(is_small).map(|(_, small)| small).collect();
        self.small.sort_by_key(|small| std::cmp::Reverse((small.file.len(), small.segments[0])));
    }
}

/// Where the newest begin that should be merged, given the sizes from the oldest to the newest: at least the last.
fn suffix(sizes: &mut Vec<u64>) -> usize {
    let mut sum = sizes.pop().unwrap_or(0);
    while let Some(size) = sizes.pop_if(|size| *size <= sum.saturating_mul(GROWTH)) {
        sum += size;
    }
    sizes.len()
}

fn forget(path: Option<&Path>) {
    path.map(std::fs::remove_file);
}
