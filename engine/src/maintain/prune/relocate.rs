//! Needed frames of half-dead packs, moved byte for byte into new packs of the same author and
//! class. Each source pack is held to its hash first, each new pack is read back and held to its
//! own. No frame is opened, but for those of a pack that has rotted.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::format::codec::Decoder;
use crate::format::id::{IdentityId, PackId, SessionId, hash};
use crate::format::pack::{Directory, FrameRow, PACK_LEN_MAX};
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::live::Places;
use crate::repo::lookup::Copy;
use crate::repo::mover::Mover;
use crate::repo::pack_file::PackFrame;
use crate::repo::packer::pack_name;
use crate::repo::records::is_not_found;
use crate::watch::{Counter, Problem, ProblemKind};

use super::Prune;
use super::choose::{Chosen, PackUse};
use super::propose::Closed;
use super::state::State;

/// More packs of one author and class below a quarter of the pack size than this are put together.
const SMALL_PACKS_MAX: usize = 32;

/// The packs whose frames should move: those with the largest dead share, until what is left is
/// within the bound, and small ones if there are many.
pub fn select(
    prune: &Prune,
    state: &State,
    chosen: &Chosen,
    open: &BTreeSet<SessionId>,
) -> Result<Vec<PackUse>> {
    let kept: Vec<&PackUse> = chosen.packs.iter().filter(|pack| pack.live_bytes > 0).collect();
    let total: u64 = kept.iter().map(|pack| pack.row.len).sum();
    let bound = (total as f64 * prune.options.max_unused.max(0.0)) as u64;
    let mut unused: u64 = kept.iter().map(|pack| pack.dead_bytes()).sum();
    let movable = |pack: &&&PackUse| {
        let condemned = state.index.packs().condemned.contains(&pack.row.id);
        pack.usable && !pack.sharded && !condemned
    };
    let mut by_share: Vec<&PackUse> = kept.iter().filter(movable).copied().collect();
    let share = |pack: &PackUse| (u128::from(pack.dead_bytes()) << 64) / u128::from(pack.row.len);
    by_share.sort_by_key(|pack| (std::cmp::Reverse(share(pack)), pack.row.id));
    let small = prune.repo.file().pack_size / 4;
    let mut groups: BTreeMap<(IdentityId, u8), usize> = BTreeMap::new();
    for pack in by_share.iter().filter(|pack| pack.row.len < small) {
        *groups.entry(group(pack)).or_default() += 1;
    }
    let mut closed = Closed::new(prune, open);
    let mut selected = Vec::new();
    for pack in by_share {
        let crowded = pack.row.len < small && groups[&group(pack)] > SMALL_PACKS_MAX;
        let wasteful = unused > bound && pack.dead_bytes() > 0;
        if (crowded || wasteful) && closed.holds(&pack.row.id, pack.row.len)? {
            unused -= pack.dead_bytes();
            selected.push(*pack);
        }
    }
    Ok(selected)
}

fn group(pack: &PackUse) -> (IdentityId, u8) {
    (pack.row.author, pack.row.class as u8)
}

/// Moves the needed frames of `sources`; the packs that nothing needs any more. One that does not
/// match its hash is reported, and stays unless each needed frame of it opens.
pub fn relocate(
    prune: &Prune,
    places: &Places,
    chosen: &Chosen,
    sources: &[PackUse],
    mover: &mut Mover,
) -> Result<Vec<PackId>> {
    let needed = needed_offsets(places, chosen, sources);
    prune.watch.add(Counter::PacksFound, sources.len() as u64);
    let fetcher = Fetcher::new(prune.repo, places.index);
    let mut moved = Vec::new();
    for source in sources {
        prune.go_on()?;
        let name = pack_name(&source.row.id);
        prune.watch.current(name.as_str().as_bytes());
        let Some(bytes) = still_there(prune.repo.get(name.as_str(), PACK_LEN_MAX))? else {
            continue;
        };
        if hash(&bytes) != source.row.id.0 {
            let cause = "its bytes do not match its hash".to_owned();
            let (kind, name) = (ProblemKind::Damage, name.as_str().as_bytes().to_vec());
            prune.watch.problem(Problem { kind, name, cause });
            if !all_open(&fetcher, places, chosen, source, &bytes) {
                continue;
            }
        }
        let directory = prune.repo.pack_directory(&source.row.id, source.row.len);
        let Some(directory) = still_there(directory)? else { continue };
        take(mover, source, &bytes, &directory, &needed[&source.row.id])?;
        moved.push(source.row.id);
        prune.watch.add(Counter::PacksDone, 1);
    }
    mover.finish()?;
    fetcher.record_damage(Vec::new(), "prune")?;
    Ok(moved)
}

