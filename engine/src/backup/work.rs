//! What the workers share, and what each has to itself.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::backup::ahead::Ahead;
use crate::backup::assemble::HardLinks;
use crate::backup::chunk::Chunker;
use crate::backup::read::LARGE_BYTES;
use crate::backup::tools::{Chest, Tools, large_bytes};
use crate::backup::unchanged::Before;
use crate::backup::{BackupOptions, BackupReport, Queues, Task};
use crate::env::TimeNs;
use crate::error::{Error, Result};
use crate::format::id::SessionId;
use crate::format::repo::{ChunkerSpec, RepoFile};
use crate::format::snapshot::Counts;
use crate::format::snapshot::Directory;
use crate::repo::Repo;
use crate::repo::journal::{Journal, Recall};
use crate::repo::lookup::Index;
use crate::repo::packer::{OpenPack, Packer};
use crate::sys::buffer::PageBuffer;
use crate::sys::host::Owners;
use crate::watch::{Counter, Problem, ProblemKind, Tally, Watch};

pub fn chunker_of(file: &RepoFile) -> Chunker {
    match file.chunker {
        ChunkerSpec::WindowedMinimum { min, max } => Chunker::MinCdc { min, max },
        ChunkerSpec::FastCdc { min, average: avg, max } => Chunker::FastCdc { min, avg, max },
    }
}

/// `Work::bundle_below_bytes` and `Work::bundle_bytes`.
pub fn bundle_limits(file: &RepoFile) -> (usize, usize) {
    // Between the 512 KiB and 1 MiB of DESIGN.md, 4, where packs are large enough.
    (file.chunker.min_bytes() as usize / 2, (768 << 10).min(file.pack_size as usize / 16))
}

/// One backup, as all its threads see it.
pub struct Work<'w> {
    pub repo: &'w Repo,
    pub options: &'w BackupOptions,
    pub index: &'w Index,
    pub packer: &'w Packer<'w>,
    pub before: &'w Before<'w>,
    pub journal: Option<&'w Journal>,
    pub chunker: Chunker,
    /// Chunks below this, far below the average, share a frame with others.
    pub bundle_below_bytes: usize,
    /// A frame of several chunks is closed when it holds this much.
    pub bundle_bytes: usize,
    pub owners: Owners,
    pub links: HardLinks,
    pub ahead: Ahead,
    /// Only if there are more workers than tools.
    pub chest: Chest,
    /// Files from here on are mapped.
    pub large_bytes: u64,
    /// When the backup began: files that changed right before are not trusted next time.
    pub started: TimeNs,
    watch: &'w dyn Watch,
    tally: Tally,
    root: OnceLock<Directory>,
    failure: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Dropped when there is nothing more to do: every worker then ends.
    quit_in: Mutex<Option<Sender<()>>>,
    quit: Receiver<()>,
}

/// What one worker has to itself.
pub struct Worker<'w> {
    pub work: &'w Work<'w>,
    pub queues: Option<Queues>,
    /// `None`: the next that are free, when it needs some.
    pub tools: Option<Tools>,
    /// Where the journal said what the last file was.
    pub recall: Recall,
    /// A small file's bytes.
    pub file: PageBuffer,
}

