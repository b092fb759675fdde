//! `dump`: one file to standard output. Each chunk is verified before its bytes are written; what a
//! failed dump has written is the file's true beginning.

use clap::Args;
use strongroom::browse;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::help;
use crate::open;
use crate::wanted::{self, Wanted};

/// Write one file of a snapshot to standard output
///
/// Every chunk is verified before it is written. If the command fails, what it has written is a
/// true beginning of the file, but not all of it: look at the exit status. With --json, too,
/// nothing but the file is written.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom dump latest:/srv/edc/export.csv > export.csv
    strongroom dump 3f2a:/srv/edc/nightly.sql.gz | gunzip | less", &[]))]
pub(crate) struct DumpArgs {
    /// The file
    #[arg(value_name = "SNAP:PATH", value_parser = wanted::file_parser())]
    file: Wanted,
}

pub(crate) fn run(tool: &Tool, args: &DumpArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let snapshot = repo.find_snapshot(&args.file.snapshot)?;
    let path = args.file.path.as_deref().unwrap_or(b"/");
    browse::dump(&repo, &snapshot, path, &mut tool.out.bytes())?;
    Ok(Exit::Success)
}
