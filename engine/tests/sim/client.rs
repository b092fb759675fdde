//! One client: a thread that does a few operations with real engine code, each as a process of its own would, and writes
//! down what it was told. An operation that was given no error and did not die must do what it is for.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::{Env, TimeNs};
use strongroom::error::Error;
use strongroom::format::id::SessionId;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::hold;
use strongroom::maintain::keys;
use strongroom::maintain::prune::{self, PruneOptions, PruneReport};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::restore::{self, RestoreOptions};
use strongroom::watch::{Problem, ProblemKind, Tally};

use super::faults::Fault;
use super::record::{Hold, Record, Told};
use super::rng::Rng;
use super::sources::{self, Picture, STREAM, Tree};
use super::store::SimStore;
use super::world::{Died, HOUR_NS};

/// What all clients of a seed share.
pub struct Shared {
    pub seed: u64,
    pub place: PathBuf,
    /// Streams are backed up, whose times come from the seed; else directories.
    pub streams: bool,
    /// Somebody may delete: a check beside that may take it for damage.
    pub prunes: bool,
    pub record: Mutex<Record>,
    pub findings: Mutex<Vec<String>>,
    /// Frames in the end that need others to be decoded.
    pub deltas: AtomicU64,
}

impl Shared {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn found(&self, finding: String) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Backup,
    Restore,
    Check,
    Forget,
    Hold,
    Release,
    Prune,
    AddKey,
}

/// What a client is to do.
pub struct Part {
    pub key: KeyFileSecret,
    /// Each as likely as any other.
    pub steps: Vec<Step>,
    pub operations: usize,
    /// Not drawn: one after the other, with a cache.
    pub in_order: bool,
    /// It uses this client's cache.
    pub cache_of: usize,
    pub cache_shared: bool,
}

pub struct Client {
    shared: Arc<Shared>,
    store: SimStore,
    part: Part,
    rng: Rng,
    cache: Option<PathBuf>,
    tree: Tree,
    on_disk: Tree,
    /// Its source has not been backed up as it is.
    behind: bool,
    times: u64,
    skew: TimeNs,
}

impl Client {
    pub fn new(shared: Arc<Shared>, store: SimStore, part: Part) -> Self {
        let mut rng = Rng::new(shared.seed, 1 + store.client as u64);
        let cache = shared.place.join(format!("cache{}", part.cache_of));
        let cache = (part.in_order || !rng.chance(3_000)).then_some(cache);
        let mut tree = sources::draw(&mut rng, shared.streams);
        // What was backed up before, and may be forgotten just now, is needed again.
        let known: Vec<_> = shared.record().backups.iter().map(|b| b.tree.clone()).collect();
        if shared.streams && !known.is_empty() && rng.chance(6_000) {
            tree = Tree::clone(&known[rng.below(known.len())]);
        }
        let on_disk = Tree::new();
        Self { shared, store, part, rng, cache, tree, on_disk, behind: true, times: 0, skew: 0 }
    }

    pub fn run(mut self) {
        let me = self.store.client;
        let world = self.store.world.clone();
        world.begin(me);
        for number in 0..self.part.operations {
            let now = self.prepare();
            let drawn = *self.rng.pick(&self.part.steps);
            let step = if self.part.in_order { self.part.steps[number] } else { drawn };
            let seed = Rng::new(self.shared.seed, ((me as u64) << 32) + number as u64).next();
            let env = Env::seeded(seed, now + self.skew);
            world.lock().note(me, || format!("== {step:?}, clock {}", now + self.skew));
            let done = catch_unwind(AssertUnwindSafe(|| self.step(step, &env)));
            let told = match done {
                Ok(Ok(told)) => told,
                Ok(Err(error)) => {
                    let told = format!("{step:?} failed: {error:?}");
                    if !world.faulted(me) && !self.rotten() && !excused(&error) {
                        self.shared.found(format!("client {me}: without any fault, {told}"));
                    }
                    told
                }
                Err(panic) if panic.is::<Died>() => "died".to_owned(),
                Err(panic) => {
                    let told = format!("{step:?} panicked: {}", message(&*panic));
                    self.shared.found(format!("client {me}: {told}"));
                    told
                }
            };
            world.lock().note(me, || format!("== {told}"));
        }
        world.end(me);
    }

    /// A new process begins; its host may have been through something. The time.
    fn prepare(&mut self) -> TimeNs {
        let (mut state, between) = self.store.world.between(self.store.client);
        let (now, torn) = (state.now, state.rate(Fault::CacheTorn));
        // A cache that another client uses right now is left alone.
        let own = !self.part.cache_shared;
        if own && between.power_lost && self.rng.chance(torn) {
            state.counts[Fault::CacheTorn as usize] += 1;
            self.cache.iter().for_each(|cache| tear(cache, &mut self.rng));
        }
        let jumps = state.rate(Fault::ClockJump);
        drop(state);
        if own
            && between.cache_lost
            && let Some(cache) = self.cache.as_ref().filter(|cache| cache.exists())
        {
            fs::remove_dir_all(cache).unwrap();
        }
        if self.rng.chance(jumps / 4) {
            self.skew = *self.rng.pick(&[0, 0, -1, 1, 26, -26, 24 * 400]) * HOUR_NS;
        }
        now
    }

