//! Is the repository sound? Three depths: without any key every object is held to its hash; with a
//! key every record, signature, index row and reference is followed (`run`); with `read_data` every
//! pack is read, opened, decoded, and every chunk proven by its id.
//!
//! ```text
//! listing → records → snapshots → index runs → packs → walk → blame → settle → record
//! ```
//!
//! Nothing stops at the first damage. What a role cannot open is left out, and a notice says so.
//! Nothing is repaired here; written is only which frames are bad, so that the next backup of the
//! good source stores them again. What has another sound copy is healed: a notice, no damage.
//! Names are listed against the order in which writers write (snapshots first, packs last), so a
//! backup that runs at the same time is never taken for damage; a prune that deletes meanwhile may be.

mod blame;
mod data;
mod findings;
mod health;
mod objects;
mod packs;
mod rosters;
mod settle;
mod snapshots;
mod stream;
mod walk;
mod without_key;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::id::SessionId;
use crate::format::seal::Recipient;
use crate::repo::Repo;
use crate::repo::fetch::Fetcher;
use crate::repo::parallel;
use crate::watch::{Counter, Watch};

use findings::Findings;
use health::Health;

pub use without_key::without_key;

/// Paths kept for one damage; the rest is counted.
const PATHS_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every pack, open and decode every frame that the key can open, prove every chunk.
    pub read_data: bool,
}

#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Live snapshots (without a key: objects that look like one).
    pub snapshots: u64,
    pub packs: u64,
    pub index_runs: u64,
    pub other_objects: u64,
    /// Rows of all index runs; 0 without a key.
    pub chunks: u64,
    /// Bytes of records, index runs, directories and packs that were read; what the walk fetched again is not counted.
    pub bytes_read: u64,
    /// Frames that were found bad and are recorded as such from now on.
    pub recorded: u64,
    /// In the order of their objects' names. The watch has heard of each of them too.
    pub damages: Vec<DamageFound>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageFound {
    /// Its name in the store.
    pub object: String,
    pub what: String,
    /// Live snapshots that need what is damaged.
    pub snapshots: Vec<SessionId>,
    /// Paths in those snapshots, at most 1,000, as far as the key sees names; `what` says how many more.
    pub paths: Vec<Vec<u8>>,
}

/// What every part of a check works with.
struct Check<'a> {
    repo: &'a Repo,
    watch: &'a dyn Watch,
    findings: Findings<'a>,
    bytes_read: AtomicU64,
    read_data: bool,
}

impl Check<'_> {
    fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.watch.add(Counter::BytesRead, bytes);
    }

    fn go_on(&self) -> Result<()> {
        if self.watch.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn threads(&self) -> usize {
        self.repo.env().threads()
    }

    /// Do we see names, and so the paths that are lost?
    fn sees_names(&self) -> bool {
        self.repo.reads(Recipient::Tree) && self.repo.id_key().is_ok()
    }
}

/// Checks all that the key of `repo` can see.
pub fn run(repo: &Repo, options: &CheckOptions, watch: &dyn Watch) -> Result<CheckReport> {
    let started = Instant::now();
    let read_data = options.read_data;
    let bytes_read = AtomicU64::new(0);
    let check = Check { repo, watch, findings: Findings::new(watch), bytes_read, read_data };
    let listing = objects::Listing::read(&check)?;
    rosters::check(&check)?;
    let control = objects::check_records(&check, &listing)?;
    let live = snapshots::check(&check, &listing, &control)?;
    let runs = packs::open_runs(&check, &listing, &control)?;
    let fetcher = Fetcher::new(repo, &runs.index);
    let bad = packs::check(&check, &fetcher, &listing, &control, &runs)?;
    let health = Health::new(&check, &runs.index, bad);
    let walked = walk::walk(&check, &fetcher, &health, &live.roots)?;
    if !walked.broken.is_empty() {
        blame::blame(&check, &fetcher, &walked.broken, &live.roots)?;
    }
    let all_seen = repo.reads(Recipient::Meta) && live.count == live.roots.len() as u64;
    settle::settle(&check, &health, &walked, all_seen);
    let recorded = settle::record(&check, &fetcher, &health)?;
    Ok(CheckReport {
        snapshots: live.count,
        packs: listing.packs.len() as u64,
        index_runs: listing.runs.len() as u64,
        other_objects: listing.others.len() as u64 + listing.snapshots.len() as u64 - live.count,
        chunks: runs.chunks(),
        bytes_read: check.bytes_read.into_inner(),
        recorded,
        damages: check.findings.into_damages(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
