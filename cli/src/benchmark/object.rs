//! The report of `benchmark` as JSON: an object for each stage, place and prediction, then the recommendation.

use serde_json::{Map, Value, json};
use strongroom::benchmark::{
    Bound, Forecast, Of, Prediction, Reading, Report, STAGES, StageSpeed, Unit, cipher_name,
};

use super::text::codec_name;

pub(super) fn objects(report: &Report) -> Vec<Value> {
    let mut objects: Vec<Value> = report.stages.iter().map(stage).collect();
    objects.push(json!({"type": "unlock", "method": "argon2id", "seconds": report.unlock_seconds}));
    objects.extend(source(report));
    objects.extend(repository(report));
    for forecast in &report.forecasts {
        objects.extend(sampled(forecast));
        let all = forecast.predictions.iter().map(|prediction| (prediction, "as_found"));
        let cold = forecast.cold.iter().map(|prediction| (prediction, "cold"));
        objects.extend(all.chain(cold).map(|(p, cache)| prediction(forecast, p, cache)));
    }
    objects.push(json!({
        "type": "benchmark",
        "threads": report.threads,
        "cores": report.cores,
        "cpu_has_aes": report.has_aes,
        "target_file_system": report.target_fs,
        "recommended_cipher": cipher_name(report.cipher),
        "recommended_threads": report.threads_needed,
        "seconds": report.seconds,
    }));
    objects
}

fn stage(row: &StageSpeed) -> Value {
    let unit = match row.unit {
        Unit::Bytes => "bytes_per_second",
        Unit::Pieces => "per_second",
    };
    json!({
        "type": "stage",
        "stage": row.stage,
        "of": row.of,
        "unit": unit,
        "one_thread": row.speed.one,
        "all_threads": row.speed.all,
        "codec": row.codec.map(|(codec, _)| codec_name(codec)),
        "stored_share": row.codec.map(|(_, share)| share),
    })
}

fn reading(reading: &Reading) -> Value {
    json!({
        "bytes": reading.bytes,
        "seconds": reading.seconds,
        "bytes_per_second": reading.bytes_per_second(),
        "cached_share": reading.cached,
    })
}

fn source(report: &Report) -> Option<Value> {
    let source = report.source.as_ref()?;
    let found = &source.found;
    Some(json!({
        "type": "source",
        "files": found.files,
        "directories": found.dirs,
        "others": found.others,
        "bytes": found.bytes,
        "small_files": found.small.0,
        "unread": found.unread,
        "complete": !found.is_cut_short,
        "file_system": source.fs,
        "read_as_found": reading(&source.as_found),
        "read_cold": reading(&source.cold),
    }))
}

fn repository(report: &Report) -> Option<Value> {
    let found = report.repository.as_ref()?;
    let writing = found.writing.map(|writing| {
        json!({
            "bytes": writing.bytes,
            "bytes_per_second": writing.bytes_per_second(),
            "sync_bytes_per_second": writing.sync_bytes_per_second(),
        })
    });
    let stored = found.stored.map(|stored| {
        json!({
            "frames": stored.frames,
            "plain_bytes": stored.plain_bytes,
            "stored_bytes": stored.stored_bytes,
            "decode_seconds": stored.decode_seconds,
            "verify_seconds": stored.verify_seconds,
        })
    });
    let read = |of: &Reading| (of.bytes > 0).then(|| reading(of));
    Some(json!({
        "type": "repository",
        "cipher": cipher_name(found.suite),
        "file_system": found.fs,
        "write_packs": writing,
        "packs": found.packs,
        "read_as_found": read(&found.as_found),
        "read_cold": read(&found.cold),
        "stored_frames": stored,
        "chunks": found.chunks,
        "index_seconds": found.index_seconds,
        "look_ups_per_second": found.look_up.map(|speed| speed.all),
    }))
}

fn of(forecast: &Forecast) -> &'static str {
    match forecast.of {
        Of::Paths => "paths",
        Of::BuiltIn(kind) => kind,
        Of::Newest => "newest_snapshot",
    }
}

/// What samples went through, in processor time.
fn sampled(forecast: &Forecast) -> Option<Value> {
    let spent = &forecast.facts.spent;
    if forecast.of == Of::Newest {
        return None;
    }
    let stages: Map<String, Value> = STAGES
        .iter()
        .map(|stage| (stage.name().to_owned(), spent.seconds(*stage).into()))
        .collect();
    Some(json!({
        "type": "sampled",
        "of": of(forecast),
        "files": spent.files,
        "chunks": spent.chunks,
        "plain_bytes": spent.plain_bytes,
        "stored_bytes": spent.stored_bytes,
        "plain_bytes_by_codec": {
            "stored": spent.by_codec[0],
            "zstd": spent.by_codec[1],
            "numeric": spent.by_codec[2],
        },
        "seconds": stages,
    }))
}

fn prediction(forecast: &Forecast, prediction: &Prediction, cache: &str) -> Value {
    let bound = match prediction.bound {
        Bound::Processor => "processor",
        Bound::SourceDisk => "source",
        Bound::StoreDisk => "store",
    };
    let (files, bytes) = (forecast.facts.files, forecast.facts.bytes);
    let parts: Map<String, Value> =
        prediction.parts.iter().map(|(name, n)| ((*name).to_owned(), (*n).into())).collect();
    json!({
        "type": "prediction",
        "what": prediction.what.name(),
        "of": of(forecast),
        "cache": cache,
        "files": files,
        "bytes": bytes,
        "seconds": prediction.seconds,
        "bytes_per_second": bytes as f64 / prediction.seconds.max(1e-9),
        "bound_by": bound,
        "longest_stage": prediction.parts.first().map(|(name, _)| *name),
        "processor_seconds": prediction.processor_seconds,
        "source_seconds": prediction.source_seconds,
        "store_seconds": prediction.store_seconds,
        "store_known": forecast.facts.sync.is_some(),
        "stages_cpu_seconds": parts,
    })
}