    /// Has anything rotted yet? Then much may fail without a fault of the store.
    fn rotten(&self) -> bool {
        !self.store.world.lock().rotten.is_empty()
    }

    fn open(&self, env: &Env) -> Result<Repo, Error> {
        let store = Arc::new(self.store.clone());
        Repo::open(store, Unlock::KeyFile(&self.part.key), self.cache.as_deref(), env)
    }

    /// What came of it, for the trace.
    fn step(&mut self, step: Step, env: &Env) -> Result<String, Error> {
        match step {
            Step::Backup => self.back_up(env),
            Step::Restore => self.restore(env),
            Step::Check => self.check(env),
            Step::Forget => self.forget(env),
            Step::Hold => self.hold(env),
            Step::Release => self.release(env),
            Step::Prune => self.prune(env),
            Step::AddKey => self.add_key(env),
        }
    }

    fn back_up(&mut self, env: &Env) -> Result<String, Error> {
        if !self.behind || self.rng.chance(3_000) {
            for _ in 0..1 + self.rng.below(2) {
                sources::edit(&mut self.tree, &mut self.rng, self.shared.streams);
            }
        }
        self.behind = true;
        let tag = self.shared.record().begin(&self.tree);
        let place = Record::place(std::slice::from_ref(&tag));
        let options = BackupOptions {
            tags: vec![tag.clone()],
            host: super::host(),
            rescan: self.rng.chance(1_000),
            base_cache_bytes: 4 << 20,
            ..BackupOptions::default()
        };
        let repo = self.open(env)?;
        let watch = Tally::default();
        let done = if self.shared.streams {
            let bytes = sources::picture(&self.tree).remove(STREAM).expect("it has one file");
            let (reader, finish) = (&mut &bytes[..], &mut || Ok(None));
            let name = STREAM.as_bytes();
            backup::run(&repo, Source::Stream { name, reader, finish }, &options, &watch)?
        } else {
            let folder = self.shared.place.join(format!("source{}", self.store.client));
            sources::materialise(&folder, &self.on_disk, &self.tree, &mut self.times);
            self.on_disk.clone_from(&self.tree);
            backup::run(&repo, Source::Paths(&[folder]), &options, &watch)?
        };
        let notable = |problem: &Problem| problem.kind != ProblemKind::Notice;
        let problems: Vec<Problem> = watch.problems().into_iter().filter(notable).collect();
        let excused = self.rotten() || self.store.world.faulted(self.store.client);
        assert!(problems.is_empty() || excused, "problems of backup {tag}: {problems:?}");
        self.behind = false;
        self.shared.record().backups[place].committed = done.snapshot;
        Ok(format!("{tag} is {}", done.snapshot.expect("it was no dry run")))
    }

    fn restore(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let snapshots = repo.snapshots()?;
        if snapshots.is_empty() {
            return Ok("nothing to restore".to_owned());
        }
        let info = self.rng.pick(&snapshots);
        let place = Record::place(&info.snapshot.tags);
        let wanted = sources::picture(&self.shared.record().backups[place].tree);
        match restored(&repo, info, &self.shared, &mut self.rng) {
            Ok(found) if found == wanted => Ok(format!("b{place} restored")),
            // Whatever is lost, it must be told.
            Ok(_) => panic!("b{place} was restored wrong, and nothing was said"),
            Err(_) if !self.shared.record().is_promised(place) => {
                Ok(format!("b{place} was forgotten meanwhile"))
            }
            Err(error) => Err(error),
        }
    }

    fn check(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let options = CheckOptions { read_data: self.rng.chance(2_000) };
        let report = check::run(&repo, &options, &Tally::default())?;
        if !self.shared.prunes && !self.rotten() && !self.store.world.faulted(self.store.client) {
            assert_eq!(report.damages, [], "a check beside others");
        }
        Ok(format!("{} snapshots, {} damages", report.snapshots, report.damages.len()))
    }
}

// ---- what an admin does --------------------------------------------------------------------

impl Client {
    fn forget(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let snapshots = repo.snapshots()?;
        if snapshots.is_empty() {
            return Ok("nothing to forget".to_owned());
        }
        // One, or many at once: what is left then is needed by few.
        let many = self.rng.chance(5_000);
        let one = self.rng.below(snapshots.len());
        let chosen = |(n, _): &(usize, &SnapshotInfo)| *n == one || (many && n % 2 == 0);
        let chosen: Vec<&SnapshotInfo> =
            snapshots.iter().enumerate().filter(chosen).map(|(_, info)| info).collect();
        let places: Vec<usize> =
            chosen.iter().map(|info| Record::place(&info.snapshot.tags)).collect();
        let each = |change: &dyn Fn(&mut Told)| {
            let mut record = self.shared.record();
            places.iter().for_each(|place| change(&mut record.backups[*place].forget));
        };
        each(&|told| told.perhaps += 1);
        let options = ForgetOptions { reason: "sim".to_owned(), ..ForgetOptions::default() };
        let ids: Vec<SessionId> = chosen.iter().map(|info| info.id).collect();
        let report = forget::run(&repo, &ids, &options, &Tally::default())?;
        let all = report.forgotten == ids.len() as u64;
        // If some are held, it is not looked at which.
        if all || report.forgotten == 0 {
            each(&|told| {
                told.perhaps -= 1;
                told.done |= all;
            });
        }
        Ok(format!("{places:?}: {} forgotten", report.forgotten))
    }

