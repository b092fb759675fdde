//! Index runs and packs: every run opens and is valid, its packs are there, and each pack's own
//! directory says the same as the run. Frames are read only with `read_data`, and in a file of
//! their own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::data::{self, Scratch};
use super::findings::Scope;
use super::health::{Bad, Rotten};
use super::objects::{Control, Listing};
use super::{Check, parallel};
use crate::error::{Error, Named, Result};
use crate::format::id::{ChunkId, IdentityId, ObjectHash, PackId};
use crate::format::index::{Location, PackRow, Run, RunBuilder};
use crate::format::pack::{Directory, HEADER_LEN, PackClass, PackHeader, TRAILER_LEN};
use crate::format::seal::{CONTEXT_LEN, Context, Recipient};
use crate::repo::fetch::Fetcher;
use crate::repo::lookup::{Index, Packs, Trusted};
use crate::repo::packer::pack_name;
use crate::repo::segment::Segment;
use crate::watch::Counter;

/// The runs that could be read; `names` and the index's segments go side by side.
pub struct Runs {
    pub index: Index,
    names: Vec<ObjectHash>,
}

impl Runs {
    pub fn chunks(&self) -> u64 {
        self.index.segments().iter().map(|segment| u64::from(segment.run().len())).sum()
    }
}

pub fn open_runs(check: &Check, listing: &Listing, control: &Control) -> Result<Runs> {
    let packs = Packs {
        listed: listing.packs.iter().map(|(id, len)| (*id, *len)).collect(),
        condemned: control.condemned_packs.clone(),
        damaged: control.damaged.clone(),
        ..Packs::default()
    };
    // Whom a writer trusts decides only which copy is tried first.
    let trusted = Trusted { everyone: true, attested: true, authors: HashSet::new() };
    let cache = check.repo.cache().map(|cache| cache.join("runs"));
    let index = Index::new(packs, trusted, cache);
    let mut names = Vec::new();
    for id in &listing.runs {
        check.go_on()?;
        let name = format!("index/{id}");
        check.watch.current(name.as_bytes());
        let fetched = check.repo.fetch_run(&index, id);
        check.findings.sort_suspect(&name, fetched, || Scope::Run)?.ok();
        if index.len() > names.len() {
            names.push(*id);
        }
    }
    // Nothing cached is swept: of a run that has rotted in the store, what is cached may be the last copy.
    Ok(Runs { index, names })
}

/// One pack to look at: as a run has it, or, where none names it, as the listing does.
struct Job {
    row: PackRow,
    named: Option<NamedIn>,
    /// Met the first time: now it is read whole, if at all, and counted.
    first: bool,
}

struct NamedIn {
    run: ObjectHash,
    segment: Arc<Segment>,
    /// Of this pack's chunks in the run.
    positions: Vec<u32>,
}

/// Holds every run to its packs. What that means for chunks is in the answer.
pub fn check(
    check: &Check,
    fetcher: &Fetcher,
    listing: &Listing,
    control: &Control,
    runs: &Runs,
) -> Result<Bad> {
    check.watch.add(Counter::PacksFound, listing.packs.len() as u64);
    let bad = Mutex::<Bad>::default();
    let mut met = HashSet::new();
    for (run, segment) in runs.names.iter().zip(runs.index.segments()) {
        let mut jobs = Vec::new();
        for (positions, row) in positions_by_pack(&segment)?.into_iter().zip(segment.packs()) {
            if !is_there(check, listing, control, run, &row, &bad) {
                continue;
            }
            let first = met.insert(row.id);
            let named = Some(NamedIn { run: *run, segment: segment.clone(), positions });
            jobs.push(Job { row, named, first });
        }
        check_jobs(check, fetcher, &jobs, &bad)?;
    }
    let unnamed = listing.packs.iter().filter(|(id, _)| !met.contains(*id));
    let mut jobs: Vec<_> = unnamed.map(|(id, len)| unnamed_job(check, *id, *len)).collect();
    bad.lock().expect("no panic holds this lock").unnamed_packs = jobs.len() as u64;
    jobs.sort_unstable_by_key(|job| job.row.id);
    check_jobs(check, fetcher, &jobs, &bad)?;
    // Else what the cache lost under us would be told as damage of the store.
    runs.index.stands()?;
    Ok(bad.into_inner().expect("no panic holds this lock"))
}

fn check_jobs(check: &Check, fetcher: &Fetcher, jobs: &[Job], bad: &Mutex<Bad>) -> Result<()> {
    parallel::each(check.threads(), jobs, Scratch::default, |scratch, job| {
        check.go_on()?;
        let name = pack_name(&job.row.id);
        check.watch.current(name.as_str().as_bytes());
        check_pack(check, fetcher, job, scratch, bad)?;
        check.watch.add(Counter::PacksDone, u64::from(job.first));
        Ok(())
    })
}

