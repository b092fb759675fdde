//! End-to-end runs: every tool backs up, restores and checks the same seeded corpora as a child
//! process, tools alternating (A B A B) in rounds, with a fresh repository each time. Contents of
//! every restore are compared with the source, outside the timed part. Sources lie in the page
//! cache, nothing is flushed between runs, password hashing is inside the measured time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::child::{self, Cost};
use crate::corpus::{self, Kind, Spec};
use crate::tools::{Places, Tool};
use crate::tree::{self, Summary};

/// A tool may read files again whose times lie this close to its start; waited out untimed.
const TIMES_SETTLE: Duration = Duration::from_millis(2200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    First,
    Unchanged,
    Touched,
    NightTwo,
    Restore,
    RestoreAgain,
    Check,
}

impl Case {
    pub fn title(self) -> &'static str {
        match self {
            Case::First => "first backup",
            Case::Unchanged => "again, unchanged",
            Case::Touched => "again, mtimes touched",
            Case::NightTwo => "night 2, 1 % of rows changed",
            Case::Restore => "restore to empty",
            Case::RestoreAgain => "restore again over it",
            Case::Check => "check, all data read",
        }
    }
}

pub struct Options {
    pub work: PathBuf,
    pub size_bytes: u64,
    pub rounds: u32,
    pub seed: u64,
    pub kinds: Vec<Kind>,
    pub tools: Vec<(Tool, PathBuf)>,
}

/// One measured command.
pub struct Sample {
    pub kind: Kind,
    pub case: Case,
    pub tool: Tool,
    pub cost: Cost,
    /// Of the repository after the command.
    pub repository_bytes: u64,
}

pub struct CorpusFacts {
    pub kind: Kind,
    pub files: u64,
    pub bytes: u64,
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
        let corpus = Corpus::generate(options, kind)?;
        let (files, bytes) = (corpus.facts.files, corpus.facts.bytes);
        talk(&format!("corpus {kind:?}: {files} files, {bytes} bytes"));
        for round in 0..options.rounds {
            for turn in 0..options.tools.len() {
                let turn = (turn + round as usize) % options.tools.len();
                let (tool, program) = &options.tools[turn];
                talk(&format!("  round {} {}", round + 1, tool.name()));
                let mut bout = Bout::new(options, &corpus, *tool, program)?;
                if let Err(error) = bout.run() {
                    let failure = format!("{} on {kind:?}: {error}", tool.name());
                    talk(&failure);
                    outcome.failures.push(failure);
                }
                outcome.samples.append(&mut bout.samples);
                fs::remove_dir_all(&bout.folder)?;
            }
        }
        fs::remove_dir_all(&corpus.folder)?;
        outcome.corpora.push(CorpusFacts { kind, files, bytes });
    }
    Ok(outcome)
}

struct Corpus {
    kind: Kind,
    folder: PathBuf,
    source: PathBuf,
    night_two: Option<PathBuf>,
    facts: Summary,
}

impl Corpus {
    fn generate(options: &Options, kind: Kind) -> io::Result<Corpus> {
        let folder = options.work.join(format!("corpus-{kind:?}").to_lowercase());
        let source = folder.join("source");
        let spec = Spec { kind, size_bytes: options.size_bytes, seed: options.seed };
        corpus::generate(spec, &source)?;
        let night_two = (kind == Kind::Csv).then(|| folder.join("night2"));
        if let Some(night_two) = &night_two {
            corpus::generate(Spec { kind: Kind::CsvNight2, ..spec }, night_two)?;
        }
        let facts = tree::summary(&source)?;
        Ok(Corpus { kind, folder, source, night_two, facts })
    }
}

/// One tool's turn on one corpus with a fresh repository.
struct Bout<'a> {
    corpus: &'a Corpus,
    tool: Tool,
    folder: PathBuf,
    places: Places<'a>,
    generation: u32,
    samples: Vec<Sample>,
}

impl<'a> Bout<'a> {
    fn new(
        options: &Options,
        corpus: &'a Corpus,
        tool: Tool,
        program: &'a Path,
    ) -> io::Result<Bout<'a>> {
        let folder = options.work.join("bout");
        let places = Places {
            program,
            repository: folder.join("repository"),
            cache: folder.join("cache"),
            key: folder.join("key"),
            source: &corpus.source,
            target: folder.join("target"),
        };
        fs::create_dir_all(&places.cache)?;
        fs::create_dir_all(&places.target)?;
        Ok(Bout { corpus, tool, folder, places, generation: 0, samples: Vec::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        for command in self.tool.init(&self.places) {
            child::run(command, &self.folder.join("log"))?;
        }
        thread::sleep(TIMES_SETTLE);
        self.backup(Case::First)?;
        self.backup(Case::Unchanged)?;
        touch(&self.corpus.source)?;
        thread::sleep(TIMES_SETTLE);
        self.backup(Case::Touched)?;
        self.restore(Case::Restore)?;
        self.restore(Case::RestoreAgain)?;
        if let Some(check) = self.tool.check(&self.places) {
            self.measure(Case::Check, check)?;
        }
        if let Some(night_two) = &self.corpus.night_two {
            swap(&self.corpus.source, night_two)?;
            thread::sleep(TIMES_SETTLE);
            let result = self.backup(Case::NightTwo);
            swap(&self.corpus.source, night_two)?;
            result?;
        }
        Ok(())
    }

    fn backup(&mut self, case: Case) -> io::Result<()> {
        self.generation += 1;
        let command = self.tool.backup(&self.places, self.generation);
        self.measure(case, command)
    }

    fn restore(&mut self, case: Case) -> io::Result<()> {
        let command = self.tool.restore(&self.places, self.generation);
        self.measure(case, command)?;
        let restored = self.tool.restored(&self.places);
        if tree::summary(&restored)?.digest == self.corpus.facts.digest {
            return Ok(());
        }
        Err(io::Error::other(format!("{}: {} is not the source", case.title(), restored.display())))
    }

    fn measure(&mut self, case: Case, command: std::process::Command) -> io::Result<()> {
        let cost = child::run(command, &self.folder.join("log"))?;
        let repository_bytes = tree::size_bytes(&self.places.repository)?;
        let (kind, tool) = (self.corpus.kind, self.tool);
        self.samples.push(Sample { kind, case, tool, cost, repository_bytes });
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
