//! What each day of a series added to each tool's repository, as Markdown and JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::report::{Head, median};
use crate::series::{Act, Day, Options, Outcome, Sample, Series};
use crate::tools::Tool;

/// One tool's medians over the rounds; `None` where it failed.
struct Row {
    tool: Tool,
    added_bytes: Vec<Option<f64>>,
    backup_s: Vec<Option<f64>>,
    /// Of the days that were restored.
    restore_s: Vec<(usize, f64)>,
}

pub struct Report<'a> {
    head: Head<'a>,
    series: Vec<(&'a Series, Vec<Row>)>,
}

pub fn report<'a>(machine: &'a Machine, options: &'a Options, outcome: &'a Outcome) -> Report<'a> {
    let head = Head::new(machine, options.rounds, &options.tools, &outcome.failures);
    let rows = |series: &'a Series| {
        let rows = options.tools.iter().map(|(tool, _)| row(series, *tool)).collect();
        (series, rows)
    };
    Report { head, series: outcome.series.iter().map(rows).collect() }
}

fn row(series: &Series, tool: Tool) -> Row {
    let median_of = |day: usize, act: Act, value: fn(&Sample) -> f64| {
        let is_ours = |s: &&Sample| s.tool == tool && s.day == day && s.act == act;
        median(series.samples.iter().filter(is_ours).map(value).collect())
    };
    let days = 0..series.days.len();
    let wall = |s: &Sample| s.cost.wall.as_secs_f64();
    Row {
        tool,
        added_bytes: days
            .clone()
            .map(|day| median_of(day, Act::Backup, |s| s.added_bytes as f64))
            .collect(),
        backup_s: days.clone().map(|day| median_of(day, Act::Backup, wall)).collect(),
        restore_s: days
            .filter_map(|day| Some((day, median_of(day, Act::Restore, wall)?)))
            .collect(),
    }
}

impl Row {
    /// `None` unless it has done every day.
    fn total_bytes(&self) -> Option<f64> {
        self.added_bytes.iter().copied().sum()
    }
}

impl Report<'_> {
    pub fn markdown(&self) -> String {
        let mut out = self.head.markdown("sources in the page cache");
        out.push_str(
            "\nKiB that each day added to the repository (the first day with what `init` makes), \
             their sum, and the sum over rustic's: below 0.5 is more than twice smaller. Seconds are of \
             all backups together and of restoring one day, which is compared with its source.\n",
        );
        for (series, rows) in &self.series {
            self.markdown_series(&mut out, series, rows);
        }
        out
    }

    fn markdown_series(&self, out: &mut String, series: &Series, rows: &[Row]) {
        let (days, restored) = (&series.days, rows.iter().flat_map(|row| &row.restore_s));
        let mut restored: Vec<usize> = restored.map(|(day, _)| *day).collect();
        restored.sort_unstable();
        restored.dedup();
        let files = days.last().map_or(0, |day| day.files);
        let _ = write!(out, "\n{}: {files} files on the last day\n\n| tool |", series.name);
        let mut heads: Vec<String> = days.iter().map(|day| day.name.clone()).collect();
        heads.extend(["total", "of rustic", "backups s"].map(str::to_owned));
        heads.extend(restored.iter().map(|&day| format!("restore {} s", days[day].name)));
        for head in &heads {
            let _ = write!(out, " {head} |");
        }
        let _ = write!(out, "\n|---|{}\n| plain |", "---|".repeat(heads.len()));
        for day in days {
            let _ = write!(out, " {} |", day.bytes >> 10);
        }
        let total: u64 = days.iter().map(|day| day.bytes).sum();
        let _ = writeln!(out, " {} |{}", total >> 10, " |".repeat(2 + restored.len()));
        for row in rows {
            let cell = |value: Option<f64>, decimals: usize| {
                value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"))
            };
            let kib = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1024.0);
            let mut cells: Vec<String> =
                row.added_bytes.iter().map(|&bytes| cell(kib(bytes), 0)).collect();
            cells.push(cell(kib(row.total_bytes()), 0));
            cells.push(cell(of_rustic(row, rows), 3));
            cells.push(cell(row.backup_s.iter().copied().sum(), 2));
            for day in &restored {
                let is_it = |(restored, _): &&(usize, f64)| restored == day;
                cells.push(cell(row.restore_s.iter().find(is_it).map(|(_, s)| *s), 2));
            }
            let _ = writeln!(out, "| {} | {} |", row.tool.name(), cells.join(" | "));
        }
    }

    pub fn json(&self) -> Value {
        let mut out = self.head.json("series");
        let day = |day: &Day| json!({"day": day.name, "files": day.files, "bytes": day.bytes});
        let row = |row: &Row, rows: &[Row]| {
            json!({
                "tool": row.tool.name(),
                "added_bytes": row.added_bytes,
                "total_bytes": row.total_bytes(),
                "of_rustic": of_rustic(row, rows),
                "backup_s": row.backup_s,
                "restore_s": row.restore_s,
            })
        };
        let series = |(series, rows): &(&Series, Vec<Row>)| {
            json!({
                "series": series.name,
                "days": series.days.iter().map(day).collect::<Vec<Value>>(),
                "results": rows.iter().map(|r| row(r, rows)).collect::<Vec<Value>>(),
            })
        };
        out["series"] = self.series.iter().map(series).collect();
        out
    }
}

/// This tool's total over rustic's.
fn of_rustic(row: &Row, rows: &[Row]) -> Option<f64> {
    let rustic = rows.iter().find(|row| row.tool == Tool::Rustic)?;
    Some(row.total_bytes()? / rustic.total_bytes()?)
}
