//! The tool as its users meet it: real files, real repositories, exit codes, what stands on which
//! stream.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// A repository, a source and a cache of its own in one folder that goes away again.
struct Bench {
    folder: TempDir,
}

struct Done {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Done {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.text(), self.stderr);
        self
    }

    #[track_caller]
    fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "no {words:?} in stderr:\n{}", self.stderr);
        self
    }

    #[track_caller]
    fn objects(&self, kind: &str) -> Vec<Value> {
        let objects = self.text();
        let objects = objects.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"))
        });
        objects.filter(|object| object["type"] == kind).collect()
    }
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// With a repository that opens with `owner.key`.
    fn with_repository() -> Self {
        let bench = Self::new();
        let done =
            bench.bare(&["init", "--new-key-file", bench.path("owner.key").to_str().unwrap()]);
        done.exits(0);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// With repository and cache, but without a secret.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STRONGROOM_REPO", self.path("repo"))
            .env("STRONGROOM_CACHE_DIR", self.path("cache"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn bare(&self, args: &[&str]) -> Done {
        done(&mut self.command(args))
    }

    /// With the owner's key file.
    fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).env("STRONGROOM_KEY_FILE", self.path("owner.key")))
    }

    fn source(&self) -> PathBuf {
        let source = self.path("source");
        if !source.exists() {
            make_source(&source);
        }
        source
    }

    /// Backs the source up once; the new snapshot's id.
    fn backed_up(&self) -> String {
        let source = self.source();
        let done = self.run(&["backup", source.to_str().unwrap(), "--json"]).exits(0);
        let report = done.objects("backup").pop().expect("a summary");
        report["snapshot"].as_str().expect("an id").to_owned()
    }

    fn snapshots(&self) -> Vec<Value> {
        self.run(&["snapshots", "--json"]).exits(0).objects("snapshot")
    }
}

fn done(command: &mut Command) -> Done {
    let output = command.output().expect("the binary runs");
    Done {
        code: output.status.code().expect("it is not ended by a signal"),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Small files, a large one, an empty one, a link, and names that no terminal should be sent.
fn make_source(source: &Path) {
    fs::create_dir_all(source.join("series/deep")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    fs::write(source.join("export.csv"), "SUBJID,VISIT\n001,1\n002,1\n".repeat(500)).unwrap();
    fs::write(source.join("empty.txt"), "").unwrap();
    fs::write(source.join("series/large.bin"), noise(5_000_000)).unwrap();
    fs::write(source.join("series/deep/scan.dcm"), noise(70_000)).unwrap();
    fs::write(source.join("evil\u{1b}[31m.txt"), "x").unwrap();
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"bad\xff.txt")), "y").unwrap();
    symlink("series/large.bin", source.join("link")).unwrap();
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(source.join("export.csv"), mode).unwrap();
}

