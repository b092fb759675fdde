//! THE WAY BACK, on one screen:
//!
//! ```text
//! snapshot → tree → plan → fetch → open → decode → verify → write
//! ```
//!
//! The planner streams the snapshot's directories in a stable order and compares them with the
//! target. What is there already is left alone; files that differ are given to the workers to find
//! out which chunks do. What is missing is collected in batches, sorted by where it lies, and read
//! in large ranges. Workers open, decode and verify what was read, chunk by chunk, and write it to
//! every place that needs it. Whoever writes the last chunk of a file completes it, and whoever
//! completes the last entry of a directory sets its metadata. With one thread all of it runs
//! inline, in fixed order.
//!
//! A file that cannot be restored is reported and the others go on; it does not get its time, so no
//! later run takes it for complete. Nothing is synchronised to disk: after a power loss a run with
//! `verify_existing` finds what did not arrive.
//!
//! Threads and queues are wired only in this file. Memory: a batch of references, and a range and a
//! frame a worker.

pub mod compare;
pub mod fetch;
pub mod plan;
pub mod target;
pub mod work;
pub mod write;

use std::path::Path;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased, unbounded};

use crate::error::{Error, Result};
use crate::format::seal::Recipient;
use crate::repo::Repo;
use crate::repo::SnapshotInfo;
use crate::repo::fetch::Fetcher;
use crate::repo::trees::Trees;
use crate::watch::{Problem, ProblemKind, Watch};

use compare::Compare;
use fetch::{Read, Want};
use plan::Start;
use target::Target;
use work::{Work, Worker};

/// Asked with an absolute path of the snapshot and whether it is a directory.
pub type PathFilter = Box<dyn Fn(&[u8], bool) -> bool + Send + Sync>;

/// Comparisons and ranges that wait for a worker, for each thread.
const QUEUED_PER_THREAD: usize = 4;
/// What a worker holds at most: a range of a pack as it was read, a frame's plain bytes, the buffers of
/// the numeric filter, and bases, with chunks of the default size.
const WORKER_BYTES: usize = (8 + 2 + 6 + 3) << 20;
/// And what they share: a batch of pieces, decoded trees and bases.
const SHARED_BYTES: usize = (70 + 32) << 20;
/// As many workers as fit into 512 MiB (`docs/performance.md`, "Memory"): no disk asks for more.
const WORKERS_MAX: usize = ((512 << 20) - SHARED_BYTES) / WORKER_BYTES;

#[derive(Default)]
pub struct RestoreOptions {
    /// Only what this is true for, with all below it. Directories that lead there are made, too.
    pub include: Option<PathFilter>,
    /// `true`: leave this path, and all below it, as it is.
    pub exclude: Option<PathFilter>,
    /// Hash the content of files that look right by size and time.
    pub verify_existing: bool,
    /// Write nothing; the report says what would be done.
    pub dry_run: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RestoreReport {
    pub dirs: u64,
    /// Created, or replaced.
    pub files_restored: u64,
    /// They were there; chunks that differed, or their length, were put right.
    pub files_repaired: u64,
    pub files_in_place: u64,
    /// Symlinks, fifos, sockets, devices.
    pub others: u64,
    pub bytes_restored: u64,
    pub bytes_in_place: u64,
    /// Entries that could not be restored, or not completely.
    pub failed: u64,
    /// Entries whose metadata could not be set in full.
    pub warnings: u64,
    /// Frames that were found bad and are recorded as such from now on.
    pub recorded: u64,
    pub seconds: f64,
}

/// Restores a snapshot, or what `path` names in it. A whole snapshot gets its absolute paths below
/// `target`; of a directory the content lands in `target` itself, anything else below its name.
///
/// What cannot be restored is counted in the report. Errors: the path is not in the snapshot, the
/// target cannot be used, or the run was cancelled; then run again, and it goes on.
pub fn run(
    repo: &Repo,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    target: &Path,
    options: &RestoreOptions,
    watch: &dyn Watch,
) -> Result<RestoreReport> {
    if ![Recipient::Data, Recipient::Tree, Recipient::Meta].into_iter().all(|of| repo.reads(of)) {
        let needs = "a key that reads content and names (restore or owner)";
        return Err(Error::Role { role: repo.role(), needs });
    }
    let started = Instant::now();
    repo.tell_vanished(watch);
    let index = repo.index_for_reading(watch)?;
    let fetcher = Fetcher::new(repo, &index);
    let restored = restored(&fetcher, snapshot, path, target, options, watch);
    // Also if the run ended with an error: what was met until then is known.
    let recorded = if options.dry_run { 0 } else { record(&fetcher, watch) };
    Ok(RestoreReport { recorded, seconds: started.elapsed().as_secs_f64(), ..restored? })
}

fn restored(
    fetcher: &Fetcher,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    target: &Path,
    options: &RestoreOptions,
    watch: &dyn Watch,
) -> Result<RestoreReport> {
    let trees = Trees::new(fetcher.repo(), fetcher);
    let start = Start::find(&trees, snapshot, path)?;
    let target = Target::open(target, options.dry_run)?;
    let work = Work::new(fetcher.repo(), fetcher, target, options, watch)?;
    pipeline(&work, &trees, start)?;
    Ok(work.report())
}

/// Records frames that were found bad, so that the next backup stores their chunks again. That they cannot be recorded
/// is worth a notice: what could be restored is.
fn record(fetcher: &Fetcher, watch: &dyn Watch) -> u64 {
    fetcher.record_damage(Vec::new(), "restore").unwrap_or_else(|error| {
        let cause = format!("what is damaged could not be recorded: {error}");
        watch.problem(Problem { kind: ProblemKind::Notice, name: b"damaged".to_vec(), cause });
        0
    })
}

/// What a worker is handed.
pub enum Task {
    Compare(Compare),
    Read(Read),
}

/// Where the planner sends its tasks, and gets to know what differed.
pub enum Hands<'w> {
    /// Everything is done on the spot.
    Own {
        worker: Worker<'w>,
        differing: Vec<Want>,
    },
    Others {
        tasks: Sender<Task>,
        differing: Receiver<Vec<Want>>,
        quit: Receiver<()>,
    },
}

