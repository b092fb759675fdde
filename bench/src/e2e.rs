//! End-to-end runs: every tool backs up, restores and checks the same sources as a child process,
//! tools alternating (A B A B) in rounds, with a fresh repository each time. Contents of every
//! restore are compared with the source, outside the timed part. Sources lie in the page cache,
//! nothing is flushed between runs, password hashing is inside the measured time. What grows from
//! day to day over many days is `series.rs`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::child::{self, Cost};
use crate::corpus::{self, Kind, Spec};
use crate::dicom;
use crate::tools::{Places, Tool};
use crate::tree::{self, Summary};

/// A tool may read files again whose times lie this close to its start; waited out untimed.
pub const TIMES_SETTLE: Duration = Duration::from_millis(2200);
/// What a peer compresses with: zstd's default level on chunks of a usual size.
const PEER_LEVEL: i32 = 3;
const PEER_CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    First,
    FirstUnverified,
    Unchanged,
    Touched,
    Restore,
    RestoreAgain,
    Check,
    /// The backups, listed: the fixed cost of a command.
    List,
    /// Of a source that has a second version: CSV tables a night later, CT exported again.
    Next,
    RestoreNext,
}

impl Case {
    pub fn title(self) -> &'static str {
        match self {
            Case::First => "first backup",
            Case::FirstUnverified => "first backup, unverified",
            Case::Unchanged => "again, unchanged",
            Case::Touched => "again, mtimes touched",
            Case::Restore => "restore to empty",
            Case::RestoreAgain => "restore again over it",
            Case::Check => "check, all data read",
            Case::List => "list of backups",
            Case::Next => "next version",
            Case::RestoreNext => "restore of the next version",
        }
    }

    /// The peers' case that this one is compared with.
    pub fn peer(self) -> Case {
        match self {
            Case::FirstUnverified => Case::First,
            other => other,
        }
    }
}

pub struct Options {
    pub work: PathBuf,
    pub size_bytes: u64,
    pub rounds: u32,
    pub seed: u64,
    pub kinds: Vec<Kind>,
    /// Native 16-bit DICOM files below this folder are a corpus too.
    pub imaging: Option<PathBuf>,
    /// What is measured; the first backup always is.
    pub cases: Vec<Case>,
    pub tools: Vec<(Tool, PathBuf)>,
    pub settle: Duration,
}

/// One measured command.
pub struct Sample {
    pub corpus: String,
    pub case: Case,
    pub tool: Tool,
    pub cost: Cost,
    /// Of the repository after the command.
    pub repository_bytes: u64,
    /// By the command.
    pub added_bytes: i64,
}

pub struct CorpusFacts {
    pub name: String,
    pub files: u64,
    pub bytes: u64,
    /// What zstd 3 makes of each file's pieces of 1 MiB: what a peer would store.
    pub peer_codec_bytes: Option<u64>,
}

pub struct Outcome {
    pub corpora: Vec<CorpusFacts>,
    pub samples: Vec<Sample>,
    /// What a tool could not do; the cases that follow in its turn are missing.
    pub failures: Vec<String>,
}

/// Runs everything; `talk` hears what begins.
pub fn run(options: &Options, talk: &mut dyn FnMut(&str)) -> io::Result<Outcome> {
    let mut outcome = Outcome { corpora: Vec::new(), samples: Vec::new(), failures: Vec::new() };
    for &kind in &options.kinds {
        run_corpus(options, Corpus::generate(options, kind)?, &mut outcome, talk)?;
    }
    if let Some(folder) = &options.imaging {
        run_corpus(options, Corpus::imaging(options, folder)?, &mut outcome, talk)?;
    }
    Ok(outcome)
}

fn run_corpus(
    options: &Options,
    corpus: Corpus,
    outcome: &mut Outcome,
    talk: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let facts = &corpus.facts;
    talk(&format!("corpus {}: {} files, {} bytes", facts.name, facts.files, facts.bytes));
    for round in 0..options.rounds {
        for turn in 0..options.tools.len() {
            let turn = (turn + round as usize) % options.tools.len();
            let (tool, program) = &options.tools[turn];
            talk(&format!("  round {} {}", round + 1, tool.name()));
            let mut bout = Bout::new(options, &corpus, *tool, program)?;
            if let Err(error) = bout.run() {
                let failure = format!("{} on {}: {error}", tool.name(), facts.name);
                talk(&failure);
                outcome.failures.push(failure);
            }
            outcome.samples.append(&mut bout.samples);
            fs::remove_dir_all(&bout.folder)?;
        }
    }
    fs::remove_dir_all(&corpus.folder)?;
    outcome.corpora.push(corpus.facts);
    Ok(())
}

struct Corpus {
    folder: PathBuf,
    source: PathBuf,
    digest: blake3::Hash,
    /// The same source later, and the digest of its contents.
    next: Option<(PathBuf, blake3::Hash)>,
    facts: CorpusFacts,
}

impl Corpus {
    fn generate(options: &Options, kind: Kind) -> io::Result<Corpus> {
        let name = format!("{kind:?}");
        let folder = options.work.join(format!("corpus-{name}").to_lowercase());
        let source = folder.join("source");
        let spec = Spec { kind, size_bytes: options.size_bytes, seed: options.seed };
        corpus::generate(spec, &source)?;
        let next = match kind.next() {
            Some(kind) => {
                let next = folder.join("next");
                corpus::generate(Spec { kind, ..spec }, &next)?;
                let digest = tree::summary(&next)?.digest;
                Some((next, digest))
            }
            None => None,
        };
        let Summary { files, bytes, digest } = tree::summary(&source)?;
        let facts = CorpusFacts { name, files, bytes, peer_codec_bytes: None };
        Ok(Corpus { folder, source, digest, next, facts })
    }