/// Bytes that neither repeat nor compress (splitmix64).
fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What `diff -r` would compare, and modes and times.
#[track_caller]
fn assert_same_tree(expected: &Path, found: &Path) {
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(expected), names(found), "{}", found.display());
    for name in names(expected) {
        let (a, b) = (expected.join(&name), found.join(&name));
        let (meta_a, meta_b) = (a.symlink_metadata().unwrap(), b.symlink_metadata().unwrap());
        let facts = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(facts(&meta_a), facts(&meta_b), "{}", b.display());
        if meta_a.is_dir() {
            assert_same_tree(&a, &b);
        } else if meta_a.is_symlink() {
            assert_eq!(fs::read_link(&a).unwrap(), fs::read_link(&b).unwrap());
        } else {
            assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{} differs", b.display());
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[test]
fn init_names_the_repository_and_makes_a_private_key_file() {
    let bench = Bench::new();
    let key = bench.path("owner.key");
    let done = bench.bare(&["init", "--new-key-file", key.to_str().unwrap()]).exits(0);
    assert!(done.text().contains("repository  "), "{}", done.text());
    assert!(done.stderr.contains("nothing can be restored"), "{}", done.stderr);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    bench
        .run(&["init", "--new-key-file", bench.path("k2").to_str().unwrap()])
        .exits(1)
        .says("already");
    assert!(!bench.path("k2").exists(), "a key file that opens nothing stays behind");
}

#[test]
fn an_existing_key_file_is_never_overwritten() {
    let bench = Bench::new();
    fs::write(bench.path("owner.key"), "precious").unwrap();
    let key = bench.path("owner.key");
    bench.bare(&["init", "--new-key-file", key.to_str().unwrap()]).exits(1).says("owner.key");
    assert_eq!(fs::read_to_string(key).unwrap(), "precious");
    assert!(!bench.path("repo").exists());
}

#[test]
fn back_up_list_restore_and_compare() {
    let bench = Bench::with_repository();
    let source = bench.source();
    let source_text = source.to_str().unwrap();
    let first = bench.run(&["backup", source_text, "--study", "S12", "--tag", "nightly"]).exits(0);
    assert!(first.text().contains("bytes stored"), "{}", first.text());

    let again = bench.run(&["backup", source_text, "--json"]).exits(0);
    let report = again.objects("backup").pop().unwrap();
    assert_eq!(report["files_new"], 0, "{report}");
    // The entry of the folder for temporaries is in the snapshot, and other tests change its time.
    assert!(report["bytes_new"].as_u64().unwrap() < 300, "{report}");

    let snapshots = bench.snapshots();
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[0]["labels"]["study"], "S12");
    assert_eq!(snapshots[0]["tags"][0], "nightly");
    assert_eq!(snapshots[0]["paths"][0], source_text);
    assert_eq!(snapshots[0]["files"], 6);

    let target = bench.path("whole");
    bench.run(&["restore", "latest", "--target", target.to_str().unwrap()]).exits(0);
    assert_same_tree(&source, &target.join(source_text.trim_start_matches('/')));

    let target = bench.path("part");
    let place = format!("{}:{source_text}", snapshots[0]["id"].as_str().unwrap());
    bench.run(&["restore", &place, "--target", target.to_str().unwrap()]).exits(0);
    assert_same_tree(&source, &target);
}

#[test]
fn a_second_restore_leaves_alone_and_repairs() {
    let bench = Bench::with_repository();
    bench.backed_up();
    let (source, target) = (bench.source(), bench.path("target"));
    let place = format!("latest:{}", source.display());
    let restore = |more: &[&str]| {
        let args = ["restore", &place, "--target", target.to_str().unwrap(), "--json"];
        let done = bench.run(&[&args, more].concat()).exits(0);
        done.objects("restore").pop().unwrap()
    };
    assert_eq!(restore(&["--dry-run"])["files_restored"], 6);
    assert!(!target.join("export.csv").exists());
    assert_eq!(restore(&[])["files_restored"], 6);
    assert_eq!(restore(&[])["files_in_place"], 6);

    // Altered behind size and time: only reading finds it.
    let large = target.join("series/large.bin");
    let modified = fs::metadata(&large).unwrap().modified().unwrap();
    let mut bytes = fs::read(&large).unwrap();
    bytes[2_500_000] ^= 1;
    fs::write(&large, bytes).unwrap();
    fs::File::options().write(true).open(&large).unwrap().set_modified(modified).unwrap();
    assert_eq!(restore(&[])["files_in_place"], 6);
    assert_eq!(restore(&["--verify-existing"])["files_repaired"], 1);
    assert_same_tree(&source, &target);
}

#[test]
fn include_and_exclude_choose_what_is_restored() {
    let bench = Bench::with_repository();
    bench.backed_up();
    let place = format!("latest:{}", bench.source().display());
    let check = |options: &[&str], there: &[&str], absent: &[&str]| {
        let target = bench.path("target");
        let args = ["restore", &place, "--target", target.to_str().unwrap()];
        bench.run(&[&args, options].concat()).exits(0);
        there.iter().for_each(|name| assert!(target.join(name).exists(), "{options:?} {name}"));
        absent.iter().for_each(|name| assert!(!target.join(name).exists(), "{options:?} {name}"));
        fs::remove_dir_all(target).unwrap();
    };
    check(&["--include", "*.dcm"], &["series/deep/scan.dcm"], &["export.csv", "empty"]);
    check(&["--include", "series"], &["series/large.bin", "series/deep/scan.dcm"], &["link"]);
    check(&["--exclude", "deep"], &["series/large.bin", "export.csv"], &["series/deep"]);
    check(&["--include", "series", "--exclude", "*.dcm"], &["series/large.bin"], &["export.csv"]);
}

#[test]
fn excluded_files_are_not_backed_up() {
    let bench = Bench::with_repository();
    let source = bench.source();
    fs::write(bench.path("rules"), "# scans\n*.dcm\n").unwrap();
    let rules = bench.path("rules");
    let args = ["--exclude", "series/large.bin", "--exclude-file", rules.to_str().unwrap()];
    bench.run(&[&["backup", source.to_str().unwrap()], &args[..]].concat()).exits(0);
    let listing = bench.run(&["ls", "-R", "latest"]).exits(0).text();
    assert!(listing.contains("series/deep/") && listing.contains("export.csv"), "{listing}");
    assert!(!listing.contains("scan.dcm") && !listing.contains("large.bin"), "{listing}");
}

#[test]
fn a_dry_run_stores_nothing() {
    let bench = Bench::with_repository();
    let source = bench.source();
    let done = bench.run(&["backup", source.to_str().unwrap(), "--dry-run", "--json"]).exits(0);
    assert!(done.objects("backup")[0]["snapshot"].is_null());
    assert!(bench.snapshots().is_empty());
}

#[test]
fn names_are_safe_on_a_terminal_and_whole_in_json() {
    let bench = Bench::with_repository();
    bench.backed_up();
    let place = format!("latest:{}", bench.source().display());
    let listing = bench.run(&["ls", "-l", &place]).exits(0).text();
    assert!(listing.contains(r"evil\x1b[31m.txt") && listing.contains(r"bad\xff.txt"), "{listing}");
    assert!(
        listing.contains("link -> series/large.bin") && listing.contains("-rw-r-----"),
        "{listing}"
    );
    assert!(!listing.contains('\u{1b}'));

    let entries = bench.run(&["ls", &place, "--json"]).exits(0).objects("entry");
    let bad = entries.iter().find(|entry| !entry["path_hex"].is_null()).expect("one is not UTF-8");
    assert!(bad["path_hex"].as_str().unwrap().ends_with("ff2e747874"), "{bad}");
    assert!(entries.iter().any(|e| e["path"].as_str().unwrap().contains('\u{1b}')));
}

#[test]
fn dump_writes_exactly_the_file() {
    let bench = Bench::with_repository();
    bench.backed_up();
    let source = bench.source();
    let place = |name: &str| format!("latest:{}/{name}", source.display());
    let large = bench.run(&["dump", &place("series/large.bin")]).exits(0);
    assert!(large.stdout == fs::read(source.join("series/large.bin")).unwrap());
    bench.run(&["dump", &place("nowhere")]).exits(1).says("nowhere");
    bench.run(&["dump", &place("series")]).exits(1).says("not a file");
    bench.run(&["dump", "latest"]).exits(2).says("SNAP:PATH");
    bench.run(&["dump", "0123456789abcdef:/x"]).exits(1).says("0123456789abcdef");
}

#[test]
fn a_sound_repository_passes_every_check() {
    let bench = Bench::with_repository();
    bench.backed_up();
    bench.run(&["check"]).exits(0);
    bench.run(&["check", "--read-data"]).exits(0);
    bench.bare(&["check", "--no-key"]).exits(0);
}

#[test]
fn stats_say_what_each_codec_saved() {
    let bench = Bench::with_repository();
    let source = bench.path("study");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("noise.bin"), noise(1 << 20)).unwrap();
    fs::write(source.join("export.csv"), "STUDYID,SITEID,USUBJID\n".repeat(100_000)).unwrap();
    bench.run(&["backup", source.to_str().unwrap()]).exits(0);

    let stats = bench.run(&["stats", "--json"]).exits(0).objects("stats").remove(0);
    assert_eq!(stats["snapshots"], 1);
    let codecs = stats["codecs"].as_array().unwrap();
    let sum = |key: &str| codecs.iter().map(|codec| codec[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum("plain_bytes"), stats["chunk_bytes"]);
    assert_eq!(sum("saved_bytes"), sum("plain_bytes") - sum("stored_bytes"));
    let of = |name: &str| {
        let codec = codecs.iter().find(|codec| codec["codec"] == name);
        codec.unwrap_or_else(|| panic!("no {name}: {stats}"))
    };
    // Noise costs the seal's tags; of the text nearly nothing is left.
    let noise = of("stored");
    assert!(noise["plain_bytes"].as_u64().unwrap() >= 1 << 20, "{noise}");
    assert_eq!(noise["saved_bytes"], -16 * noise["frames"].as_i64().unwrap(), "{noise}");
    let saved = sum("saved_bytes") - noise["saved_bytes"].as_i64().unwrap();
    assert!((2_290_000..2_310_000).contains(&saved), "{stats}");

    let text = bench.run(&["stats"]).exits(0).text();
    let heads = ["CODEC", "FRAMES", "PLAIN", "STORED", "SAVED", "RATIO"];
    let line = |first: &str| {
        let line = text.lines().find(|line| line.starts_with(first));
        let words = line.map(|line| line.split_whitespace().map(str::to_owned));
        words.unwrap_or_else(|| panic!("no {first}:\n{text}")).collect::<Vec<_>>()
    };
    assert_eq!(line("CODEC"), heads);
    let tags = format!("-{}", 16 * noise["frames"].as_u64().unwrap());
    assert_eq!(line("stored  ")[6..8], [tags, "B".to_owned()]);
    assert_eq!(line("all")[1], sum("frames").to_string());
}

/// A NIfTI-1 volume of smooth 16-bit samples under 4 bits of noise: 512 KiB after its header.
fn volume() -> Vec<u8> {
    let (columns, rows, planes) = (256usize, 128, 8);
    let mut file = vec![0; 352];
    file[..4].copy_from_slice(&348u32.to_le_bytes());
    let put = |file: &mut Vec<u8>, at: usize, value: usize| {
        file[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    };
    let dims = [(40, 3), (42, columns), (44, rows), (46, planes), (70, 4), (72, 16)];
    dims.into_iter().for_each(|(at, value)| put(&mut file, at, value));
    file[108..112].copy_from_slice(&352f32.to_le_bytes());
    file[344..348].copy_from_slice(b"n+1\0");
    let noise = noise(columns * rows * planes);
    for (at, noise) in noise.into_iter().enumerate() {
        let (x, y, z) = (at % columns, at / columns % rows, at / columns / rows);
        let sample = x * x / 64 + 3 * y + 20 * z + usize::from(noise % 16);
        file.extend((sample as u16).to_le_bytes());
    }
    file
}

#[test]
fn stats_tell_samples_and_deltas() {
    let bench = Bench::with_repository();
    let source = bench.path("export");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("volume.nii"), volume()).unwrap();
    let night = |changed: usize| {
        let rows = noise(400_000);
        let row = |(row, bytes): (usize, &[u8])| {
            let result = u32::from(bytes[0]) + u32::from(row % 100 == changed);
            format!("STR-2026-01,{row:06},{},{result},{:?}\n", bytes[1], &bytes[2..])
        };
        let table: String = rows.chunks_exact(8).enumerate().map(row).collect();
        fs::write(source.join("LB.csv"), table).unwrap();
        bench.run(&["backup", source.to_str().unwrap()]).exits(0);
        bench.run(&["stats", "--json"]).exits(0).objects("stats").remove(0)
    };
    let of = |stats: &Value, name: &str| {
        let codecs = stats["codecs"].as_array().unwrap();
        let codec = codecs.iter().find(|codec| codec["codec"] == name);
        codec.map(|codec| {
            ["frames", "plain_bytes", "stored_bytes", "saved_bytes"]
                .map(|key| codec[key].as_i64().unwrap())
        })
    };
    let first = night(0);
    assert_eq!(of(&first, "delta"), None, "{first}");
    let [_, plain, stored, _] = of(&first, "numeric").expect("samples");
    assert!((512 << 10..520 << 10).contains(&plain), "{first}");
    assert!(stored * 5 < plain * 2, "{first}");
    let second = night(1);
    let [frames, plain, stored, saved] = of(&second, "delta").expect("deltas");
    let bytes = fs::metadata(source.join("LB.csv")).unwrap().len() as i64;
    assert!(frames >= 1 && (bytes..bytes + 1000).contains(&plain), "{bytes}: {second}");
    assert!(stored * 50 < plain, "{second}");
    assert_eq!(saved, plain - stored);
    assert_eq!(of(&second, "numeric"), of(&first, "numeric"));
}

#[test]
fn a_flipped_bit_in_a_pack_is_found_and_healed() {
    let bench = Bench::with_repository();
    let first = bench.backed_up();
    let pack = largest_file(&bench.path("repo/packs"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();

    let name = pack.file_name().unwrap().to_str().unwrap();
    let done = bench.run(&["check", "--read-data"]).exits(14);
    assert!(done.text().contains(name), "{}", done.text());
    let done = bench.bare(&["check", "--no-key", "--json"]).exits(14);
    assert!(!done.objects("damage").is_empty());
    assert_eq!(done.objects("error")[0]["exit_code"], 14);

    // The file looks unchanged, and is stored again all the same; then the old snapshot is whole.
    let restore = |target: &str| {
        let target = bench.path(target);
        bench.run(&["restore", &first, "--target", target.to_str().unwrap()])
    };
    restore("lossy").exits(14).says("not restored");
    bench.backed_up();
    let done = bench.run(&["check", "--read-data", "--json"]).exits(0);
    assert_eq!(done.objects("check")[0]["damages"], 0);
    bench.run(&["check"]).exits(0);
    restore("whole").exits(0);
    let source = bench.source();
    let lands = bench.path("whole").join(source.canonicalize().unwrap().strip_prefix("/").unwrap());
    assert_same_tree(&source, &lands);
}

#[test]
fn a_lost_index_is_repaired() {
    let bench = Bench::with_repository();
    let snapshot = bench.backed_up();
    let index = bench.path("repo/index");
    fs::remove_dir_all(&index).unwrap();
    // A client that has no copy of it.
    fs::remove_dir_all(bench.path("cache")).unwrap();
    bench.run(&["check"]).exits(14);
    bench.run(&["repair", "--dry-run"]).exits(0);
    assert!(!index.exists(), "a dry run writes nothing");
    let done = bench.run(&["repair", "--json", "--reason", "lost"]).exits(0);
    assert_eq!(done.objects("repair")[0]["snapshots"], 0);
    bench.run(&["check", "--read-data"]).exits(0);
    let target = bench.path("whole");
    bench.run(&["restore", &snapshot, "--target", target.to_str().unwrap()]).exits(0);
    let source = bench.source();
    assert_same_tree(
        &source,
        &target.join(source.canonicalize().unwrap().strip_prefix("/").unwrap()),
    );
}

fn largest_file(folder: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let list = if entry.path().is_dir() { &mut folders } else { &mut files };
            list.push(entry.path());
        }
    }
    files.into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).expect("a file")
}

