//! `stats`: what the repository holds and what deduplication and compression made of it.

use clap::Args;
use serde_json::{Value, json};
use strongroom::browse::{self, Stats};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count};
use crate::help;
use crate::open;
use crate::sanitise;
use crate::table::{Align, Table};

/// Show what the repository holds and what it saves
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom stats
    strongroom stats --json", &[]))]
pub(crate) struct StatsArgs {}

pub(crate) fn run(tool: &Tool, _: &StatsArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let stats = browse::stats(&repo)?;
    if tool.out.json() {
        tool.out.object(&object(&stats))?;
    } else {
        tool.out.line(&text(&stats))?;
    }
    Ok(Exit::Success)
}

fn text(stats: &Stats) -> String {
    let stored = stats.pack_bytes + stats.index_bytes + stats.other_bytes;
    let mut table =
        Table::new(&[("", Align::Left), ("COUNT", Align::Right), ("SIZE", Align::Right)]);
    let logical = stats.snapshot_bytes.map_or_else(|| "-".to_owned(), bytes);
    table.row(["files in snapshots".into(), count(stats.snapshots), logical]);
    table.row(["chunks, each once".into(), count(stats.chunks), bytes(stats.chunk_bytes)]);
    table.row(["packs".into(), count(stats.packs), bytes(stats.pack_bytes)]);
    table.row(["index runs".into(), count(stats.index_runs), bytes(stats.index_bytes)]);
    table.row(["other objects".into(), count(stats.other_objects), bytes(stats.other_bytes)]);
    table.row(["stored in all".into(), String::new(), bytes(stored)]);
    let mut sections = vec![table.render()];

    if !stats.frames_by_codec.is_empty() {
        let mut codecs = Table::new(&[
            ("CODEC", Align::Left),
            ("FRAMES", Align::Right),
            ("PLAIN", Align::Right),
            ("STORED", Align::Right),
            ("RATIO", Align::Right),
        ]);
        for codec in &stats.frames_by_codec {
            codecs.row([
                sanitise::text(&codec.codec),
                count(codec.frames),
                bytes(codec.plain_bytes),
                bytes(codec.stored_bytes),
                ratio(codec.plain_bytes, codec.stored_bytes),
            ]);
        }
        sections.push(codecs.render());
    }

    let mut savings = Table::bare(&[Align::Left, Align::Right]);
    if let Some(logical) = stats.snapshot_bytes {
        savings.row(["deduplication".into(), ratio(logical, stats.chunk_bytes)]);
    }
    savings.row(["compression".into(), ratio(stats.chunk_bytes, stats.pack_bytes)]);
    if let Some(logical) = stats.snapshot_bytes {
        savings.row(["together".into(), ratio(logical, stored)]);
    }
    sections.push(savings.render());
    sections.join("\n\n")
}

/// "3.45 : 1".
fn ratio(before: u64, after: u64) -> String {
    if before == 0 || after == 0 {
        return "-".to_owned();
    }
    format!("{:.2} : 1", before as f64 / after as f64)
}

fn object(stats: &Stats) -> Value {
    let codecs: Vec<_> = stats
        .frames_by_codec
        .iter()
        .map(|codec| {
            json!({"codec": codec.codec, "frames": codec.frames, "plain_bytes": codec.plain_bytes,
                "stored_bytes": codec.stored_bytes})
        })
        .collect();
    json!({
        "type": "stats",
        "snapshots": stats.snapshots,
        "snapshot_bytes": stats.snapshot_bytes,
        "chunks": stats.chunks,
        "chunk_bytes": stats.chunk_bytes,
        "packs": stats.packs,
        "pack_bytes": stats.pack_bytes,
        "index_runs": stats.index_runs,
        "index_bytes": stats.index_bytes,
        "other_objects": stats.other_objects,
        "other_bytes": stats.other_bytes,
        "codecs": codecs,
    })
}