/// `None`: another prune has deleted it since it was listed, and has seen to what was needed of it.
fn still_there<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if is_not_found(&error) => Ok(None),
        read => read.map(Some),
    }
}

/// In a pack that is not what its name says: does every needed frame open? That takes its keys.
/// What is bad becomes a suspect.
fn all_open(
    fetcher: &Fetcher,
    places: &Places,
    chosen: &Chosen,
    source: &PackUse,
    bytes: &[u8],
) -> bool {
    let segment = &places.segments[source.segment];
    let (mut decoder, mut plain) = (Decoder::new(), Vec::new());
    let mut tried = BTreeSet::new();
    let mut all = true;
    for place in (0..segment.run().len()).filter_map(|row| segment.run().location(row)) {
        let needed = place.pack.id == source.row.id
            && chosen.needs(source.segment, place.frame_index)
            && tried.insert(place.frame_index);
        if needed {
            let frame = FrameAt::of(&Copy { place, segment: segment.clone() });
            let start = frame.row.offset as usize;
            let stored = bytes.get(start..start + frame.row.stored as usize);
            let opened = stored.map(<[u8]>::to_vec).is_some_and(|mut stored| {
                fetcher.open(&frame, &mut stored, &mut decoder, &mut plain).is_ok()
            });
            all &= opened;
        }
    }
    all
}

/// Where the needed frames of each source pack begin.
fn needed_offsets(
    places: &Places,
    chosen: &Chosen,
    sources: &[PackUse],
) -> BTreeMap<PackId, BTreeSet<u64>> {
    let mut needed: BTreeMap<PackId, BTreeSet<u64>> =
        sources.iter().map(|source| (source.row.id, BTreeSet::new())).collect();
    for (segment, held) in places.segments.iter().enumerate() {
        let run = held.run();
        let ids: Vec<PackId> = run.packs().map(|pack| pack.id).collect();
        for (index, frame) in (0..).zip(run.frames()) {
            if chosen.needs(segment, index)
                && let Some(id) = ids.get(frame.pack as usize)
                && let Some(offsets) = needed.get_mut(id)
            {
                offsets.insert(frame.offset);
            }
        }
    }
    needed
}

/// Moves the needed frames of one pack.
fn take(
    mover: &mut Mover,
    source: &PackUse,
    bytes: &[u8],
    directory: &Directory,
    needed: &BTreeSet<u64>,
) -> Result<()> {
    let mut found = 0;
    for (row, chunks, bases) in directory.frames_with_tables() {
        if !needed.contains(&row.offset) {
            continue;
        }
        found += 1;
        let context = &directory.contexts[row.context as usize];
        let seal = directory.seal_of(context).ok_or_else(|| wrong(source, "lacks a seal"))?;
        let frame = PackFrame {
            context,
            seal,
            codec: row.codec,
            ordinal: row.ordinal,
            plain: row.plain,
            stored: stored(bytes, row),
            chunks,
            bases,
        };
        mover.push(&source.row, &frame)?;
    }
    if found == needed.len() {
        return Ok(());
    }
    Err(wrong(source, "does not have all the frames that the index says"))
}

fn stored<'b>(bytes: &'b [u8], row: &FrameRow) -> &'b [u8] {
    // The directory was held to its trailer and the pack to its hash; frames end before the
    // directory.
    &bytes[row.offset as usize..row.end() as usize]
}

fn wrong(source: &PackUse, what: &str) -> Error {
    let cause = format!("its directory {what}");
    Error::Damaged { what: pack_name(&source.row.id).to_string(), cause }
}
