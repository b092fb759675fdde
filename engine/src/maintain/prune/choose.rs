//! Which copy of each live chunk is kept, and what that leaves of each pack. A full copy goes
//! before a delta, a copy in a pack that is mostly alive before one in a half-dead pack; a surplus
//! copy is let go only if the kept one is attested or of the same author. Bases of kept deltas are
//! kept as full copies.

use std::cmp::Reverse;

use crate::error::{Error, Result};
use crate::format::id::{ChunkId, PackId};
use crate::format::index::PackRow;
use crate::repo::live::{At, Bits, Live, Places};
use crate::repo::parallel;

use super::Prune;

/// What is in use of one pack.
#[derive(Debug, Clone, Copy)]
pub struct PackUse {
    pub row: PackRow,
    /// Where its rows stand.
    pub segment: usize,
    /// A shard names only some of its frames.
    pub sharded: bool,
    pub usable: bool,
    pub live_bytes: u64,
    pub frame_bytes: u64,
}

impl PackUse {
    pub fn dead_bytes(&self) -> u64 {
        self.frame_bytes - self.live_bytes
    }
}

pub struct Chosen {
    /// Frames that must stay somewhere, by segment.
    frames: Vec<Bits>,
    pub packs: Uses,
}

/// What is in use of every pack that a run names: one sorted column, since at 100 TB this is what
/// bounds the memory of a prune.
pub struct Uses(Vec<PackUse>);

impl Uses {
    pub fn get(&self, id: &PackId) -> Option<&PackUse> {
        self.place(id).map(|place| &self.0[place])
    }

    /// In ascending order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &PackUse> {
        self.0.iter()
    }

    fn place(&self, id: &PackId) -> Option<usize> {
        self.0.binary_search_by(|pack| pack.row.id.cmp(id)).ok()
    }
}

impl Chosen {
    pub fn needs(&self, segment: usize, frame: u32) -> bool {
        self.frames[segment].has(frame)
    }
}

pub fn choose(prune: &Prune, places: &Places, live: &Live) -> Result<Chosen> {
    // Alive in any copy: how much of each pack that would be tells which copy is better kept.
    let any = frame_bits(places);
    each_live_row(prune, places, live, &|segment, row, _| {
        let held = &places.segments[segment];
        let place = held.location(row).ok_or_else(|| held.cut_short())?;
        any[segment].set(place.frame_index);
        Ok(())
    })?;
    let alive = usage(places, &any);
    let kept = frame_bits(places);
    each_live_row(prune, places, live, &|segment, row, id| {
        if places.is_first(segment, row, id) { keep(places, &alive, &kept, id) } else { Ok(()) }
    })?;
    // Two tables of all packs at once would be what bounds the memory of a prune.
    drop((any, alive));
    let packs = usage(places, &kept);
    Ok(Chosen { frames: kept, packs })
}

fn frame_bits(places: &Places) -> Vec<Bits> {
    places.segments.iter().map(|s| Bits::new(s.run().frame_count() as usize)).collect()
}

/// Calls `each` for every marked row, from several threads.
pub fn each_live_row(
    prune: &Prune,
    places: &Places,
    live: &Live,
    each: &(dyn Fn(usize, u32, &ChunkId) -> Result<()> + Sync),
) -> Result<()> {
    const ROWS: u32 = 1 << 16;
    let blocks = places.segments.iter().enumerate().flat_map(|(segment, held)| {
        (0..held.run().len()).step_by(ROWS as usize).map(move |from| (segment, from))
    });
    let blocks: Vec<_> = blocks.collect();
    parallel::each(
        prune.repo.env().threads(),
        &blocks,
        || (),
        |(), (segment, from)| {
            prune.go_on()?;
            let ids = places.segments[*segment].run().ids();
            let to = (from + ROWS).min(ids.len() as u32);
            (*from..to).filter(|row| live.has(*segment, *row)).try_for_each(|row| {
                let id = ChunkId(ids[row as usize]);
                each(*segment, row, &id)
            })
        },
    )
}

