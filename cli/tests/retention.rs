//! `forget`, `hold` and `prune` as their users meet them: what is said, what exit codes tell, what is
//! left in the repository's folder.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use support::Done;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let key = bench.path("owner.key");
        bench.run_as("owner", &["init", "--new-key-file", key.to_str().unwrap()]).exits(0);
        fs::create_dir(bench.path("source")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run_as(&self, who: &str, args: &[&str]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command
            .env_clear()
            .env("STRONGROOM_REPO", self.path("repo"))
            .env("STRONGROOM_CACHE_DIR", self.path("cache"))
            .env("TZ", "UTC")
            .args(args)
            .stdin(Stdio::null());
        if args[0] != "init" {
            command.env("STRONGROOM_KEY_FILE", self.path(&format!("{who}.key")));
        }
        let output = command.output().unwrap();
        Done {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, args: &[&str]) -> Done {
        self.run_as("owner", args)
    }

    /// Backs up a source that is all new; the snapshot's id.
    fn backed_up(&self, seed: u8, tag: &str) -> String {
        let mut bytes = vec![0; 300_000];
        blake3_fill(seed, &mut bytes);
        fs::write(self.path("source/file"), &bytes).unwrap();
        let source = self.path("source");
        let args = ["backup", source.to_str().unwrap(), "--tag", tag, "--json"];
        let done = self.run(&args).exits(0);
        done.objects("backup")[0]["snapshot"].as_str().unwrap().to_owned()
    }

    fn ids(&self) -> Vec<String> {
        let snapshots = self.run(&["snapshots", "--json"]).exits(0).objects("snapshot");
        snapshots.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    }

    fn pack_bytes(&self) -> u64 {
        size_of(&self.path("repo/packs"))
    }
}

/// Bytes that do not compress: a small generator is enough.
fn blake3_fill(seed: u8, bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(seed) + 1);
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
}

fn size_of(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { size_of(&entry.path()) } else { meta.len() }
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

#[test]
fn a_policy_explains_itself_and_prune_frees_what_it_forgot() {
    let bench = Bench::new();
    let ids =
        [bench.backed_up(1, "lock"), bench.backed_up(2, "nightly"), bench.backed_up(3, "nightly")];
    let policy = ["forget", "--keep-last", "1", "--keep-tag", "lock"];
    let dry = bench.run(&[&policy[..], &["--dry-run"]].concat()).exits(0);
    assert!(dry.stdout.contains("tag lock") && dry.stdout.contains("last"), "{}", dry.stdout);
    assert!(dry.stdout.contains("1 would be forgotten, 2 kept"), "{}", dry.stdout);
    assert_eq!(bench.ids().len(), 3);

    let before = bench.pack_bytes();
    let done =
        bench.run(&[&policy[..], &["--reason", "nightly", "--prune", "--json"]].concat()).exits(0);
    let gone = done.objects("decision").into_iter().find(|it| it["keep"] == false).unwrap();
    assert_eq!(gone["id"], ids[1].as_str());
    let prune = done.objects("prune").pop().unwrap();
    assert_eq!(
        (prune["snapshots_deleted"].as_u64(), prune["waiting_for"].as_array().unwrap().len()),
        (Some(1), 0)
    );
    assert!(bench.pack_bytes() + 250_000 < before, "{prune}");
    assert_eq!(bench.ids(), [ids[0].clone(), ids[2].clone()]);
    bench.run(&["check", "--read-data"]).exits(0);
    let target = bench.path("target");
    bench.run(&["restore", &ids[0], "--target", target.to_str().unwrap()]).exits(0);
}

#[test]
fn held_snapshots_stay_until_they_are_released() {
    let bench = Bench::new();
    let ids = [bench.backed_up(1, "a"), bench.backed_up(2, "a")];
    bench.run(&["hold", "add", &ids[0][..8], "--reason", "inspection"]).exits(0);
    let list = bench.run(&["hold", "list"]).exits(0);
    assert!(
        list.stdout.contains("inspection") && list.stdout.contains(&ids[0][..8]),
        "{}",
        list.stdout
    );
    let refused = bench.run(&["forget", &ids[0]]).exits(1);
    assert!(refused.stdout.contains("held: inspection"), "{}", refused.stdout);
    assert_eq!(bench.ids().len(), 2);
    let hold = bench.run(&["hold", "list", "--json"]).objects("hold").pop().unwrap();
    let hold = hold["id"].as_str().unwrap().to_owned();
    bench.run(&["hold", "release", &hold[..6], "--reason", "done"]).exits(0);
    bench.run(&["hold", "release", &hold[..6], "--reason", "done"]).exits(1);
    bench.run(&["forget", &ids[0], "--prune"]).exits(0);
    assert_eq!(bench.ids(), [ids[1].clone()]);
    bench.run(&["forget", "--keep-tag", "typo"]).exits(2);
    assert_eq!(bench.ids(), [ids[1].clone()]);
}

#[test]
fn only_admins_and_owners_delete() {
    let bench = Bench::new();
    let id = bench.backed_up(1, "a");
    for role in ["backup", "restore", "auditor", "admin"] {
        let key = bench.path(&format!("{role}.key"));
        let key = key.to_str().unwrap();
        bench.run(&["key", "add", "--role", role, "--name", role, "--new-key-file", key]).exits(0);
    }
    for role in ["backup", "restore", "auditor"] {
        bench.run_as(role, &["prune"]).exits(13);
        bench.run_as(role, &["forget", "--keep-last", "1"]).exits(13);
    }
    bench.backed_up(2, "a");
    bench.run_as("admin", &["forget", &id, "--prune", "--max-unused", "0%"]).exits(0);
    assert_eq!(bench.ids().len(), 1);
    bench.run(&["check", "--read-data"]).exits(0);
}

#[test]
fn slips_are_usage_errors() {
    let bench = Bench::new();
    for args in [
        &["forget"][..],
        &["forget", "--dry-run"],
        &["forget", "latest", "--keep-last", "1"],
        &["forget", "--keep-last", "0"],
        &["forget", "--keep-within", "3"],
        &["forget", "--keep-last", "1", "--group-by", "hosts"],
        &["prune", "--max-unused", "200%"],
        &["prune", "--fence-after", "24"],
        &["hold", "add", "latest"],
    ] {
        bench.run(args).exits(2);
    }
}
