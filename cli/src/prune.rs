//! `prune`: free what no snapshot needs.

use clap::Args;
use serde_json::{Value, json};
use strongroom::env::TimeNs;
use strongroom::maintain::prune::{self, PruneOptions, PruneReport};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count, counted, duration};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::table::{Align, Table};

/// Free what no snapshot needs
///
/// Packs without anything live are deleted; what is live in packs that are mostly dead is moved to
/// new ones first, still sealed. Backups, restores and other prunes may run at the same time:
/// nobody waits for a lock. If a backup is under way, what it might need is not deleted before it
/// has ended: prune then says so and ends, and the next prune goes on from there. A killed prune is
/// finished by the next one.
///
/// Needs the owner's or an admin's key.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom prune --dry-run
    strongroom prune
    strongroom prune --max-unused 0%", &[]))]
pub(crate) struct PruneArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    how: HowArgs,
}

/// Shared with `forget --prune`.
#[derive(Args)]
pub(crate) struct HowArgs {
    /// Dead bytes that may stay in packs beside live ones, in percent of all
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    max_unused: f64,

    /// Fence a session that has been silent for so long; if it lives, it starts over within seconds
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    fence_after: TimeNs,
}

pub(crate) fn run(tool: &Tool, args: &PruneArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    pruned(tool, &repo, &args.how, args.dry_run)
}

pub(crate) fn pruned(
    tool: &Tool,
    repo: &strongroom::repo::Repo,
    how: &HowArgs,
    dry_run: bool,
) -> Result<Exit, Fail> {
    let options =
        PruneOptions { dry_run, max_unused: how.max_unused, fence_after_ns: how.fence_after };
    let progress = Progress::start(tool, Work::Prune);
    let report = prune::run(repo, &options, &progress)?;
    drop(progress);
    if tool.out.json() {
        tool.out.object(&object(&report, dry_run))?;
    } else {
        tool.out.summary(&text(&report, dry_run))?;
    }
    Ok(Exit::Success)
}

fn text(report: &PruneReport, dry_run: bool) -> String {
    let mut table = Table::bare(&[Align::Left, Align::Right]);
    let mut row = |what: &str, n: String| table.row([what.to_owned(), n]);
    row("live snapshots", count(report.snapshots));
    row("packs before", format!("{} ({})", count(report.packs), bytes(report.bytes)));
    if dry_run || !report.waiting_for.is_empty() {
        let doomed = (count(report.packs_doomed), bytes(report.bytes_doomed));
        row("packs to delete", format!("{} ({})", doomed.0, doomed.1));
    }
    let moved = (count(report.packs_moved), bytes(report.bytes_moved));
    row(
        if dry_run { "packs to move" } else { "packs moved" },
        format!("{} ({})", moved.0, moved.1),
    );
    if report.packs_rescued > 0 {
        row("packs needed again", count(report.packs_rescued));
    }
    if !dry_run {
        let deleted = (count(report.packs_deleted), bytes(report.bytes_deleted));
        row("packs deleted", format!("{} ({})", deleted.0, deleted.1));
        row("snapshots deleted", count(report.snapshots_deleted));
        row("sessions fenced", count(report.sessions_fenced.len() as u64));
    }
    row("index runs merged", count(report.runs_merged));
    row("unused bytes left", bytes(report.bytes_unused));
    row("time", duration(report.seconds));
    let mut text = table.render();
    if !report.waiting_for.is_empty() {
        let sessions = counted(report.waiting_for.len() as u64, "session is", "sessions are");
        text += &format!(
            "\n{sessions} still open, perhaps a backup under way: nothing was deleted yet. \
             Run prune again when it has ended; one that is silent for longer than --fence-after \
             is fenced."
        );
    }
    text
}

fn object(report: &PruneReport, dry_run: bool) -> Value {
    let ids = |ids: &[strongroom::format::id::SessionId]| -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    };
    json!({
        "type": "prune",
        "dry_run": dry_run,
        "generation": report.generation,
        "waiting_for": ids(&report.waiting_for),
        "snapshots": report.snapshots,
        "packs": report.packs,
        "bytes": report.bytes,
        "packs_doomed": report.packs_doomed,
        "bytes_doomed": report.bytes_doomed,
        "snapshots_doomed": report.snapshots_doomed,
        "packs_moved": report.packs_moved,
        "bytes_moved": report.bytes_moved,
        "packs_rescued": report.packs_rescued,
        "packs_deleted": report.packs_deleted,
        "bytes_deleted": report.bytes_deleted,
        "bytes_unused": report.bytes_unused,
        "index_runs_merged": report.runs_merged,
        "index_runs_deleted": report.runs_deleted,
        "snapshots_deleted": report.snapshots_deleted,
        "sessions_deleted": report.sessions_deleted,
        "sessions_fenced": ids(&report.sessions_fenced),
        "seconds": report.seconds,
    })
}

/// "5%", "5", "0.5%" as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent: f64 = number.parse().map_err(|_| "a percentage looks like 5%".to_owned())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err("a percentage is from 0% to 100%".to_owned())
    }
}

/// "90s", "30m", "24h", "7d" in nanoseconds.
fn time(text: &str) -> Result<TimeNs, String> {
    let wrong = || "a time looks like 30m, 24h or 7d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let ns = i64::from(number).checked_mul(seconds).and_then(|s| s.checked_mul(1_000_000_000));
    ns.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_times_as_people_write_them() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0"), Ok(0.0));
        assert!(percent("-1%").is_err() && percent("101%").is_err() && percent("x").is_err());
        assert_eq!(time("24h"), Ok(86_400_000_000_000));
        assert_eq!(time("0s"), Ok(0));
        assert!(time("24").is_err() && time("h").is_err() && time("").is_err());
        assert!(time("4000000000d").is_err());
    }
}
