//! Progress and counters: how the engine tells whoever started it what happens. It never prints.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted. Bytes are bytes, everything else is pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Files, directories and other entries met by the walk or planned by a restore.
    EntriesFound,
    /// Bytes of files met by the walk or planned by a restore (grows while work goes on).
    BytesFound,
    Files,
    Dirs,
    /// Symlinks, fifos, sockets, devices.
    Others,
    FilesNew,
    FilesChanged,
    FilesUnchanged,
    /// Files read, restored, or found in place.
    FilesDone,
    /// Source bytes that are dealt with: read, taken over, restored or found in place.
    BytesDone,
    /// Source bytes really read.
    BytesRead,
    ChunksNew,
    ChunksKnown,
    /// Plain bytes of chunks that were not known before.
    BytesNew,
    /// Bytes written to the store.
    BytesStored,
    PacksDone,
    PacksFound,
    Unread,
    Inconsistent,
    Problems,
}

pub const COUNTERS: usize = Counter::Problems as usize + 1;

/// Something that went wrong with one entry or object without stopping the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// Path of the source or target entry as bytes, or name of the object; not sanitised.
    pub name: Vec<u8>,
    pub cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A source entry could not be read; it is not in the snapshot.
    Unread,
    /// A source file kept changing while it was read; what was read is in the snapshot, marked.
    Inconsistent,
    /// A restored entry's metadata could not be set in full.
    Metadata,
    /// An entry could not be restored.
    NotRestored,
    /// An object of the repository is damaged, missing or forged.
    Damage,
    /// Worth knowing; nothing is lost.
    Notice,
}

/// One method a kind of news; called from many threads.
pub trait Watch: Send + Sync {
    fn add(&self, counter: Counter, n: u64);
    /// The entry or object now being worked on.
    fn current(&self, _name: &[u8]) {}
    fn problem(&self, problem: Problem);
    /// Asked often; `true` makes the run stop with `Error::Interrupted`.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Keeps the sums and the problems; the base of every other watch, and what tests use.
#[derive(Debug, Default)]
pub struct Tally {
    sums: [AtomicU64; COUNTERS],
    problems: std::sync::Mutex<Vec<Problem>>,
}

impl Tally {
    pub fn get(&self, counter: Counter) -> u64 {
        self.sums[counter as usize].load(Ordering::Relaxed)
    }

    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().expect("no panic holds this lock").clone()
    }
}

impl Watch for Tally {
    fn add(&self, counter: Counter, n: u64) {
        self.sums[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    fn problem(&self, problem: Problem) {
        self.add(Counter::Problems, 1);
        self.problems.lock().expect("no panic holds this lock").push(problem);
    }
}
