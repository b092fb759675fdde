//! The client's cached index runs and tables as one opening finds them: what is there, which of it the store still
//! lists, and what may go. It does not merge; see `lookup`. Other processes may add and delete beside us: what has
//! vanished is fetched or made again, and what came after we looked is left alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::format::id::ObjectHash;
use crate::repo::checked::{self, Checked};
use crate::repo::parallel;
use crate::repo::segment::Segment;
use crate::repo::tier::Tier;
use crate::sys::map::MAPS_MAX;

/// So many files with runs are opened, as maps are not to be had without end. More than a few hundred are there only if
/// they could not be put together for long: the rest is left for a later opening, and what is in it fetched.
const FILES_MAX: usize = if cfg!(test) { 24 } else { MAPS_MAX / 2 };
/// Proven at a time by one thread.
const PART_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub struct Catalogue {
    files: Vec<Arc<Checked>>,
    runs: HashMap<ObjectHash, Place>,
    /// Which tier a run is looked up in, and which of its runs it is.
    tier_of: HashMap<ObjectHash, (u32, u32)>,
}

/// A run in a file.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    start: usize,
    payload_len: usize,
}

impl Catalogue {
    /// What is in the folder, and its tables, the largest first. What is broken, left over from a crash or of an older
    /// version is deleted.
    pub fn open(folder: &Path) -> (Self, Vec<Arc<Tier>>) {
        let (mut files, mut tiers) = (Vec::new(), Vec::new());
        for path in paths(folder) {
            let room = files.len() < FILES_MAX;
            let opened = match path.extension().and_then(|extension| extension.to_str()) {
                Some("run" | "runs") if room => {
                    Segment::open_file(&path).map(|file| files.push(file))
                }
                Some("tier") => Tier::open(&path).map(|tier| tiers.push(Arc::new(tier))),
                Some("new") => {
                    checked::sweep(&path);
                    Ok(())
                }
                _ => Ok(()),
            };
            if opened.is_err() {
                let _ = std::fs::remove_file(path);
            }
        }
        // Of two that name a run, the larger one counts: the other was merged into it.
        files.sort_by_key(|file| file.len());
        let mut runs = HashMap::new();
        for (number, file) in (0..).zip(&files) {
            let places = Segment::runs_in(file).map(|(name, start, payload_len)| {
                (name, Place { file: number, start, payload_len })
            });
            runs.extend(places);
        }
        tiers.sort_by_key(|tier| std::cmp::Reverse(tier.chunks().0));
        let mut tier_of = HashMap::new();
        for (number, tier) in (0..).zip(&tiers) {
            for (run, (name, _)) in (0..).zip(tier.runs()) {
                tier_of.entry(*name).or_insert((number, run));
            }
        }
        (Self { files, runs, tier_of }, tiers)
    }

    /// Proves every byte of every file with runs, and forgets those that are broken.
    pub fn prove(&mut self, threads: usize) -> Result<()> {
        let parts = self.files.iter().flat_map(|file| {
            let starts = (0..file.len()).step_by(PART_BYTES);
            starts.map(move |start| (file, start..(start + PART_BYTES).min(file.len())))
        });
        let parts: Vec<_> = parts.collect();
        parallel::each(
            threads,
            &parts,
            || (),
            |(), (file, part)| {
                file.prove(part.clone());
                Ok(())
            },
        )?;
        self.runs.retain(|_, place| !self.files[place.file as usize].is_broken());
        Ok(())
    }

    /// `None`: it is not there, or broken.
    pub fn run(&self, name: &ObjectHash) -> Option<Segment> {
        let place = self.runs.get(name)?;
        let file = &self.files[place.file as usize];
        Segment::of(file, Some(*name), place.start, place.payload_len)
    }

    /// Number of the tier that a run is looked up in, and which of its runs it is.
    pub fn tier_of(&self, name: &ObjectHash) -> Option<(u32, u32)> {
        self.tier_of.get(name).copied()
    }

    /// Deletes the files whose runs nobody has taken in.
    pub fn sweep(&self) {
        for file in self.files.iter().filter(|file| Arc::strong_count(file) == 1) {
            file.path().map(std::fs::remove_file);
        }
    }
}

/// In an order of their own, so that the same folder gives the same calls.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}
