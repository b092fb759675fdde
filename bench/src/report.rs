//! Medians of the end-to-end runs, as Markdown for people and JSON for machines, and what every
//! report begins with. That of the series is `series_report.rs`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::e2e::{Case, CorpusFacts, Options, Outcome, Sample};
use crate::machine::Machine;
use crate::tools::Tool;

/// Sources whose files are smaller on average are measured in files a second.
const SMALL_BYTES: u64 = 64 << 10;

/// What was measured, how often and where.
pub struct Head<'a> {
    machine: &'a Machine,
    rounds: u32,
    versions: Vec<(Tool, String)>,
    failures: &'a [String],
}

/// One line of the table: a tool's medians in one case on one corpus.
struct Row<'a> {
    corpus: &'a CorpusFacts,
    case: Case,
    tool: Tool,
    runs: usize,
    wall_s: f64,
    cpu_s: f64,
    peak_rss_bytes: f64,
    peak_anonymous_bytes: f64,
    repository_bytes: f64,
    added_bytes: f64,
}

pub struct Report<'a> {
    head: Head<'a>,
    options: &'a Options,
    corpora: &'a [CorpusFacts],
    rows: Vec<Row<'a>>,
}

impl<'a> Head<'a> {
    pub fn new(
        machine: &'a Machine,
        rounds: u32,
        tools: &[(Tool, PathBuf)],
        failures: &'a [String],
    ) -> Head<'a> {
        let version = |(tool, program): &(Tool, PathBuf)| {
            (*tool, tool.version(program).unwrap_or_else(|| "unknown".to_owned()))
        };
        Head { machine, rounds, versions: tools.iter().map(version).collect(), failures }
    }

    pub fn markdown(&self, sources: &str) -> String {
        let machine = self.machine;
        let mut out = format!(
            "{}, {} cores, {} GiB, Linux {}, work folder on {}; key files or passwords, no parity; \
             {} rounds, tools alternating, medians; {sources}.\n\n",
            machine.cpu,
            machine.cores,
            machine.memory_gib,
            machine.kernel,
            machine.work_on,
            self.rounds,
        );
        for (tool, version) in &self.versions {
            let _ = writeln!(out, "- {}: {version}", tool.name());
        }
        for failure in self.failures {
            let first = failure.lines().next().unwrap_or_default();
            let _ = writeln!(out, "- failed: {first}");
        }
        out
    }

    pub fn json(&self, kind: &str) -> Value {
        let machine = self.machine;
        let version =
            |(tool, version): &(Tool, String)| json!({"tool": tool.name(), "version": version});
        json!({
            "type": kind,
            "machine": {
                "cpu": machine.cpu,
                "cores": machine.cores,
                "memory_gib": machine.memory_gib,
                "kernel": machine.kernel,
                "work_on": machine.work_on,
            },
            "rounds": self.rounds,
            "tools": self.versions.iter().map(version).collect::<Vec<Value>>(),
            "failures": self.failures,
        })
    }
}

pub fn report<'a>(machine: &'a Machine, options: &'a Options, outcome: &'a Outcome) -> Report<'a> {
    let mut rows = Vec::new();
    for corpus in &outcome.corpora {
        for &case in Case::value_variants() {
            for (tool, _) in &options.tools {
                let is_ours =
                    |s: &&Sample| s.corpus == corpus.name && s.case == case && s.tool == *tool;
                let samples: Vec<&Sample> = outcome.samples.iter().filter(is_ours).collect();
                rows.extend(row(corpus, case, *tool, &samples));
            }
        }
    }
    let head = Head::new(machine, options.rounds, &options.tools, &outcome.failures);
    Report { head, options, rows, corpora: &outcome.corpora }
}

