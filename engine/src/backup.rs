//! THE WAY IN, on one screen:
//!
//! ```text
//! walk → unchanged? → read → chunk → identify → known? → encode → seal → pack → store → index run → snapshot
//! ```
//!
//! The walk lists directories and hands out batches of names, in the order of names. A worker takes
//! a batch: stats, takes unchanged files over, reads the others, cuts and identifies their chunks,
//! and encodes, proves and seals what is new. A large file is scanned by one worker and its chunks
//! go to all. Whoever finishes an entry puts it into its directory's leaf, and stores that if it is
//! full. Packs are filled by the workers and made durable by a thread of their own. With one thread
//! all of it runs inline, in fixed order.
//!
//! Threads and queues are wired only in this file. Memory: what waits in queues are names, ranges of
//! mapped windows (page cache) and of four windows of standard input; the rest is what a worker has
//! to itself, and caches with a limit each. The budget, part by part, stands in
//! `docs/performance.md`, and `tests/memory.rs` holds it.

pub mod ahead;
pub mod assemble;
pub mod bases;
pub mod chunk;
pub mod cut;
pub mod encode;
pub mod identify;
pub mod large;
pub mod old;
pub mod read;
pub mod shape;
pub mod unchanged;
pub mod walk;

mod commit;
mod tools;
mod work;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, never, select_biased};

use crate::error::{Error, Result};
use crate::format::id::SessionId;
use crate::format::snapshot::Counts;
use crate::format::snapshot::Directory;
use crate::repo::Repo;
use crate::repo::journal;
use crate::repo::packer::{OpenPack, Packer};
use crate::repo::session::Session;
use crate::watch::Watch;

use large::LargeChunk;
use walk::{DirNode, Roots};
use work::{Work, Worker};
pub use work::{bundle_limits, chunker_of};

/// `true`: leave this absolute path (and all below it) out. The second argument: is it a directory?
pub type PathFilter = Box<dyn Fn(&[u8], bool) -> bool + Send + Sync>;

/// Batches of names and chunks of large files that wait for a worker, for each thread.
const QUEUED_PER_THREAD: usize = 4;
/// Full packs that wait to be made durable.
const QUEUED_PACKS: usize = 2;
/// How often a fenced backup starts over before it gives up.
const FENCED_MAX: usize = 3;

#[derive(Default)]
pub struct BackupOptions {
    pub exclude: Option<PathFilter>,
    /// Leave out the content of directories marked by a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    pub one_file_system: bool,
    pub tags: Vec<String>,
    /// `system`, `study`.
    pub labels: BTreeMap<String, String>,
    pub host: Option<String>,
    /// Beginning of the id of the snapshot to compare with; default: the journal, else the latest
    /// of this author and host with the same paths.
    pub parent: Option<String>,
    /// Read every file, even what looks unchanged.
    pub rescan: bool,
    pub ignore_inode: bool,
    pub ignore_ctime: bool,
    pub dry_run: bool,
    /// Room on this client's disk for bases of deltas; 0: none. A key that does not read content
    /// makes no deltas without it.
    pub base_cache_bytes: u64,
    /// Do not decode finished frames and hash their chunks again.
    pub no_verify: bool,
    /// Name and offset from UTC, in seconds, of the local time zone.
    pub zone: Option<(String, i32)>,
}

pub enum Source<'a> {
    Paths(&'a [PathBuf]),
    Stream {
        name: &'a [u8],
        reader: &'a mut (dyn Read + Send),
        /// Asked after the end of the stream and before the commit: exit code of the command that wrote it.
        finish: &'a mut dyn FnMut() -> Result<Option<u32>>,
    },
}

#[derive(Debug, Clone)]
pub struct BackupReport {
    /// `None`: a dry run.
    pub snapshot: Option<SessionId>,
    pub counts: Counts,
    pub bytes_read: u64,
    pub chunks_new: u64,
    pub chunks_known: u64,
    pub bytes_stored: u64,
    pub parent: Option<SessionId>,
    pub seconds: f64,
}

/// Backs `source` up into one new snapshot.
pub fn run(
    repo: &Repo,
    mut source: Source,
    options: &BackupOptions,
    watch: &dyn Watch,
) -> Result<BackupReport> {
    let mut fenced = 0;
    loop {
        match once(repo, &mut source, options, watch) {
            // Its packs are there, its journal too: starting over under a new session takes seconds.
            Err(Error::Fenced { .. })
                if matches!(source, Source::Paths(_)) && fenced < FENCED_MAX =>
            {
                fenced += 1;
            }
            done => return done,
        }
    }
}

