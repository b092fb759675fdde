//! The top of the command line: global options and the list of commands. What belongs to one
//! command stands in its own file; environment variables are read in `settings`, so that origin and
//! precedence are ours to state.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::{
    backup, benchmark, check, completions, dump, forget, help, hold, init, key, ls, prune, repair,
    restore, snapshots, stats,
};

/// Deduplicating, encrypted backups of data that must not be lost, leaked or quietly changed
#[derive(Parser)]
#[command(
    name = "strongroom",
    version,
    after_long_help = help::top(),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Default)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Folder of the repository [env: STRONGROOM_REPO]
    #[arg(long, global = true, value_name = "R")]
    pub(crate) repo: Option<PathBuf>,

    /// Read the password from the first line of F [env: STRONGROOM_PASSWORD_FILE]
    ///
    /// Without any of --password-file, --password-command and --key-file the environment is asked
    /// (STRONGROOM_PASSWORD, STRONGROOM_PASSWORD_FILE, STRONGROOM_PASSWORD_COMMAND or
    /// STRONGROOM_KEY_FILE; one of them only), then the terminal. A password is never taken from an
    /// argument: arguments are visible to everyone on the machine.
    #[arg(long, global = true, value_name = "F")]
    pub(crate) password_file: Option<PathBuf>,

    /// Run C in a shell and take the first line it prints as the password [env:
    /// STRONGROOM_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "C")]
    pub(crate) password_command: Option<String>,

    /// Unlock with key file F instead of a password [env: STRONGROOM_KEY_FILE]
    #[arg(long, global = true, value_name = "F")]
    pub(crate) key_file: Option<PathBuf>,

    /// Where journals and copies of the index are kept [env: STRONGROOM_CACHE_DIR] [default:
    /// $XDG_CACHE_HOME/strongroom or ~/.cache/strongroom]
    #[arg(long, global = true, value_name = "D")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Threads that work [default: as many as the machine runs at once]
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Print the result as JSON: one object a line, each with a `type`
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print no progress, notes or summaries; problems, errors and what was asked for still appear
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say more: where each setting comes from, every path that a damage hits
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Init(init::InitArgs),
    Backup(backup::BackupArgs),
    Snapshots(snapshots::SnapshotsArgs),
    Ls(ls::LsArgs),
    Stats(stats::StatsArgs),
    Restore(restore::RestoreArgs),
    Dump(dump::DumpArgs),
    Check(check::CheckArgs),
    Forget(forget::ForgetArgs),
    Hold(hold::HoldArgs),
    Prune(prune::PruneArgs),
    Repair(repair::RepairArgs),
    Key(key::KeyArgs),
    Benchmark(benchmark::BenchmarkArgs),
    Completions(completions::CompletionsArgs),
    /// Print docs/cli.md
    #[command(name = "__markdown", hide = true)]
    Reference,
}

impl Command {
    /// Standard output carries a file or a script, so that nothing else may be written to it.
    pub(crate) fn owns_stdout(&self) -> bool {
        matches!(self, Command::Dump(_) | Command::Completions(_) | Command::Reference)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn clap_finds_the_definition_sound() {
        Cli::command().debug_assert();
    }
}
