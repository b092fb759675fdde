//! `strongroom benchmark`: that it says what it promises and leaves nothing behind. Not how fast anything is.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use support::Done;

/// A folder with a source, and on demand a repository in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let source = place.path("source");
        fs::create_dir_all(source.join("forms")).expect("folders of the source");
        for n in 0..60 {
            let form = format!("subject {n}, visit 1: nothing to report\n").repeat(20 + n);
            fs::write(source.join(format!("forms/{n}.txt")), form).expect("a form");
        }
        let table: String =
            (0..60_000).map(|n| format!("{n},S-{},OPEN\n", n * 7919 % 1000)).collect();
        fs::write(source.join("export.csv"), table.repeat(6)).expect("a table");
        fs::create_dir(place.path("target")).expect("a target");
        place
    }

    fn with_repository(self) -> Self {
        self.run(false, &["init", "--new-key-file", &self.text("owner.key")]).exits(0);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    fn text(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().expect("temporary folders have plain names")
    }

    fn source(&self) -> String {
        self.text("source")
    }

    fn run(&self, with_key: bool, args: &[&str]) -> Done {
        let repo = self.text("repo");
        self.without_repository(with_key, &[&["--repo", &repo], args].concat())
    }

    fn without_repository(&self, with_key: bool, args: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().stdin(Stdio::null()).args(args);
        command.env("STRONGROOM_CACHE_DIR", self.path("cache")).env("TMPDIR", self.path("target"));
        if with_key {
            command.env("STRONGROOM_KEY_FILE", self.path("owner.key"));
        }
        let output = command.output().expect("the binary runs");
        Done {
            code: output.status.code().expect("it is not ended by a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// All files of the repository, temporaries too, and their lengths.
    fn objects(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        list(&self.path("repo"), &mut found);
        found
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.path("target")).expect("the target is there").count()
    }
}

fn list(folder: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let entry = entry.expect("a name");
        match entry.metadata().expect("nothing disappears meanwhile") {
            meta if meta.is_dir() => list(&entry.path(), found),
            meta => drop(found.insert(entry.path(), meta.len())),
        }
    }
}

impl Done {
    #[track_caller]
    fn only(&self, kind: &str) -> Value {
        let mut objects = self.objects(kind);
        assert_eq!(objects.len(), 1, "{kind} in\n{}", self.stdout);
        objects.remove(0)
    }
}

#[track_caller]
fn positive(object: &Value, key: &str) {
    assert!(number(object, key) > 0.0, "{key} of {object}");
}

#[track_caller]
fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

#[track_caller]
fn word<'v>(object: &'v Value, key: &str) -> &'v str {
    object[key].as_str().unwrap_or_else(|| panic!("no word {key} in {object}"))
}

/// The only one of `objects` with these words.
#[track_caller]
fn pick<'v>(objects: &'v [Value], words: &[(&str, &str)]) -> &'v Value {
    let fits = |object: &&Value| words.iter().all(|(key, word)| object[*key] == *word);
    let found: Vec<&Value> = objects.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{words:?} in {objects:#?}");
    found[0]
}

const STAGES: &[(&str, &[&str])] = &[
    ("read", &["map", "pread"]),
    ("find cuts", &["mincdc", "fastcdc"]),
    ("identify", &["blake3"]),
    ("copy", &["memory"]),
    ("compress", &["incompressible", "csv", "image16", "csv-delta"]),
    ("decompress", &["incompressible", "csv", "image16", "csv-delta"]),
    ("seal", &["aes-256-gcm", "chacha20-poly1305"]),
    ("open", &["aes-256-gcm", "chacha20-poly1305"]),
    ("name packs", &["blake3"]),
    ("write", &["restored file"]),
    ("look up", &["known, in order", "known, anywhere", "new"]),
    ("small files", &["first backup", "unchanged", "restore"]),
];