    /// Copies of a folder's native 16-bit DICOM files.
    fn imaging(options: &Options, from: &Path) -> io::Result<Corpus> {
        let folder = options.work.join("corpus-imaging");
        let source = folder.join("source");
        let mut stored = 0;
        for path in tree::paths(from)? {
            if path.is_file() && dicom::is_native_16_bit(&path)? {
                let to = source.join(path.strip_prefix(from).expect("listed below it"));
                fs::create_dir_all(to.parent().expect("it is below the source"))?;
                fs::copy(&path, to)?;
                for piece in fs::read(&path)?.chunks(PEER_CHUNK_BYTES) {
                    stored += zstd::bulk::compress(piece, PEER_LEVEL)?.len() as u64;
                }
            }
        }
        if stored == 0 {
            let none = format!("no native 16-bit DICOM below {}", from.display());
            return Err(io::Error::other(none));
        }
        let Summary { files, bytes, digest } = tree::summary(&source)?;
        let name = "Imaging".to_owned();
        let facts = CorpusFacts { name, files, bytes, peer_codec_bytes: Some(stored) };
        Ok(Corpus { folder, source, digest, next: None, facts })
    }
}

/// One tool's turn on one corpus with a fresh repository.
struct Bout<'a> {
    options: &'a Options,
    corpus: &'a Corpus,
    tool: Tool,
    folder: PathBuf,
    places: Places<'a>,
    generation: u32,
    repository_bytes: u64,
    samples: Vec<Sample>,
}

impl<'a> Bout<'a> {
    fn new(
        options: &'a Options,
        corpus: &'a Corpus,
        tool: Tool,
        program: &'a Path,
    ) -> io::Result<Bout<'a>> {
        let folder = options.work.join("bout");
        let places = Places::below(&folder, program, &corpus.source)?;
        let (generation, repository_bytes) = (0, 0);
        let samples = Vec::new();
        Ok(Bout { options, corpus, tool, folder, places, generation, repository_bytes, samples })
    }

    fn run(&mut self) -> io::Result<()> {
        if self.wants(Case::FirstUnverified) && self.tool.can_skip_verification() {
            self.init()?;
            thread::sleep(self.options.settle);
            let mut backup = self.tool.backup(&self.places, 0);
            backup.arg("--no-verify");
            self.measure(Case::FirstUnverified, backup)?;
            fs::remove_dir_all(&self.folder)?;
            self.places = Places::below(&self.folder, self.places.program, self.places.source)?;
        }
        self.init()?;
        thread::sleep(self.options.settle);
        self.backup(Case::First)?;
        if self.wants(Case::Unchanged) {
            self.backup(Case::Unchanged)?;
        }
        if self.wants(Case::Touched) {
            touch(&self.corpus.source)?;
            thread::sleep(self.options.settle);
            self.backup(Case::Touched)?;
        }
        if self.wants(Case::Restore) {
            self.restore(Case::Restore, self.corpus.digest)?;
        }
        if self.wants(Case::RestoreAgain) {
            self.restore(Case::RestoreAgain, self.corpus.digest)?;
        }
        if self.wants(Case::Check)
            && let Some(check) = self.tool.check(&self.places)
        {
            self.measure(Case::Check, check)?;
        }
        if self.wants(Case::List) {
            self.measure(Case::List, self.tool.list(&self.places))?;
        }
        if self.wants(Case::Next)
            && let Some((next, digest)) = &self.corpus.next
        {
            swap(&self.corpus.source, next)?;
            thread::sleep(self.options.settle);
            let result = self.next(*digest);
            swap(&self.corpus.source, next)?;
            result?;
        }
        Ok(())
    }

    fn wants(&self, case: Case) -> bool {
        self.options.cases.contains(&case)
    }

    fn init(&mut self) -> io::Result<()> {
        self.places.init(self.tool)?;
        self.repository_bytes = tree::size_bytes(&self.places.repository)?;
        Ok(())
    }

    fn next(&mut self, digest: blake3::Hash) -> io::Result<()> {
        self.backup(Case::Next)?;
        if !self.wants(Case::RestoreNext) {
            return Ok(());
        }
        self.places.empty_target()?;
        self.restore(Case::RestoreNext, digest)
    }

    fn backup(&mut self, case: Case) -> io::Result<()> {
        self.generation += 1;
        let command = self.tool.backup(&self.places, self.generation);
        self.measure(case, command)
    }

    fn restore(&mut self, case: Case, digest: blake3::Hash) -> io::Result<()> {
        let command = self.tool.restore(&self.places, self.generation);
        self.measure(case, command)?;
        self.places.compare(self.tool, digest)
    }

    fn measure(&mut self, case: Case, command: Command) -> io::Result<()> {
        let cost = child::run(command, &self.places.log())?;
        let repository_bytes = tree::size_bytes(&self.places.repository)?;
        let added_bytes = repository_bytes as i64 - self.repository_bytes as i64;
        self.repository_bytes = repository_bytes;
        let corpus = self.corpus.facts.name.clone();
        let tool = self.tool;
        self.samples.push(Sample { corpus, case, tool, cost, repository_bytes, added_bytes });
        Ok(())
    }
}

/// New modification times, all bytes as they were.
fn touch(folder: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for path in tree::paths(folder)? {
        File::options().write(true).open(path)?.set_modified(now)?;
    }
    Ok(())
}

/// Exchanges two folders, so that the source's path stays.
fn swap(a: &Path, b: &Path) -> io::Result<()> {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside)?;
    fs::rename(b, a)?;
    fs::rename(&aside, b)
}