/// Marks the frames in which a live chunk is kept. Done twice it does nothing more.
fn keep(places: &Places, alive: &Uses, kept: &[Bits], id: &ChunkId) -> Result<()> {
    let copies = places.copies(id);
    let share = |at: &At| {
        alive.get(&at.pack()).map_or(0, |pack| {
            u128::from(pack.live_bytes) * 1000 / u128::from(pack.frame_bytes.max(1))
        })
    };
    let packs = places.index.packs();
    let best = copies.iter().filter(|at| bases_are_there(places, at)).min_by_key(|at| {
        let condemned = packs.condemned.contains(&at.pack());
        let attested = packs.attested.contains(&at.pack());
        (!at.is_full(), condemned, !attested, Reverse(share(at)), at.pack())
    });
    let best = *best.ok_or_else(|| lost(id))?;
    let attested = packs.attested.contains(&best.pack());
    // A copy that is recorded as damaged is let go by the same rule: anybody may have recorded it.
    for at in copies.iter().chain(&places.damaged_copies(id)) {
        let same = at.pack() == best.pack() && at.place.frame.offset == best.place.frame.offset;
        let droppable = attested || at.place.pack.author == best.place.pack.author;
        if same || !droppable || packs.unsure {
            kept[at.segment].set(at.place.frame_index);
            keep_bases(places, alive, kept, at)?;
        }
    }
    Ok(())
}

fn keep_bases(places: &Places, alive: &Uses, kept: &[Bits], at: &At) -> Result<()> {
    // A base is stored in full, so this goes no deeper.
    base_ids(places, at).iter().try_for_each(|base| keep(places, alive, kept, base))
}

pub fn base_ids(places: &Places, at: &At) -> Vec<ChunkId> {
    let bases = places.segments[at.segment].run().bases(&at.place.frame);
    bases.into_iter().flatten().map(|base| base.id).collect()
}

fn bases_are_there(places: &Places, at: &At) -> bool {
    base_ids(places, at).iter().all(|base| places.copies(base).iter().any(At::is_full))
}

pub fn lost(id: &ChunkId) -> Error {
    let cause = "no sound copy of it is left, or not of what it is a delta to".to_owned();
    Error::Damaged { what: format!("chunk {id}"), cause }
}

/// Sums over the frames of each pack. A pack that several runs name is counted where it stands
/// first; a sharded one, whose frames are spread, is taken for alive as soon as one frame is.
fn usage(places: &Places, frames: &[Bits]) -> Uses {
    let mut packs = Uses(Vec::with_capacity(places.index.packs().listed.len()));
    for (segment, held) in places.segments.iter().enumerate() {
        let sharded = held.run().shard().bits > 0;
        packs.0.extend((0..).zip(held.packs()).map(|(n, row)| {
            let usable = places.is_usable(segment, n);
            PackUse { row, segment, sharded, usable, live_bytes: 0, frame_bytes: 0 }
        }));
    }
    packs.0.sort_unstable_by_key(|pack| (pack.row.id, pack.segment));
    packs.0.dedup_by(|later, first| {
        let same = later.row.id == first.row.id;
        first.sharded |= same && later.sharded;
        same
    });
    for (segment, held) in places.segments.iter().enumerate() {
        let run = held.run();
        let rows: Vec<_> = held.packs().map(|row| packs.place(&row.id)).collect();
        for (index, frame) in (0..).zip(run.frames()) {
            // Its file may be cut short under us: then nothing of this is believed (`Index::stands`).
            let Some(Some(pack)) = rows.get(frame.pack as usize) else { continue };
            let pack = &mut packs.0[*pack];
            let is_live = frames[segment].has(index);
            if pack.segment == segment {
                pack.frame_bytes += u64::from(frame.stored);
                pack.live_bytes += if is_live { u64::from(frame.stored) } else { 0 };
            } else if pack.sharded && is_live {
                pack.live_bytes = pack.frame_bytes.max(1);
                pack.frame_bytes = pack.live_bytes;
            }
        }
    }
    packs
}