impl Report<'_> {
    pub fn markdown(&self) -> String {
        let (mib, seed) = (self.options.size_bytes >> 20, self.options.seed);
        let sources = format!("generated sources of {mib} MiB, seed {seed}, all in the page cache");
        let mut out = self.head.markdown(&sources);
        for corpus in self.corpora {
            self.peer_codec_line(&mut out, corpus);
        }
        out.push_str(
            "\nPeak memory: anonymous (looked at every 4 ms) / `ru_maxrss`, in which pages of mapped files \
             count. \"× best peer\" is \
             the shortest wall time of any other tool over this tool's: above 1 is faster than all \
             others. \"of rustic\" and \"of least\" are what the command added to the repository over what \
             rustic added and over the least that any other tool added: below 1 is smaller. The next \
             version of Csv has 1 % of its rows changed and 0.2 % appended, that of Ct is exported \
             again under other file names with other headers.\n\n\
             | corpus | case | tool | wall s | CPU s | rate | peak MiB | × best peer | repository MiB \
             | added MiB | of source | of rustic | of least |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            self.markdown_row(&mut out, row);
        }
        out
    }

    /// What a peer's codec makes of this source, and what each tool added, over that.
    fn peer_codec_line(&self, out: &mut String, corpus: &CorpusFacts) {
        let Some(stored) = corpus.peer_codec_bytes else { return };
        let _ = write!(
            out,
            "- {}: {} files, {:.1} MiB, of which zstd 3 on pieces of 1 MiB makes {:.1} MiB; first \
             backups over that:",
            corpus.name,
            corpus.files,
            in_mib(corpus.bytes as f64),
            in_mib(stored as f64),
        );
        let is_first = |row: &&Row| row.corpus.name == corpus.name && row.case == Case::First;
        for row in self.rows.iter().filter(is_first) {
            let _ = write!(out, " {} {:.3}", row.tool.name(), row.added_bytes / stored as f64);
        }
        out.push('\n');
    }

    fn markdown_row(&self, out: &mut String, row: &Row) {
        let (rate, unit) = row.rate();
        let or_dash = |value: Option<f64>, decimals: usize| {
            value.map_or("–".to_owned(), |v| format!("{v:.decimals$}"))
        };
        let _ = write!(
            out,
            "| {} | {} | {} | {:.3} | {:.2} | {rate:.0} {unit} | {:.0} / {:.0} | {} | {:.1} |",
            row.corpus.name,
            row.case.title(),
            row.tool.name(),
            row.wall_s,
            row.cpu_s,
            in_mib(row.peak_anonymous_bytes),
            in_mib(row.peak_rss_bytes),
            or_dash(self.times_best_peer(row), 2),
            in_mib(row.repository_bytes),
        );
        let _ = if row.adds() {
            writeln!(
                out,
                " {:.2} | {:.2} % | {} | {} |",
                in_mib(row.added_bytes),
                row.added_bytes * 100.0 / row.corpus.bytes as f64,
                or_dash(self.added_of(row, Some(Tool::Rustic)), 3),
                or_dash(self.added_of(row, None), 3),
            )
        } else {
            writeln!(out, " – | – | – | – |")
        };
    }

    pub fn json(&self) -> Value {
        let mut out = self.head.json("e2e");
        let corpus = |corpus: &CorpusFacts| {
            json!({"corpus": corpus.name, "files": corpus.files, "bytes": corpus.bytes,
                "zstd_3_of_mib_pieces_bytes": corpus.peer_codec_bytes})
        };
        out["size_bytes"] = self.options.size_bytes.into();
        out["seed"] = self.options.seed.into();
        out["corpora"] = self.corpora.iter().map(corpus).collect();
        out["results"] = self.rows.iter().map(|row| self.json_row(row)).collect();
        out
    }

    fn json_row(&self, row: &Row) -> Value {
        let (rate, unit) = row.rate();
        json!({
            "corpus": row.corpus.name,
            "files": row.corpus.files,
            "bytes": row.corpus.bytes,
            "case": row.case.title(),
            "tool": row.tool.name(),
            "runs": row.runs,
            "wall_s": row.wall_s,
            "cpu_s": row.cpu_s,
            "rate": rate,
            "rate_unit": unit,
            "peak_rss_bytes": row.peak_rss_bytes as u64,
            "peak_anonymous_bytes": row.peak_anonymous_bytes as u64,
            "repository_bytes": row.repository_bytes as u64,
            "added_bytes": row.added_bytes as i64,
            "times_best_peer": self.times_best_peer(row),
            "added_of_rustic": self.added_of(row, Some(Tool::Rustic)),
            "added_of_least": self.added_of(row, None),
            "added_of_zstd_3": row.corpus.peer_codec_bytes.map(|b| row.added_bytes / b as f64),
        })
    }

    fn times_best_peer(&self, row: &Row) -> Option<f64> {
        let best = self.peers(row).map(|peer| peer.wall_s).reduce(f64::min)?;
        Some(best / row.wall_s)
    }

    /// Over what one peer added, or over the least that any did.
    fn added_of(&self, row: &Row, peer: Option<Tool>) -> Option<f64> {
        let wanted = |other: &&Row| peer.is_none_or(|peer| peer == other.tool);
        let best = self.peers(row).filter(wanted).map(|other| other.added_bytes);
        let best = best.reduce(f64::min)?;
        (row.adds() && best > 0.0).then(|| row.added_bytes / best)
    }

    fn peers(&self, row: &Row) -> impl Iterator<Item = &Row<'_>> {
        self.rows.iter().filter(|peer| {
            let same = peer.corpus.name == row.corpus.name && peer.case == row.case.peer();
            same && peer.tool != row.tool
        })
    }
}

impl Row<'_> {
    /// Files a second for small files, MiB a second for large ones.
    fn rate(&self) -> (f64, &'static str) {
        match self.corpus.files * SMALL_BYTES > self.corpus.bytes {
            true => (self.corpus.files as f64 / self.wall_s, "files/s"),
            false => (in_mib(self.corpus.bytes as f64) / self.wall_s, "MiB/s"),
        }
    }

    fn adds(&self) -> bool {
        !matches!(
            self.case,
            Case::Restore | Case::RestoreAgain | Case::Check | Case::List | Case::RestoreNext
        )
    }
}

fn row<'a>(
    corpus: &'a CorpusFacts,
    case: Case,
    tool: Tool,
    samples: &[&Sample],
) -> Option<Row<'a>> {
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(|s| value(s)).collect());
    Some(Row {
        corpus,
        case,
        tool,
        runs: samples.len(),
        wall_s: of(|s| s.cost.wall.as_secs_f64())?,
        cpu_s: of(|s| s.cost.cpu.as_secs_f64())?,
        peak_rss_bytes: of(|s| s.cost.peak_rss_bytes as f64)?,
        peak_anonymous_bytes: of(|s| s.cost.peak_anonymous_bytes as f64)?,
        repository_bytes: of(|s| s.repository_bytes as f64)?,
        added_bytes: of(|s| s.added_bytes as f64)?,
    })
}

pub fn in_mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![9.0, 1.0], Some(5.0)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }
}
