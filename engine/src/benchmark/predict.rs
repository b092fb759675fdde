//! From speeds to times. The model: what threads compute is spread evenly over the processors; a disk and the
//! processors work side by side as far as there are threads to overlap them; packs are made durable by a thread of
//! their own; whichever takes longest is the bottleneck. Everything is new in a first backup.

use crate::benchmark::line::{STAGES, Spent, Stage};

/// What a prediction is made from. Times are in seconds; "per byte" means a byte of the source.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub threads: usize,
    pub cores: usize,
    pub files: u64,
    pub bytes: u64,
    /// Stages, measured on samples with all threads.
    pub spent: Spent,
    /// Processor time of an entry beyond its bytes.
    pub entry: PerEntry,
    /// Of one chunk in the index.
    pub look_up: f64,
    /// Of the disk that the source is on, per byte.
    pub source: f64,
    /// Of the store's disk, per stored byte; `None`: not known.
    pub sync: Option<f64>,
    /// Of the store's disk when packs are read, per stored byte.
    pub packs: f64,
    /// Processor time of fetching, per stored byte, and of writing a restored file, per byte.
    pub fetch: f64,
    pub write_file: f64,
    pub pack_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerEntry {
    pub first: f64,
    pub unchanged: f64,
    pub restore: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    FirstBackup,
    /// Every file is read again, and all of it is known.
    ReRead,
    /// Sizes and times are as they were.
    Unchanged,
    Restore,
}

pub const WHATS: [What; 4] = [What::FirstBackup, What::ReRead, What::Unchanged, What::Restore];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Processor,
    SourceDisk,
    StoreDisk,
}

#[derive(Clone, Debug)]
pub struct Prediction {
    pub what: What,
    pub seconds: f64,
    pub bound: Bound,
    /// Stages with their processor time, the longest first.
    pub parts: Vec<(&'static str, f64)>,
    /// What each would take if nothing else took any time.
    pub processor_seconds: f64,
    pub source_seconds: f64,
    pub store_seconds: f64,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::FirstBackup => "first backup",
            What::ReRead => "re-read, all known",
            What::Unchanged => "unchanged",
            What::Restore => "restore",
        }
    }
}

impl Facts {
    pub fn predict(&self, what: What) -> Prediction {
        let stored = self.bytes as f64 * self.spent.stored_share();
        let (source, store, beside) = match what {
            What::FirstBackup => {
                (self.source * self.bytes as f64, self.sync.unwrap_or(0.0) * stored, true)
            }
            What::ReRead => (self.source * self.bytes as f64, 0.0, true),
            What::Unchanged => (0.0, 0.0, true),
            What::Restore => (0.0, self.packs * stored, false),
        };
        let mut parts = self.parts(what, stored);
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let cpu: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        let processor = cpu / self.threads.min(self.cores).max(1) as f64;
        let seconds = if self.threads > 1 && beside {
            // The last packs are made durable when nothing else is left to do.
            let open = self.pack_bytes as f64 * self.threads.div_ceil(2) as f64;
            let last = self.sync.unwrap_or(0.0) * (open / 2.0).min(stored);
            let last = if what == What::FirstBackup { last } else { 0.0 };
            overlapped(processor, source, self.threads).max(store) + last
        } else {
            overlapped(processor, source + store, self.threads)
        };
        let bound = match () {
            () if processor >= source.max(store) => Bound::Processor,
            () if source >= store => Bound::SourceDisk,
            () => Bound::StoreDisk,
        };
        Prediction {
            what,
            seconds,
            bound,
            parts,
            processor_seconds: processor,
            source_seconds: source,
            store_seconds: store,
        }
    }

    fn parts(&self, what: What, stored: f64) -> Vec<(&'static str, f64)> {
        let (files, bytes) = (self.files as f64, self.bytes as f64);
        let of = |stages: &[Stage]| -> Vec<(&'static str, f64)> {
            stages.iter().map(|&stage| (stage.name(), self.spent.per_byte(stage) * bytes)).collect()
        };
        let chunks = self.spent.chunks as f64 / self.spent.plain_bytes.max(1) as f64 * bytes;
        let look_up = ("look up", chunks * self.look_up);
        match what {
            What::FirstBackup => {
                let mut parts = of(&STAGES);
                parts.extend([look_up, ("entries", files * self.entry.first)]);
                parts
            }
            What::ReRead => {
                let mut parts = of(&[Stage::Read, Stage::Cut, Stage::Identify]);
                parts.extend([look_up, ("entries", files * self.entry.first)]);
                parts
            }
            What::Unchanged => vec![("entries", files * self.entry.unchanged)],
            What::Restore => {
                let mut parts = of(&RESTORE);
                parts.push(("fetch", stored * self.fetch));
                parts.push(("write files", bytes * self.write_file));
                parts.push(("entries", files * self.entry.restore));
                parts
            }
        }
    }

