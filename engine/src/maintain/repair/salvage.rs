//! Frames that are needed, that no sound copy gives, and that open and verify all the same: of packs
//! that are cut short, or that were recorded because of rot beside them. They are copied as they
//! are into new packs of the same author; a run then says where.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::codec::Decoder;
use crate::format::id::{ChunkId, IdentityId, PackId, SessionId, hash};
use crate::format::index::RunBuilder;
use crate::format::pack::{ChunkRow, PACK_LEN_MAX, PackClass, chunk_rows_hash};
use crate::format::record::Kind;
use crate::format::seal::Context;
use crate::format::session::{Session, Tombstone};
use crate::repo::SnapshotInfo;
use crate::repo::despite::Despite;
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::{Copy, Index};
use crate::repo::pack_file::{FinishedPack, OpenPack, PackFrame};
use crate::repo::packer::pack_name;
use crate::repo::segment::Segment;
use crate::watch::Counter;

use super::losses::{missing, names, pass_over};
use super::{Repair, RepairReport};

/// A frame to be copied.
struct Found {
    at: FrameAt,
    /// All of its chunks, in the order of their places.
    chunks: Vec<ChunkRow>,
}

/// Copies what can be; the chunks that this gives (in a dry run: would give).
pub fn salvage(
    repair: &Repair,
    roots: &[SnapshotInfo],
    report: &mut RepairReport,
) -> Result<HashSet<ChunkId>> {
    let repo = repair.repo;
    let (index, _) = repo.index_despite(Despite::Runs)?;
    let fetcher = Fetcher::new(repo, &index);
    let mut finder = Finder::new(repair, &fetcher);
    let mut found: Vec<Found> = Vec::new();
    let mut salvaged = HashSet::new();
    let mut take = |id: &ChunkId| {
        let Some(frame) = finder.find(id)? else { return Ok(None) };
        let row = frame.chunks.iter().find(|chunk| chunk.id == *id).expect("found for it");
        let bytes = finder.plain[row.offset as usize..][..row.len as usize].to_vec();
        if salvaged.insert(*id) {
            salvaged.extend(frame.chunks.iter().map(|chunk| chunk.id));
            found.push(frame);
        }
        Ok(Some(bytes))
    };
    for id in missing(repair, &fetcher, roots, &mut take)? {
        repair.go_on()?;
        take(&id)?;
    }
    report.frames_moved = found.len() as u64;
    report.bytes_moved = found.iter().map(|frame| u64::from(frame.at.row.stored)).sum();
    if !found.is_empty() && !repair.options.dry_run {
        copy(repair, &found)?;
    }
    Ok(salvaged)
}

struct Finder<'a> {
    repair: &'a Repair<'a>,
    fetcher: &'a Fetcher<'a>,
    decoder: Decoder,
    plain: Vec<u8>,
}

impl<'a> Finder<'a> {
    fn new(repair: &'a Repair<'a>, fetcher: &'a Fetcher<'a>) -> Self {
        Self { repair, fetcher, decoder: Decoder::new(), plain: Vec::new() }
    }

    /// A frame that gives this chunk and verifies in all its chunks.
    fn find(&mut self, id: &ChunkId) -> Result<Option<Found>> {
        for copy in copies_anywhere(self.fetcher.index(), id) {
            match self.proven(&copy) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) | Err(Error::Role { .. } | Error::Store(_)) => {}
                Err(error) => pass_over(error)?,
            }
        }
        Ok(None)
    }

    fn proven(&mut self, copy: &Copy) -> Result<Option<Found>> {
        let mut at = FrameAt::of(copy);
        if let Some(len) = self.fetcher.index().packs().listed.get(&at.pack.id) {
            at.pack.len = *len;
        }
        let chunks = rows_of(&copy.segment, copy.place.frame_index);
        // A shard knows only some of them.
        if chunk_rows_hash(&chunks) != at.table_hash {
            return Ok(None);
        }
        self.plain = self.fetcher.frame(&at, &mut self.decoder)?;
        let verifies = |chunk: &ChunkRow| {
            let start = chunk.offset as usize;
            let bytes = self.plain.get(start..start.saturating_add(chunk.len as usize));
            bytes.is_some_and(|bytes| names(self.repair.repo, &chunk.id, bytes))
        };
        Ok(chunks.iter().all(verifies).then_some(Found { at, chunks }))
    }
}

