//! What an entry costs beyond its bytes: a real backup of small files into memory, the same once more with nothing
//! changed, and, of built-in files only, a restore. Real content is never written anywhere in the clear.

use std::path::{Path, PathBuf};

use crate::backup::{self, BackupOptions, Source};
use crate::benchmark::data::{Rng, csv};
use crate::benchmark::line::Sample;
use crate::benchmark::meter::Meter;
use crate::benchmark::scratch::{Scratch, memory_repo};
use crate::env::Env;
use crate::error::Result;
use crate::repo::InitOptions;
use crate::restore::{self, RestoreOptions};
use crate::sys::clock::process_cpu;
use crate::watch::{Counter, Problem, Watch};

const FILES_PER_FOLDER: usize = 50;
const FILE_BYTES_MIN: u64 = 1 << 10;
const FILE_BYTES_MAX: u64 = 16 << 10;

/// Processor seconds of all threads, less those for nothing at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rehearsal {
    pub backup: f64,
    pub again: f64,
    /// 0: it was not tried.
    pub restore: f64,
}

/// Only what stops a run is of interest.
struct Quiet<'w>(&'w dyn Watch);

impl Watch for Quiet<'_> {
    fn add(&self, _: Counter, _: u64) {}

    fn problem(&self, _: Problem) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// Small files in folders, as exports of forms and notes are.
pub fn small_files(scratch: &Scratch, count: usize) -> Result<Vec<Sample>> {
    let text = csv(1 << 20, false);
    let mut rng = Rng::at(0x5f);
    let mut samples = Vec::with_capacity(count);
    for n in 0..count {
        let folder = format!("small/{}", n / FILES_PER_FOLDER);
        if n % FILES_PER_FOLDER == 0 {
            scratch.folder(&folder)?;
        }
        let len = FILE_BYTES_MIN + rng.below(FILE_BYTES_MAX - FILE_BYTES_MIN);
        let at = rng.below(text.len() as u64 - len) as usize;
        let bytes = &text[at..at + len as usize];
        let path = scratch.file(&format!("{folder}/{n}.csv"), bytes)?;
        samples.push(Sample { path, offset: 0, len: len as usize, samples: None });
    }
    Ok(samples)
}

/// `restore`: only for files whose content may be written to the scratch folder.
pub fn rehearse(
    paths: &[PathBuf],
    restore: bool,
    options: &InitOptions,
    scratch: &Scratch,
    meter: &Meter,
) -> Result<Rehearsal> {
    let nothing = [scratch.folder("nothing")?];
    let base = once(&nothing, restore, options, scratch, meter)?;
    // Twice, since what disturbs it, a file system's own work above all, only adds.
    let full = once(paths, restore, options, scratch, meter)?;
    let second = once(paths, restore, options, scratch, meter)?;
    // A difference that drowns in noise, as that of a few files, is still not nothing.
    let less = |one: f64, other: f64, base: f64| {
        let least = one.min(other);
        (least - base).max(least / 20.0)
    };
    Ok(Rehearsal {
        backup: less(full.backup, second.backup, base.backup),
        again: less(full.again, second.again, base.again),
        restore: less(full.restore, second.restore, base.restore),
    })
}

fn once(
    paths: &[PathBuf],
    restore: bool,
    options: &InitOptions,
    scratch: &Scratch,
    meter: &Meter,
) -> Result<Rehearsal> {
    let watch = Quiet(meter.watch);
    let env = Env::system(meter.threads);
    let cache = scratch.folder("cache")?;
    let repo = memory_repo(options, Some(&cache), &env)?;
    let back_up = || {
        let cpu = process_cpu();
        backup::run(&repo, Source::Paths(paths), &BackupOptions::default(), &watch)?;
        Ok::<_, crate::error::Error>((process_cpu() - cpu).as_secs_f64())
    };
    let mut spent = Rehearsal { backup: back_up()?, again: back_up()?, restore: 0.0 };
    if restore {
        let snapshot = repo.find_snapshot("latest")?;
        let target = scratch.folder("restored")?;
        let cpu = process_cpu();
        restore::run(&repo, &snapshot, None, &target, &RestoreOptions::default(), &watch)?;
        spent.restore = (process_cpu() - cpu).as_secs_f64();
        remove(&target, scratch)?;
    }
    Ok(spent)
}

fn remove(folder: &Path, scratch: &Scratch) -> Result<()> {
    std::fs::remove_dir_all(folder).map_err(scratch.failed())
}
