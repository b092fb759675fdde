//! `docs/cli.md`, written from the same definition that parses the command line (`strongroom
//! __markdown`).

use std::fmt::Write as _;
use std::io::Write;

use clap::{Arg, ArgAction, CommandFactory};

use crate::Tool;
use crate::args::Cli;
use crate::fail::{Exit, Fail};

pub(crate) fn run(tool: &Tool) -> Result<Exit, Fail> {
    tool.out.bytes().write_all(markdown().as_bytes()).map_err(|e| Fail::output(&e))?;
    Ok(Exit::Success)
}

fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "<!-- Generated: do not edit, but run\n\
         UPDATE=1 cargo test -p strongroom-cli --test cli_reference -->\n\n# strongroom\n\n",
    );
    describe(&root, &mut text);
    text.push_str("## Global options\n\n");
    root.get_arguments().filter(|arg| arg.is_global_set()).for_each(|arg| option(arg, &mut text));
    commands(&root, "##", &mut text);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn commands(parent: &clap::Command, heading: &str, text: &mut String) {
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_bin_name().unwrap_or(command.get_name());
        text.truncate(text.trim_end().len());
        let _ = write!(text, "\n\n{heading} {name}\n\n");
        describe(command, text);
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && !is_help(arg);
        command.get_arguments().filter(own).for_each(|arg| option(arg, text));
        commands(command, &format!("{heading}#"), text);
    }
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn describe(command: &clap::Command, text: &mut String) {
    let about = command.get_long_about().or(command.get_about());
    if let Some(about) = about {
        let _ = write!(text, "{}\n\n", about.to_string().trim());
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _ = write!(text, "```text\n{usage}\n```\n\n");
    if let Some(after) = command.get_after_long_help() {
        let _ = write!(text, "```text\n{}\n```\n\n", after.to_string().trim());
    }
}

fn option(arg: &Arg, text: &mut String) {
    let help = arg.get_long_help().or(arg.get_help()).map(|help| help.to_string());
    let mut parts = vec![help.unwrap_or_default().trim().replace("\n\n", "\n\n  ")];
    if arg.get_action().takes_values() {
        let values = arg.get_possible_values();
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !names.is_empty() {
            parts.push(format!("One of {}", names.join(", ")));
        }
        if let [default] = arg.get_default_values() {
            parts.push(format!("Default: `{}`", default.to_string_lossy()));
        }
    }
    let _ = writeln!(text, "- `{}`: {}", signature(arg), parts.join(". "));
}

fn signature(arg: &Arg) -> String {
    let value = || {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
    };
    let many = arg.get_num_args().is_some_and(|n| n.max_values() > 1)
        || matches!(arg.get_action(), ArgAction::Append);
    let many = if many { " …" } else { "" };
    let mut signature = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => return value() + many,
    };
    if arg.get_action().takes_values() {
        let _ = write!(signature, " {}", value());
    }
    signature + many
}