/// Copies in all packs that are there, whatever their length, and whatever is recorded of them.
fn copies_anywhere(index: &Index, id: &ChunkId) -> Vec<Copy> {
    let mut copies = Vec::new();
    for segment in index.segments() {
        let places = segment.run().find(id).filter(|place| {
            let end = place.frame.offset + u64::from(place.frame.stored);
            index.packs().listed.get(&place.pack.id).is_some_and(|len| end <= *len)
        });
        copies.extend(places.map(|place| Copy { place, segment: segment.clone() }));
    }
    copies
}

fn rows_of(segment: &Arc<Segment>, frame: u32) -> Vec<ChunkRow> {
    let run = segment.run();
    let places = (0..run.len()).filter_map(|position| run.location(position));
    let mut rows: Vec<_> =
        places.filter(|place| place.frame_index == frame).map(|place| place.chunk).collect();
    rows.sort_unstable_by_key(|row| row.offset);
    rows
}

/// The session keeps pruners off the new packs until the run is there; then it is closed.
fn copy(repair: &Repair, found: &[Found]) -> Result<()> {
    let repo = repair.repo;
    let session = SessionId(repo.env().random());
    let epoch = repo.roster().epoch().number;
    let intent = Session { session, epoch, time_ns: repo.env().now(), adopts: Vec::new() };
    repo.put_stated(Kind::Session, &format!("sessions/{session}"), &intent.to_cbor())?;
    let mut packs: BTreeMap<(IdentityId, u8), OpenPack> = BTreeMap::new();
    let mut finished: HashMap<PackId, FinishedPack> = HashMap::new();
    for Found { at, chunks } in found {
        repair.go_on()?;
        let group = (at.pack.author, at.pack.class as u8);
        let mut stored = vec![0; at.row.stored as usize];
        repo.store().get_range(&pack_name(&at.pack.id), at.row.offset, &mut stored)?;
        let name = format!("packs/{}", at.pack.id);
        let context = Context::from_bytes(&at.context.context)
            .map_err(|source| Error::Format { name: name.clone(), source })?;
        let frame = PackFrame {
            context: &at.context,
            seal: &repo.seal_row(&context)?,
            codec: at.row.codec,
            ordinal: at.row.ordinal,
            plain: at.row.plain,
            stored: &stored,
            chunks,
            bases: &at.bases,
        };
        if packs.get(&group).is_some_and(|pack| pack.len_with(&frame) > repo.file().pack_size)
            && let Some(pack) = packs.remove(&group)
        {
            let pack = pack.close(repo, group.0, true)?;
            finished.insert(pack.row.id, pack);
        }
        let pack = match packs.remove(&group) {
            Some(pack) => pack,
            None => {
                let class = PackClass::from_u8(group.1).expect("the class of a pack");
                OpenPack::begin(repo, session, epoch, class)?
            }
        };
        packs.entry(group).or_insert(pack).push(&frame)?;
    }
    for ((author, _), pack) in packs {
        let pack = pack.close(repo, author, false)?;
        finished.insert(pack.row.id, pack);
    }
    publish(repair, finished, epoch)?;
    let reason = "a repair that moved frames, done".to_owned();
    let tombstone = Tombstone { session, time_ns: repo.env().now(), reason };
    let name = format!("snapshots/{session}");
    repo.try_put_stated(Kind::Tombstone, &name, &tombstone.to_cbor()).map(drop)
}

/// Durable and read back, then named by a run.
fn publish(repair: &Repair, packs: HashMap<PackId, FinishedPack>, epoch: u32) -> Result<()> {
    let repo = repair.repo;
    repo.store().make_durable(&mut packs.values().map(|pack| &pack.name))?;
    let mut builder = RunBuilder::new();
    for (id, pack) in packs {
        repair.watch.add(Counter::BytesStored, pack.row.len);
        if hash(&repo.get(pack.name.as_str(), PACK_LEN_MAX)?) != id.0 {
            let cause = "it does not read back as it was written".to_owned();
            return Err(Error::Damaged { what: pack.name.to_string(), cause });
        }
        builder.push_directory(pack.row, &pack.directory);
    }
    let (name, _) = repo.put_sealed_run(&builder.finish(), epoch)?;
    repo.read_back_run(&name)
}
