//! Frames that are needed, that no sound copy gives, and that open and verify all the same: of packs
//! that are cut short, or that were recorded because of rot beside them. They are copied as they
//! are into new packs of the same author; a run then says where.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Named, Result};
use crate::format::codec::Decoder;
use crate::format::id::ChunkId;
use crate::format::pack::{ChunkRow, chunk_rows_hash};
use crate::format::seal::Context;
use crate::repo::SnapshotInfo;
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::{Copy, Index};
use crate::repo::mover::Mover;
use crate::repo::pack_file::PackFrame;
use crate::repo::packer::pack_name;
use crate::repo::segment::Segment;

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
    let index = repair.index()?;
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
        copy(repair, &fetcher, &found)?;
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
            at.pack.len = len;
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
    let mut copies = index.copies_anywhere(id);
    copies.retain(|copy| {
        let end = copy.place.frame.offset + u64::from(copy.place.frame.stored);
        index.packs().listed.get(&copy.place.pack.id).is_some_and(|len| end <= len)
    });
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

/// Into new packs, named by a run when this returns.
fn copy(repair: &Repair, fetcher: &Fetcher, found: &[Found]) -> Result<()> {
    let mut mover = Mover::begin(repair.repo, repair.watch)?;
    let copied = found
        .iter()
        .try_for_each(|found| copy_frame(repair, fetcher, &mut mover, found))
        .and_then(|()| mover.finish());
    mover.close()?;
    copied
}

/// It is read again, from a pack that has rotted: what is copied is what opens.
fn copy_frame(repair: &Repair, fetcher: &Fetcher, mover: &mut Mover, found: &Found) -> Result<()> {
    repair.go_on()?;
    let (repo, Found { at, chunks }) = (repair.repo, found);
    let name = pack_name(&at.pack.id);
    let mut stored = vec![0; at.row.stored as usize];
    repo.store().get_range(&name, at.row.offset, &mut stored)?;
    fetcher.open(at, &mut stored.clone(), &mut Decoder::new(), &mut Vec::new())?;
    let context = Context::from_bytes(&at.context.context).named(name.as_str())?;
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
    mover.push(&at.pack, &frame)
}