#[test]
fn keys_are_added_listed_and_removed() {
    let bench = Bench::with_repository();
    bench.backed_up();
    fs::write(bench.path("night"), "correct horse\n").unwrap();
    let night = bench.path("night");
    let add = ["key", "add", "--role", "restore", "--name", "night shift"];
    bench.run(&[&add[..], &["--new-password-file", night.to_str().unwrap()]].concat()).exits(0);
    bench.bare(&["--password-file", night.to_str().unwrap(), "snapshots"]).exits(0);

    let slots = bench.run(&["key", "list", "--json"]).exits(0).objects("slot");
    assert_eq!(slots.len(), 2);
    let added = slots.iter().find(|slot| slot["name"] == "night shift").unwrap();
    assert_eq!((&added["role"], &added["method"]), (&"restore".into(), &"password".into()));
    bench.run(&["key", "remove", &added["id"].as_str().unwrap()[..12]]).exits(0);
    bench.bare(&["--password-file", night.to_str().unwrap(), "snapshots"]).exits(12);

    let owner = bench.run(&["key", "list", "--json"]).exits(0).objects("slot");
    assert_eq!(owner.len(), 1);
    let last = bench.run(&["key", "remove", owner[0]["id"].as_str().unwrap()]);
    assert_ne!(last.code, 0, "the last owner's slot was removed");
    bench.run(&["snapshots"]).exits(0);
}

