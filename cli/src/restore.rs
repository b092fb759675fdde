//! `restore`: brings back a snapshot, or a path of it, below a folder.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use strongroom::repo::SnapshotInfo;
use strongroom::restore::{self, PathFilter, RestoreOptions, RestoreReport};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count, counted, duration, rate, short};
use crate::glob::{Filter, Pattern};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::table::{Align, Table};
use crate::wanted::{self, Wanted};

const HEAL: &str = "what is damaged is recorded: the next backup of the same files stores it again, then run this again";

/// Restore a snapshot, or a part of it, below a folder
///
/// A whole snapshot is restored with its absolute paths below DIR; with :PATH the contents of PATH
/// land in DIR itself. Files that are in DIR already and match by size and time are left alone;
/// those that differ are repaired where they differ. What an interrupted restore has done counts
/// when it is run again. Nothing is ever deleted in DIR, and every chunk is verified before it is
/// written.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom restore latest --target /mnt/restored
    strongroom restore latest:/srv/imaging/s12/pat-007 --target /tmp/pat-007
    strongroom restore 3f2a --target /tmp/csv --include '*.csv' --exclude /srv/edc/old
    strongroom restore latest:/srv/edc --target /srv/edc --verify-existing --dry-run", &[]))]
pub(crate) struct RestoreArgs {
    /// The snapshot, and the folder or file in it
    #[arg(value_name = "SNAP[:PATH]", value_parser = wanted::parser())]
    place: Wanted,

    /// Where to; made if it does not exist
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,

    /// Restore only what matches, and everything below a folder that matches; may be repeated
    #[arg(long, value_name = "GLOB")]
    include: Vec<Pattern>,

    /// Leave out what matches, and everything below it, even if it is included; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Pattern>,

    /// Read existing files and compare them chunk by chunk, instead of trusting size and time
    #[arg(long)]
    verify_existing: bool,

    /// Say what would happen and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(tool: &Tool, args: &RestoreArgs) -> Result<Exit, Fail> {
    let options = RestoreOptions {
        include: filter(&args.include)?,
        exclude: filter(&args.exclude)?,
        verify_existing: args.verify_existing,
        dry_run: args.dry_run,
    };
    let repo = open::repo(tool)?;
    let snapshot = repo.find_snapshot(&args.place.snapshot)?;
    // The contents of the top are the whole snapshot.
    let path = args.place.path.as_deref().filter(|path| *path != b"/");
    let report = {
        let progress = Progress::start(tool, Work::Restore);
        restore::run(&repo, &snapshot, path, &args.target, &options, &progress)?
    };
    if tool.out.json() {
        tool.out.event(&object(&snapshot, &report, args.dry_run))?;
    } else {
        tool.out.summary(&text(&snapshot, &report, args.dry_run))?;
    }
    if report.failed > 0 {
        let lost = counted(report.failed, "entry was", "entries were");
        let fail = Fail::new(Exit::Damage, format!("{lost} not restored; each is named above"));
        return Err(if report.recorded > 0 { fail.hint(HEAL) } else { fail });
    }
    Ok(Exit::Success)
}

fn filter(patterns: &[Pattern]) -> Result<Option<PathFilter>, Fail> {
    let filter = Filter::new(patterns)?;
    Ok(filter.map(|filter| -> PathFilter { Box::new(move |path, dir| filter.covers(path, dir)) }))
}

fn text(snapshot: &SnapshotInfo, report: &RestoreReport, dry_run: bool) -> String {
    let mut table = Table::bare(&[Align::Left, Align::Right]);
    for (what, n) in [
        ("files restored", count(report.files_restored)),
        ("files repaired", count(report.files_repaired)),
        ("files in place", count(report.files_in_place)),
        ("folders", count(report.dirs)),
        ("other entries", count(report.others)),
        ("bytes restored", bytes(report.bytes_restored)),
        ("bytes in place", bytes(report.bytes_in_place)),
        ("not restored", count(report.failed)),
        ("warnings", count(report.warnings)),
        ("damaged frames recorded", count(report.recorded)),
        ("time", duration(report.seconds)),
        ("rate", rate(report.bytes_restored, report.seconds)),
    ] {
        table.row([what.to_owned(), n]);
    }
    let dry = if dry_run { ": what a restore would do" } else { "" };
    format!("snapshot {}{dry}\n\n{}", short(snapshot.id), table.render())
}

fn object(snapshot: &SnapshotInfo, report: &RestoreReport, dry_run: bool) -> Value {
    json!({
        "type": "restore",
        "snapshot": snapshot.id.to_string(),
        "dry_run": dry_run,
        "dirs": report.dirs,
        "files_restored": report.files_restored,
        "files_repaired": report.files_repaired,
        "files_in_place": report.files_in_place,
        "others": report.others,
        "bytes_restored": report.bytes_restored,
        "bytes_in_place": report.bytes_in_place,
        "failed": report.failed,
        "warnings": report.warnings,
        "recorded": report.recorded,
        "seconds": report.seconds,
    })
}
