//! What the threads of one restore share, and what each worker has to itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::format::codec::Decoder;
use crate::format::id::IdKey;
use crate::repo::Repo;
use crate::repo::fetch::Fetcher;
use crate::restore::fetch::Want;
use crate::restore::target::{DirPlan, Target};
use crate::restore::{RestoreOptions, RestoreReport, Task};
use crate::sys::buffer::PageBuffer;
use crate::sys::meta::{Part, Warnings};
use crate::watch::{Counter, Problem, ProblemKind, Watch};

/// One restore, as all its threads see it.
pub struct Work<'w> {
    pub repo: &'w Repo,
    pub fetcher: &'w Fetcher<'w>,
    /// Of content ids.
    pub key: &'w IdKey,
    pub target: Target,
    pub options: &'w RestoreOptions,
    watch: &'w dyn Watch,
    sums: [AtomicU64; SUMS],
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Dropped when a thread has failed: every worker then ends.
    quit_in: Mutex<Option<Sender<()>>>,
    quit: Receiver<()>,
}

/// What the report is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    Dirs,
    FilesRestored,
    FilesRepaired,
    FilesInPlace,
    Others,
    BytesRestored,
    BytesInPlace,
    Failed,
    Warnings,
}

const SUMS: usize = Sum::Warnings as usize + 1;

/// What one worker has to itself: contexts and buffers that are used again and again.
pub struct Worker<'w> {
    pub work: &'w Work<'w>,
    pub decoder: Decoder,
    /// A range of a pack, or a piece of an existing file.
    pub buffer: PageBuffer,
    /// A frame's plain bytes.
    pub plain: Vec<u8>,
}

impl<'w> Work<'w> {
    pub fn new(
        repo: &'w Repo,
        fetcher: &'w Fetcher<'w>,
        target: Target,
        options: &'w RestoreOptions,
        watch: &'w dyn Watch,
    ) -> Result<Self> {
        let (quit_in, quit) = bounded(0);
        Ok(Self {
            repo,
            fetcher,
            key: repo.id_key()?,
            target,
            options,
            watch,
            sums: Default::default(),
            failure: Mutex::default(),
            stopped: AtomicBool::new(false),
            quit_in: Mutex::new(Some(quit_in)),
            quit,
        })
    }

    pub fn count(&self, counter: Counter, n: u64) {
        self.watch.add(counter, n);
    }

    pub fn sum(&self, sum: Sum, n: u64) {
        self.sums[sum as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Bytes of a file that are written, or found in place.
    pub fn bytes(&self, sum: Sum, n: u64) {
        self.sum(sum, n);
        self.count(Counter::BytesDone, n);
    }

    pub fn current(&self, path: &[u8]) {
        self.watch.current(path);
    }

    /// An entry is lost.
    pub fn lost(&self, path: Vec<u8>, cause: impl ToString) {
        self.sum(Sum::Failed, 1);
        let (kind, cause) = (ProblemKind::NotRestored, cause.to_string());
        self.watch.problem(Problem { kind, name: path, cause });
    }

    /// Metadata that could not be set. Only root may give files away, so others are not told that
    /// they cannot.
    pub fn warn(&self, dir: &DirPlan, name: Option<&[u8]>, warnings: Warnings) {
        let may_chown = self.target.is_root();
        let causes: Vec<String> = warnings
            .into_iter()
            .filter(|(part, _)| may_chown || *part != Part::Owner)
            .map(|(part, error)| format!("{}: {error}", part_name(&part)))
            .collect();
        if causes.is_empty() {
            return;
        }
        self.sum(Sum::Warnings, 1);
        let name = name.map_or_else(|| dir.path(), |name| dir.path_of(name));
        let (kind, cause) = (ProblemKind::Metadata, causes.join("; "));
        self.watch.problem(Problem { kind, name, cause });
    }

    /// What is wrong with one entry comes back; what is wrong with the target as a whole ends the
    /// run.
    pub fn of_entry(&self, dir: &DirPlan, name: &[u8], error: io::Error) -> Result<io::Error> {
        let kind = error.kind();
        let whole = matches!(
            kind,
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
        );
        if whole || (dir.is_top() && kind == io::ErrorKind::PermissionDenied) {
            return Err(Error::Target { path: self.target.path_of(dir, name), source: error });
        }
        Ok(error)
    }

    /// Asked at every task and entry: has the run been cancelled, or has another thread failed?
    pub fn go_on(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) || self.watch.cancelled() {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// Runs a thread's work; its failure, or its panic, stops all threads. The first error counts.
    pub fn guard(&self, run: impl FnOnce() -> Result<()>) {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(panic) => {
                self.fail(Error::Interrupted);
                resume_unwind(panic);
            }
        }
    }

    fn fail(&self, error: Error) {
        self.failure.lock().expect("no panic holds this lock").get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
        self.quit_in.lock().expect("no panic holds this lock").take();
    }

    pub fn failure(&self) -> Result<()> {
        self.failure.lock().expect("no panic holds this lock").take().map_or(Ok(()), Err)
    }

    pub fn quit(&self) -> Receiver<()> {
        self.quit.clone()
    }

    /// But for its time, and for what is recorded.
    pub fn report(&self) -> RestoreReport {
        let get = |sum: Sum| self.sums[sum as usize].load(Ordering::Relaxed);
        RestoreReport {
            dirs: get(Sum::Dirs),
            files_restored: get(Sum::FilesRestored),
            files_repaired: get(Sum::FilesRepaired),
            files_in_place: get(Sum::FilesInPlace),
            others: get(Sum::Others),
            bytes_restored: get(Sum::BytesRestored),
            bytes_in_place: get(Sum::BytesInPlace),
            failed: get(Sum::Failed),
            warnings: get(Sum::Warnings),
            ..RestoreReport::default()
        }
    }
}

impl<'w> Worker<'w> {
    pub fn new(work: &'w Work<'w>) -> Self {
        Self { work, decoder: Decoder::new(), buffer: PageBuffer::default(), plain: Vec::new() }
    }

    /// The answer to a comparison; none to a read.
    pub fn take(&mut self, task: Task) -> Result<Option<Vec<Want>>> {
        self.work.go_on()?;
        match task {
            Task::Compare(compare) => self.compare(compare).map(Some),
            Task::Read(read) => self.read(read).map(|()| None),
        }
    }
}

fn part_name(part: &Part) -> String {
    match part {
        Part::Owner => "owner".to_owned(),
        Part::Xattr(name) => format!("attribute {}", String::from_utf8_lossy(name)),
        Part::Xattrs => "attributes".to_owned(),
        Part::Mode => "mode".to_owned(),
        Part::Times => "times".to_owned(),
    }
}
