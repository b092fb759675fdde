//! `strongroom-bench`: writes seeded corpora and runs Strongroom against other backup tools.
//! The measuring itself is in `e2e.rs` and `series.rs`; kernels are measured by `benches/kernels.rs`.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use strongroom_bench::corpus::{self, Kind, Spec};
use strongroom_bench::e2e::{self, Case, TIMES_SETTLE};
use strongroom_bench::tools::Tool;
use strongroom_bench::{machine, report, series, series_report};

#[derive(Parser)]
#[command(about = "Seeded corpora and end-to-end runs against other backup tools")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a corpus; the same kind, size and seed give the same bytes
    Corpus {
        kind: Kind,
        /// Size in MiB
        #[arg(long, default_value_t = 64)]
        size: u64,
        /// Folder to write into
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the tools that are found on the same corpora and compare them
    E2e(E2e),
    /// Back up series of real exports day after day with the tools that are found; compare growth
    Series(Series),
}

#[derive(clap::Args)]
struct Common {
    /// Folder for sources and repositories; needs about six times the size; emptied at the end
    #[arg(long)]
    work: Option<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "strongroom,restic,rustic,bupstash,borg")]
    tools: Vec<Tool>,
    /// The strongroom to measure; otherwise the one beside this program, else the one on PATH
    #[arg(long)]
    strongroom: Option<PathBuf>,
    /// Write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table here instead of to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(clap::Args)]
struct E2e {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Generated sources; the next version of csv (1 % of rows changed) and of ct (exported again
    /// with other headers) is backed up after them
    #[arg(long, value_delimiter = ',', default_value = "incompressible,csv,ct,small")]
    corpora: Vec<Kind>,
    /// Measure the native 16-bit DICOM files below this folder too
    #[arg(long)]
    imaging: Option<PathBuf>,
    /// Measure only these, and the first backup
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
}

#[derive(clap::Args)]
struct Series {
    #[command(flatten)]
    common: Common,
    /// Folder that holds one folder for each series, which holds one for each day
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Corpus { kind, size, out, seed } => {
            corpus::generate(Spec { kind, size_bytes: size << 20, seed }, &out).map(|()| true)
        }
        Command::E2e(arguments) => compare(arguments),
        Command::Series(arguments) => compare_series(arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("strongroom-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every tool did everything.
fn compare(arguments: E2e) -> io::Result<bool> {
    let work = work_folder(&arguments.common)?;
    let cases = match &arguments.cases[..] {
        [] => Case::value_variants().to_vec(),
        some => some.to_vec(),
    };
    let options = e2e::Options {
        tools: find_tools(&arguments.common),
        work,
        size_bytes: arguments.size_mib << 20,
        rounds: arguments.rounds,
        seed: arguments.seed,
        kinds: arguments.corpora,
        imaging: arguments.imaging,
        cases,
        settle: TIMES_SETTLE,
    };
    let machine = machine::describe(&options.work);
    let result = e2e::run(&options, &mut |line| eprintln!("{line}"));
    fs::remove_dir_all(&options.work)?;
    let outcome = result?;
    let report = report::report(&machine, &options, &outcome);
    publish(&arguments.common, &report.markdown(), &report.json())?;
    Ok(outcome.failures.is_empty())
}

/// Whether every tool did everything.
fn compare_series(arguments: Series) -> io::Result<bool> {
    let options = series::Options {
        data: arguments.data,
        work: work_folder(&arguments.common)?,
        rounds: arguments.rounds,
        tools: find_tools(&arguments.common),
        settle: TIMES_SETTLE,
    };
    let machine = machine::describe(&options.work);
    let result = series::run(&options, &mut |line| eprintln!("{line}"));
    fs::remove_dir_all(&options.work)?;
    let outcome = result?;
    let report = series_report::report(&machine, &options, &outcome);
    publish(&arguments.common, &report.markdown(), &report.json())?;
    Ok(outcome.failures.is_empty())
}

/// A new folder in the one that is given.
fn work_folder(common: &Common) -> io::Result<PathBuf> {
    let parent = common.work.clone().unwrap_or_else(env::temp_dir);
    let work =
        std::path::absolute(parent)?.join(format!("strongroom-bench-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    Ok(work)
}

fn publish(common: &Common, markdown: &str, json: &Value) -> io::Result<()> {
    if let Some(file) = &common.json {
        fs::write(file, format!("{json:#}\n"))?;
    }
    match &common.markdown {
        Some(file) => fs::write(file, markdown),
        None => io::stdout().write_all(markdown.as_bytes()),
    }
}

fn find_tools(common: &Common) -> Vec<(Tool, PathBuf)> {
    let mut found = Vec::new();
    for &tool in &common.tools {
        let program = match (tool, &common.strongroom) {
            (Tool::Strongroom, Some(program)) => std::path::absolute(program).ok(),
            (Tool::Strongroom, None) => beside_this_program("strongroom").or(on_path("strongroom")),
            _ => on_path(tool.name()),
        };
        match program {
            Some(program) => found.push((tool, program)),
            None => eprintln!("{} is not on PATH and left out", tool.name()),
        }
    }
    found
}

fn beside_this_program(name: &str) -> Option<PathBuf> {
    let program = env::current_exe().ok()?.with_file_name(name);
    program.is_file().then_some(program)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let is_program = |folder: &Path| folder.join(name).is_file();
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|folder| is_program(folder)).map(|folder| folder.join(name))
}
