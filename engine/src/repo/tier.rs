//! Which segments may have an id: one table over the chunks of many index runs, so that a look-up asks a few tables
//! instead of every run. Eight bytes a chunk, sorted by id within 256 shards (by the first byte), each at the slot
//! where an even spread of ids would put it, or the next free one (linear probing in sorted order): a look-up reads
//! one or two cache lines. An entry says 32 more bits of the id and the chunk's row; the row itself is looked at by
//! the caller, so no answer comes from here alone.
//!
//! Tables are merged shard by shard, streaming. In a file (`….tier`): slots u64 (`bits of the id ‖ row`, all ones:
//! free); its table says `runs u32 ‖ (name [32] ‖ chunks u32)* ‖ 256 × (slots u32 ‖ spread u32)`. Rows are numbered
//! through all runs in that order. Which of the runs the store still lists is not known here but told by
//! `segments`.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::format::id::{ChunkId, ObjectHash, hash};
use crate::repo::checked::{Checked, FileKind, Writing};
use crate::repo::segment::Segment;

const KIND: &FileKind = b"strongroom tier1";
const SHARDS: usize = 256;
const SLOT: usize = 8;
const FREE: u64 = u64::MAX;
/// Slots proven at a time.
const LINE: usize = 8;
const RUN_ROW: usize = 32 + 4;
/// No segment of this opening.
const GONE: u32 = u32::MAX;

#[derive(Debug)]
pub struct Tier {
    slots: Checked,
    shards: Vec<Shard>,
    runs: Vec<(ObjectHash, u32)>,
    /// The first row of each run, and their number.
    starts: Vec<u32>,
    /// The segment that each run is in this opening.
    segments: Vec<AtomicU32>,
}

#[derive(Debug, Clone, Copy)]
struct Shard {
    /// Its first slot.
    start: usize,
    slots: u32,
    /// Ids are spread over so many of the slots; those behind are for what is crowded out.
    spread: u32,
}

/// A broken block: nothing can be said.
#[derive(Debug)]
pub struct Broken;

impl Tier {
    /// Over one segment, which is number `number` of this opening. `None`: it is broken.
    pub fn of(segment: &Segment, number: u32) -> Option<Self> {
        if !segment.is_whole() {
            return None;
        }
        let name = segment.name.unwrap_or(ObjectHash([0; 32]));
        let mut shards = vec![Vec::new(); SHARDS];
        for (row, id) in (0u64..).zip(segment.run().ids()) {
            shards[id[0] as usize].push(u64::from(bits(id)) << 32 | row);
        }
        let (mut slots, mut places) = (Vec::new(), Vec::new());
        for entries in &shards {
            places.push(lay_out(entries, slots.len() / SLOT, &mut slots));
        }
        let tier = Self::new(Checked::hold(slots), places, vec![(name, segment.len())])?;
        tier.segments[0].store(number, Ordering::Relaxed);
        Some(tier)
    }

