//! The steps of a benchmark, each in its share of the time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::backup::read::LARGE_BYTES;
use crate::benchmark::data::{KINDS, Kind};
use crate::benchmark::kernels::{Kernels, StageSpeed, Unit, look_up_speed};
use crate::benchmark::line::{self, Plant, STAGES, Sample, Spent, Stage};
use crate::benchmark::meter::{Meter, Speed, share};
use crate::benchmark::place;
use crate::benchmark::predict::{Facts, PerEntry, RESTORE, WHATS, What};
use crate::benchmark::rehearse::{self, Rehearsal};
use crate::benchmark::scratch::{Scratch, memory_repo};
use crate::benchmark::source::{self, Source, first, wait_as_found};
use crate::benchmark::{BenchmarkOptions, Forecast, Of, RepositoryReport, SourceReport, fs_of};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::format::id::ChunkId;
use crate::format::seal::Recipient;
use crate::format::slot::Unlock;
use crate::repo::lookup::Index;
use crate::repo::session::Session;
use crate::repo::{InitOptions, Repo, init};
use crate::store::{LocalStore, MemoryStore, Store, StoreError};

/// Shares of the time for all.
const WALK: f64 = 0.15;
const READ: f64 = 0.08;
const LINE: f64 = 0.25;
const WRITE: f64 = 0.1;
const PACKS: f64 = 0.04;
/// Of samples that are worked off.
const SAMPLE_BYTES: u64 = 512 << 20;
/// Real small files in a rehearsal, and how many it takes to say something.
const REHEARSED: std::ops::Range<usize> = 50..1000;
const REHEARSED_BYTES: u64 = 48 << 20;
/// What predictions on built-in data are made for: 16 files.
const BUILT_IN_BYTES: u64 = 1 << 30;
const BUILT_IN_FILES: u64 = 16;
/// Ids that are looked up in a repository's index.
const IDS: usize = 10_000;

pub struct Run<'r> {
    pub options: &'r BenchmarkOptions<'r>,
    pub meter: &'r Meter<'r>,
    pub scratch: &'r Scratch,
    pub env: Env,
    pub stages: Vec<StageSpeed>,
}

/// What all predictions share, and the repository in memory that samples are sealed for.
pub struct Base {
    repo: Repo,
    session: Session,
    options: InitOptions,
    store: Arc<dyn Store>,
    facts: Facts,
}

impl Base {
    fn plant(&self) -> Plant<'_> {
        Plant { repo: &self.repo, session: &self.session, store: &*self.store }
    }
}

