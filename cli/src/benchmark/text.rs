//! The report of `benchmark` for people.

use strongroom::benchmark::{
    Bound, Forecast, Of, Prediction, Reading, Report, RepositoryReport, SourceReport, Speed,
    StageSpeed, Unit, What, cipher_name,
};
use strongroom::format::codec::Codec;

use crate::format::{bytes, count, counted, duration, rate};
use crate::table::{Align, Table};

/// Stages of a sample's way that are shown.
const PARTS_SHOWN: usize = 4;
/// No disk is faster, in bytes a second.
const SYNC_MAX: f64 = 1e12;

pub(super) fn text(report: &Report) -> String {
    let mut sections = vec![stages(report), unlock(report)];
    sections.extend(report.source.as_ref().map(source));
    sections.extend(report.repository.as_ref().map(repository));
    sections.push(predictions(report));
    sections
        .extend(report.forecasts.iter().find(|f| f.of == Of::Paths && f.facts.bytes > 0).map(way));
    sections.push(recommendation(report));
    sections.join("\n\n")
}

fn stages(report: &Report) -> String {
    let all = format!("{} THREADS", report.threads);
    let mut table = Table::new(&[
        ("STAGE", Align::Left),
        ("OF", Align::Left),
        ("ONE THREAD", Align::Right),
        (&all, Align::Right),
        ("CODEC", Align::Left),
        ("LEFT", Align::Right),
    ]);
    for row in &report.stages {
        let (codec, left) = row.codec.map_or_else(Default::default, |(codec, share)| {
            (codec_name(codec).to_owned(), percent(share))
        });
        let speed = |of: fn(Speed) -> f64| speed(row, of(row.speed));
        table.row([
            row.stage.to_owned(),
            row.of.to_owned(),
            speed(|speed| speed.one),
            speed(|speed| speed.all),
            codec,
            left,
        ]);
    }
    table.render()
}

fn speed(row: &StageSpeed, speed: f64) -> String {
    match (row.unit, row.stage) {
        (Unit::Bytes, _) => rate(speed as u64, 1.0),
        (Unit::Pieces, "small files") => format!("{} files/s", count(speed as u64)),
        (Unit::Pieces, _) => format!("{}/s", count(speed as u64)),
    }
}

pub(super) fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Stored => "stored",
        Codec::Zstd => "zstd",
        Codec::Numeric => "numeric",
        Codec::Delta => "delta",
    }
}

fn unlock(report: &Report) -> String {
    let seconds = duration(report.unlock_seconds);
    format!(
        "unlocking with a password (Argon2id), once a command: {seconds}; with a key file: none"
    )
}

/// "0.2 %", "35 %".
fn percent(share: f64) -> String {
    let decimals = usize::from(share < 0.0995);
    format!("{:.decimals$} %", share * 100.0)
}

fn source(report: &SourceReport) -> String {
    let found = &report.found;
    let mut table = Table::bare(&[Align::Left, Align::Left]);
    let more = if found.is_cut_short { "at least " } else { "" };
    table.row([
        "to be backed up".into(),
        format!(
            "{more}{} in {}, {}",
            bytes(found.bytes),
            counted(found.files, "file", "files"),
            counted(found.dirs, "folder", "folders")
        ),
    ]);
    if found.unread > 0 {
        table.row(["not to be looked at".into(), count(found.unread)]);
    }
    if report.as_found.bytes > 0 {
        table.row(["reading it, as it is found".into(), reading(&report.as_found)]);
        table.row(["reading it, its pages dropped".into(), reading(&report.cold)]);
    }
    let note = if found.is_cut_short {
        "\nthe walk was cut short: counts and times below are of what it met; --seconds gives it more"
    } else {
        ""
    };
    format!("SOURCE ({})\n{}{note}", report.fs, table.render())
}

fn reading(reading: &Reading) -> String {
    let cached = match reading.cached {
        Some(share) => format!("{:.0} % of it was in the page cache", share * 100.0),
        None => "the file system does not say what was in the page cache".to_owned(),
    };
    format!("{} ({} read; {cached})", rate(reading.bytes, reading.seconds), bytes(reading.bytes))
}

