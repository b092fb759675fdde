//! Medians of what was measured, as Markdown for people and JSON for machines.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::corpus::Kind;
use crate::e2e::{Case, CorpusFacts, Options, Outcome, Sample};
use crate::machine::Machine;
use crate::tools::Tool;

const CASES: [Case; 7] = [
    Case::First,
    Case::Unchanged,
    Case::Touched,
    Case::NightTwo,
    Case::Restore,
    Case::RestoreAgain,
    Case::Check,
];

/// One line of the table: a tool's medians in one case on one corpus.
struct Row<'a> {
    corpus: &'a CorpusFacts,
    case: Case,
    tool: Tool,
    runs: usize,
    wall_s: f64,
    cpu_s: f64,
    peak_rss_bytes: f64,
    repository_bytes: f64,
}

pub struct Report<'a> {
    machine: &'a Machine,
    options: &'a Options,
    versions: Vec<(Tool, String)>,
    failures: &'a [String],
    rows: Vec<Row<'a>>,
}

pub fn report<'a>(machine: &'a Machine, options: &'a Options, outcome: &'a Outcome) -> Report<'a> {
    let mut rows = Vec::new();
    for corpus in &outcome.corpora {
        for case in CASES {
            for (tool, _) in &options.tools {
                let is_ours =
                    |s: &&Sample| s.kind == corpus.kind && s.case == case && s.tool == *tool;
                let samples: Vec<&Sample> = outcome.samples.iter().filter(is_ours).collect();
                rows.extend(row(corpus, case, *tool, &samples));
            }
        }
    }
    let version = |(tool, program): &(Tool, std::path::PathBuf)| {
        (*tool, tool.version(program).unwrap_or_else(|| "unknown".to_owned()))
    };
    let versions = options.tools.iter().map(version).collect();
    Report { machine, options, versions, failures: &outcome.failures, rows }
}

impl Report<'_> {
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let machine = self.machine;
        let _ = writeln!(
            out,
            "{}, {} cores, {} GiB, Linux {}, work folder on {}; {} rounds, tools alternating, \
             medians; sources of {} MiB in the page cache, seed {}.\n",
            machine.cpu,
            machine.cores,
            machine.memory_gib,
            machine.kernel,
            machine.work_on,
            self.options.rounds,
            self.options.size_bytes >> 20,
            self.options.seed,
        );
        for (tool, version) in &self.versions {
            let _ = writeln!(out, "- {}: {version}", tool.name());
        }
        for failure in self.failures {
            let first = failure.lines().next().unwrap_or_default();
            let _ = writeln!(out, "- failed: {first}");
        }
        out.push_str(
            "\nPeak memory is `ru_maxrss`, in which pages of mapped files count. \"× best peer\" is \
             the shortest wall time of any other tool over this tool's: above 1 is faster than all \
             others.\n\n\
             | corpus | case | tool | wall s | CPU s | rate | peak MiB | repository MiB | × best peer |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            self.markdown_row(&mut out, row);
        }
        out
    }

    fn markdown_row(&self, out: &mut String, row: &Row) {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (rate, unit) = row.rate();
        let best =
            self.times_best_peer(row).map_or("–".to_owned(), |times| format!("{times:.2}"));
        let _ = writeln!(
            out,
            "| {:?} | {} | {} | {:.2} | {:.2} | {rate:.0} {unit} | {:.0} | {:.1} | {best} |",
            row.corpus.kind,
            row.case.title(),
            row.tool.name(),
            row.wall_s,
            row.cpu_s,
            mib(row.peak_rss_bytes),
            mib(row.repository_bytes),
        );
    }

    pub fn json(&self) -> Value {
        let machine = self.machine;
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(tool, version)| json!({"tool": tool.name(), "version": version}))
            .collect();
        json!({
            "type": "e2e",
            "machine": {
                "cpu": machine.cpu,
                "cores": machine.cores,
                "memory_gib": machine.memory_gib,
                "kernel": machine.kernel,
                "work_on": machine.work_on,
            },
            "size_bytes": self.options.size_bytes,
            "rounds": self.options.rounds,
            "seed": self.options.seed,
            "tools": versions,
            "failures": self.failures,
            "results": self.rows.iter().map(|row| self.json_row(row)).collect::<Vec<Value>>(),
        })
    }

    fn json_row(&self, row: &Row) -> Value {
        let (rate, unit) = row.rate();
        json!({
            "corpus": format!("{:?}", row.corpus.kind),
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
            "repository_bytes": row.repository_bytes as u64,
            "times_best_peer": self.times_best_peer(row),
        })
    }

    fn times_best_peer(&self, row: &Row) -> Option<f64> {
        let is_peer = |peer: &&Row| {
            peer.corpus.kind == row.corpus.kind && peer.case == row.case && peer.tool != row.tool
        };
        let best = self.rows.iter().filter(is_peer).map(|peer| peer.wall_s).reduce(f64::min)?;
        Some(best / row.wall_s)
    }
}

impl Row<'_> {
    /// Files a second for small files, MiB a second for large ones.
    fn rate(&self) -> (f64, &'static str) {
        match self.corpus.kind {
            Kind::Small => (self.corpus.files as f64 / self.wall_s, "files/s"),
            _ => (self.corpus.bytes as f64 / f64::from(1 << 20) / self.wall_s, "MiB/s"),
        }
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
        repository_bytes: of(|s| s.repository_bytes as f64)?,
    })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
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
