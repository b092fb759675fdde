//! kill -9 for real: the binary is killed at random moments of a backup, a restore, a forget and a prune, on a real folder. After
//! each kill the repository checks clean and every snapshot that was committed is there; now and then each chunk is read and one of
//! them restored. How often depends on `STRONGROOM_KILLS` (default 12), with which binary on `STRONGROOM_BINARY`; `scripts/kill.sh` runs
//! it hundreds of times. When a kill strikes is chance; what must hold afterwards is not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use strongroom::env::Env;
use strongroom::format::slot::{KeyFileSecret, Unlock};
use strongroom::repo::{ChunkerSpec, InitOptions, init};
use strongroom::store::LocalStore;
use tempfile::TempDir;

/// What `diff -r` would compare, and modes and times.
type Manifest = BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>;

struct Bench {
    folder: TempDir,
    random: u64,
    /// Every snapshot that was committed and not forgotten, with the source as it was.
    live: BTreeMap<String, Manifest>,
    files: u64,
    file_bytes: usize,
    kills: Kills,
}

#[derive(Debug, Default)]
struct Kills {
    backup: u32,
    restore: u32,
    forget: u32,
    prune: u32,
    /// The command was faster than the kill.
    missed: u32,
    /// A killed backup had committed its snapshot.
    committed: u32,
}