impl<'w> Work<'w> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one backup meet here and only here"
    )]
    pub fn new(
        repo: &'w Repo,
        options: &'w BackupOptions,
        watch: &'w dyn Watch,
        index: &'w Index,
        packer: &'w Packer<'w>,
        before: &'w Before<'w>,
        journal: Option<&'w Journal>,
        started: TimeNs,
        missing: u64,
    ) -> Self {
        let tally = Tally::default();
        tally.add(Counter::Unread, missing);
        let (quit_in, quit) = bounded(0);
        let (bundle_below_bytes, bundle_bytes) = bundle_limits(repo.file());
        Self {
            repo,
            options,
            index,
            packer,
            before,
            journal,
            chunker: chunker_of(repo.file()),
            bundle_below_bytes,
            bundle_bytes,
            owners: Owners::new(),
            links: HardLinks::default(),
            ahead: Ahead::new(repo.file().pack_size),
            chest: Chest::new(repo.env().threads()),
            large_bytes: large_bytes(repo.env().threads(), LARGE_BYTES),
            started,
            watch,
            tally,
            root: OnceLock::new(),
            failure: Mutex::default(),
            stopped: AtomicBool::new(false),
            quit_in: Mutex::new(Some(quit_in)),
            quit,
        }
    }

    pub fn count(&self, counter: Counter, n: u64) {
        self.tally.add(counter, n);
        self.watch.add(counter, n);
    }

    pub fn watch(&self) -> &dyn Watch {
        self.watch
    }

    pub fn current(&self, path: &[u8]) {
        self.watch.current(path);
    }

    pub fn problem(&self, kind: ProblemKind, path: &[u8], cause: impl ToString) {
        match kind {
            ProblemKind::Unread => self.count(Counter::Unread, 1),
            ProblemKind::Inconsistent => self.count(Counter::Inconsistent, 1),
            _ => {}
        }
        self.watch.problem(Problem { kind, name: path.to_vec(), cause: cause.to_string() });
    }

    /// Asked at every task: has the run been cancelled, or has another thread failed?
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

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn fail(&self, error: Error) {
        self.failure.lock().expect("no panic holds this lock").get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
        self.ahead.wake();
        self.chest.wake();
        self.finish();
    }

    /// For the walk, which must have handed out all that it has before.
    pub fn wait_for_room(&self) {
        self.ahead.wait(|| self.is_stopped());
    }

    pub fn failure(&self) -> Result<()> {
        self.failure.lock().expect("no panic holds this lock").take().map_or(Ok(()), Err)
    }

    pub fn quit(&self) -> Receiver<()> {
        self.quit.clone()
    }

    fn finish(&self) {
        self.quit_in.lock().expect("no panic holds this lock").take();
    }

    /// The root directory is complete: nothing is left to be done but to flush.
    pub fn set_root(&self, root: Directory) {
        self.root.set(root).expect("there is one root, and it completes once");
        self.finish();
    }

    pub fn root(&self) -> Result<Directory> {
        self.root.get().copied().ok_or(Error::Interrupted)
    }

    pub fn counts(&self) -> Counts {
        let get = |counter| self.tally.get(counter);
        Counts {
            files: get(Counter::Files),
            directories: get(Counter::Dirs),
            others: get(Counter::Others),
            bytes: get(Counter::BytesDone),
            unread: get(Counter::Unread),
            inconsistent: get(Counter::Inconsistent),
            files_new: get(Counter::FilesNew),
            files_changed: get(Counter::FilesChanged),
            files_unchanged: get(Counter::FilesUnchanged),
            bytes_new: get(Counter::BytesNew),
            bytes_stored: self.packer.stored_bytes(),
        }
    }

    pub fn report(&self, snapshot: Option<SessionId>, seconds: f64) -> BackupReport {
        BackupReport {
            snapshot,
            counts: self.counts(),
            bytes_read: self.tally.get(Counter::BytesRead),
            chunks_new: self.tally.get(Counter::ChunksNew),
            chunks_known: self.tally.get(Counter::ChunksKnown),
            bytes_stored: self.packer.stored_bytes(),
            parent: self.before.parent(),
            seconds,
        }
    }
}

impl<'w> Worker<'w> {
    pub fn new(work: &'w Work<'w>, queues: Option<Queues>) -> Self {
        Self {
            work,
            queues,
            tools: work.chest.own(),
            recall: Recall::default(),
            file: PageBuffer::default(),
        }
    }

    pub fn tools(&mut self) -> &mut Tools {
        self.tools.as_mut().expect("whoever stores something has them")
    }

    fn give_tools_back(&mut self) {
        self.work.chest.give(self.tools.take().expect("they were taken"));
    }

    /// Does what takes tools.
    pub fn with_tools<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.tools.is_some() {
            return work(self);
        }
        let free = self.work.chest.take(|| self.work.is_stopped());
        self.tools = Some(free.ok_or(Error::Interrupted)?);
        let done = work(self);
        self.give_tools_back();
        done
    }

    pub fn take(&mut self, tasks: Vec<Task>) -> Result<()> {
        for task in tasks {
            self.work.go_on()?;
            match task {
                Task::Entries { dir, from, to } => self.entries(&dir, from, to)?,
                Task::Listed { dir } => self.listed(&dir)?,
            }
        }
        Ok(())
    }

    /// Hands a full pack to whoever makes it durable.
    pub fn hand_over(&self, pack: OpenPack) -> Result<()> {
        match &self.queues {
            Some(queues) => queues.packs.send(pack).map_err(|_| Error::Interrupted),
            None => self.work.packer.complete(pack),
        }
    }

    /// Stores what is left in the bundles.
    pub fn flush(&mut self) -> Result<()> {
        self.work.go_on()?;
        if self.tools.is_some() {
            return self.flush_bundles();
        }
        // Nobody stores anything any more, but for others that flush.
        while let Some(tools) = self.work.chest.take_filled() {
            self.tools = Some(tools);
            let done = self.flush_bundles();
            self.give_tools_back();
            done?;
        }
        Ok(())
    }
}
