//! `benchmark`: the speed of each stage here, and what bounds a backup and a restore.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use strongroom::benchmark::{self, BenchmarkOptions};
use strongroom::error::Error;
use strongroom::watch::{Counter, Problem, Watch};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::help;
use crate::interrupt::Interrupt;
use crate::open;

mod object;
mod text;

/// Enough to tell stages apart; the least with which anything is measured at all is far below.
const SECONDS_DEFAULT: f64 = 12.0;

/// Measure what bounds a backup and a restore here
///
/// Without arguments: how fast each stage runs on built-in data, by one thread and by all of them,
/// and what that makes of a backup and a restore. With PATH: what is there is counted and sampled,
/// and read as it is found and once more from a cold page cache (only pages of the sample are
/// dropped from it). With --repo: how fast packs can be written there and made durable, and how
/// fast those that are there can be read, opened and verified. From both follow the times of a
/// first backup of PATH, of one that reads everything again, of one where nothing changed, and of a
/// restore, each with what bounds it.
///
/// Predictions assume that nothing of PATH is known yet, that samples stand for the whole, that
/// work is spread evenly over the processors, that nothing else runs, and that files are restored
/// to a disk like that of --target, from the page cache's point of view: a restore does not wait
/// for the disk, nor, on a virtual machine, for memory that the host has to lend it first (which can
/// triple its time). Stages are given in processor time. The time to unlock with a password is a row
/// of its own.
///
/// Nothing is added to the repository: packs are written without a name, as every backup begins
/// them, and dropped. Files that are needed elsewhere are made in a folder in --target, hold
/// built-in data only, and are removed.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom benchmark
    strongroom benchmark /srv/imaging/s12
    strongroom --repo /mnt/backup/s12 --key-file s12.key benchmark /srv/imaging/s12 --target /srv
    strongroom benchmark --seconds 60 --threads 8 --json", &[]))]
pub(crate) struct BenchmarkArgs {
    /// Files and folders that are to be backed up
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// How long to measure, about: from 0.1 to 3600
    #[arg(long, value_name = "S", default_value_t = SECONDS_DEFAULT, value_parser = parse_seconds)]
    seconds: f64,

    /// Folder where a restore would write [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    target: Option<PathBuf>,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

pub(crate) fn run(tool: &Tool, args: &BenchmarkArgs) -> Result<Exit, Fail> {
    for path in &args.paths {
        // Before a password is asked for.
        path.symlink_metadata().map_err(|source| Error::Source { path: path.clone(), source })?;
    }
    let repo = tool.settings.has_repo().then(|| open::repo(tool)).transpose()?;
    let target = args.target.clone().unwrap_or_else(std::env::temp_dir);
    let options = BenchmarkOptions {
        threads: tool.settings.threads.value,
        seconds: args.seconds,
        paths: &args.paths,
        repo: repo.as_ref(),
        repo_folder: repo.is_some().then(|| tool.settings.repo()).transpose()?,
        target: &target,
    };
    let report = {
        let steps = Steps::start(tool);
        benchmark::run(&options, &steps)?
    };
    if tool.out.json() {
        for object in object::objects(&report) {
            tool.out.object(&object)?;
        }
    } else {
        tool.out.line(&text::text(&report))?;
    }
    Ok(Exit::Success)
}

/// Says on a terminal what is being measured.
struct Steps<'a> {
    bar: Option<ProgressBar>,
    interrupt: &'a Interrupt,
    _orderly: crate::interrupt::Orderly<'a>,
}

impl<'a> Steps<'a> {
    fn start(tool: &'a Tool) -> Self {
        let bar = (io::stderr().is_terminal() && !tool.out.quiet()).then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            let bar = ProgressBar::new_spinner().with_style(style.expect("the template is sound"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, interrupt: &tool.interrupt, _orderly: tool.interrupt.orderly() }
    }
}

impl Watch for Steps<'_> {
    fn add(&self, _: Counter, _: u64) {}

    fn current(&self, name: &[u8]) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("measuring: {}", crate::sanitise::name(name)));
        }
    }

    /// What cannot be read is counted in the report.
    fn problem(&self, _: Problem) {}

    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
