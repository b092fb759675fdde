//! `strongroom-bench`: writes seeded corpora and runs Strongroom against other backup tools.
//! The measuring itself is in `e2e.rs`; kernels are measured by `benches/kernels.rs`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use strongroom_bench::corpus::{self, Kind, Spec};
use strongroom_bench::e2e::{self, Options};
use strongroom_bench::tools::Tool;
use strongroom_bench::{machine, report};

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
}

#[derive(clap::Args)]
struct E2e {
    /// Folder for corpora and repositories; needs about six times the size; emptied at the end
    #[arg(long)]
    work: Option<PathBuf>,
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_delimiter = ',', default_value = "incompressible,csv,ct,small")]
    corpora: Vec<Kind>,
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

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Corpus { kind, size, out, seed } => {
            corpus::generate(Spec { kind, size_bytes: size << 20, seed }, &out).map(|()| true)
        }
        Command::E2e(arguments) => compare(&arguments),
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
fn compare(arguments: &E2e) -> io::Result<bool> {
    let parent = arguments.work.clone().unwrap_or_else(env::temp_dir);
    let work =
        std::path::absolute(parent)?.join(format!("strongroom-bench-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let options = Options {
        tools: find_tools(arguments),
        work,
        size_bytes: arguments.size_mib << 20,
        rounds: arguments.rounds,
        seed: arguments.seed,
        kinds: arguments.corpora.clone(),
    };
    let machine = machine::describe(&options.work);
    let result = e2e::run(&options, &mut |line| eprintln!("{line}"));
    fs::remove_dir_all(&options.work)?;
    let outcome = result?;
    let report = report::report(&machine, &options, &outcome);
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json()))?;
    }
    match &arguments.markdown {
        Some(file) => fs::write(file, report.markdown())?,
        None => print!("{}", report.markdown()),
    }
    Ok(outcome.failures.is_empty())
}

fn find_tools(arguments: &E2e) -> Vec<(Tool, PathBuf)> {
    let mut found = Vec::new();
    for &tool in &arguments.tools {
        let program = match (tool, &arguments.strongroom) {
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
