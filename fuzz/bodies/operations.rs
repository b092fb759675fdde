//! A life of a repository, told by bytes: files are written and removed, backed up, snapshots forgotten and held, pruned, restored, with
//! the store failing or dying here and there. After each step the live snapshots are those that should live, and each restores
//! exactly; in the end the repository checks clean.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::id::{HoldId, SessionId};
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::hold;
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{Fault, FaultyStore, MemoryStore, Store};
use strongroom::watch::Tally;
use tempfile::TempDir;

use super::input::Input;
use super::scene::{FUTURE_NS, Manifest, folder, manifest, new_store, noise, open};

const STEPS_MAX: usize = 24;
const FILES: usize = 6;

struct Life {
    store: MemoryStore,
    env: Env,
    folder: TempDir,
    root: PathBuf,
    live: BTreeMap<SessionId, Manifest>,
    held: BTreeMap<HoldId, SessionId>,
    /// The next step meets this fault at its so many-th operation.
    fault: Option<(u64, Fault)>,
}

pub fn run(bytes: &[u8]) {
    let env = Env::seeded(1, FUTURE_NS);
    let (store, folder) = (new_store(&env), folder());
    let root = folder.path().canonicalize().unwrap().join("source");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::create_dir(folder.path().join("cache")).unwrap();
    let (live, held) = Default::default();
    let mut life = Life { store, env, folder, root, live, held, fault: None };
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        life.step(&mut input);
        life.settle();
    }
    life.end();
}

impl Life {
    fn store(&mut self) -> Arc<dyn Store> {
        match self.fault.take() {
            Some((number, fault)) => {
                let inner = Arc::new(self.store.clone());
                Arc::new(FaultyStore::failing_at(inner, number, fault))
            }
            None => Arc::new(self.store.clone()),
        }
    }

    fn file(&self, place: usize) -> PathBuf {
        let folder = if place % 2 == 0 { self.root.clone() } else { self.root.join("sub") };
        folder.join(format!("file {place}"))
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 10 {
            0 | 1 => {
                let content = noise(input.byte().into(), input.below(40_000));
                std::fs::write(self.file(input.below(FILES)), content).unwrap();
            }
            2 => drop(std::fs::remove_file(self.file(input.below(FILES)))),
            3 | 4 => {
                let cached = input.byte() % 2 == 0;
                self.back_up(cached);
            }
            5 => self.forget(input),
            6 => self.hold(input),
            7 => {
                let max_unused = f64::from(input.byte()) / 255.0;
                let options = PruneOptions { dry_run: false, max_unused, fence_after_ns: 0 };
                let store = self.store();
                let _ = open(store, None, &self.env)
                    .and_then(|repo| prune::run(&repo, &options, &Tally::default()));
            }
            8 => {
                let faults = [Fault::Fail, Fault::AppliedButFailed, Fault::ShortWrite, Fault::Kill];
                let number = input.below(256) as u64;
                self.fault = Some((number, faults[input.below(faults.len())]));
            }
            _ => {
                let place = input.below(self.live.len().max(1));
                if let Some((id, wanted)) = self.live.iter().nth(place) {
                    self.assert_restores(id, wanted);
                }
            }
        }
    }

    fn back_up(&mut self, cached: bool) {
        let store = self.store();
        let cache = self.folder.path().join("cache");
        let (paths, options) = ([self.root.clone()], BackupOptions::default());
        let (env, watch) = (self.env.clone(), Tally::default());
        let _ = open(store, cached.then_some(&*cache), &env)
            .and_then(|repo| backup::run(&repo, Source::Paths(&paths), &options, &watch));
    }

    fn forget(&mut self, input: &mut Input) {
        let Some(id) = self.live.keys().nth(input.below(self.live.len().max(1))).copied() else {
            return;
        };
        let store = self.store();
        let options = ForgetOptions { reason: "fuzz".to_owned(), ..ForgetOptions::default() };
        let _ = open(store, None, &self.env)
            .and_then(|repo| forget::run(&repo, &[id], &options, &Tally::default()));
    }

    fn hold(&mut self, input: &mut Input) {
        let store = self.store();
        let Ok(repo) = open(store, None, &self.env) else { return };
        if input.byte() % 2 == 0 {
            if let Some(id) = self.live.keys().nth(input.below(self.live.len().max(1))) {
                let _ = hold::add(&repo, id, "fuzz");
            }
        } else if let Some(hold) = self.held.keys().nth(input.below(self.held.len().max(1))) {
            let _ = hold::release(&repo, hold, "fuzz");
        }
    }

    /// What the store says after a step, held to what may have changed by it.
    fn settle(&mut self) {
        let repo = open(Arc::new(self.store.clone()), None, &self.env).unwrap();
        let holds = hold::list(&repo).unwrap();
        self.held = holds.into_iter().map(|info| (info.id, info.snapshot)).collect();
        let now: Vec<SessionId> =
            repo.snapshots().unwrap().into_iter().map(|info| info.id).collect();
        for id in &now {
            // A new one is of the source as it is.
            self.live.entry(*id).or_insert_with(|| manifest(&self.root));
        }
        let mut forgotten = Vec::new();
        self.store
            .list("forgotten", &mut |name, _| {
                forgotten.extend(SessionId::from_hex(name.last()));
            })
            .unwrap();
        for id in self.held.values() {
            assert!(now.contains(id), "{id:?} is held, but does not live");
        }
        self.live.retain(|id, _| {
            assert!(now.contains(id) || forgotten.contains(id), "{id:?} is gone without a record");
            now.contains(id)
        });
    }

    fn assert_restores(&self, id: &SessionId, wanted: &Manifest) {
        let repo = open(Arc::new(self.store.clone()), None, &self.env).unwrap();
        let info = repo.find_snapshot(&id.to_string()).unwrap();
        let (target, watch) = (folder(), Tally::default());
        let root = self.root.as_os_str().as_bytes();
        let options = RestoreOptions::default();
        restore::run(&repo, &info, Some(root), target.path(), &options, &watch).unwrap();
        assert_eq!(watch.problems(), []);
        assert!(manifest(target.path()) == *wanted, "{id:?}");
    }

    fn end(&self) {
        let repo = open(Arc::new(self.store.clone()), None, &self.env).unwrap();
        let options = CheckOptions { read_data: true };
        let report = check::run(&repo, &options, &Tally::default()).unwrap();
        assert_eq!(report.damages, []);
        for (id, wanted) in &self.live {
            self.assert_restores(id, wanted);
        }
    }
}