    /// Of several, without runs that are gone: in memory, or in a file whose path `path` makes of its name. `None`:
    /// one of them is broken, or there would be too many rows.
    pub fn merge(tiers: &[&Tier], path: Option<&Path>) -> io::Result<Option<Self>> {
        let (mut runs, mut segments, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = 0u64;
        for tier in tiers {
            let mut moved = Vec::with_capacity(tier.runs.len());
            for (run, segment) in tier.runs.iter().zip(&tier.segments) {
                let segment = segment.load(Ordering::Relaxed);
                moved.push((segment != GONE).then_some(rows as u32));
                if segment != GONE {
                    rows += u64::from(run.1);
                    runs.push(*run);
                    segments.push(AtomicU32::new(segment));
                }
            }
            moves.push(moved);
        }
        if rows >= u64::from(GONE) {
            return Ok(None);
        }
        let mut out = match path {
            Some(path) => Out::File(Writing::create(path)?),
            None => Out::Held(Vec::new()),
        };
        let (mut places, mut slots, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for shard in 0..SHARDS {
            entries.clear();
            for (tier, moved) in tiers.iter().zip(&moves) {
                if tier.entries(shard, moved, &mut entries).is_err() {
                    return Ok(None);
                }
            }
            // Made for sorted stretches one after the other.
            entries.sort();
            slots.clear();
            let place = lay_out(&entries, start, &mut slots);
            start += place.slots as usize;
            places.push(place);
            out.write(&slots)?;
        }
        let slots = out.finish(&table(&runs, &places))?;
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let tier = Self::new(slots, places, runs).ok_or_else(broken)?;
        Ok(Some(Self { segments, ..tier }))
    }

    /// Opens a cached file. None of its runs is known to be in this opening yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let slots = Checked::open(path, KIND)?;
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let (runs, shards) = read_table(slots.table()).ok_or_else(broken)?;
        Self::new(slots, shards, runs).ok_or_else(broken)
    }

    fn new(slots: Checked, shards: Vec<Shard>, runs: Vec<(ObjectHash, u32)>) -> Option<Self> {
        let mut starts = vec![0u32];
        for (_, chunks) in &runs {
            starts.push(starts[starts.len() - 1].checked_add(*chunks)?);
        }
        let segments = runs.iter().map(|_| AtomicU32::new(GONE)).collect();
        let end = shards.last().map_or(0, |shard| shard.start + shard.slots as usize);
        (end * SLOT == slots.len()).then_some(Self { slots, shards, runs, starts, segments })
    }

    /// What a file of these tiers is called, below the cache folder.
    pub fn name_of(tiers: &[&Tier]) -> String {
        let live = tiers.iter().flat_map(|tier| tier.runs.iter().zip(&tier.segments));
        let live = live.filter(|(_, segment)| segment.load(Ordering::Relaxed) != GONE);
        let names: Vec<u8> = live.flat_map(|((name, _), _)| name.0).collect();
        format!("{}.tier", ObjectHash(hash(&names)))
    }

    /// Names of its runs, with how many chunks they have.
    pub fn runs(&self) -> &[(ObjectHash, u32)] {
        &self.runs
    }

    /// A run of it is this segment.
    pub fn assign(&self, run: u32, segment: u32) {
        self.segments[run as usize].store(segment, Ordering::Relaxed);
    }

    /// The segments that it is over.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        let segments = self.segments.iter().map(|segment| segment.load(Ordering::Relaxed));
        segments.filter(|segment| *segment != GONE)
    }

    /// Its chunks: of all runs, and of those that are in this opening.
    pub fn chunks(&self) -> (u64, u64) {
        let rows = self.runs.iter().zip(&self.segments);
        let live = rows.filter(|(_, segment)| segment.load(Ordering::Relaxed) != GONE);
        let live = live.map(|((_, chunks), _)| u64::from(*chunks)).sum();
        (self.starts.last().copied().unwrap_or(0).into(), live)
    }

    pub fn is_broken(&self) -> bool {
        self.slots.is_broken()
    }

    /// Were slots read that its file no longer had?
    pub fn is_gone(&self) -> bool {
        self.slots.is_gone()
    }

    /// Where it lies, if in a file.
    pub fn path(&self) -> Option<&Path> {
        self.slots.path()
    }

    /// Asks for the memory that `find` will look at.
    #[inline]
    pub fn ahead(&self, id: &ChunkId) {
        self.slots.ahead(self.first_slot(id) * SLOT);
    }

    /// Where the id would stand if nothing else did.
    #[inline]
    fn first_slot(&self, id: &ChunkId) -> usize {
        let Shard { start, spread, .. } = self.shards[id.0[0] as usize];
        start + ideal(bits(&id.0), spread) as usize
    }

