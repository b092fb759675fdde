//! `completions`: a script for the user's shell.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Tool;
use crate::args::Cli;
use crate::fail::{Exit, Fail};
use crate::help;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_long_help = help::without_repository("
    strongroom completions bash > /etc/bash_completion.d/strongroom
    strongroom completions zsh > ~/.zfunc/_strongroom
    strongroom completions fish > ~/.config/fish/completions/strongroom.fish", &[]))]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(tool: &Tool, args: &CompletionsArgs) -> Result<Exit, Fail> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strongroom", &mut script);
    tool.out.bytes().write_all(&script).map_err(|e| Fail::output(&e))?;
    Ok(Exit::Success)
}
