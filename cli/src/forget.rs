//! `forget`: which snapshots stay, which go, and why.

use clap::{ArgGroup, Args};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use strongroom::format::id::SessionId;
use strongroom::maintain::forget::{
    self, Decision, ForgetOptions, ForgetReport, Group, GroupBy, Keep, Policy, Span,
};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{count, counted, minute, rfc3339, short};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::prune::{self, HowArgs};
use crate::sanitise;
use crate::table::{Align, Table};

/// Forget snapshots
///
/// Names the snapshots to forget, or a policy: of each group (same author, host and paths) the
/// newest snapshot of each of the last N hours, days, weeks, months or years that have one is kept,
/// by the clock of the machine that was backed up. Every snapshot is listed with the reason why it
/// stays, or that it goes. Held snapshots (`strongroom hold`) stay whatever is asked; a policy never
/// forgets the last snapshot of a group.
///
/// Forgetting is recorded for good, with author, time and reason. The space is freed by `strongroom
/// prune`, or at once with --prune. Needs the owner's or an admin's key.
#[derive(Args)]
#[command(
    group = ArgGroup::new("what").required(true).multiple(true),
    after_long_help = help::with_repository("
    strongroom forget 3f2a91c0 --reason 'wrong folder'
    strongroom forget --keep-daily 14 --keep-weekly 8 --keep-monthly 24 --dry-run
    strongroom forget --keep-within 1y6m --keep-tag database-lock --prune", &[])
)]
pub(crate) struct ForgetArgs {
    /// Snapshots to forget: beginnings of their ids, or `latest`
    #[arg(value_name = "SNAP", group = "what", conflicts_with = "policy")]
    snapshots: Vec<String>,

    #[command(flatten)]
    policy: PolicyArgs,

    /// Count together what shares these (and the author): host, paths, tags
    #[arg(long, value_name = "LIST", default_value = "host,paths", value_parser = group_by)]
    group_by: GroupBy,

    /// Say what would be forgotten, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Why: stands in the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    /// Free the space afterwards
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
#[group(id = "policy", multiple = true)]
struct PolicyArgs {
    /// Keep the last N snapshots, or `all`
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_last: Option<u32>,

    /// Keep the newest snapshot of each of the last N hours that have one
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_hourly: Option<u32>,

    /// The same for days
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_daily: Option<u32>,

    /// The same for weeks, from Monday
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_weekly: Option<u32>,

    /// The same for months
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_monthly: Option<u32>,

    /// The same for years
    #[arg(long, value_name = "N", group = "what", value_parser = number)]
    keep_yearly: Option<u32>,

    /// Keep what is no older than this before the newest of its group: 2y, 6m, 30d, 12h, 1y6m
    #[arg(long, value_name = "SPAN", group = "what", value_parser = span)]
    keep_within: Option<Span>,

    /// Keep what carries this tag (may be given several times)
    #[arg(long, value_name = "TAG", group = "what")]
    keep_tag: Vec<String>,
}

impl PolicyArgs {
    fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last.unwrap_or(0),
            hourly: self.keep_hourly.unwrap_or(0),
            daily: self.keep_daily.unwrap_or(0),
            weekly: self.keep_weekly.unwrap_or(0),
            monthly: self.keep_monthly.unwrap_or(0),
            yearly: self.keep_yearly.unwrap_or(0),
            within: self.keep_within,
            tags: self.keep_tag.clone(),
        }
    }
}

pub(crate) fn run(tool: &Tool, args: &ForgetArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let find = |wanted: &String| repo.find_snapshot(wanted).map(|info| info.id);
    let wanted: Vec<SessionId> = args.snapshots.iter().map(find).collect::<Result<_, _>>()?;
    let options = ForgetOptions {
        dry_run: args.dry_run,
        reason: args.reason.clone(),
        policy: args.policy.policy(),
        group_by: args.group_by,
    };
    let progress = Progress::start(tool, Work::Prune);
    let report = forget::run(&repo, &wanted, &options, &progress)?;
    drop(progress);
    if tool.out.json() {
        for group in &report.groups {
            group.decisions.iter().try_for_each(|it| tool.out.object(&decision_object(it)))?;
        }
        tool.out.event(&json!({"type": "forget", "dry_run": args.dry_run,
            "forgotten": report.forgotten, "kept": report.kept}))?;
    } else {
        tool.out.line(&text(&report, args.dry_run, &TimeZone::system()))?;
    }
    if !wanted.is_empty() && report.kept > 0 {
        let n = counted(report.kept, "snapshot is", "snapshots are");
        let hint = "`strongroom hold list` shows what is held, and why";
        return Err(Fail::new(Exit::Failure, format!("{n} kept, see above")).hint(hint));
    }
    if args.prune {
        return prune::pruned(tool, &repo, &args.how, args.dry_run);
    }
    Ok(Exit::Success)
}