fn once(
    repo: &Repo,
    source: &mut Source,
    options: &BackupOptions,
    watch: &dyn Watch,
) -> Result<BackupReport> {
    if !repo.role().writes() {
        let needs = "a key that adds backups (backup or owner)";
        return Err(Error::Role { role: repo.role(), needs });
    }
    let started = (repo.env().now(), std::time::Instant::now());
    let roots = Roots::of(source, watch)?;
    // 1. The session, before anything is looked up. 2. The index, in its own fixed order of reads.
    let session = Session::new(repo)?;
    let opened = journal::open(repo, &roots.paths, &session.id)?;
    let (past, journal) =
        opened.map_or((None, None), |(past, journal)| (Some(past), Some(journal)));
    if !options.dry_run {
        session.announce(repo, past.as_ref().map_or(&[], |past| &past.dead[..]))?;
    }
    repo.tell_vanished(watch);
    let index = repo.index_for_writing(watch)?;
    let packer = Packer::new(repo, &session, &index, options.dry_run).journaling(journal.as_ref());
    if let Some(past) = past.as_ref().filter(|_| !options.dry_run) {
        packer.adopt(&past.packs)?;
    }
    let before = unchanged::Before::open(repo, &index, past, &roots, options)?;
    let work = Work::new(
        repo,
        options,
        watch,
        &index,
        &packer,
        &before,
        journal.as_ref(),
        started.0,
        roots.missing,
    );
    // 3. The pipeline: everything from the walk to the packs.
    let root = pipeline(&work, &roots, source)?;
    // 4. Packs durable, then the last index run, then the snapshot.
    packer.finish()?;
    let exit = match source {
        Source::Stream { finish, .. } => finish()?,
        Source::Paths(_) => None,
    };
    let snapshot = commit::commit(&work, &session, &roots, root, exit)?;
    before.bases.finish();
    let report = work.report(snapshot, started.1.elapsed().as_secs_f64());
    match journal {
        Some(journal) if options.dry_run => journal.discard(),
        Some(journal) => commit::remembered(watch, journal.commit()),
        None => {}
    }
    Ok(report)
}

/// What a worker is handed.
pub enum Task {
    /// Names `from..to` of a directory.
    Entries { dir: Arc<DirNode>, from: usize, to: usize },
    /// Every name of this directory has been handed out.
    Listed { dir: Arc<DirNode> },
}

/// Where a worker sends what it does not do itself. Without queues everything is done on the spot.
#[derive(Clone)]
pub struct Queues {
    pub chunks: Sender<LargeChunk>,
    pub packs: Sender<OpenPack>,
}

fn pipeline(work: &Work, roots: &Roots, source: &mut Source) -> Result<Directory> {
    let threads = work.repo.env().threads();
    if threads == 1 {
        let mut worker = Worker::new(work, None);
        match source {
            Source::Paths(_) => walk::walk(work, roots, &mut |tasks| worker.take(tasks))?,
            Source::Stream { name, reader, .. } => worker.stream(name, *reader)?,
        }
        worker.flush()?;
        return work.root();
    }
    let (tasks_in, tasks) = bounded(threads * QUEUED_PER_THREAD);
    let (chunks_in, chunks) = bounded(threads * QUEUED_PER_THREAD);
    let (packs_in, packs) = bounded::<OpenPack>(QUEUED_PACKS);
    let queues = Queues { chunks: chunks_in, packs: packs_in };
    let quit = work.quit();
    std::thread::scope(|scope| {
        scope
            .spawn(move || packs.iter().for_each(|pack| work.guard(|| work.packer.complete(pack))));
        for _ in 0..threads {
            let (tasks, chunks, quit) = (tasks.clone(), chunks.clone(), quit.clone());
            let worker = Worker::new(work, Some(queues.clone()));
            scope.spawn(move || work.guard(|| work_off(worker, tasks, chunks, quit)));
        }
        drop((tasks, chunks));
        work.guard(|| match source {
            // A closed queue means that a worker has failed; its error is the one that counts.
            Source::Paths(_) => walk::walk(work, roots, &mut |tasks| {
                tasks_in.send(tasks).map_err(|_| Error::Interrupted)
            }),
            Source::Stream { name, reader, .. } => {
                let mut worker = Worker::new(work, Some(queues.clone()));
                worker.stream(name, *reader)?;
                worker.flush()
            }
        });
        drop((tasks_in, queues));
    });
    work.failure()?;
    work.root()
}

/// A worker's life: chunks of large files first, then new names, until the root directory is complete.
fn work_off(
    mut worker: Worker,
    mut tasks: Receiver<Vec<Task>>,
    chunks: Receiver<LargeChunk>,
    quit: Receiver<()>,
) -> Result<()> {
    loop {
        select_biased! {
            recv(quit) -> _ => return worker.flush(),
            recv(chunks) -> chunk => if let Ok(chunk) = chunk { worker.large_chunk(chunk)? },
            recv(tasks) -> handed => match handed {
                Ok(handed) => worker.take(handed)?,
                Err(_) => tasks = never(),
            },
        }
    }
}