#[test]
fn a_password_is_changed_without_touching_the_data() {
    let bench = Bench::new();
    let file = |name: &str, password: &str| {
        fs::write(bench.path(name), password).unwrap();
        bench.path(name).to_str().unwrap().to_owned()
    };
    let (old, new) = (file("old", "first\n"), file("new", "second\n"));
    bench.bare(&["--password-file", &old, "init"]).exits(0);
    bench.bare(&["--password-file", &old, "key", "passwd", "--new-password-file", &new]).exits(0);
    bench.bare(&["--password-file", &old, "snapshots"]).exits(12).says("none of the");
    bench.bare(&["--password-file", &new, "snapshots"]).exits(0);
    bench.bare(&["--password-command", "echo second; echo more", "snapshots"]).exits(0);
    done(bench.command(&["snapshots"]).env("STRONGROOM_PASSWORD", "second")).exits(0);
}

#[test]
fn secrets_that_cannot_be_had_exit_12() {
    let bench = Bench::with_repository();
    let check = |args: &[&str], says: &str| {
        bench.bare(&[args, &["snapshots"]].concat()).exits(12).says(says);
    };
    let key = bench.path("owner.key");
    check(&["--password-file", key.to_str().unwrap()], "none of the");
    check(&["--password-file", "/does/not/exist"], "/does/not/exist");
    check(&["--password-command", "exit 3"], "exit 3");
    check(&["--password-command", "true"], "no password");
    check(&["--key-file", "/does/not/exist"], "/does/not/exist");
    check(&["--key-file", "/dev/null"], "not a key file");
}

