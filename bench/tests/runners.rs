//! The two runners with the strongroom that this workspace builds, and with a tool that loses
//! everything. Tiny sources, no rivals, no waiting.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strongroom_bench::corpus::Kind;
use strongroom_bench::e2e::{self, Case};
use strongroom_bench::tools::Tool;
use strongroom_bench::{machine, report, series, series_report};

/// Built with the tests of the command line; `cargo nextest run --workspace` builds them all.
fn strongroom() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let program = test.ancestors().nth(2).expect("it is in deps").join("strongroom");
    assert!(program.is_file(), "{} is not there: test the whole workspace", program.display());
    program
}

fn tools() -> Vec<(Tool, PathBuf)> {
    let liar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loses_everything.sh");
    vec![(Tool::Strongroom, strongroom()), (Tool::Restic, liar)]
}

/// Three days of a folder: the second changes a line, the third nothing.
fn days(data: &Path) {
    let table = |changed: u32| {
        let line = |row: u32| {
            let result = row % 997 * (row % 991) % 1000 + u32::from(row == changed);
            format!("STR-2026-01,{row:05},VISIT {},{result}\n", row % 7)
        };
        (0..3000).map(line).collect::<String>()
    };
    for (day, changed) in [("day01", 0), ("day02", 1500), ("day03", 1500)] {
        let folder = data.join("exports").join(day);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("LB.csv"), table(changed)).expect("written");
    }
}

#[test]
fn a_series_says_what_each_day_adds() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    days(&data);
    let work = folder.path().join("work");
    let settle = Duration::ZERO;
    let options = series::Options { data, work, rounds: 1, tools: tools(), settle };
    let outcome = series::run(&options, &mut |_| {}).expect("runs");

    // The liar is found out by the restore of the middle day and left out afterwards.
    assert_eq!(outcome.failures.len(), 1, "{:?}", outcome.failures);
    let failure = &outcome.failures[0];
    assert!(failure.starts_with("restic on exports: "), "{failure}");
    assert!(failure.contains("is not what was backed up"), "{failure}");

    let [series] = &outcome.series[..] else { panic!("one series") };
    let plain: Vec<u64> = series.days.iter().map(|day| day.bytes).collect();
    assert!(plain.len() == 3 && plain.iter().all(|&bytes| bytes > 60_000), "{plain:?}");
    let of = |tool, act| series.samples.iter().filter(move |s| (s.tool, s.act) == (tool, act));
    let restored: Vec<usize> =
        of(Tool::Strongroom, series::Act::Restore).map(|sample| sample.day).collect();
    assert_eq!(restored, [1, 2]);
    assert_eq!(of(Tool::Restic, series::Act::Backup).count(), 2);
    let added: Vec<u64> =
        of(Tool::Strongroom, series::Act::Backup).map(|sample| sample.added_bytes).collect();
    assert_eq!(added.len(), 3);
    assert!(added[0] > 10_000 && added[2] < added[0], "{added:?}");
    assert!(fs::read_dir(folder.path().join("work")).expect("is there").next().is_none());

    let machine = machine::describe(folder.path());
    let report = series_report::report(&machine, &options, &outcome);
    let kib = added.iter().map(|bytes| format!("{:.0}", *bytes as f64 / 1024.0));
    let row = format!("| strongroom | {} |", kib.collect::<Vec<_>>().join(" | "));
    assert!(report.markdown().contains(&row), "{row}\n{}", report.markdown());
    let json = report.json();
    assert_eq!(json["series"][0]["results"][0]["total_bytes"], added.iter().sum::<u64>() as f64);
    assert_eq!(json["series"][0]["results"][1]["total_bytes"], serde_json::Value::Null);
}

#[test]
fn a_study_is_backed_up_restored_and_exported_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let work = folder.path().to_owned();
    let imaging = work.join("imaging");
    let native = strongroom_bench::corpus::Spec { kind: Kind::Ct, size_bytes: 1 << 19, seed: 3 };
    strongroom_bench::corpus::generate(native, &imaging).expect("generated");
    fs::write(imaging.join("LICENSE"), "no picture").expect("written");
    let options = e2e::Options {
        work: work.join("work"),
        size_bytes: 1 << 19,
        rounds: 1,
        seed: 7,
        kinds: vec![Kind::Ct],
        imaging: Some(imaging),
        cases: vec![Case::FirstUnverified, Case::Restore, Case::Next, Case::RestoreNext],
        tools: tools(),
        settle: Duration::ZERO,
    };
    let outcome = e2e::run(&options, &mut |_| {}).expect("runs");
    assert_eq!(outcome.failures.len(), 2, "{:?}", outcome.failures);

    let cases = |corpus: &str| {
        let ours = |s: &&e2e::Sample| s.tool == Tool::Strongroom && s.corpus == corpus;
        outcome.samples.iter().filter(ours).map(|s| s.case).collect::<Vec<_>>()
    };
    let first = [Case::FirstUnverified, Case::First, Case::Restore];
    assert_eq!(cases("Ct"), [&first[..], &[Case::Next, Case::RestoreNext]].concat());
    assert_eq!(cases("Imaging"), first);
    let imaging = &outcome.corpora[1];
    assert_eq!((imaging.files, imaging.bytes / 1000), (1, 525));
    let peers = imaging.peer_codec_bytes.expect("measured");
    assert!((100_000..400_000).contains(&peers), "{peers}");
    for sample in &outcome.samples {
        let adds = matches!(sample.case, Case::First | Case::FirstUnverified | Case::Next);
        let ours = sample.tool == Tool::Strongroom;
        assert!(!ours || (sample.added_bytes > 1000) == adds, "{:?}", sample.case);
    }

    let machine = machine::describe(folder.path());
    let report = report::report(&machine, &options, &outcome);
    let markdown = report.markdown();
    for row in
        ["| Ct | first backup, unverified | strongroom |", "| Ct | next version | strongroom |"]
    {
        assert!(markdown.contains(row), "{row}\n{markdown}");
    }
    assert!(markdown.contains("first backups over that: strongroom "), "{markdown}");
    assert_eq!(report.json()["corpora"][1]["zstd_3_of_mib_pieces_bytes"], peers);
}