    /// The fewest threads with which a first backup takes hardly longer than with all of them.
    pub fn threads_needed(&self) -> usize {
        let seconds =
            |threads| Facts { threads, ..self.clone() }.predict(What::FirstBackup).seconds;
        let least = (1..=self.threads).map(seconds).fold(f64::INFINITY, f64::min);
        (1..=self.threads).find(|&t| seconds(t) <= least * 1.05).unwrap_or(self.threads)
    }
}

pub const RESTORE: [Stage; 3] = [Stage::Open, Stage::Decode, Stage::Verify];

/// Two that work side by side, as far as there are threads for it.
fn overlapped(a: f64, b: f64, threads: usize) -> f64 {
    a.max(b) + a.min(b) / threads as f64
}

#[cfg(test)]
mod tests {
    use super::{Bound, Facts, PerEntry, What, overlapped};
    use crate::benchmark::line::{Spent, Stage};

    const GIB: u64 = 1 << 30;

    /// 10 GiB; a GiB takes a thread 1 s to read, 1 s to identify and 2 s to compress to a half.
    fn facts() -> Facts {
        let mut spent = Spent::of_stored(1000, GIB, GIB / 2);
        spent.add(Stage::Read, 1.0, GIB);
        spent.add(Stage::Identify, 1.0, GIB);
        spent.add(Stage::Encode, 2.0, GIB);
        spent.add(Stage::Decode, 0.5, GIB);
        Facts { threads: 4, cores: 4, files: 10, bytes: 10 * GIB, spent, ..Facts::default() }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b
    }

    #[test]
    fn processors_share_what_is_computed() {
        let first = facts().predict(What::FirstBackup);
        assert!(near(first.seconds, 45.0 / 4.0), "{first:?}");
        assert_eq!((first.bound, first.parts[0]), (Bound::Processor, ("compress", 20.0)));
        let again = facts().predict(What::ReRead);
        assert!(near(again.seconds, 20.0 / 4.0), "{again:?}");
        let two = Facts { cores: 2, ..facts() }.predict(What::FirstBackup);
        assert!(near(two.seconds, 45.0 / 2.0), "threads without processors do nothing: {two:?}");
        let one = Facts { threads: 1, ..facts() }.predict(What::FirstBackup);
        assert!(near(one.seconds, 45.0));
    }

    #[test]
    fn the_slower_disk_is_named() {
        let per_gib = |seconds: f64| seconds / GIB as f64;
        let slow = Facts { source: per_gib(10.0), ..facts() }.predict(What::FirstBackup);
        assert_eq!(slow.bound, Bound::SourceDisk);
        assert!(near(slow.source_seconds, 100.0) && slow.seconds >= 100.0, "{slow:?}");
        let slow = Facts { sync: Some(per_gib(10.0)), ..facts() }.predict(What::FirstBackup);
        assert_eq!(slow.bound, Bound::StoreDisk, "half of it is stored: {slow:?}");
        assert!(near(slow.seconds, 50.0), "{slow:?}");
        let restore = Facts { packs: per_gib(10.0), ..facts() }.predict(What::Restore);
        assert_eq!(restore.bound, Bound::StoreDisk);
        assert!(restore.seconds >= 50.0, "{restore:?}");
    }

    #[test]
    fn many_small_files_are_bound_by_their_number() {
        let entry = PerEntry { first: 1e-4, unchanged: 1e-5, restore: 2e-4 };
        let facts = Facts { files: 4_000_000, entry, ..facts() };
        let first = facts.predict(What::FirstBackup);
        assert_eq!(first.parts[0], ("entries", 400.0));
        assert!(near(facts.predict(What::Unchanged).seconds, 40.0 / 4.0));
        assert_eq!(facts.predict(What::Restore).parts[0].0, "entries");
    }

    #[test]
    fn no_more_threads_than_help() {
        assert_eq!(facts().threads_needed(), 4);
        let disk = Facts { source: 20.0 / GIB as f64, threads: 16, cores: 16, ..facts() };
        let needed = disk.threads_needed();
        assert!((2..=6).contains(&needed), "a slow disk needs few threads: {needed}");
        assert_eq!(Facts { threads: 8, cores: 2, ..facts() }.threads_needed(), 2);
    }

    #[test]
    fn overlap_takes_threads() {
        assert_eq!(overlapped(3.0, 2.0, 1), 5.0);
        assert_eq!(overlapped(3.0, 2.0, 2), 4.0);
        assert_eq!(overlapped(2.0, 0.0, 2), 2.0);
    }
}
