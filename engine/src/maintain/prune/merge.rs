//! Index runs put together: many small ones into one, and those that mostly describe packs that are
//! gone. Everything that is said about a pack that is still there is kept, also if the pack is to
//! be deleted: until the verdict it may be rescued.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::format::id::{ObjectHash, PackId, SessionId};
use crate::format::index::{Run, RunBuilder};
use crate::format::pack::{ChunkRow, FrameRow};
use crate::repo::live::Places;
use crate::repo::packer::pack_name;

use super::Prune;
use super::propose::session_of;

/// Runs below this many chunks are small; so many of them are put together.
const SMALL_CHUNKS: u32 = 1 << 19;
const SMALL_RUNS: usize = 8;
/// A merged run ends here: while it is written and read back it is in memory several times.
const MERGED_CHUNKS_MAX: u64 = 1 << 20;

/// Segments whose runs should be replaced, in ascending order.
pub fn select(prune: &Prune, places: &Places, open: &BTreeSet<SessionId>) -> Result<Vec<usize>> {
    let mut small = Vec::new();
    let mut wasteful = Vec::new();
    for (segment, held) in places.segments.iter().enumerate() {
        let run = held.run();
        let in_use = run.contexts().any(|row| open.contains(&session_of(&row.context)));
        if held.name.is_none() || run.shard().bits > 0 || in_use {
            continue;
        }
        let gone = gone_packs(prune, places, segment)?;
        let packs = run.packs().count();
        if gone.len() * 4 >= packs {
            wasteful.push(segment);
        } else if run.len() < SMALL_CHUNKS {
            small.push(segment);
        }
    }
    if small.len() + wasteful.len() >= SMALL_RUNS {
        wasteful.extend(small);
        wasteful.sort_unstable();
    }
    Ok(wasteful)
}

/// Packs of a run that are neither in the listing nor in the store. A pack newer than our listing
/// is no such pack.
fn gone_packs(prune: &Prune, places: &Places, segment: usize) -> Result<HashSet<PackId>> {
    let mut gone = HashSet::new();
    for pack in places.segments[segment].run().packs() {
        let listed = places.index.packs().listed.contains(&pack.id);
        if !listed && !prune.repo.exists(pack_name(&pack.id).as_str())? {
            gone.insert(pack.id);
        }
    }
    Ok(gone)
}

/// Writes merged runs, durable and read back; the names of those that they replace.
pub fn merge(prune: &Prune, places: &Places, segments: &[usize]) -> Result<Vec<ObjectHash>> {
    let mut replaced = Vec::new();
    let mut builder = RunBuilder::new();
    let mut pushed = HashSet::new();
    for &segment in segments {
        prune.go_on()?;
        let held = &places.segments[segment];
        let run = held.run();
        if builder.len() as u64 + u64::from(run.len()) > MERGED_CHUNKS_MAX {
            write(prune, places, std::mem::take(&mut builder))?;
        }
        let gone = gone_packs(prune, places, segment)?;
        push_run(&mut builder, &run, &gone, &mut pushed)?;
        replaced.extend(held.name);
    }
    write(prune, places, builder)?;
    replaced.sort_unstable();
    Ok(replaced)
}

fn write(prune: &Prune, places: &Places, builder: RunBuilder) -> Result<()> {
    if builder.is_empty() {
        return Ok(());
    }
    places.index.stands()?;
    let epoch = prune.repo.roster().epoch().number;
    let (name, _) = prune.repo.put_sealed_run(&builder.finish(), epoch)?;
    prune.repo.read_back_run(&name)
}

