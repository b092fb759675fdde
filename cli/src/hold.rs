//! `hold`: snapshots that survive every policy.

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::json;
use strongroom::format::id::HoldId;
use strongroom::maintain::hold::{self, HoldInfo};
use strongroom::repo::Repo;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{minute, rfc3339, short};
use crate::help;
use crate::open;
use crate::sanitise;
use crate::table::{Align, Table};

/// Keep snapshots whatever a policy says
///
/// A held snapshot is neither forgotten nor deleted until every hold on it is released. Holds are
/// signed records with author, time and reason. Needs the owner's or an admin's key; `list` needs
/// any.
#[derive(Args)]
#[command(
    after_long_help = help::with_repository("
    strongroom hold add 3f2a91c0 --reason 'inspection 2026-11, until the report is in'
    strongroom hold list
    strongroom hold release 7c11 --reason 'report is in'", &[]),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct HoldArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Add(AddArgs),
    List(ListArgs),
    Release(ReleaseArgs),
}

/// Hold a snapshot
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom hold add latest --reason 'database lock'", &[Exit::Busy]))]
struct AddArgs {
    /// The beginning of the snapshot's id, or `latest`
    #[arg(value_name = "SNAP")]
    snapshot: String,

    /// Why: stands in the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// List the holds that nobody has released
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom hold list", &[]))]
struct ListArgs {}

/// Release a hold
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom hold release 7c11 --reason 'report is in'", &[]))]
struct ReleaseArgs {
    /// The beginning of the hold's id
    #[arg(value_name = "HOLD")]
    hold: String,

    /// Why: stands in the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(crate) fn run(tool: &Tool, args: &HoldArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    match &args.action {
        Action::Add(args) => add(tool, &repo, args)?,
        Action::List(_) => list(tool, &repo)?,
        Action::Release(args) => release(tool, &repo, args)?,
    }
    Ok(Exit::Success)
}

fn add(tool: &Tool, repo: &Repo, args: &AddArgs) -> Result<(), Fail> {
    let snapshot = repo.find_snapshot(&args.snapshot)?.id;
    let id = hold::add(repo, &snapshot, &args.reason)?;
    if tool.out.json() {
        return tool.out.object(&json!({"type": "hold", "id": id.to_string(),
            "snapshot": snapshot.to_string(), "reason": args.reason}));
    }
    tool.out.summary(&format!("hold {} on snapshot {}", short(id), short(snapshot)))
}

fn list(tool: &Tool, repo: &Repo) -> Result<(), Fail> {
    let holds = hold::list(repo)?;
    let author = |hold: &HoldInfo| {
        let member = repo.roster().identity(hold.author);
        member.map(|member| member.name.clone()).unwrap_or_default()
    };
    if tool.out.json() {
        return holds.iter().try_for_each(|hold| {
            tool.out.object(&json!({"type": "hold", "id": hold.id.to_string(),
                "snapshot": hold.snapshot.to_string(), "time": rfc3339(hold.time_ns),
                "author": author(hold), "reason": hold.reason}))
        });
    }
    if holds.is_empty() {
        tool.out.note("no snapshot is held");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("HOLD", Align::Left),
        ("SNAPSHOT", Align::Left),
        ("SINCE", Align::Left),
        ("BY", Align::Left),
        ("REASON", Align::Left),
    ]);
    let zone = TimeZone::system();
    for hold in &holds {
        table.row([
            short(hold.id),
            short(hold.snapshot),
            minute(hold.time_ns, &zone),
            sanitise::text(&author(hold)),
            sanitise::text(&hold.reason),
        ]);
    }
    tool.out.line(&table.render())
}

fn release(tool: &Tool, repo: &Repo, args: &ReleaseArgs) -> Result<(), Fail> {
    let id = find(repo, &args.hold)?;
    hold::release(repo, &id, &args.reason)?;
    if tool.out.json() {
        return tool.out.object(&json!({"type": "release", "hold": id.to_string(),
            "reason": args.reason}));
    }
    tool.out.summary(&format!("hold {} is released", short(id)))
}

fn find(repo: &Repo, wanted: &str) -> Result<HoldId, Fail> {
    let lower = wanted.to_ascii_lowercase();
    let holds = hold::list(repo)?;
    let mut found = holds.iter().filter(|hold| hold.id.to_string().starts_with(&lower));
    match (found.next(), found.next()) {
        (Some(hold), None) if !lower.is_empty() => Ok(hold.id),
        (Some(_), Some(_)) => {
            Err(Fail::new(Exit::Failure, format!("several holds begin with {wanted}"))
                .hint("give more digits of the id"))
        }
        _ => Err(strongroom::error::Error::NoHold { wanted: wanted.to_owned() }.into()),
    }
}
