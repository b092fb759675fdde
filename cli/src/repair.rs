//! `repair`: everything that is safe to do about damage.

use clap::Args;
use serde_json::{Map, Value, json};
use strongroom::maintain::repair::{self, RepairOptions, RepairReport, Repaired};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count, counted, duration, short};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::sanitise;
use crate::table::{Align, Table};

/// Paths shown for one snapshot; `--json` and `-v` give all.
const PATHS_SHOWN: usize = 20;

/// Repair what can be repaired
///
/// Lost index runs are made again from packs. Frames that are still good in packs that have rotted
/// are copied into new ones. Only then, what is truly gone is dropped from the snapshots that had
/// it, and named: each such snapshot is written again, with its time, host, tags and labels, and
/// the old one is forgotten. Nothing is deleted.
///
/// First run `strongroom check --read-data`, which finds what is damaged, and back up the same
/// files once more: what the source still has is healed by that, and need not be dropped.
///
/// Needs the owner's key; with an admin's key only the structure is repaired.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom repair --dry-run
    strongroom repair --reason 'disk failed on 3 May'", &[]))]
pub(crate) struct RepairArgs {
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Stands in the record of each snapshot that is replaced
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(crate) fn run(tool: &Tool, args: &RepairArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let options = RepairOptions { dry_run: args.dry_run, reason: args.reason.clone() };
    let report = {
        let progress = Progress::start(tool, Work::Check);
        repair::run(&repo, &options, &progress)?
    };
    for repaired in &report.snapshots {
        if tool.out.json() {
            tool.out.object(&repaired_object(repaired))?;
        } else {
            tool.out.line(&repaired_text(repaired, tool.out.verbose()))?;
        }
    }
    if tool.out.json() {
        tool.out.event(&object(&report, args))?;
    } else {
        tool.out.summary(&text(&report, args.dry_run))?;
    }
    if report.left.is_empty() {
        return Ok(Exit::Success);
    }
    let left = counted(report.left.len() as u64, "damage is", "damages are");
    Err(Fail::new(Exit::Damage, format!("{left} left; each is named above")))
}

fn repaired_text(repaired: &Repaired, all: bool) -> String {
    let as_what = match repaired.new {
        Some(new) => format!(", repaired as {}", short(new)),
        None => String::new(),
    };
    let lost = counted(repaired.lost.len() as u64, "path is", "paths are");
    let mut lines = vec![format!("{}: {lost} lost{as_what}", short(repaired.old))];
    let shown = if all { repaired.lost.len() } else { PATHS_SHOWN };
    let paths = repaired.lost.iter().take(shown);
    lines.extend(paths.map(|path| format!("  {}", sanitise::name(path))));
    let more = repaired.lost.len().saturating_sub(shown);
    if more > 0 {
        lines.push(format!("  and {}: use -v", counted(more as u64, "more path", "more paths")));
    }
    lines.join("\n")
}

fn text(report: &RepairReport, dry_run: bool) -> String {
    let mut table = Table::bare(&[Align::Left, Align::Right]);
    for (what, n) in [
        ("index runs damaged", count(report.runs_damaged)),
        ("packs named again", count(report.packs_named)),
        ("frames moved", count(report.frames_moved)),
        ("bytes moved", bytes(report.bytes_moved)),
        ("snapshots with losses", count(report.snapshots.len() as u64)),
        ("left", count(report.left.len() as u64)),
        ("time", duration(report.seconds)),
    ] {
        table.row([what.to_owned(), n]);
    }
    let dry = if dry_run { "what a repair would do\n\n" } else { "" };
    format!("{dry}{}", table.render())
}

fn repaired_object(repaired: &Repaired) -> Value {
    let path = |path: &Vec<u8>| {
        let mut object = Map::new();
        sanitise::insert_name(&mut object, "path", path);
        Value::Object(object)
    };
    json!({
        "type": "repaired",
        "old": repaired.old.to_string(),
        "new": repaired.new.map(|new| new.to_string()),
        "lost": repaired.lost.iter().map(path).collect::<Vec<_>>(),
    })
}

fn object(report: &RepairReport, args: &RepairArgs) -> Value {
    let left = |(object, why): &(String, String)| json!({"object": object, "why": why});
    json!({
        "type": "repair",
        "dry_run": args.dry_run,
        "runs_damaged": report.runs_damaged,
        "packs_named": report.packs_named,
        "frames_moved": report.frames_moved,
        "bytes_moved": report.bytes_moved,
        "snapshots": report.snapshots.len(),
        "left": report.left.iter().map(left).collect::<Vec<_>>(),
        "seconds": report.seconds,
    })
}