/// A pack that another of the merged runs has described already is not described again.
fn push_run(
    builder: &mut RunBuilder,
    run: &Run,
    gone: &HashSet<PackId>,
    pushed: &mut HashSet<PackId>,
) -> Result<()> {
    let mut packs: HashMap<u32, u32> = HashMap::new();
    for (index, pack) in (0..).zip(run.packs()) {
        if !gone.contains(&pack.id) && pushed.insert(pack.id) {
            packs.insert(index, builder.push_pack(pack));
        }
    }
    // Rows lie by id; a frame's are wanted together, in the order in which they lie in the frame.
    let mut rows: Vec<(u32, ChunkRow)> = (0..run.len())
        .filter_map(|row| run.location(row))
        .map(|place| (place.frame_index, place.chunk))
        .collect();
    rows.sort_unstable_by_key(|(frame, chunk)| (*frame, chunk.offset, chunk.id));
    for of_frame in rows.chunk_by(|(a, _), (b, _)| a == b) {
        let frame = run.frame(of_frame[0].0).expect("validated");
        let Some(pack) = packs.get(&frame.pack) else { continue };
        let broken = || Error::Damaged {
            what: "index run".to_owned(),
            cause: "a frame's rows are not all there".to_owned(),
        };
        let context = run.context(frame.context).ok_or_else(broken)?;
        let table = run.table(&frame).ok_or_else(broken)?;
        let bases: Vec<_> = run.bases(&frame).ok_or_else(broken)?.collect();
        let chunks: Vec<ChunkRow> = of_frame.iter().map(|(_, chunk)| *chunk).collect();
        let context = builder.push_context(context);
        let row = FrameRow {
            offset: frame.offset,
            ordinal: frame.ordinal,
            stored: frame.stored,
            plain: frame.plain,
            chunks: chunks.len() as u32,
            bases: frame.bases,
            context,
            codec: frame.codec,
        };
        builder.push_part(*pack, context, &row, table, &chunks, &bases);
    }
    Ok(())
}

/// Of the doomed runs, those that can go: whatever they say about a pack that stays, another run
/// says too.
pub fn replaceable(
    places: &Places,
    doomed: &[ObjectHash],
    packs_doomed: &HashSet<PackId>,
) -> Vec<ObjectHash> {
    if doomed.is_empty() {
        return Vec::new();
    }
    let doomed: HashSet<ObjectHash> = doomed.iter().copied().collect();
    let is_doomed =
        |segment: usize| places.segments[segment].name.is_some_and(|name| doomed.contains(&name));
    let (going, staying): (Vec<usize>, Vec<usize>) =
        (0..places.segments.len()).partition(|segment| is_doomed(*segment));
    // Chunks that the best of the staying runs names in each pack that a doomed one names: of all packs there may be
    // too many.
    let named = going.iter().flat_map(|segment| places.segments[*segment].packs());
    let mut said: HashMap<PackId, Option<u64>> = named.map(|pack| (pack.id, None)).collect();
    for segment in staying {
        if places.segments[segment].packs().any(|pack| said.contains_key(&pack.id)) {
            for (pack, chunks) in chunks_by_pack(places, segment) {
                said.entry(pack).and_modify(|best| *best = Some(chunks).max(*best));
            }
        }
    }
    let listed = &places.index.packs().listed;
    let replaced = |segment: usize| {
        chunks_by_pack(places, segment).into_iter().all(|(pack, chunks)| {
            packs_doomed.contains(&pack)
                || !listed.contains(&pack)
                || said.get(&pack).is_some_and(|said| *said >= Some(chunks))
        })
    };
    // One that is not there any more needs no check: it is gone.
    let kept: HashSet<ObjectHash> = (0..places.segments.len())
        .filter(|segment| is_doomed(*segment) && !replaced(*segment))
        .filter_map(|segment| places.segments[segment].name)
        .collect();
    let mut free: Vec<_> = doomed.difference(&kept).copied().collect();
    free.sort_unstable();
    free
}

fn chunks_by_pack(places: &Places, segment: usize) -> HashMap<PackId, u64> {
    let run = places.segments[segment].run();
    let ids: Vec<PackId> = run.packs().map(|pack| pack.id).collect();
    let mut counts: HashMap<PackId, u64> = ids.iter().map(|id| (*id, 0)).collect();
    for row in 0..run.len() {
        if let Some(place) = run.location(row) {
            *counts.entry(place.pack.id).or_default() += 1;
        }
    }
    counts
}