#[test]
fn every_stage_is_measured_without_arguments() {
    let place = Place::new();
    let done =
        place.without_repository(false, &["benchmark", "--seconds", "0.1", "--json"]).exits(0);
    let stages = done.objects("stage");
    for (stage, kinds) in STAGES {
        let found: Vec<&Value> = stages.iter().filter(|row| row["stage"] == *stage).collect();
        let of: Vec<&str> = found.iter().filter_map(|row| row["of"].as_str()).collect();
        assert_eq!(of, *kinds, "{stage}");
        for row in found {
            positive(row, "one_thread");
            positive(row, "all_threads");
        }
    }
    let codec = |of: &str| {
        let row = pick(&stages, &[("stage", "compress"), ("of", of)]);
        (word(row, "codec"), number(row, "stored_share"))
    };
    assert_eq!(codec("incompressible"), ("stored", 1.0));
    assert_eq!(codec("csv").0, "zstd");
    assert_eq!(codec("image16").0, "numeric");
    let (delta, share) = codec("csv-delta");
    assert!(delta == "delta" && share < 0.05, "{share}");
    positive(&done.only("unlock"), "seconds");
    let predictions = done.objects("prediction");
    for of in ["incompressible", "csv", "image16"] {
        let of: Vec<&Value> = predictions.iter().filter(|p| p["of"] == of).collect();
        let whats: Vec<&Value> = of.iter().map(|p| &p["what"]).collect();
        assert_eq!(whats, ["first backup", "re-read, all known", "restore"]);
        for prediction in of {
            positive(prediction, "seconds");
            assert_eq!(
                (&prediction["bound_by"], &prediction["store_known"]),
                (&"processor".into(), &false.into())
            );
        }
    }
    let last = done.only("benchmark");
    let cipher = word(&last, "recommended_cipher");
    assert!(["aes-256-gcm", "chacha20-poly1305"].contains(&cipher), "{cipher}");
    positive(&last, "recommended_threads");
    assert!(number(&last, "recommended_threads") <= number(&last, "threads"), "{last}");
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn a_path_and_a_repository_are_predicted_and_left_as_they_are() {
    let place = Place::new().with_repository();
    let source = place.source();
    place.run(true, &["backup", &source]).exits(0);
    let before = place.objects();
    let args = ["benchmark", &source, "--seconds", "0.5", "--threads", "2", "--json"];
    let done = place.run(true, &args).exits(0);
    assert_eq!(place.objects(), before, "the repository was changed");
    assert_eq!(place.leftovers(), 0);

    let found = done.only("source");
    let table = fs::metadata(place.path("source/export.csv")).expect("it was written").len() as f64;
    assert_eq!((&found["files"], &found["complete"]), (&61.into(), &true.into()));
    assert_eq!((&found["small_files"], &found["directories"]), (&60.into(), &2.into()));
    assert!(number(&found, "bytes") > table, "{found}");
    positive(&found["read_as_found"], "bytes_per_second");
    let repository = done.only("repository");
    positive(&repository["write_packs"], "sync_bytes_per_second");
    positive(&repository["read_as_found"], "bytes_per_second");
    positive(&repository["stored_frames"], "frames");
    positive(&repository, "chunks");
    positive(&repository, "look_ups_per_second");

    let sampled = done.only("sampled");
    assert!(number(&sampled, "plain_bytes") >= number(&found, "bytes"), "{sampled}");
    assert!(number(&sampled["plain_bytes_by_codec"], "zstd") > table / 2.0, "{sampled}");
    let predictions: Vec<Value> =
        done.objects("prediction").into_iter().filter(|p| p["cache"] == "as_found").collect();
    let of = |of: &str, what: &str| pick(&predictions, &[("of", of), ("what", what)]);
    for what in ["first backup", "re-read, all known", "unchanged", "restore"] {
        let prediction = of("paths", what);
        positive(prediction, "seconds");
        assert_eq!(prediction["bytes"], found["bytes"]);
        assert_eq!(prediction["files"], 61 + 2, "folders are entries, too");
        assert_eq!(prediction["store_known"], true);
    }
    let newest = of("newest_snapshot", "restore");
    assert_eq!((&newest["files"], &newest["bytes"]), (&61.into(), &found["bytes"]));
}

#[test]
fn people_read_tables() {
    let place = Place::new().with_repository();
    let done = place.run(true, &["benchmark", &place.source(), "--seconds", "0.1"]).exits(0);
    for words in [
        "STAGE ",
        "find cuts    mincdc",
        "unlocking with a password",
        "SOURCE (",
        "in 61 files, 2 folders",
        "REPOSITORY (",
        "PREDICTION ",
        "first backup ",
        "Its processor time goes into: ",
        "RECOMMENDED\ncipher   ",
    ] {
        assert!(done.stdout.contains(words), "no {words:?} in\n{}", done.stdout);
    }
    assert_eq!(done.stderr, "");
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let place = Place::new().with_repository();
    let missing = place.text("missing");
    let check = |done: Done, code: i32, says: &str| {
        let done = done.exits(code);
        assert!(done.stderr.contains(says), "{}", done.stderr);
        assert_eq!(done.stdout, "");
    };
    check(place.without_repository(false, &["benchmark", &missing]), 1, "missing");
    check(place.without_repository(false, &["benchmark", "--target", &missing]), 1, "missing");
    check(place.without_repository(false, &["benchmark", "--seconds", "0"]), 2, "0.1 to 3600");
    let (target, other) = (place.text("target"), place.text("other.key"));
    check(place.without_repository(true, &["benchmark", "--repo", &target]), 10, "no repository");
    fs::write(&other, format!("strongroom-key-1\n{}\n", "0".repeat(64))).expect("a key file");
    let args = ["benchmark", "--key-file", &other];
    check(place.run(false, &args), 12, "none of the 1 key slots opens");
    assert_eq!(place.leftovers(), 0);
}
