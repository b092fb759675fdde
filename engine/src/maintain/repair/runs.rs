//! Index runs made again from packs: those that are there, complete, and that no run which can be
//! read names. Also those of sessions that still run, or died: others may rely on them already, and
//! a pack that is named twice harms nobody.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::codec::Decoder;
use crate::format::id::{IdentityId, PackId, SessionId};
use crate::format::index::{Location, PackRow, RunBuilder, SHARD_CHUNKS};
use crate::format::pack::{ChunkRow, Directory, HEADER_LEN, PackHeader};
use crate::format::record::Kind;
use crate::format::seal::Context;
use crate::repo::damage::is_proof;
use crate::repo::despite::Despite;
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::{Copy, Index};
use crate::repo::opening::Proof;
use crate::repo::packer::pack_name;
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found};
use crate::repo::segment::Segment;

use super::losses::names;
use super::{Repair, RepairReport};

/// Payloads that a dry run would have written are the answer.
pub fn rebuild(repair: &Repair, report: &mut RepairReport) -> Result<Vec<Vec<u8>>> {
    let repo = repair.repo;
    let (index, passed_over) = repo.index_despite(Despite::Runs, Proof::Now)?;
    for (name, cause) in passed_over.told() {
        report.runs_damaged += u64::from(name.starts_with("index/"));
        repair.notice(&name, &cause);
    }
    let mut named: HashSet<PackId> = HashSet::new();
    for segment in index.segments() {
        let sound = (0..).zip(segment.run().packs()).filter(|(place, _)| segment.sound(*place));
        named.extend(sound.map(|(_, pack)| pack.id));
    }
    let packs = index.packs();
    let mut unnamed: Vec<(PackId, u64)> = packs
        .listed
        .iter()
        .filter(|(id, _)| !named.contains(*id) && !packs.doomed.contains(*id))
        .map(|(id, len)| (*id, len))
        .collect();
    unnamed.sort_unstable();
    let mut authors = Authors { repair, index: &index, known: BTreeMap::new() };
    let mut builder = Building::new(repair);
    for (id, len) in unnamed {
        repair.go_on()?;
        let name = pack_name(&id);
        match authors.describe(id, len) {
            Ok((row, directory)) => {
                report.packs_named += 1;
                builder.take(row, &directory)?;
            }
            Err(error @ (Error::Format { .. } | Error::Damaged { .. })) => {
                let why = format!("no run names it, and its directory cannot be read: {error}");
                repair.notice(name.as_str(), &why);
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    builder.finish()
}

/// Runs being made, each within the limit of one.
struct Building<'a> {
    repair: &'a Repair<'a>,
    builder: RunBuilder,
    packs: Vec<PackId>,
    chunks: u64,
    unwritten: Vec<Vec<u8>>,
}

impl<'a> Building<'a> {
    fn new(repair: &'a Repair<'a>) -> Self {
        Self {
            repair,
            builder: RunBuilder::new(),
            packs: Vec::new(),
            chunks: 0,
            unwritten: Vec::new(),
        }
    }

    fn take(&mut self, row: PackRow, directory: &Directory) -> Result<()> {
        let chunks = directory.chunks.len() as u64;
        if !self.packs.is_empty() && self.chunks + chunks > SHARD_CHUNKS {
            self.write()?;
        }
        self.chunks += chunks;
        self.packs.push(row.id);
        self.builder.push_directory(row, directory);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        self.write()?;
        Ok(self.unwritten)
    }

    /// The packs are durable before a run names them.
    fn write(&mut self) -> Result<()> {
        let builder = std::mem::take(&mut self.builder);
        let packs = std::mem::take(&mut self.packs);
        self.chunks = 0;
        if packs.is_empty() {
            return Ok(());
        }
        if self.repair.options.dry_run {
            self.unwritten.push(builder.finish());
            return Ok(());
        }
        let repo = self.repair.repo;
        let names: Vec<_> = packs.iter().map(pack_name).collect();
        repo.store().make_durable(&mut names.iter())?;
        let (name, _) = repo.put_sealed_run(&builder.finish(), repo.roster().epoch().number)?;
        repo.read_back_run(&name)
    }
}

/// Who wrote what. Where that cannot be found out any more, nobody: then writers do not rely on it.
struct Authors<'a> {
    repair: &'a Repair<'a>,
    index: &'a Index,
    known: BTreeMap<SessionId, Option<IdentityId>>,
}

impl Authors<'_> {
    fn describe(&mut self, id: PackId, len: u64) -> Result<(PackRow, Directory)> {
        let repo = self.repair.repo;
        let name = pack_name(&id);
        let directory = repo.pack_directory(&id, len)?;
        let mut head = [0; HEADER_LEN];
        repo.store().get_range(&name, 0, &mut head)?;
        let header = PackHeader::from_bytes(&head)
            .map_err(|source| Error::Format { name: name.to_string(), source })?;
        // Moved frames are of the sessions that sealed them, not of the one that moved them.
        let mut authors = HashSet::new();
        for row in &directory.contexts {
            let context = Context::from_bytes(&row.context)
                .map_err(|source| Error::Format { name: name.to_string(), source })?;
            authors.insert(self.of(&context.session)?);
        }
        let mut authors = authors.into_iter();
        let author = match (authors.next(), authors.next()) {
            (Some(Some(author)), None) => author,
            _ => IdentityId::ROOT,
        };
        let mut row = PackRow { id, len, author, class: header.class };
        if !self.is_proven(row, &directory)? {
            row.author = IdentityId::ROOT;
        }
        Ok((row, directory))
    }

    /// Whoever holds the INDEX key can write a pack that looks like another's, with chunk ids that
    /// are lies. Only who knows a session's secrets can make frames that open, and only true chunks
    /// have their ids: all of them are looked at before a writer may rely on one.
    fn is_proven(&self, row: PackRow, directory: &Directory) -> Result<bool> {
        let repair = self.repair;
        if !repair.is_owner() {
            return Ok(false);
        }
        let mut builder = RunBuilder::new();
        builder.push_directory(row, directory);
        let segment = Arc::new(Segment::hold(builder.finish()));
        let fetcher = Fetcher::new(repair.repo, self.index);
        let (mut decoder, mut frames) = (Decoder::new(), BTreeMap::<u32, Vec<Location>>::new());
        for place in (0..segment.run().len()).filter_map(|at| segment.run().location(at)) {
            frames.entry(place.frame_index).or_default().push(place);
        }
        for places in frames.values() {
            repair.go_on()?;
            let at = FrameAt::of(&Copy { place: places[0], segment: segment.clone() });
            let plain = match fetcher.frame(&at, &mut decoder) {
                Ok(plain) => plain,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(_) => return Ok(false),
            };
            let is_true = |place: &Location| {
                let ChunkRow { id, offset, len } = place.chunk;
                let (start, len) = (offset as usize, len as usize);
                let bytes = plain.get(start..start.saturating_add(len));
                bytes.is_some_and(|bytes| names(repair.repo, &id, bytes))
            };
            if !places.iter().all(is_true) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn of(&mut self, session: &SessionId) -> Result<Option<IdentityId>> {
        if let Some(known) = self.known.get(session) {
            return Ok(*known);
        }
        let mut author = None;
        let records = [
            (Kind::Session, format!("sessions/{session}")),
            (Kind::Seals, format!("seals/{session}")),
            (Kind::Snapshot, format!("snapshots/{session}")),
        ];
        for (kind, name) in records {
            match self.repair.repo.read(kind, &name, RECORD_BYTES_MAX) {
                Ok(read) => author = author.or(Some(read.author)),
                Err(error) if is_proof(&error) || is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.known.insert(*session, author);
        Ok(author)
    }
}