/// Author and class are unknown, and nobody asks for them.
fn unnamed_job(check: &Check, id: PackId, len: u64) -> Job {
    let what = "no index run names it: a killed session left it, or one is still running";
    check.findings.notice(pack_name(&id).as_str(), what);
    let row = PackRow { id, len, author: IdentityId::ROOT, class: PackClass::Mixed };
    Job { row, named: None, first: true }
}

/// For each pack of the run, the positions of its chunks.
fn positions_by_pack(segment: &Segment) -> Result<Vec<Vec<u32>>> {
    let mut positions = vec![Vec::new(); segment.packs().count()];
    for position in 0..segment.run().len() {
        let place = segment.location(position).ok_or_else(|| segment.cut_short())?;
        let of_pack = positions.get_mut(place.frame.pack as usize);
        of_pack.ok_or_else(|| segment.cut_short())?.push(position);
    }
    Ok(positions)
}

fn is_there(
    check: &Check,
    listing: &Listing,
    control: &Control,
    run: &ObjectHash,
    row: &PackRow,
    bad: &Mutex<Bad>,
) -> bool {
    let what = match listing.packs.get(&row.id) {
        Some(len) if *len == row.len => return true,
        Some(len) => format!("it has {len} bytes, index/{run} says {}", row.len),
        None if control.condemned_packs.contains(&row.id) => return false,
        None => "it is missing, though an index run names it".to_owned(),
    };
    let damage = check.findings.suspect(pack_name(&row.id).as_str(), &what, Scope::Lost(row.id));
    bad.lock().expect("no panic holds this lock").packs.insert(row.id, damage);
    false
}

fn check_pack(
    check: &Check,
    fetcher: &Fetcher,
    job: &Job,
    scratch: &mut Scratch,
    bad: &Mutex<Bad>,
) -> Result<()> {
    let id = job.row.id;
    let name = pack_name(&id);
    let name = name.as_str();
    let scope = || Scope::Directory(id);
    let directory = check.findings.sort_suspect(name, directory(check, &job.row), scope)?.ok();
    let mut is_rotten = directory.is_none();
    if let Some(directory) = &directory {
        let header = check_header(check, job, directory);
        is_rotten = check.findings.sort_suspect(name, header, scope)?.is_err();
    }
    let own = directory.map(|directory| own_run(&job.row, &directory));
    let mut damaged = Vec::new();
    match (&job.named, &own) {
        (Some(named), Some(own)) => {
            let run = format!("index/{}", named.run);
            let agreed = agree(&run, &job.row, named, own);
            if check.findings.sort_suspect(&run, agreed, scope)?.is_err() {
                // Which of them is wrong? What readers go by is what the run says.
                let frames = data::frames(&named.segment, named.positions.iter().copied())?;
                data::look_at(check, fetcher, &frames, &mut damaged)?;
            }
        }
        (None, Some(own)) => {
            let ids = own.run().ids().iter().map(|id| (ChunkId(*id), job.row.id));
            bad.lock().expect("no panic holds this lock").unnamed.extend(ids);
        }
        (_, None) => {}
    }
    let frames = frames_to_read(check, fetcher, job, &own, is_rotten)?;
    let mut matches_name = true;
    if job.first && check.read_data {
        let reading = (&mut *scratch, &mut damaged);
        matches_name = data::read_pack(check, fetcher, &job.row, &frames, reading)?;
    } else {
        data::look_again(check, fetcher, &frames, &mut damaged)?;
    }
    let mut bad = bad.lock().expect("no panic holds this lock");
    bad.chunks.extend(damaged.into_iter().map(|(chunk, damage)| ((id, chunk), damage)));
    if is_rotten || !matches_name {
        let frames = frames.iter().map(data::Frame::place).collect();
        bad.rotten.insert(id, Rotten { len: job.row.len, structure: is_rotten, frames });
    }
    Ok(())
}

/// Frames of the pack, if there is a reason to read any.
fn frames_to_read(
    check: &Check,
    fetcher: &Fetcher,
    job: &Job,
    own: &Option<Arc<Segment>>,
    is_rotten: bool,
) -> Result<Vec<data::Frame>> {
    let recorded = || fetcher.index().packs().has_damaged(&job.row.id);
    if !job.first || !(check.read_data || is_rotten || recorded()) {
        return Ok(Vec::new());
    }
    // A pack whose directory is lost still gives its frames to whoever has the run.
    match (own, &job.named) {
        (Some(own), _) => data::frames(own, 0..own.run().len()),
        (None, Some(named)) => data::frames(&named.segment, named.positions.iter().copied()),
        (None, None) => Ok(Vec::new()),
    }
}

