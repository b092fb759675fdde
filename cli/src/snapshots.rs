//! `snapshots`: what there is to restore, oldest first.

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use strongroom::repo::SnapshotInfo;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count, counted, minute, rfc3339, short};
use crate::help;
use crate::init::OWNER;
use crate::open;
use crate::sanitise;
use crate::table::{Align, Table, clip};

const HOST_CHARS_MAX: usize = 20;
/// Width of the first column, under which a snapshot's paths stand.
const INDENT: usize = 14;

/// List the snapshots, oldest first
///
/// SIZE is what the files hold, STORED what this snapshot added to the repository. With --json
/// there is one object a snapshot; its `id` is the whole id.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom snapshots
    strongroom snapshots --json | jq -r 'select(.labels.study == \"S12\") | .id'", &[]))]
pub(crate) struct SnapshotsArgs {}

pub(crate) fn run(tool: &Tool, _: &SnapshotsArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let (snapshots, mut damaged) = repo.snapshots_despite()?;
    damaged.extend(repo.vanished_snapshots()?);
    if tool.out.json() {
        for info in &snapshots {
            tool.out.object(&object(info))?;
        }
    } else if snapshots.is_empty() {
        tool.out.note("no snapshots yet");
    } else {
        tool.out.line(&text(&snapshots, &TimeZone::system()))?;
    }
    for (_, error) in &damaged {
        tool.out.warn(&sanitise::text(&error.to_string()));
    }
    match damaged.len() {
        0 => Ok(Exit::Success),
        n => {
            let lost = counted(n as u64, "snapshot is", "snapshots are");
            Err(Fail::new(Exit::Damage, format!("{lost} damaged or gone"))
                .hint("`strongroom check` says what else is; all that are listed can be restored"))
        }
    }
}

fn text(snapshots: &[SnapshotInfo], zone: &TimeZone) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("TIME", Align::Left),
        ("HOST", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
    ]);
    for info in snapshots {
        let counts = &info.snapshot.counts;
        table.row([
            short(info.id),
            minute(info.snapshot.time_ns, zone),
            clip(&sanitise::text(&info.snapshot.host), HOST_CHARS_MAX),
            count(counts.files),
            bytes(counts.bytes),
            bytes(counts.bytes_stored),
        ]);
    }
    // Paths are long: below their row they fit into 80 columns.
    let rows = table.render();
    let mut rows = rows.lines();
    let mut lines = vec![rows.next().unwrap_or_default().to_owned()];
    for (row, info) in rows.zip(snapshots) {
        lines.push(row.to_owned());
        lines.extend(details(info).iter().map(|detail| format!("{:INDENT$}{detail}", "")));
    }
    lines.join("\n")
}

/// Each path; then labels, tags, an author who is not the owner, and what was not read.
fn details(info: &SnapshotInfo) -> Vec<String> {
    let snapshot = &info.snapshot;
    let mut marks: Vec<_> =
        snapshot.labels.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if !snapshot.tags.is_empty() {
        marks.push(format!("tagged {}", snapshot.tags.join(", ")));
    }
    if info.author_name != OWNER {
        marks.push(format!("by {}", info.author_name));
    }
    let unsound = [(snapshot.counts.unread, "unread"), (snapshot.counts.inconsistent, "changing")];
    for (n, what) in unsound.iter().filter(|(n, _)| *n > 0) {
        marks.push(format!("{} {what}!", count(*n)));
    }
    let mut lines: Vec<_> = snapshot.roots.iter().map(|root| sanitise::name(root)).collect();
    if !marks.is_empty() {
        lines.push(sanitise::text(&marks.join(" · ")));
    }
    lines
}

fn object(info: &SnapshotInfo) -> Value {
    let snapshot = &info.snapshot;
    let counts = &snapshot.counts;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("type", "snapshot".into());
    put("id", info.id.to_string().into());
    put("time", rfc3339(snapshot.time_ns).into());
    put("end", rfc3339(snapshot.end_ns).into());
    put("zone", snapshot.zone.clone().into());
    put("host", snapshot.host.clone().into());
    put("author", info.author_name.clone().into());
    put("author_id", snapshot.author.to_string().into());
    put("tool", snapshot.tool.clone().into());
    put("parent", snapshot.parent.map(|id| id.to_string()).into());
    put("sequence", snapshot.sequence.into());
    let lossy = |root: &Vec<u8>| String::from_utf8_lossy(root).into_owned();
    put("paths", snapshot.roots.iter().map(lossy).collect());
    if snapshot.roots.iter().any(|root| std::str::from_utf8(root).is_err()) {
        put("paths_hex", snapshot.roots.iter().map(|root| sanitise::hex(root)).collect());
    }
    put("labels", json!(snapshot.labels));
    put("tags", json!(snapshot.tags));
    put("retain_until", snapshot.retain_until_ns.map(rfc3339).into());
    put("command_exit", snapshot.exit_code.into());
    for (key, n) in [
        ("files", counts.files),
        ("dirs", counts.directories),
        ("others", counts.others),
        ("unread", counts.unread),
        ("inconsistent", counts.inconsistent),
        ("files_new", counts.files_new),
        ("files_changed", counts.files_changed),
        ("files_unchanged", counts.files_unchanged),
        ("bytes", counts.bytes),
        ("bytes_new", counts.bytes_new),
        ("bytes_stored", counts.bytes_stored),
    ] {
        put(key, n.into());
    }
    Value::Object(object)
}