fn repository(report: &RepositoryReport) -> String {
    let mut table = Table::bare(&[Align::Left, Align::Left]);
    table.row([
        "writing packs, made durable".into(),
        report.writing.map_or_else(
            || "not measured: the store cannot be written to, or is full".to_owned(),
            |writing| {
                let all = rate(writing.bytes_per_second() as u64, 1.0);
                match writing.sync_bytes_per_second() {
                    // Not a disk.
                    sync if sync > SYNC_MAX => format!("{all} (to sync takes no time)"),
                    sync => format!("{all} (to sync alone: {})", rate(sync as u64, 1.0)),
                }
            },
        ),
    ]);
    if report.as_found.bytes > 0 {
        table.row(["reading packs, as found".into(), reading(&report.as_found)]);
        table.row(["reading packs, pages dropped".into(), reading(&report.cold)]);
    }
    if let Some(stored) = &report.stored {
        let (decode, verify) = (stored.decode_seconds, stored.verify_seconds);
        let speed = |seconds: f64| rate((stored.plain_bytes as f64 / seconds) as u64, 1.0);
        table.row([
            "opening what is stored".into(),
            format!(
                "{} a thread, verifying {} ({})",
                speed(decode),
                speed(verify),
                counted(stored.frames, "frame", "frames")
            ),
        ]);
    }
    let look_up = report
        .look_up
        .map_or(String::new(), |speed| format!(", {} look-ups/s", count(speed.all as u64)));
    table.row([
        "index".into(),
        format!("{}, read in {}{look_up}", chunks(report), duration(report.index_seconds)),
    ]);
    format!("REPOSITORY ({}, {})\n{}", report.fs, cipher_name(report.suite), table.render())
}

fn chunks(report: &RepositoryReport) -> String {
    counted(report.chunks, "chunk", "chunks")
}

fn predictions(report: &Report) -> String {
    let mut table = Table::new(&[
        ("PREDICTION", Align::Left),
        ("TIME", Align::Right),
        ("SPEED", Align::Right),
        ("BOUND BY", Align::Left),
    ]);
    for forecast in &report.forecasts {
        let as_found = forecast.predictions.iter().map(|prediction| (prediction, ""));
        let cold = forecast.cold.iter().map(|prediction| (prediction, ", cold"));
        let facts = &forecast.facts;
        table.row([format!("{}, {}", of(forecast), bytes(facts.bytes))]);
        for (prediction, cache) in as_found.chain(cold) {
            let speed = match prediction.what {
                What::Unchanged => {
                    format!("{} files/s", count((facts.files as f64 / prediction.seconds) as u64))
                }
                _ => rate(facts.bytes, prediction.seconds),
            };
            table.row([
                format!("  {}{cache}", prediction.what.name()),
                duration(prediction.seconds),
                speed,
                bound(prediction),
            ]);
        }
    }
    let disk = match report.repository.as_ref().map(|found| found.writing.is_some()) {
        Some(true) => String::new(),
        _ => "\nThe repository's disk is not known, so times are without it.".to_owned(),
    };
    table.render() + &disk
}

fn of(forecast: &Forecast) -> &'static str {
    match forecast.of {
        Of::Paths => "PATH",
        Of::BuiltIn(kind) => kind,
        Of::Newest => "newest snapshot",
    }
}

fn bound(prediction: &Prediction) -> String {
    match prediction.bound {
        Bound::Processor => {
            let sum: f64 = prediction.parts.iter().map(|(_, seconds)| seconds).sum();
            let (stage, seconds) = prediction.parts.first().copied().unwrap_or_default();
            format!("processors: {stage} {}", percent(seconds / sum.max(1e-12)))
        }
        Bound::SourceDisk => "reading the source".to_owned(),
        Bound::StoreDisk if prediction.what == What::Restore => "reading packs".to_owned(),
        Bound::StoreDisk => "making packs durable".to_owned(),
    }
}

/// Where the processors' time goes in a first backup of PATH.
fn way(forecast: &Forecast) -> String {
    let spent = &forecast.facts.spent;
    let first = forecast.facts.predict(What::FirstBackup);
    let sum: f64 = first.parts.iter().map(|(_, seconds)| seconds).sum();
    let parts: Vec<String> = first
        .parts
        .iter()
        .take(PARTS_SHOWN)
        .map(|(name, seconds)| format!("{name} {}", percent(seconds / sum.max(1e-12))))
        .collect();
    let codecs: Vec<String> = [Codec::Stored, Codec::Zstd, Codec::Numeric]
        .iter()
        .zip(spent.by_codec)
        .filter(|(_, n)| *n > 0)
        .map(|(codec, n)| {
            let share = n as f64 / spent.plain_bytes.max(1) as f64;
            format!("{} {}", codec_name(*codec), percent(share))
        })
        .collect();
    format!(
        "A first backup of PATH would take about {} in the repository, {} of its size.\n\
         By codec: {}.\n\
         Its processor time goes into: {}.",
        bytes((forecast.facts.bytes as f64 * spent.stored_share()) as u64),
        percent(spent.stored_share()),
        codecs.join(", "),
        parts.join(", "),
    )
}

fn recommendation(report: &Report) -> String {
    let cipher = cipher_name(report.cipher);
    let here = match report.repository.as_ref().map(|found| found.suite) {
        Some(suite) if suite == report.cipher => ", which this repository has",
        Some(_) => "; this repository has the other one, and keeps it",
        None => "",
    };
    format!(
        "RECOMMENDED\ncipher   {cipher}{here}\nthreads  {} of {} (--threads)",
        report.threads_needed, report.threads
    )
}
