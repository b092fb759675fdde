//! The `strongroom` command. Here: from arguments to exit code on one screen. One file per command;
//! what they share (settings, secrets, output, progress, failures) has a file each. No backup
//! logic: that is the engine's.

mod args;
mod backup;
mod benchmark;
mod check;
mod completions;
mod dump;
mod fail;
mod forget;
mod format;
mod glob;
mod help;
mod hold;
mod init;
mod interrupt;
mod key;
mod ls;
mod open;
mod output;
mod progress;
mod prune;
mod reference;
mod repair;
mod restore;
mod sanitise;
mod secret;
mod settings;
mod snapshots;
mod stats;
mod table;
mod wanted;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::fail::{Exit, Fail};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::settings::Settings;

/// What every command is handed.
pub(crate) struct Tool {
    pub(crate) settings: Settings,
    pub(crate) out: Output,
    pub(crate) interrupt: Interrupt,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output::new(&cli.globals);
    let done = start(&cli, out.clone());
    let exit = match done.and_then(|exit| out.finish().map(|()| exit)) {
        Ok(exit) => exit,
        Err(fail) => {
            out.fail(&fail, !cli.command.owns_stdout());
            fail.exit
        }
    };
    ExitCode::from(exit as u8)
}

fn start(cli: &Cli, out: Output) -> Result<Exit, Fail> {
    let interrupt = Interrupt::install()
        .map_err(|e| Fail::new(Exit::Failure, format!("cannot listen for signals: {e}")))?;
    let settings = settings::settle(&cli.globals, &|name| std::env::var_os(name))?;
    let tool = Tool { settings, out, interrupt };
    for line in tool.settings.origins() {
        tool.out.detail(&line);
    }
    match &cli.command {
        Command::Init(args) => init::run(&tool, args),
        Command::Backup(args) => backup::run(&tool, args),
        Command::Snapshots(args) => snapshots::run(&tool, args),
        Command::Ls(args) => ls::run(&tool, args),
        Command::Stats(args) => stats::run(&tool, args),
        Command::Restore(args) => restore::run(&tool, args),
        Command::Dump(args) => dump::run(&tool, args),
        Command::Check(args) => check::run(&tool, args),
        Command::Forget(args) => forget::run(&tool, args),
        Command::Hold(args) => hold::run(&tool, args),
        Command::Prune(args) => prune::run(&tool, args),
        Command::Repair(args) => repair::run(&tool, args),
        Command::Key(args) => key::run(&tool, args),
        Command::Benchmark(args) => benchmark::run(&tool, args),
        Command::Completions(args) => completions::run(&tool, args),
        Command::Reference => reference::run(&tool),
    }
}
