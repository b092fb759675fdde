//! Freeing what no snapshot needs, without locks (DESIGN.md, 6.5; `docs/concurrency.md`). A
//! numbered generation is a proposal and a verdict:
//!
//! ```text
//! carry out old verdicts → decide a proposal left open → propose → decide → carry out
//! ```
//!
//! Any step may be done by anyone, twice, or after a crash: what stands in the store says how far
//! it got. Writers and readers are never waited for with a lock: sessions that were open when the
//! proposal came out must have ended before the verdict; if one has not, prune stops here and the
//! next one goes on. If a live snapshot, tree, run or roster cannot be read, or a live chunk has no
//! sound copy, nothing is deleted. Frames are moved sealed as they are, so that no key to names or
//! content is needed.

mod carry_out;
mod choose;
mod decide;
mod merge;
mod propose;
mod relocate;
#[cfg(test)]
mod scale;
mod state;

use std::time::{Duration, Instant};

use crate::env::TimeNs;
use crate::error::{Error, Result};
use crate::format::id::SessionId;
use crate::repo::Repo;
use crate::repo::control::Retired;
use crate::watch::{Problem, ProblemKind, Watch};

use decide::Outcome;

/// Proposals that others left open and that one run decides before it makes its own.
const ROUNDS_MAX: usize = 16;
/// Half-written objects that nobody wrote to for so long are removed.
const TEMPORARIES_AFTER: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// Find out and report, write nothing.
    pub dry_run: bool,
    /// Dead bytes that may stay in packs beside live ones, as a share of all bytes in packs.
    pub max_unused: f64,
    /// A session that has been silent for so long may be fenced: a writer that lives all the same
    /// starts over, which costs it seconds.
    pub fence_after_ns: TimeNs,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { dry_run: false, max_unused: 0.05, fence_after_ns: 24 * 3600 * 1_000_000_000 }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PruneReport {
    /// The last generation that was worked on; `None`: there was nothing to do.
    pub generation: Option<u32>,
    /// Open sessions that the verdict waits for. Nothing is lost; run prune again.
    pub waiting_for: Vec<SessionId>,
    /// Live snapshots.
    pub snapshots: u64,
    /// Packs and their bytes before anything was done.
    pub packs: u64,
    pub bytes: u64,
    /// Packs that nothing needs, with those whose frames are moved, and their bytes. While a
    /// verdict waits, and in a dry run, they are all still there.
    pub packs_doomed: u64,
    pub bytes_doomed: u64,
    pub snapshots_doomed: u64,
    /// What was deleted.
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    /// Half-dead or small packs whose live frames were moved to new ones, and the bytes moved.
    pub packs_moved: u64,
    pub bytes_moved: u64,
    /// Dead bytes that stay in packs beside live ones.
    pub bytes_unused: u64,
    /// Index runs that a merged run replaced.
    pub runs_merged: u64,
    pub runs_deleted: u64,
    pub snapshots_deleted: u64,
    pub sessions_deleted: u64,
    pub sessions_fenced: Vec<SessionId>,
    /// Packs that a new snapshot needed again, between proposal and verdict.
    pub packs_rescued: u64,
    pub seconds: f64,
}

struct Prune<'a> {
    repo: &'a Repo,
    options: &'a PruneOptions,
    watch: &'a dyn Watch,
}

impl Prune<'_> {
    fn go_on(&self) -> Result<()> {
        if self.watch.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn notice(&self, name: &str, cause: &str) {
        let (kind, name) = (ProblemKind::Notice, name.as_bytes().to_vec());
        self.watch.problem(Problem { kind, name, cause: cause.to_owned() });
    }
}

/// Frees what no live snapshot needs.
pub fn run(repo: &Repo, options: &PruneOptions, watch: &dyn Watch) -> Result<PruneReport> {
    repo.needs_admin()?;
    let started = Instant::now();
    let prune = Prune { repo, options, watch };
    let mut report = PruneReport::default();
    for _ in 0..ROUNDS_MAX {
        prune.go_on()?;
        let retired = repo.retired()?;
        if !options.dry_run {
            carry_out::all(&prune, &retired)?;
        }
        let open = newest_open(&retired);
        let mine = open.is_none();
        let open = match open {
            Some(open) if !options.dry_run => Some(open),
            _ => propose::propose(&prune, &retired, &mut report)?,
        };
        let Some(number) = open else { break };
        report.generation = Some(number);
        match decide::decide(&prune, number, &mut report)? {
            Outcome::Waiting(sessions) => {
                report.waiting_for = sessions;
                break;
            }
            Outcome::Decided => carry_out::one(&prune, number, &mut report)?,
            // There is a verdict already, by another pruner: look again.
            Outcome::Overtaken => continue,
        }
        if mine {
            break;
        }
    }
    if !options.dry_run
        && let Err(error) = repo.store().sweep(TEMPORARIES_AFTER)
    {
        prune.notice("tmp", &format!("what dead writers left half-written stays: {error}"));
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The newest proposal without a verdict: whoever made it may have died.
fn newest_open(retired: &Retired) -> Option<u32> {
    let mut open = retired
        .iter()
        .rev()
        .filter(|(_, generation)| generation.proposal.is_some() && generation.verdict.is_none());
    open.next().map(|(number, _)| *number)
}