    /// Tells `each` every segment and row that the id may be at, in ascending order of its own numbers.
    pub fn find(
        &self,
        id: &ChunkId,
        each: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Broken> {
        let Shard { start, slots, .. } = self.shards[id.0[0] as usize];
        let wanted = bits(&id.0);
        let (mut at, end) = (self.first_slot(id), start + slots as usize);
        while at < end {
            let to = (at + LINE).min(end);
            let line = self.slots.get(at * SLOT..to * SLOT).ok_or(Broken)?;
            for entry in line.as_chunks::<SLOT>().0.iter().map(|slot| u64::from_le_bytes(*slot)) {
                let found = (entry >> 32) as u32;
                if entry == FREE || found > wanted {
                    return Ok(ControlFlow::Continue(()));
                }
                if found == wanted && self.tell(entry as u32, each)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at = to;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn tell(
        &self,
        row: u32,
        each: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Broken> {
        // Runs without chunks begin where the next one does.
        let run = self.starts.partition_point(|start| *start <= row) - 1;
        let segment = self.segments.get(run).ok_or(Broken)?.load(Ordering::Relaxed);
        let told = segment != GONE && each(segment, row - self.starts[run]).is_break();
        Ok(if told { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The entries of a shard, with rows as they are after a merge that moves each run where `moved` says.
    fn entries(
        &self,
        shard: usize,
        moved: &[Option<u32>],
        entries: &mut Vec<u64>,
    ) -> Result<(), Broken> {
        let Shard { start, slots, .. } = self.shards[shard];
        let bytes = self.slots.get(start * SLOT..(start + slots as usize) * SLOT).ok_or(Broken)?;
        for slot in bytes.as_chunks::<SLOT>().0 {
            let entry = u64::from_le_bytes(*slot);
            if entry == FREE {
                continue;
            }
            let row = entry as u32;
            let run = self.starts.partition_point(|start| *start <= row) - 1;
            if let Some(to) = moved.get(run).ok_or(Broken)? {
                entries.push(entry & !0xffff_ffff | u64::from(row - self.starts[run] + to));
            }
        }
        Ok(())
    }
}

/// Where what is merged goes.
enum Out {
    File(Writing),
    Held(Vec<u8>),
}

impl Out {
    fn write(&mut self, slots: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(slots)?,
            Self::Held(bytes) => bytes.extend_from_slice(slots),
        }
        Ok(())
    }

    fn finish(self, table: &[u8]) -> io::Result<Checked> {
        match self {
            Self::File(file) => file.finish(table, KIND, true),
            Self::Held(bytes) => Ok(Checked::hold(bytes)),
        }
    }
}

/// What an entry says of an id, besides its shard.
fn bits(id: &[u8; 32]) -> u32 {
    u32::from_be_bytes(id[1..5].try_into().expect("four bytes"))
}

fn ideal(bits: u32, spread: u32) -> u32 {
    ((u64::from(bits) * u64::from(spread)) >> 32) as u32
}

/// Appends the slots of a shard whose entries are sorted; three of four are taken.
fn lay_out(entries: &[u64], start: usize, out: &mut Vec<u8>) -> Shard {
    let spread = (entries.len() + entries.len().div_ceil(3)) as u32;
    let begin = out.len();
    let mut next = 0;
    for entry in entries {
        let slot = ideal((entry >> 32) as u32, spread).max(next);
        out.resize(begin + slot as usize * SLOT, 0xff);
        out.extend_from_slice(&entry.to_le_bytes());
        next = slot + 1;
    }
    Shard { start, slots: next, spread }
}

fn table(runs: &[(ObjectHash, u32)], shards: &[Shard]) -> Vec<u8> {
    let mut table = (runs.len() as u32).to_le_bytes().to_vec();
    for (name, chunks) in runs {
        table.extend_from_slice(&name.0);
        table.extend_from_slice(&chunks.to_le_bytes());
    }
    for shard in shards {
        table.extend_from_slice(&shard.slots.to_le_bytes());
        table.extend_from_slice(&shard.spread.to_le_bytes());
    }
    table
}

/// Runs and shards.
#[expect(clippy::type_complexity, reason = "the two parts of a table")]
fn read_table(table: &[u8]) -> Option<(Vec<(ObjectHash, u32)>, Vec<Shard>)> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let (count, rest) = table.split_at_checked(4)?;
    let (runs, shards) = rest.split_at_checked((number(count) as usize).checked_mul(RUN_ROW)?)?;
    let runs = runs
        .as_chunks::<RUN_ROW>()
        .0
        .iter()
        .map(|row| (ObjectHash(row[..32].try_into().expect("32 bytes")), number(&row[32..])));
    let mut start = 0;
    let shards: Vec<Shard> = shards
        .as_chunks::<8>()
        .0
        .iter()
        .map(|row| {
            let shard = Shard { start, slots: number(&row[..4]), spread: number(&row[4..]) };
            start += shard.slots as usize;
            shard
        })
        .collect();
    (shards.len() == SHARDS).then_some((runs.collect(), shards))
}