#[test]
fn no_repository_exits_10() {
    let bench = Bench::new();
    let key = bench.path("owner.key");
    fs::write(&key, "").unwrap();
    for args in [&["snapshots"][..], &["check", "--no-key"], &["stats", "--json"]] {
        bench.run(args).exits(10).says("repo");
    }
    fs::create_dir(bench.path("repo")).unwrap();
    bench.bare(&["check", "--no-key"]).exits(10);
}

#[test]
fn a_backup_key_adds_and_does_not_read_back() {
    let bench = Bench::with_repository();
    let key = bench.path("mri.key");
    let key = key.to_str().unwrap();
    let add = ["key", "add", "--role", "backup", "--name", "mri-04", "--new-key-file", key];
    bench.run(&add).exits(0);
    let source = bench.source();
    let with_key = |args: &[&str]| bench.bare(&[&["--key-file", key], args].concat());
    with_key(&["backup", source.to_str().unwrap()]).exits(0);
    let target = bench.path("target");
    with_key(&["restore", "latest", "--target", target.to_str().unwrap()]).exits(13).says("backup");
    with_key(&["dump", &format!("latest:{}/export.csv", source.display())]).exits(13);
    assert_eq!(bench.snapshots()[0]["author"], "mri-04");
    bench.run(&["restore", "latest", "--target", target.to_str().unwrap()]).exits(0);
}

