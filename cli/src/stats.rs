//! `stats`: what the repository holds and what deduplication and compression made of it.

use clap::Args;
use serde_json::{Value, json};
use strongroom::browse::{self, CodecStats, Stats};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{bytes, count};
use crate::help;
use crate::open;
use crate::sanitise;
use crate::table::{Align, Table};

/// Show what the repository holds and what it saves
///
/// SAVED is PLAIN less STORED. "numeric" (samples and records) and "delta" (what changed since the
/// version before) end with zstd, too, so what zstd alone would have saved is part of what they
/// saved. The version that a delta refers to counts where it is stored.
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
        sections.push(codecs(&stats.frames_by_codec));
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

fn codecs(codecs: &[CodecStats]) -> String {
    let mut table = Table::new(&[
        ("CODEC", Align::Left),
        ("FRAMES", Align::Right),
        ("PLAIN", Align::Right),
        ("STORED", Align::Right),
        ("SAVED", Align::Right),
        ("RATIO", Align::Right),
    ]);
    let mut row = |codec: &CodecStats| {
        table.row([
            sanitise::text(&codec.codec),
            count(codec.frames),
            bytes(codec.plain_bytes),
            bytes(codec.stored_bytes),
            saved(codec.saved_bytes()),
            ratio(codec.plain_bytes, codec.stored_bytes),
        ]);
    };
    codecs.iter().for_each(&mut row);
    if codecs.len() > 1 {
        let sum = |of: fn(&CodecStats) -> u64| codecs.iter().map(of).sum();
        row(&CodecStats {
            codec: "all".to_owned(),
            frames: sum(|codec| codec.frames),
            plain_bytes: sum(|codec| codec.plain_bytes),
            stored_bytes: sum(|codec| codec.stored_bytes),
        });
    }
    table.render()
}

/// "2.1 MiB", "-32 B".
fn saved(saved: i64) -> String {
    let sign = if saved < 0 { "-" } else { "" };
    format!("{sign}{}", bytes(saved.unsigned_abs()))
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
                "stored_bytes": codec.stored_bytes, "saved_bytes": codec.saved_bytes()})
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

#[cfg(test)]
mod tests {
    use strongroom::browse::CodecStats;

    use super::codecs;

    #[test]
    fn every_codec_says_what_it_saved() {
        let codec = |codec: &str, frames, plain_bytes, stored_bytes| CodecStats {
            codec: codec.to_owned(),
            frames,
            plain_bytes,
            stored_bytes,
        };
        let shown = codecs(&[
            codec("numeric", 2048, 2 << 30, 700 << 20),
            codec("delta", 64, 64 << 20, 1 << 20),
            codec("stored", 2, 1600, 1632),
        ]);
        assert_eq!(
            shown,
            "\
CODEC    FRAMES     PLAIN   STORED     SAVED      RATIO
numeric   2,048   2.0 GiB  700 MiB   1.3 GiB   2.93 : 1
delta        64  64.0 MiB  1.0 MiB  63.0 MiB  64.00 : 1
stored        2   1.6 KiB  1.6 KiB     -32 B   0.98 : 1
all       2,114   2.1 GiB  701 MiB   1.4 GiB   3.01 : 1"
        );
    }
}