impl Run<'_> {
    fn seconds(&self, share: f64) -> f64 {
        self.options.seconds * share
    }

    /// Of each kind of built-in data.
    fn data_bytes(&self) -> usize {
        match self.options.seconds {
            ..1.0 => 512 << 10,
            ..4.0 => 4 << 20,
            _ => 16 << 20,
        }
    }

    fn current(&self, what: &str) -> Result<()> {
        self.meter.watch.current(what.as_bytes());
        self.meter.go_on()
    }

    pub fn walk(&self, paths: &[PathBuf]) -> Result<(Source, Vec<Sample>)> {
        self.current("counting files")?;
        source::walk(paths, self.seconds(WALK), self.meter)
    }

    pub fn unlock(&self) -> Result<f64> {
        self.current("unlocking with a password")?;
        let store = Arc::new(MemoryStore::new());
        let started = Instant::now();
        init(store, Unlock::Password(b"of no use"), &InitOptions::default(), &self.env)?;
        Ok(started.elapsed().as_secs_f64())
    }

    pub fn kernels(&mut self) -> Result<()> {
        self.current("stages alone")?;
        let data_bytes = self.data_bytes();
        let (meter, scratch) = (self.meter, self.scratch);
        let mut kernels = Kernels { meter, scratch, data_bytes, rows: Vec::new() };
        kernels.run()?;
        let write = place::write_files(scratch, meter)?;
        kernels.bytes("write", "restored file", write, None);
        self.stages = kernels.rows;
        Ok(())
    }

    /// Processor time of one thread for a byte or piece, when all work.
    fn cost(&self, stage: &str, of: &str) -> f64 {
        let row = self.stages.iter().find(|row| row.stage == stage && row.of == of);
        row.map_or(0.0, |row| self.processors() / row.speed.all)
    }

    fn processors(&self) -> f64 {
        self.meter.threads as f64 * share(self.meter.threads, self.meter.cores)
    }

    pub fn repository(&self, repo: &Repo) -> Result<RepositoryReport> {
        self.current("writing to the repository's disk")?;
        let pack_bytes = repo.file().pack_size;
        let written = place::write(&**repo.store(), pack_bytes, self.seconds(WRITE), self.meter);
        let writing = match written {
            Err(Error::Store(
                StoreError::ReadOnly { .. }
                | StoreError::Permission { .. }
                | StoreError::Full { .. },
            )) => None,
            written => Some(written?),
        };
        self.current("reading packs")?;
        let samples = match self.options.repo_folder {
            Some(folder) => place::pack_samples(repo, folder)?,
            None => Vec::new(),
        };
        let (as_found, cold) = place::read_packs(&samples, self.seconds(PACKS), self.meter)?;
        self.current("the index")?;
        let started = Instant::now();
        let index = repo.index_for_reading(self.meter.watch)?;
        let index_seconds = started.elapsed().as_secs_f64();
        let readable = repo.reads(Recipient::Data) && repo.id_key().is_ok();
        let stored = match readable {
            true => Some(place::stored_frames(repo, &index, self.seconds(PACKS), self.meter)?),
            false => None,
        };
        let lengths = index.segments();
        let newest = match repo.reads(Recipient::Meta) {
            true => repo.snapshots_despite()?.0.pop(),
            false => None,
        };
        Ok(RepositoryReport {
            suite: repo.file().suite,
            fs: self.options.repo_folder.map_or("unknown", fs_of),
            writing,
            packs: index.packs().listed.len() as u64,
            as_found,
            cold,
            stored: stored.filter(|stored| stored.frames > 0),
            chunks: lengths.iter().map(|segment| u64::from(segment.run().len())).sum(),
            index_seconds,
            look_up: self.look_up(&index)?,
            newest: newest.map(|info| (info.snapshot.counts.files, info.snapshot.counts.bytes)),
        })
    }

    /// Known chunks all over the index; `None`: it is empty.
    fn look_up(&self, index: &Index) -> Result<Option<Speed>> {
        let mut ids = Vec::new();
        for segment in index.segments() {
            let all = segment.run().ids();
            let step = (all.len() / IDS).max(1);
            ids.extend(all.iter().step_by(step).take(IDS).map(|id| ChunkId(*id)));
        }
        if ids.is_empty() {
            return Ok(None);
        }
        look_up_speed(self.meter, index, &ids).map(Some)
    }

    /// Small files along the way, and what every prediction rests on.
    pub fn base(&mut self, small: &[Sample], found: Option<&RepositoryReport>) -> Result<Base> {
        self.current("small files")?;
        let options = self.options.repo.map_or_else(InitOptions::default, |repo| InitOptions {
            suite: Some(repo.file().suite),
            chunker: repo.file().chunker,
            pack_bytes: repo.file().pack_size,
            ..InitOptions::default()
        });
        let repo = memory_repo(&options, None, &self.env)?;
        let session = Session::new(&repo)?;
        let writable = self.options.repo.filter(|_| found.is_some_and(|r| r.writing.is_some()));
        let store: Arc<dyn Store> = match writable {
            Some(repo) => repo.store().clone(),
            None => Arc::new(LocalStore::open(&self.scratch.folder("store")?)?),
        };
        let mut base = Base { repo, session, options, store, facts: Facts::default() };
        let writing = found.and_then(|found| found.writing);
        let look_up = found.and_then(|found| found.look_up).map(|s| self.processors() / s.all);
        base.facts = Facts {
            threads: self.meter.threads,
            cores: self.meter.cores,
            look_up: look_up.unwrap_or_else(|| self.cost("look up", "known, anywhere")),
            sync: writing.map(|writing| 1.0 / writing.sync_bytes_per_second()),
            packs: found.map_or(0.0, |found| {
                wait_as_found(&found.as_found, &found.cold, self.meter.threads)
            }),
            fetch: self.cost("read", "pread"),
            write_file: self.cost("write", "restored file"),
            pack_bytes: base.options.pack_bytes,
            ..Facts::default()
        };
        let folder = [self.scratch.folder("small")?];
        let rehearsed = rehearse::rehearse(&folder, true, &base.options, self.scratch, self.meter)?;
        let files = small.len() as f64;
        for (of, seconds) in [
            ("first backup", rehearsed.backup),
            ("unchanged", rehearsed.again),
            ("restore", rehearsed.restore),
        ] {
            let (one, all) = (files / seconds.max(1e-9), self.processors());
            let speed = Speed { one, all: one * all };
            let row =
                StageSpeed { stage: "small files", of, unit: Unit::Pieces, speed, codec: None };
            self.stages.push(row);
        }
        base.facts.entry = self.per_entry(small, rehearsed, &base)?;
        Ok(base)
    }

    /// What files cost beyond what their bytes do.
    fn per_entry(&self, samples: &[Sample], of: Rehearsal, base: &Base) -> Result<PerEntry> {
        let spent = self.each_once(samples, base)?;
        let Facts { fetch, write_file, .. } = base.facts;
        let sum = |stages: &[Stage]| -> f64 { stages.iter().map(|&s| spent.seconds(s)).sum() };
        let restored = sum(&RESTORE)
            + spent.stored_bytes as f64 * fetch
            + spent.plain_bytes as f64 * write_file;
        let files = samples.len().max(1) as f64;
        let each = |seconds: f64| seconds.max(0.0) / files;
        Ok(PerEntry {
            first: each(of.backup - sum(&STAGES)),
            unchanged: each(of.again),
            restore: each(of.restore - restored),
        })
    }

    fn each_once(&self, samples: &[Sample], base: &Base) -> Result<Spent> {
        line::run(base.plant(), samples, self.meter.threads, f64::INFINITY, false, self.meter)
    }

    pub fn paths(
        &self,
        found: Source,
        samples: &[Sample],
        base: &Base,
    ) -> Result<(SourceReport, Forecast)> {
        self.current("reading samples")?;
        let samples = first(samples, SAMPLE_BYTES);
        let as_found = source::read(samples, false, self.seconds(READ), self.meter)?;
        let cold = source::read(samples, true, self.seconds(READ), self.meter)?;
        self.current("samples along the way")?;
        let (threads, seconds) = (self.meter.threads, self.seconds(LINE));
        let spent = line::run(base.plant(), samples, threads, seconds, true, self.meter)?;
        let facts = Facts {
            files: found.files + found.dirs + found.others,
            bytes: found.bytes,
            spent,
            entry: self.real_entries(samples, base)?,
            source: wait_as_found(&as_found, &cold, threads),
            ..base.facts.clone()
        };
        let cold_facts =
            cold.is_cold().then(|| Facts { source: cold.wait_per_byte(threads), ..facts.clone() });
        let fs = self.options.paths.first().map_or("unknown", |path| fs_of(path));
        let forecast = Forecast {
            of: Of::Paths,
            predictions: WHATS.map(|what| facts.predict(what)).into(),
            cold: cold_facts.map_or(Vec::new(), |facts| {
                [What::FirstBackup, What::ReRead].map(|what| facts.predict(what)).into()
            }),
            facts,
        };
        Ok((SourceReport { found, as_found, cold, fs }, forecast))
    }

    /// A rehearsal with real small files, where there are enough of them.
    fn real_entries(&self, samples: &[Sample], base: &Base) -> Result<PerEntry> {
        let whole = |sample: &&Sample| (sample.len as u64) < LARGE_BYTES;
        let small: Vec<Sample> =
            samples.iter().filter(whole).take(REHEARSED.end).cloned().collect();
        let small = first(&small, REHEARSED_BYTES);
        if small.len() < REHEARSED.start {
            return Ok(base.facts.entry);
        }
        self.current("rehearsing with real files")?;
        let paths: Vec<PathBuf> = small.iter().map(|sample| sample.path.clone()).collect();
        let of = rehearse::rehearse(&paths, false, &base.options, self.scratch, self.meter)?;
        let restore = base.facts.entry.restore;
        Ok(PerEntry { restore, ..self.per_entry(small, of, base)? })
    }

    pub fn built_in(&self, base: &Base) -> Result<Vec<Forecast>> {
        self.current("built-in data along the way")?;
        KINDS.into_iter().map(|kind| self.of_kind(kind, base)).collect()
    }

    fn of_kind(&self, kind: Kind, base: &Base) -> Result<Forecast> {
        let len = self.data_bytes();
        let path = self.scratch.file(kind.name(), &kind.bytes(len))?;
        let samples = [Sample { path, offset: 0, len, samples: kind.samples() }];
        let seconds = self.seconds(LINE) / KINDS.len() as f64;
        let spent =
            line::run(base.plant(), &samples, self.meter.threads, seconds, true, self.meter)?;
        let (files, bytes) = (BUILT_IN_FILES, BUILT_IN_BYTES);
        let facts = Facts { files, bytes, spent, ..base.facts.clone() };
        let whats = [What::FirstBackup, What::ReRead, What::Restore];
        let predictions = whats.map(|what| facts.predict(what)).into();
        Ok(Forecast { of: Of::BuiltIn(kind.name()), facts, predictions, cold: Vec::new() })
    }
}

/// Restoring the newest snapshot, by what its frames cost.
pub fn newest(found: &RepositoryReport, base: &Base) -> Option<Forecast> {
    let ((files, bytes), stored) = (found.newest?, found.stored?);
    let mut spent = Spent::of_stored(stored.frames, stored.plain_bytes, stored.stored_bytes);
    spent.add(Stage::Decode, stored.decode_seconds, stored.plain_bytes);
    spent.add(Stage::Verify, stored.verify_seconds, stored.plain_bytes);
    // Fetching and opening are in what was measured.
    let facts = Facts { files, bytes, spent, fetch: 0.0, ..base.facts.clone() };
    let packs = found.cold.wait_per_byte(base.facts.threads);
    let cold =
        found.cold.is_cold().then(|| Facts { packs, ..facts.clone() }.predict(What::Restore));
    let predictions = vec![facts.predict(What::Restore)];
    Some(Forecast { of: Of::Newest, facts, predictions, cold: cold.into_iter().collect() })
}