impl Hands<'_> {
    pub fn give(&mut self, task: Task) -> Result<()> {
        match self {
            Self::Own { worker, differing } => {
                differing.extend(worker.take(task)?.into_iter().flatten());
                Ok(())
            }
            // A closed queue means that a worker has failed; its error is the one that counts.
            Self::Others { tasks, .. } => tasks.send(task).map_err(|_| Error::Interrupted),
        }
    }

    /// What differed in the last `comparisons`, when all of them are done.
    pub fn differing(&mut self, comparisons: usize) -> Result<Vec<Want>> {
        match self {
            Self::Own { differing, .. } => Ok(std::mem::take(differing)),
            Self::Others { differing, quit, .. } => {
                let mut wants = Vec::new();
                for _ in 0..comparisons {
                    let found = select_biased! {
                        recv(quit) -> _ => return Err(Error::Interrupted),
                        recv(differing) -> found => found.map_err(|_| Error::Interrupted)?,
                    };
                    wants.extend(found);
                }
                Ok(wants)
            }
        }
    }
}

fn pipeline(work: &Work, trees: &Trees, start: Start) -> Result<()> {
    let threads = work.repo.env().threads().min(WORKERS_MAX);
    if threads == 1 {
        let mut hands = Hands::Own { worker: Worker::new(work), differing: Vec::new() };
        return plan::plan(work, trees, &mut hands, start);
    }
    let (tasks_in, tasks) = bounded(threads * QUEUED_PER_THREAD);
    // Bounded by the batch: it ends when all its comparisons have answered.
    let (differing_in, differing) = unbounded();
    let quit = work.quit();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tasks, answers, quit) = (tasks.clone(), differing_in.clone(), quit.clone());
            let worker = Worker::new(work);
            scope.spawn(move || work.guard(|| work_off(worker, &tasks, &answers, &quit)));
        }
        drop((tasks, differing_in));
        let mut hands = Hands::Others { tasks: tasks_in, differing, quit };
        work.guard(|| plan::plan(work, trees, &mut hands, start));
    });
    work.failure()
}

/// A worker's life: until the planner has nothing more, or somebody has failed.
fn work_off(
    mut worker: Worker,
    tasks: &Receiver<Task>,
    answers: &Sender<Vec<Want>>,
    quit: &Receiver<()>,
) -> Result<()> {
    loop {
        let task = select_biased! {
            recv(quit) -> _ => return Ok(()),
            recv(tasks) -> task => task,
        };
        let Ok(task) = task else { return Ok(()) };
        if let Some(differing) = worker.take(task)? {
            // Nobody listens any more only when the planner has failed.
            answers.send(differing).map_err(|_| Error::Interrupted)?;
        }
    }
}