fn directory(check: &Check, row: &PackRow) -> Result<Directory> {
    let directory = match check.repo.pack_directory(&row.id, row.len) {
        Err(Error::Format { name, source }) if has_our_header(check, row) => {
            return Err(Error::Damaged { what: name, cause: source.to_string() });
        }
        directory => directory?,
    };
    let rows = Directory::encoded_len(
        directory.contexts.len() as u64,
        directory.seals.len() as u64,
        directory.frames.len() as u64,
        directory.chunks.len() as u64,
        directory.bases.len() as u64,
    );
    check.read(rows);
    Ok(directory)
}

/// Then nothing in it can be of a newer version than the one that we know.
fn has_our_header(check: &Check, row: &PackRow) -> bool {
    let mut head = [0; HEADER_LEN];
    let read = check.repo.store().get_range(&pack_name(&row.id), 0, &mut head);
    read.is_ok() && PackHeader::from_bytes(&head).is_ok()
}

/// The header in clear tells what the sealed parts tell.
fn check_header(check: &Check, job: &Job, directory: &Directory) -> Result<()> {
    let name = pack_name(&job.row.id);
    let damaged =
        |cause: &str| Err(Error::Damaged { what: name.to_string(), cause: cause.to_owned() });
    let (mut head, mut trailer) = ([0; HEADER_LEN], [0; CONTEXT_LEN]);
    check.repo.store().get_range(&name, 0, &mut head)?;
    check.repo.store().get_range(&name, job.row.len - TRAILER_LEN as u64, &mut trailer)?;
    let header = match PackHeader::from_bytes(&head) {
        // A class or version that its run does not know of is rot, nothing newer.
        Err(error) if job.named.is_some() => return damaged(&error.to_string()),
        header => header.named(name.as_str())?,
    };
    let context = Context::from_bytes(&trailer).named(name.as_str())?;
    if (header.session, header.epoch) != (context.session, context.epoch) {
        return damaged("its header and its trailer name different sessions");
    }
    if header.suite != check.repo.file().suite.code() {
        return damaged("its header names another cipher suite");
    }
    if job.named.is_some() && header.class != job.row.class {
        return damaged("its header names another class than the index run");
    }
    for row in &directory.contexts {
        let context = Context::from_bytes(&row.context).named(name.as_str())?;
        if context.repository != check.repo.id() {
            return damaged("it has frames of another repository");
        }
        if !fits(header.class, context.recipient) {
            return damaged("it has frames that its class must not have");
        }
    }
    Ok(())
}

fn fits(class: PackClass, recipient: Recipient) -> bool {
    match class {
        PackClass::Data => recipient == Recipient::Data,
        PackClass::Tree => recipient == Recipient::Tree,
        PackClass::Refs => recipient == Recipient::Meta,
        PackClass::Mixed => recipient != Recipient::Index,
    }
}

/// The run that describes this pack alone, made from its own directory.
fn own_run(row: &PackRow, directory: &Directory) -> Arc<Segment> {
    let mut builder = RunBuilder::new();
    builder.push_directory(*row, directory);
    Arc::new(Segment::hold(builder.finish()))
}

/// What the run says of the pack is what the pack says of itself. A run of one shard has only some of its chunks.
fn agree(name: &str, row: &PackRow, named: &NamedIn, own: &Segment) -> Result<()> {
    let (run, own) = (named.segment.run(), own.run());
    let differs = |cause: &str| {
        let cause = format!("it disagrees with {}: {cause}", pack_name(&row.id));
        Err(Error::Damaged { what: name.to_owned(), cause })
    };
    let shard = run.shard();
    let wanted = own.ids().iter().filter(|id| shard.holds(&ChunkId(**id))).count();
    if wanted != named.positions.len() {
        return differs("other chunks");
    }
    for position in &named.positions {
        let place = run.location(*position).ok_or_else(|| named.segment.cut_short())?;
        let same = own.find(&place.chunk.id).any(|here| same(&run, &place, &own, &here));
        if !same {
            return differs(&format!("chunk {} lies elsewhere", place.chunk.id));
        }
    }
    Ok(())
}

fn same(run: &Run, place: &Location, own: &Run, here: &Location) -> bool {
    let frame = |place: &Location| {
        let frame = &place.frame;
        (frame.offset, frame.ordinal, frame.stored, frame.plain, frame.codec)
    };
    let bases = |run: &Run, place: &Location| -> Option<Vec<_>> {
        run.bases(&place.frame).map(Iterator::collect)
    };
    place.chunk == here.chunk
        && frame(place) == frame(here)
        && place.table_hash() == here.table_hash()
        && run.context(place.frame.context) == own.context(here.frame.context)
        && bases(run, place) == bases(own, here)
}
