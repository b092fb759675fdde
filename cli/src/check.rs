//! `check`: is everything there, and is it what it says it is?

use clap::Args;
use serde_json::{Map, Value, json};
use strongroom::maintain::check::{self, CheckOptions, CheckReport, DamageFound};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count, counted, duration, rate, short};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::sanitise;
use crate::table::{Align, Table};

/// Paths shown for one damage; `--json` and `-v` give all.
const PATHS_SHOWN: usize = 10;

const HEAL: &str = "what is not named above is sound; back up the same files again: what is damaged \
    is stored anew, for old snapshots too";
const WITH_KEY: &str = "check with a key says what it costs, and what was healed since";

/// Check the repository
///
/// Without options: structure and signatures are sound and every reference leads to something that
/// is there. With --read-data every pack is also fetched and opened and every chunk verified: the
/// proof that everything can be restored. With --no-key every object is fetched and compared with
/// its name, which finds rot without password or key file, but not what an attacker with a key
/// could do.
///
/// With a key, frames that are found damaged are recorded in the repository: from then on they
/// count as absent, so that the next backup of the same files stores them again and old snapshots
/// are whole again. What is healed is a note, not a damage.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom check
    strongroom check --read-data
    strongroom --repo /mnt/backup/s12 check --no-key", &[]))]
pub(crate) struct CheckArgs {
    /// Open every pack and verify every chunk
    #[arg(long)]
    read_data: bool,

    /// Look for rot without a key
    #[arg(long, conflicts_with = "read_data")]
    no_key: bool,
}

pub(crate) fn run(tool: &Tool, args: &CheckArgs) -> Result<Exit, Fail> {
    let report = if args.no_key {
        let store = open::store(tool)?;
        let progress = Progress::start(tool, Work::Check);
        check::without_key(&*store, &progress)?
    } else {
        let repo = open::repo(tool)?;
        let progress = Progress::start(tool, Work::Check);
        check::run(&repo, &CheckOptions { read_data: args.read_data }, &progress)?
    };
    for damage in &report.damages {
        if tool.out.json() {
            tool.out.object(&damage_object(damage))?;
        } else {
            tool.out.line(&damage_text(damage, tool.out.verbose()))?;
        }
    }
    if tool.out.json() {
        tool.out.event(&object(&report, args))?;
    } else {
        tool.out.summary(&text(&report))?;
    }
    match report.damages.len() {
        0 => Ok(Exit::Success),
        n => {
            let found = counted(n as u64, "damage", "damages");
            let hint = if args.no_key { WITH_KEY } else { HEAL };
            Err(Fail::new(Exit::Damage, format!("{found} found")).hint(hint))
        }
    }
}

fn damage_text(damage: &DamageFound, all: bool) -> String {
    let mut lines = vec![format!(
        "damaged: {}: {}",
        sanitise::text(&damage.object),
        sanitise::text(&damage.what)
    )];
    if !damage.snapshots.is_empty() {
        let ids: Vec<_> = damage.snapshots.iter().map(short).collect();
        lines.push(format!("  in {}", ids.join(", ")));
    }
    let shown = if all { damage.paths.len() } else { PATHS_SHOWN };
    lines.extend(damage.paths.iter().take(shown).map(|path| format!("  {}", sanitise::name(path))));
    let more = damage.paths.len().saturating_sub(shown);
    if more > 0 {
        lines.push(format!("  and {}: use -v", counted(more as u64, "more path", "more paths")));
    }
    lines.join("\n")
}

fn text(report: &CheckReport) -> String {
    let mut table = Table::bare(&[Align::Left, Align::Right]);
    for (what, n) in [
        ("snapshots", count(report.snapshots)),
        ("packs", count(report.packs)),
        ("index runs", count(report.index_runs)),
        ("other objects", count(report.other_objects)),
        ("chunks", count(report.chunks)),
        ("bytes read", bytes(report.bytes_read)),
        ("time", duration(report.seconds)),
        ("rate", rate(report.bytes_read, report.seconds)),
        ("damages", count(report.damages.len() as u64)),
        ("damaged frames recorded", count(report.recorded)),
    ] {
        table.row([what.to_owned(), n]);
    }
    table.render()
}

fn damage_object(damage: &DamageFound) -> Value {
    let paths: Vec<Value> = damage
        .paths
        .iter()
        .map(|path| {
            let mut object = Map::new();
            sanitise::insert_name(&mut object, "path", path);
            Value::Object(object)
        })
        .collect();
    let snapshots: Vec<_> = damage.snapshots.iter().map(ToString::to_string).collect();
    json!({"type": "damage", "object": damage.object, "what": damage.what, "snapshots": snapshots,
        "paths": paths})
}

fn object(report: &CheckReport, args: &CheckArgs) -> Value {
    json!({
        "type": "check",
        "read_data": args.read_data,
        "no_key": args.no_key,
        "snapshots": report.snapshots,
        "packs": report.packs,
        "index_runs": report.index_runs,
        "other_objects": report.other_objects,
        "chunks": report.chunks,
        "damages": report.damages.len(),
        "recorded": report.recorded,
        "bytes_read": report.bytes_read,
        "seconds": report.seconds,
    })
}