fn text(report: &ForgetReport, dry_run: bool, zone: &TimeZone) -> String {
    let mut lines = Vec::new();
    for group in &report.groups {
        lines.push(heading(group));
        let mut table = Table::bare(&[Align::Left, Align::Left, Align::Left, Align::Left]);
        for Decision { info, keep } in &group.decisions {
            let why: Vec<String> = keep.iter().map(|keep| reason(keep, zone)).collect();
            let verb = if keep.is_empty() { "forget" } else { "keep" };
            let time = minute(info.snapshot.time_ns, zone);
            table.row([format!("  {verb}"), short(info.id), time, why.join(", ")]);
        }
        lines.push(table.render());
    }
    let verb = if dry_run { "would be forgotten" } else { "forgotten" };
    lines.push(format!("{} {verb}, {} kept", count(report.forgotten), count(report.kept)));
    lines.join("\n")
}

fn heading(group: &Group) -> String {
    let mut parts = vec![format!("by {}", sanitise::text(&group.author))];
    parts.extend(group.host.as_ref().map(|host| format!("on {}", sanitise::text(host))));
    let paths = group.paths.iter().flatten().map(|path| sanitise::name(path));
    parts.extend(paths);
    if let Some(tags) = &group.tags {
        parts.push(format!("tagged {}", sanitise::text(&tags.join(", "))));
    }
    parts.join(" · ")
}

fn reason(keep: &Keep, zone: &TimeZone) -> String {
    match keep {
        Keep::Last => "last".to_owned(),
        Keep::Hourly => "hourly".to_owned(),
        Keep::Daily => "daily".to_owned(),
        Keep::Weekly => "weekly".to_owned(),
        Keep::Monthly => "monthly".to_owned(),
        Keep::Yearly => "yearly".to_owned(),
        Keep::Within => "within".to_owned(),
        Keep::Tag { tag } => format!("tag {}", sanitise::text(tag)),
        Keep::Held { reason } => format!("held: {}", sanitise::text(reason)),
        Keep::Retained { until_ns } => format!("retained until {}", minute(*until_ns, zone)),
    }
}

fn decision_object(decision: &Decision) -> Value {
    let Decision { info, keep } = decision;
    let why: Vec<Value> = keep
        .iter()
        .map(|keep| match keep {
            Keep::Tag { tag } => json!({"reason": "tag", "tag": tag}),
            Keep::Held { reason } => json!({"reason": "held", "text": reason}),
            Keep::Retained { until_ns } => {
                json!({"reason": "retained", "until": rfc3339(*until_ns)})
            }
            simple => json!({"reason": reason(simple, &TimeZone::UTC)}),
        })
        .collect();
    json!({
        "type": "decision",
        "id": info.id.to_string(),
        "time": rfc3339(info.snapshot.time_ns),
        "host": info.snapshot.host,
        "author": info.author_name,
        "keep": !keep.is_empty(),
        "reasons": why,
    })
}

fn number(text: &str) -> Result<u32, String> {
    match text {
        "all" => Ok(u32::MAX),
        _ => match text.parse() {
            Ok(0) => Err("0 keeps nothing: leave the option out".to_owned()),
            Ok(n) => Ok(n),
            Err(_) => Err("a number, or `all`".to_owned()),
        },
    }
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part {
            "host" => by.host = true,
            "paths" => by.paths = true,
            "tags" => by.tags = true,
            other => return Err(format!("{other} is none of host, paths, tags")),
        }
    }
    Ok(by)
}

/// "2y6m30d12h": each unit at most once, in this order.
fn span(text: &str) -> Result<Span, String> {
    let wrong = || "a span looks like 2y, 6m, 30d, 12h or 1y6m".to_owned();
    let mut span = Span::default();
    let mut rest = text;
    for (unit, field) in [
        ('y', &mut span.years),
        ('m', &mut span.months),
        ('d', &mut span.days),
        ('h', &mut span.hours),
    ] {
        if let Some((number, after)) = rest.split_once(unit) {
            *field = number.parse().map_err(|_| wrong())?;
            rest = after;
        }
    }
    // A hundred thousand of anything is a slip, and would leave the calendar.
    let sane = [span.years, span.months, span.days, span.hours].iter().all(|n| *n <= 100_000);
    if rest.is_empty() && span != Span::default() && sane { Ok(span) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_write_them() {
        let check = |text: &str, expected: Option<(u32, u32, u32, u32)>| {
            let found = span(text).ok().map(|s| (s.years, s.months, s.days, s.hours));
            assert_eq!(found, expected, "{text}");
        };
        check("30d", Some((0, 0, 30, 0)));
        check("1y6m", Some((1, 6, 0, 0)));
        check("2y1m3d4h", Some((2, 1, 3, 4)));
        check("", None);
        check("3", None);
        check("0d", None);
        check("6m1y", None);
        check("-1d", None);
        check("999999999y", None);
    }
}
