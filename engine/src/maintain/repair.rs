//! Everything that is safe to do about damage:
//!
//! ```text
//! rebuild index runs → move frames out of rotten packs → drop from snapshots what is truly gone
//! ```
//!
//! 1. A pack that no readable run names is described by a new run, made from the pack's own directory.
//! 2. A frame that a snapshot needs, whose every copy lies in a pack that is cut short or is recorded
//!    as damaged, but opens and verifies all the same, is copied into a new pack as it is.
//! 3. A snapshot that still misses something is written again without it: a new snapshot of the same
//!    time, host, tags and labels, whose parent is the old one; then the old one is forgotten, with
//!    the reason. What was dropped is named.
//!
//! Nothing is deleted here, and nothing is replaced before its replacement is durable. What is bad
//! must be known: check records it (`check --read-data` all of it). The structural part takes an
//! admin, proving frames and writing snapshots the owner; who may do less says what is left.

mod losses;
mod nodes;
mod rewrite;
mod runs;
mod salvage;

use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::id::{ObjectHash, SessionId, hash};
use crate::format::seal::Recipient;
use crate::format::slot::Role;
use crate::repo::Repo;
use crate::repo::despite::Despite;
use crate::repo::lookup::Index;
use crate::repo::opening::Proof;
use crate::watch::{Problem, ProblemKind, Watch};

#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Find out and report, write nothing.
    pub dry_run: bool,
    /// Stands in the record of each snapshot that is replaced.
    pub reason: String,
}

#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Index runs that cannot be read.
    pub runs_damaged: u64,
    /// Packs that no run named, and are named by a new one now.
    pub packs_named: u64,
    /// Frames copied out of rotten packs.
    pub frames_moved: u64,
    pub bytes_moved: u64,
    pub snapshots: Vec<Repaired>,
    /// What could not be done: an object's name, and why.
    pub left: Vec<(String, String)>,
    pub seconds: f64,
}

/// A snapshot that missed something.
#[derive(Debug, Clone)]
pub struct Repaired {
    pub old: SessionId,
    /// What stands in its place; `None`: in a dry run, or it stays as it is (`RepairReport::left`).
    pub new: Option<SessionId>,
    /// Paths that are lost: files, and directories with all that they had.
    pub lost: Vec<Vec<u8>>,
}

struct Repair<'a> {
    repo: &'a Repo,
    options: &'a RepairOptions,
    watch: &'a dyn Watch,
    /// Payloads of index runs that a dry run has not written.
    unwritten: Vec<Vec<u8>>,
}

impl Repair<'_> {
    /// The index as far as it can be read, with what a dry run would have written.
    fn index(&self) -> Result<Index> {
        let (index, _) = self.repo.index_despite(Despite::Runs, Proof::Now)?;
        for payload in &self.unwritten {
            index.add(&ObjectHash(hash(payload)), payload.clone())?;
        }
        Ok(index)
    }

    fn go_on(&self) -> Result<()> {
        if self.watch.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn leave(&self, report: &mut RepairReport, name: &str, why: String) {
        let problem = Problem {
            kind: ProblemKind::Damage,
            name: name.as_bytes().to_vec(),
            cause: why.clone(),
        };
        self.watch.problem(problem);
        report.left.push((name.to_owned(), why));
    }

    fn notice(&self, name: &str, cause: &str) {
        let (kind, name) = (ProblemKind::Notice, name.as_bytes().to_vec());
        self.watch.problem(Problem { kind, name, cause: cause.to_owned() });
    }

    /// May this key read names and write snapshots?
    fn is_owner(&self) -> bool {
        self.repo.role() == Role::Owner && self.repo.reads(Recipient::Tree)
    }
}

pub fn run(repo: &Repo, options: &RepairOptions, watch: &dyn Watch) -> Result<RepairReport> {
    repo.needs_admin()?;
    let started = Instant::now();
    let mut repair = Repair { repo, options, watch, unwritten: Vec::new() };
    let mut report = RepairReport::default();
    repair.unwritten = runs::rebuild(&repair, &mut report)?;
    let roots = losses::roots(&repair, &mut report)?;
    let salvaged = salvage::salvage(&repair, &roots, &mut report)?;
    rewrite::rewrite(&repair, roots, &salvaged, &mut report)?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}