struct Done {
    /// `None`: killed.
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = match std::env::var_os("STRONGROOM_KILL_DIR") {
            Some(place) => tempfile::tempdir_in(place).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let bench = Self {
            folder,
            random: seed,
            live: BTreeMap::new(),
            files: setting("STRONGROOM_KILL_FILES", 12),
            file_bytes: setting("STRONGROOM_KILL_FILE_BYTES", 400 << 10) as usize,
            kills: Kills::default(),
        };
        fs::create_dir(bench.path("source")).unwrap();
        let key = KeyFileSecret([7; 32]);
        fs::write(bench.path("key"), key.to_text()).unwrap();
        // Small packs, so that there are many and moments between them.
        let options = InitOptions {
            chunker: ChunkerSpec::windowed_minimum(32 << 10),
            pack_bytes: 1 << 20,
            ..InitOptions::default()
        };
        let store = Arc::new(LocalStore::create(&bench.path("repo")).unwrap());
        init(store, Unlock::KeyFile(&key), &options, &Env::system(1)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// splitmix64
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// A third of the files change, one goes, one comes; the rest stays.
    fn edit(&mut self) {
        let source = self.path("source");
        for _ in 0..=self.files / 3 {
            let name = format!("{}", self.random(self.files));
            let folder = source.join(format!("{}", self.random(3)));
            fs::create_dir_all(&folder).unwrap();
            let len = self.file_bytes / 2 + self.random(self.file_bytes as u64) as usize;
            let mut bytes = Vec::with_capacity(len + 8);
            while bytes.len() < len {
                bytes.extend(self.random(u64::MAX).to_le_bytes());
            }
            fs::write(folder.join(name), bytes).unwrap();
        }
        let (folder, gone) = (self.random(3), self.random(self.files));
        let _ = fs::remove_file(source.join(folder.to_string()).join(gone.to_string()));
    }

    /// Runs the command, and kills it after `patience`.
    fn run(&self, args: &[&str], patience: Option<Duration>) -> Done {
        let binary = std::env::var_os("STRONGROOM_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_strongroom").into());
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let started = Instant::now();
        let mut child = Command::new(binary)
            .env_clear()
            .env("STRONGROOM_REPO", self.path("repo"))
            .env("STRONGROOM_CACHE_DIR", self.path("cache"))
            .env("STRONGROOM_KEY_FILE", self.path("key"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .expect("the binary runs");
        if let Some(patience) = patience {
            std::thread::sleep(patience);
            let _ = child.kill();
        }
        let code = child.wait().unwrap().code();
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Done { code, stdout: text(&out), stderr: text(&err), took: started.elapsed() }
    }

    #[track_caller]
    fn must(&self, args: &[&str]) -> Done {
        let done = self.run(args, None);
        assert_eq!(done.code, Some(0), "{args:?}:\n{}\n{}", done.stdout, done.stderr);
        done
    }

    /// Killed somewhere in the time that it took last, or a little later. `false`: it was faster.
    fn kill(&mut self, args: &[&str], usual: Duration) -> bool {
        let moment = self.random(usual.as_micros() as u64 * 11 / 10 + 1);
        let done = self.run(args, Some(Duration::from_micros(moment)));
        self.kills.missed += u32::from(done.code.is_some());
        done.code.is_none()
    }

    fn listed(&self) -> Vec<String> {
        let done = self.must(&["snapshots", "--json"]);
        let lines = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let snapshots = lines.filter(|value| value["type"] == "snapshot");
        snapshots.map(|value| value["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// What is committed is there, and nothing else but, perhaps, one snapshot of the source as it is.
    fn account(&mut self) -> bool {
        let listed = self.listed();
        for id in self.live.keys() {
            assert!(listed.contains(id), "snapshot {id} is gone");
        }
        let new: Vec<_> = listed.into_iter().filter(|id| !self.live.contains_key(id)).collect();
        assert!(new.len() <= 1, "{new:?}");
        let source = manifest(&self.path("source"));
        let committed = !new.is_empty();
        self.live.extend(new.into_iter().map(|id| (id, source.clone())));
        committed
    }

    fn back_up(&mut self) -> Duration {
        let source = self.path("source");
        let done = self.must(&["backup", source.to_str().unwrap()]);
        assert!(self.account(), "it said that it was done");
        done.took
    }

    /// Restores some live snapshot, over what an earlier restore left if `onto` is there.
    fn restore_args(&self, id: &str, target: &Path) -> [String; 4] {
        let source = self.path("source").canonicalize().unwrap();
        let place = format!("{id}:{}", source.display());
        ["restore".into(), place, "--target".into(), target.display().to_string()]
    }

    fn assert_restores(&mut self, id: &str) {
        let target = self.path("restored");
        let args = self.restore_args(id, &target);
        self.must(&args.each_ref().map(String::as_str));
        assert_same(&self.live[id], &manifest(&target), id);
        fs::remove_dir_all(target).unwrap();
    }

    fn some_live(&mut self) -> String {
        let place = self.random(self.live.len() as u64) as usize;
        self.live.keys().nth(place).expect("there is one").clone()
    }
}

fn manifest(root: &Path) -> Manifest {
    let mut manifest = Manifest::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let content = if meta.is_dir() { Vec::new() } else { hash(&fs::read(&path).unwrap()) };
            manifest.insert(relative, (meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    manifest
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    strongroom::format::id::hash(bytes).to_vec()
}

#[track_caller]
fn assert_same(wanted: &Manifest, found: &Manifest, context: &str) {
    for (path, facts) in wanted {
        assert_eq!(Some(facts), found.get(path), "{context}: {}", path.display());
    }
    assert_eq!(wanted.len(), found.len(), "{context}: there is too much");
}

impl Bench {
    fn kill_backup(&mut self, usual: Duration) {
        self.edit();
        let source = self.path("source").to_str().unwrap().to_owned();
        let killed = self.kill(&["backup", &source], usual);
        let committed = self.account();
        assert!(killed || committed, "it ended by itself without a snapshot");
        self.kills.backup += u32::from(killed);
        self.kills.committed += u32::from(killed && committed);
    }

    /// A restore that was killed goes on where it was, and nothing of what it left is taken for more than it is.
    fn kill_restore(&mut self, usual: Duration) {
        let (id, target) = (self.some_live(), self.path("restored"));
        let args = self.restore_args(&id, &target);
        let killed = self.kill(&args.each_ref().map(String::as_str), usual);
        self.kills.restore += u32::from(killed);
        self.assert_restores(&id);
    }

    /// Everything but the newest and one other is forgotten, then pruned, each killed.
    fn kill_prune(&mut self, usual: Duration) {
        if self.live.len() > 3 {
            let id = self.some_live();
            let manifest = self.live.remove(&id).expect("it lives");
            let killed = self.kill(&["forget", &id, "--reason", "test"], usual / 4);
            self.kills.forget += u32::from(killed);
            if self.listed().contains(&id) {
                assert!(killed, "it was forgotten without effect");
                self.live.insert(id, manifest);
            }
        }
        let killed = self.kill(&["prune", "--fence-after", "0s"], usual);
        self.kills.prune += u32::from(killed);
    }

    fn verify(&mut self, round: u64) {
        self.must(&["check"]);
        assert!(!self.account(), "nothing was backed up");
        if round % 5 == 4 {
            self.must(&["check", "--read-data"]);
            let id = self.some_live();
            self.assert_restores(&id);
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_committed_is_lost() {
    let rounds = setting("STRONGROOM_KILLS", 12);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = setting("STRONGROOM_SEED", now);
    println!("seed {seed}");
    let mut bench = Bench::new(seed);
    bench.edit();
    let mut usual = bench.back_up();
    for round in 0..rounds {
        match round % 4 {
            0 | 1 => bench.kill_backup(usual),
            2 => bench.kill_restore(usual),
            _ => bench.kill_prune(usual),
        }
        bench.verify(round);
        if round % 25 == 24 {
            println!("{} of {rounds}: {:?}", round + 1, bench.kills);
        }
        if round % 4 == 1 {
            // It goes on from what the killed ones left.
            bench.edit();
            usual = (usual + bench.back_up()) / 2;
        }
    }
    // Whatever the killed ones left is freed in the end, and everything live is whole.
    for _ in 0..3 {
        bench.must(&["prune", "--fence-after", "0s"]);
    }
    bench.must(&["check", "--read-data"]);
    for id in bench.live.keys().cloned().collect::<Vec<_>>() {
        bench.assert_restores(&id);
    }
    let left = fs::read_dir(bench.path("repo/tmp")).map_or(0, Iterator::count);
    println!("{:?}, {} snapshots whole, {left} temporaries left", bench.kills, bench.live.len());
}