    /// Holds any snapshot that ever was committed, forgotten or not.
    fn hold(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let (place, snapshot, number) = {
            let mut record = self.shared.record();
            let committed = (0..).zip(&record.backups);
            let committed: Vec<_> =
                committed.filter_map(|(place, b)| Some((place, b.committed?))).collect();
            if committed.is_empty() {
                return Ok("nothing to hold".to_owned());
            }
            let (place, snapshot) = *self.rng.pick(&committed);
            record.holds.push(Hold { place, id: None, released: Told::default() });
            (place, snapshot, record.holds.len() - 1)
        };
        match hold::add(&repo, &snapshot, "sim") {
            Ok(id) => {
                self.shared.record().holds[number].id = Some(id);
                Ok(format!("b{place} is held by {id}"))
            }
            Err(error) if self.shared.record().backups[place].forget.never() => Err(error),
            Err(Error::HoldTooLate { .. } | Error::NoSnapshot { .. }) => {
                Ok(format!("too late to hold b{place}"))
            }
            Err(error) => Err(error),
        }
    }

    fn release(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let holds: Vec<(usize, _)> = {
            let record = self.shared.record();
            (0..).zip(&record.holds).filter_map(|(n, hold)| Some((n, hold.id?))).collect()
        };
        if holds.is_empty() {
            return Ok("nothing to release".to_owned());
        }
        let (number, id) = *self.rng.pick(&holds);
        self.shared.record().holds[number].released.perhaps += 1;
        hold::release(&repo, &id, "sim")?;
        self.shared.record().holds[number].released = Told { perhaps: 0, done: true };
        Ok(format!("released {id}"))
    }

    /// For somebody who never comes; what matters is the new roster.
    fn add_key(&mut self, env: &Env) -> Result<String, Error> {
        let key = KeyFileSecret(env.random());
        let repo = self.open(env)?;
        let (_, identity) = keys::add(&repo, Role::Backup, "guest", Unlock::KeyFile(&key))?;
        Ok(format!("added {identity}"))
    }

    fn prune(&mut self, env: &Env) -> Result<String, Error> {
        let repo = self.open(env)?;
        let options = PruneOptions {
            dry_run: false,
            max_unused: *self.rng.pick(&[0.0, 0.0, 0.05, 0.5]),
            fence_after_ns: *self.rng.pick(&[0, HOUR_NS, 24 * HOUR_NS, 24 * HOUR_NS]),
        };
        let report = prune::run(&repo, &options, &Tally::default())?;
        // How long it really took differs from run to run.
        Ok(format!("{:?}", PruneReport { seconds: 0.0, ..report }))
    }
}

/// Every file of a snapshot, or the error that says why not.
pub fn restored(
    repo: &Repo,
    info: &SnapshotInfo,
    shared: &Shared,
    rng: &mut Rng,
) -> Result<Picture, Error> {
    let root = &info.snapshot.roots[0][..];
    let is_stream = root.strip_prefix(b"/") == Some(STREAM.as_bytes());
    if is_stream && rng.chance(7_000) {
        let mut bytes = Vec::new();
        strongroom::browse::dump(repo, info, format!("/{STREAM}").as_bytes(), &mut bytes)?;
        return Ok([(STREAM.to_owned(), bytes)].into());
    }
    let target = tempfile::tempdir_in(&shared.place).unwrap();
    let path = (!is_stream).then_some(root);
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    let report = restore::run(repo, info, path, target.path(), &options, &watch)?;
    if report.failed > 0 {
        let problems = watch.problems();
        let cause = problems.first().map_or("no problem was told", |problem| &problem.cause);
        return Err(Error::Damaged { what: "a restore".to_owned(), cause: cause.to_owned() });
    }
    Ok(sources::read_back(target.path()))
}

/// Errors that need no fault.
fn excused(error: &Error) -> bool {
    matches!(error, Error::Fenced { .. })
}

pub fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

/// What a power loss may do to files that nobody synced: each may be whole, cut, full of zeros or gone.
fn tear(cache: &Path, rng: &mut Rng) {
    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let len = fs::metadata(&path).unwrap().len();
            let open = || fs::File::options().write(true).open(&path).unwrap();
            match rng.below(6) {
                0 => fs::remove_file(&path).unwrap(),
                1 => open().set_len(rng.below(len as usize + 1) as u64).unwrap(),
                2 => open().set_len(0).unwrap(),
                3 => {
                    let from = rng.below(len as usize + 1) as u64;
                    let mut file = open();
                    file.seek(SeekFrom::Start(from)).unwrap();
                    file.write_all(&vec![0; (len - from) as usize]).unwrap();
                }
                _ => {}
            }
        }
    }
}
