//! Series of real exports: `DATA/NAME/dayNN` holds what a nightly export left in its folder that day.
//! Every tool backs up the same folder day after day into a repository of its own; what counts is
//! how many bytes each day adds. A middle day and the last one are restored and compared as soon as
//! they are backed up. Tools take turns within a day; seeded sources are `e2e.rs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::child::{self, Cost};
use crate::tools::{Places, Tool};
use crate::tree::{self, Summary};

pub struct Options {
    /// Holds one folder for each series, each with one for each day, in name order.
    pub data: PathBuf,
    pub work: PathBuf,
    pub rounds: u32,
    pub tools: Vec<(Tool, PathBuf)>,
    pub settle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Backup,
    Restore,
}

/// One measured command.
pub struct Sample {
    pub tool: Tool,
    /// Place of its day in the series.
    pub day: usize,
    pub act: Act,
    pub cost: Cost,
    /// To the repository; the first backup's include what `init` made.
    pub added_bytes: u64,
}

pub struct Day {
    pub name: String,
    pub files: u64,
    pub bytes: u64,
}

pub struct Series {
    pub name: String,
    pub days: Vec<Day>,
    pub samples: Vec<Sample>,
}

pub struct Outcome {
    pub series: Vec<Series>,
    /// What a tool could not do; it is left out for the rest of that series and round.
    pub failures: Vec<String>,
}

/// Runs all series; `talk` hears what begins.
pub fn run(options: &Options, talk: &mut dyn FnMut(&str)) -> io::Result<Outcome> {
    let mut outcome = Outcome { series: Vec::new(), failures: Vec::new() };
    for folder in folders(&options.data)? {
        let days = folders(&folder)?;
        let mut series = Series { name: name(&folder), days: Vec::new(), samples: Vec::new() };
        talk(&format!("series {}: {} days", series.name, days.len()));
        for round in 0..options.rounds {
            let mut round = Round::new(options, round as usize)?;
            let result = round.run(&days, &mut series, &mut outcome.failures, talk);
            fs::remove_dir_all(&round.folder)?;
            result?;
        }
        outcome.series.push(series);
    }
    if outcome.series.iter().all(|series| series.days.is_empty()) {
        let none = format!("no folder of a day below {}", options.data.display());
        return Err(io::Error::other(none));
    }
    Ok(outcome)
}

/// One way through a series with fresh repositories.
struct Round<'a> {
    options: &'a Options,
    folder: PathBuf,
    source: PathBuf,
    round: usize,
    /// Tools that have failed.
    out: Vec<Tool>,
}

impl<'a> Round<'a> {
    fn new(options: &'a Options, round: usize) -> io::Result<Round<'a>> {
        let folder = options.work.join("series");
        let source = folder.join("source");
        fs::create_dir_all(&source)?;
        Ok(Round { options, folder, source, round, out: Vec::new() })
    }

    fn run(
        &mut self,
        days: &[PathBuf],
        series: &mut Series,
        failures: &mut Vec<String>,
        talk: &mut dyn FnMut(&str),
    ) -> io::Result<()> {
        for (day, from) in days.iter().enumerate() {
            sync(from, &self.source)?;
            let summary = tree::summary(&self.source)?;
            if self.round == 0 {
                let Summary { files, bytes, .. } = summary;
                series.days.push(Day { name: name(from), files, bytes });
            }
            talk(&format!("  round {} {}", self.round + 1, name(from)));
            thread::sleep(self.options.settle);
            let restores = day == days.len() / 2 || day + 1 == days.len();
            let digest = restores.then_some(summary.digest);
            for turn in 0..self.options.tools.len() {
                let turn = (turn + day + self.round) % self.options.tools.len();
                let (tool, program) = &self.options.tools[turn];
                if self.out.contains(tool) {
                    continue;
                }
                if let Err(error) = self.turn(*tool, program, day, digest, &mut series.samples) {
                    let failure = format!("{} on {}: {error}", tool.name(), series.name);
                    talk(&failure);
                    failures.push(failure);
                    self.out.push(*tool);
                }
            }
        }
        Ok(())
    }

    /// Backs one day up with one tool and, with `digest`, restores it and compares.
    fn turn(
        &self,
        tool: Tool,
        program: &Path,
        day: usize,
        digest: Option<blake3::Hash>,
        samples: &mut Vec<Sample>,
    ) -> io::Result<()> {
        let places = Places::below(&self.folder.join(tool.name()), program, &self.source)?;
        let before = if day == 0 {
            places.init(tool)?;
            0
        } else {
            tree::size_bytes(&places.repository)?
        };
        let generation = day as u32;
        let cost = child::run(tool.backup(&places, generation), &places.log())?;
        let added_bytes = tree::size_bytes(&places.repository)?.saturating_sub(before);
        samples.push(Sample { tool, day, act: Act::Backup, cost, added_bytes });
        if let Some(digest) = digest {
            places.empty_target()?;
            let cost = child::run(tool.restore(&places, generation), &places.log())?;
            samples.push(Sample { tool, day, act: Act::Restore, cost, added_bytes: 0 });
            places.compare(tool, digest)?;
            places.empty_target()?;
        }
        Ok(())
    }
}

/// Makes `to` hold what `from` holds, as an export does that writes into the same folder again: what
/// differs is written anew, what is gone goes, everything else keeps its times.
fn sync(from: &Path, to: &Path) -> io::Result<()> {
    for old in tree::paths(to)? {
        if !from.join(old.strip_prefix(to).expect("listed below it")).is_file() {
            fs::remove_file(old)?;
        }
    }
    for new in tree::paths(from)? {
        let old = to.join(new.strip_prefix(from).expect("listed below it"));
        let bytes = fs::read(&new)?;
        if !old.is_file() || fs::read(&old)? != bytes {
            fs::create_dir_all(old.parent().expect("it is below a folder"))?;
            fs::write(&old, bytes)?;
        }
    }
    Ok(())
}

/// Folders in a folder, sorted.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::SystemTime;

    use super::sync;
    use crate::tree;

    #[test]
    fn a_day_is_synced_as_an_export_writes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("day01"), folder.path().join("day02"));
        let source = folder.path().join("source");
        for day in [&one, &two] {
            fs::create_dir_all(day.join("deep")).expect("made");
            fs::write(day.join("same.csv"), "STUDYID,SITEID\n").expect("written");
        }
        fs::write(one.join("changed.csv"), "AE,1\n").expect("written");
        fs::write(two.join("changed.csv"), "AE,2\n").expect("written");
        fs::write(one.join("deep/gone.csv"), "DM\n").expect("written");
        fs::write(two.join("deep/new.csv"), "LB\n").expect("written");
        fs::create_dir(&source).expect("made");

        let times = |path: &Path| fs::metadata(path).expect("is there").modified().expect("a time");
        sync(&one, &source).expect("synced");
        let old = SystemTime::UNIX_EPOCH;
        for name in ["same.csv", "changed.csv"] {
            let file = fs::File::options().write(true).open(source.join(name)).expect("opens");
            file.set_modified(old).expect("set");
        }
        sync(&two, &source).expect("synced");
        let digest = |folder: &Path| tree::summary(folder).expect("read").digest;
        assert_eq!(digest(&source), digest(&two));
        assert_eq!(times(&source.join("same.csv")), old);
        assert!(times(&source.join("changed.csv")) > old);
    }
}
