//! How fast this machine does what backup and restore do, and, given what is to be backed up and where to, what bounds
//! them there. It measures with the functions that backup and restore call, predicts from that, and leaves nothing
//! behind: no object is published, files it writes go away with their folder.
//!
//! ```text
//! kernels alone → samples along the way in and back → the disks → predictions
//! ```
//!
//! It does not try: real deltas and real duplicates, the network, other load on the machine, disks that slow down
//! under long writing.

mod data;
mod kernels;
mod line;
mod meter;
mod place;
mod predict;
mod rehearse;
mod scratch;
mod source;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::env::Env;
use crate::error::Result;
use crate::repo::{Repo, Suite};
use crate::sys::host::{cpu_has_aes, fs_type};
use crate::watch::Watch;

use meter::Meter;
use scratch::Scratch;
use steps::Run;

pub use kernels::{StageSpeed, Unit, built_in_index, built_in_sealer, cipher_name};
pub use line::{STAGES, Spent, Stage};
pub use meter::Speed;
pub use place::{Stored, Writing};
pub use predict::{Bound, Facts, PerEntry, Prediction, WHATS, What};
pub use source::{Reading, Source};

/// For stages alone, of the time for all.
const KERNELS: f64 = 0.3;
/// About how many speeds are taken there.
const SPEEDS: f64 = 50.0;

pub struct BenchmarkOptions<'o> {
    pub threads: usize,
    /// About how long all of it may take.
    pub seconds: f64,
    /// What is to be backed up.
    pub paths: &'o [PathBuf],
    pub repo: Option<&'o Repo>,
    /// The folder of the repository's store, if it is one.
    pub repo_folder: Option<&'o Path>,
    /// Where a restore would write; a folder is made there, and removed.
    pub target: &'o Path,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub threads: usize,
    pub cores: usize,
    pub has_aes: bool,
    pub target_fs: &'static str,
    pub stages: Vec<StageSpeed>,
    /// To unlock a slot with a password, once a command.
    pub unlock_seconds: f64,
    pub source: Option<SourceReport>,
    pub repository: Option<RepositoryReport>,
    pub forecasts: Vec<Forecast>,
    pub cipher: Suite,
    pub threads_needed: usize,
    pub seconds: f64,
}

#[derive(Clone, Debug)]
pub struct SourceReport {
    pub found: Source,
    pub as_found: Reading,
    pub cold: Reading,
    pub fs: &'static str,
}

#[derive(Clone, Debug)]
pub struct RepositoryReport {
    pub suite: Suite,
    pub fs: &'static str,
    /// `None`: the store cannot be written to, or is full.
    pub writing: Option<Writing>,
    pub packs: u64,
    pub as_found: Reading,
    pub cold: Reading,
    /// `None`: the key does not read content, or nothing is stored.
    pub stored: Option<Stored>,
    pub chunks: u64,
    pub index_seconds: f64,
    pub look_up: Option<Speed>,
    /// Files and bytes of the newest snapshot.
    pub newest: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// What was asked for.
    Paths,
    /// Built-in data of this kind.
    BuiltIn(&'static str),
    /// What the repository holds, to be restored.
    Newest,
}

/// Predictions for one source.
#[derive(Clone, Debug)]
pub struct Forecast {
    pub of: Of,
    pub facts: Facts,
    /// As things are now.
    pub predictions: Vec<Prediction>,
    /// With nothing in the page cache; empty where that cannot be told.
    pub cold: Vec<Prediction>,
}

/// All of it.
pub fn run(options: &BenchmarkOptions, watch: &dyn Watch) -> Result<Report> {
    let started = Instant::now();
    let threads = options.threads.max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let env = Env::system(threads);
    let scratch = Scratch::new(options.target, &env)?;
    let seconds = options.seconds * KERNELS / SPEEDS;
    let meter = Meter { threads, cores, seconds, watch };
    let mut run = Run { options, meter: &meter, scratch: &scratch, env, stages: Vec::new() };
    // First what may be wrong, so that nobody waits for an error.
    let walked = match options.paths {
        [] => None,
        paths => Some(run.walk(paths)?),
    };
    let unlock_seconds = run.unlock()?;
    // Made now, so that they are old enough to be believed unchanged when they are backed up.
    let files = (options.seconds * 100.0).clamp(64.0, 1000.0) as usize;
    let small = rehearse::small_files(&scratch, files)?;
    run.kernels()?;
    let repository = options.repo.map(|repo| run.repository(repo)).transpose()?;
    let base = run.base(&small, repository.as_ref())?;
    let (source, forecasts) = match walked {
        Some((found, samples)) => {
            let (source, forecast) = run.paths(found, &samples, &base)?;
            (Some(source), vec![forecast])
        }
        None => (None, run.built_in(&base)?),
    };
    let newest = repository.as_ref().and_then(|found| steps::newest(found, &base));
    let needed = forecasts.iter().map(|forecast| forecast.facts.threads_needed()).max();
    Ok(Report {
        threads,
        cores,
        has_aes: cpu_has_aes(),
        target_fs: fs_of(options.target),
        cipher: faster_cipher(&run.stages),
        threads_needed: needed.unwrap_or(threads),
        stages: run.stages,
        unlock_seconds,
        source,
        repository,
        forecasts: forecasts.into_iter().chain(newest).collect(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn fs_of(path: &Path) -> &'static str {
    fs_type(path).unwrap_or("unknown")
}

/// By sealing and opening; AES where it makes no difference.
fn faster_cipher(stages: &[StageSpeed]) -> Suite {
    let seconds = |suite| -> f64 {
        let of = stages.iter().filter(|row| row.of == cipher_name(suite));
        of.map(|row| 1.0 / row.speed.all).sum()
    };
    let (aes, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
    if seconds(chacha) < seconds(aes) { chacha } else { aes }
}