#[test]
fn an_unreadable_file_is_reported_and_the_rest_backed_up() {
    let bench = Bench::with_repository();
    let source = bench.source();
    fs::set_permissions(source.join("export.csv"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = bench.command(&["backup", source.to_str().unwrap(), "--json"]);
    if is_root() {
        // Root may read everything, so the binary is run as somebody else, from where they may run
        // it.
        let binary = bench.path("strongroom");
        fs::copy(env!("CARGO_BIN_EXE_strongroom"), &binary).unwrap();
        give_away(bench.folder.path());
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(binary);
        command.args(args).uid(NOBODY).gid(NOBODY).env_clear();
        command.env("STRONGROOM_REPO", bench.path("repo"));
        command.env("STRONGROOM_CACHE_DIR", bench.path("cache"));
    }
    let done = done(command.env("STRONGROOM_KEY_FILE", bench.path("owner.key"))).exits(3);
    let done = done.says("export.csv");
    assert_eq!(done.objects("problem")[0]["kind"], "unread");
    assert_eq!(done.objects("backup")[0]["unread"], 1);
    assert_eq!(bench.snapshots().len(), 1);
}

fn give_away(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}

#[test]
fn a_stream_is_backed_up_as_a_file() {
    let bench = Bench::with_repository();
    let mut child = bench
        .command(&["backup", "--stdin-name", "edc.sql"])
        .env("STRONGROOM_KEY_FILE", bench.path("owner.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let data = noise(3_000_000);
    child.stdin.take().unwrap().write_all(&data).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(bench.run(&["dump", "latest:/edc.sql"]).exits(0).stdout == data);

    bench
        .run(&["backup", "--stdin-name", "out.txt", "--", "sh", "-c", "echo from a command"])
        .exits(0);
    assert_eq!(bench.run(&["dump", "latest:/out.txt"]).exits(0).text(), "from a command\n");
    assert_eq!(bench.snapshots()[1]["command_exit"], 0);
}

#[test]
fn a_command_that_fails_commits_nothing() {
    let bench = Bench::with_repository();
    let backup = ["backup", "--stdin-name", "edc.sql", "--"];
    let run = |command: &[&str]| bench.run(&[&backup, command].concat());
    run(&["sh", "-c", "echo half of it; exit 7"]).exits(1).says("exited 7");
    run(&["sh", "-c", "echo half of it; kill -9 $$"]).exits(1).says("signal");
    run(&["/does/not/exist"]).exits(1).says("/does/not/exist");
    assert!(bench.snapshots().is_empty());
}

#[test]
fn a_signal_stops_in_order() {
    let bench = Bench::with_repository();
    let mut child = bench
        .command(&[
            "backup",
            "--stdin-name",
            "endless",
            "--",
            "sh",
            "-c",
            "while :; do sleep 1; done",
        ])
        .env("STRONGROOM_KEY_FILE", bench.path("owner.key"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once the session is on record the run is under way.
    let sessions = bench.path("repo/sessions");
    while fs::read_dir(&sessions).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        std::thread::yield_now();
    }
    let kill = format!("kill -TERM {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(bench.snapshots().is_empty());
}

#[test]
fn wrong_usage_exits_2() {
    let bench = Bench::with_repository();
    let check = |args: &[&str], says: &str| {
        bench.run(args).exits(2).says(says);
    };
    check(&["backup"], "PATH");
    check(&["frobnicate"], "frobnicate");
    check(&["restore", "latest"], "--target");
    check(&["restore", "newest", "--target", "/x"], "latest");
    check(&["backup", "/x", "--exclude", "a["], "a[");
    check(&["init", "--chunk-size", "1MB"], "KiB");
    check(&["key", "add", "--role", "king", "--name", "x"], "king");
    check(&["backup", "--stdin-name", "a/b"], "--stdin-name");
    check(&["-q", "-v", "snapshots"], "exclude each other");
    check(&["--key-file", "/a", "snapshots", "--password-file", "/b"], "exclude each other");
    let mut none = bench.command(&["snapshots"]);
    done(none.env_remove("STRONGROOM_REPO")).exits(2).says("STRONGROOM_REPO");
}

#[test]
fn a_closed_pipe_ends_a_listing_quietly() {
    let bench = Bench::with_repository();
    bench.backed_up();
    let script = "\"$1\" ls -R latest | true; \"$1\" dump \"$2\" | head -c 10 | wc -c";
    let large = format!("latest:{}/series/large.bin", bench.source().display());
    let output = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_strongroom"), &large])
        .env("STRONGROOM_REPO", bench.path("repo"))
        .env("STRONGROOM_CACHE_DIR", bench.path("cache"))
        .env("STRONGROOM_KEY_FILE", bench.path("owner.key"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "10");
}
