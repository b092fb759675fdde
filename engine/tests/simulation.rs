//! Clients, faults and power losses by the thousand, each seed a story of its own, replayable: see `sim`. A seed that
//! found something stays here as a test of its own. `scripts/simulate.sh` runs seeds by the hour.

mod sim;
mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::client::Step;
use sim::faults::{Call, Counts, Fault, Planned};
use sim::world::told;
use sim::{ADMIN, Class, Outcome};
use strongroom::env::Env;
use strongroom::format::slot::KeyFileSecret;
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::repo::Repo;
use strongroom::store::{ObjectName, Store};
use strongroom::watch::Tally;
use support::{FUTURE_NS, KEY, back_up, new_store, open};

/// Memory if there is any: thousands of tiny files come and go.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

const CLASSES: [Class; 4] = [Class::Writers, Class::Directories, Class::Prune, Class::Rot];

#[derive(Default)]
struct Sum {
    seeds: u64,
    committed: usize,
    steps: usize,
    deltas: u64,
    counts: Counts,
    failed: Vec<(u64, Outcome)>,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.seeds += other.seeds;
        self.committed += other.committed;
        self.steps += other.steps;
        self.deltas += other.deltas;
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, n)| *sum += n);
        self.failed.extend(other.failed);
    }

    fn tell(&self, class: Class, begun: Instant) {
        let Self { seeds, steps, committed, deltas, .. } = self;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{class:?}: {seeds} seeds in {seconds:.1} s, {steps} store calls, {committed} snapshots, {deltas} deltas; {}",
            told(&self.counts)
        );
        let failed: Vec<u64> = self.failed.iter().map(|(seed, _)| *seed).collect();
        if !failed.is_empty() {
            println!("{class:?}: failing seeds {failed:?}");
        }
    }
}

/// Runs seeds on all cores; what they did, with the failed ones in order.
fn run_seeds(class: Class, seeds: Range<u64>) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = sim::run(class, seed, &place());
                    let mut sum = sum.lock().unwrap();
                    if !outcome.findings.is_empty() {
                        println!("{class:?} seed {seed}: {:?}", outcome.findings);
                    }
                    sum.add(Sum {
                        seeds: 1,
                        committed: outcome.committed,
                        steps: outcome.steps,
                        deltas: outcome.deltas,
                        counts: outcome.counts,
                        failed: Some((seed, outcome))
                            .filter(|(_, outcome)| !outcome.findings.is_empty())
                            .into_iter()
                            .collect(),
                    });
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap();
    sum.failed.sort_by_key(|(seed, _)| *seed);
    sum
}

fn assert_seeds(class: Class, seeds: Range<u64>) {
    let begun = Instant::now();
    let sum = run_seeds(class, seeds);
    sum.tell(class, begun);
    assert!(sum.deltas > 0, "bases are among what may be lost");
    if let Some((seed, outcome)) = sum.failed.first() {
        panic!("{}{class:?} seed {seed}: {:#?}", outcome.tail, outcome.findings);
    }
}

#[test]
fn writers() {
    assert_seeds(Class::Writers, 0..700);
}

#[test]
fn directories() {
    assert_seeds(Class::Directories, 0..300);
}

#[test]
fn prune_beside_writers() {
    assert_seeds(Class::Prune, 0..800);
}

#[test]
fn objects_that_rot() {
    assert_seeds(Class::Rot, 0..200);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let class = if seed % 2 == 0 { Class::Writers } else { Class::Prune };
        let first = sim::run(class, seed, &place());
        let second = sim::run(class, seed, &place());
        assert_eq!(first.digest, second.digest, "seed {seed}:\n{}\n{}", first.tail, second.tail);
    }
}

// ---- what seeds have found --------------------------------------------------------------------

/// One client after the other, with these faults, then a power loss that spares nothing which was not durable.
fn assert_plan(parts: &[(&KeyFileSecret, &[Step])], plan: &[Planned]) {
    let outcome = sim::run_plan(parts, plan, &place());
    assert!(outcome.findings.is_empty(), "{}{:#?}", outcome.tail, outcome.findings);
    let struck: u64 = outcome.counts.iter().sum();
    assert_eq!(
        struck,
        plan.len() as u64 + 1,
        "each fault strikes, and the power goes:\n{}",
        outcome.tail
    );
}

/// Writers seeds 31, 42: the store had repeated the put by itself, and what exists is not yet durable.
#[test]
fn what_is_said_to_exist_is_made_durable() {
    for name in ["sessions", "seals", "index", "snapshots"] {
        assert_plan(
            &[(&KEY, &[Step::Backup])],
            &[Planned { call: Call::Put, name, fault: Fault::Echo }],
        );
    }
}

/// Prune seed 11296: a snapshot that was reported as failed was there, the next one of its author cited it, and then
/// it vanished: the chain was broken for good.
#[test]
fn what_a_snapshot_cites_is_durable() {
    let fault = Fault::AppliedButFailed;
    let plan = [Planned { call: Call::Put, name: "snapshots", fault }];
    assert_plan(&[(&KEY, &[Step::Backup, Step::Backup])], &plan);
}

/// Prune seed 20532: a client remembered a snapshot that was there and not durable, and took its loss for a rollback.
#[test]
fn what_a_client_remembers_is_durable() {
    let plan = [
        Planned { call: Call::Put, name: "snapshots", fault: Fault::AppliedButFailed },
        // Only to wait for the first prune.
        Planned { call: Call::List, name: "sessions", fault: Fault::Stall },
        Planned { call: Call::Between, name: "", fault: Fault::PowerLoss },
    ];
    assert_plan(&[(&KEY, &[Step::Backup]), (&ADMIN, &[Step::Prune, Step::Prune])], &plan);
}

/// Prune seed 156: of two owners who add keys, one hears of its own roster that it exists; it is not added twice.
#[test]
fn a_roster_that_is_ours_was_written() {
    let plan = [Planned { call: Call::Put, name: "roster", fault: Fault::Echo }];
    assert_plan(&[(&KEY, &[Step::AddKey, Step::Backup])], &plan);
}

/// The same for rosters: what is signed cites the newest, and cannot be read without it.
#[test]
fn the_roster_that_a_record_cites_is_durable() {
    let fault = Fault::AppliedButFailed;
    let plan = [Planned { call: Call::Put, name: "roster", fault }];
    assert_plan(&[(&KEY, &[Step::AddKey, Step::Backup])], &plan);
}

/// Writers seed 367: zeros in place of what a client remembers of its chain were cited by the next snapshot.
#[test]
fn a_torn_chain_file_is_not_believed() {
    let env = Env::seeded(1, FUTURE_NS);
    let store = new_store(&env);
    let (cache, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let back_up = || back_up(&open(&store, Some(cache.path()), &env), source.path());
    back_up();
    let repo = open(&store, Some(cache.path()), &env);
    let chain = repo.cache().unwrap().join("chain");
    let len = std::fs::read(&chain).unwrap().len();
    std::fs::write(&chain, vec![0; len]).unwrap();
    back_up();
    assert_clean(&open(&store, None, &env));
}

/// Prune seed 1059: a power loss undid the deletion of a forgotten snapshot, and not that of its seals.
#[test]
fn a_deleted_snapshot_that_comes_back_is_no_damage() {
    let env = Env::seeded(2, FUTURE_NS);
    let store = new_store(&env);
    let source = tempfile::tempdir().unwrap();
    let id = back_up(&open(&store, None, &env), source.path()).snapshot.unwrap();
    let name = |folder: &str| ObjectName::new(&format!("{folder}/{id}")).unwrap();
    let bytes = store.get(&name("snapshots"), u64::MAX).unwrap();
    let repo = open(&store, None, &env);
    let options = ForgetOptions { reason: "test".to_owned(), ..ForgetOptions::default() };
    forget::run(&repo, &[id], &options, &Tally::default()).unwrap();
    let options = PruneOptions { fence_after_ns: 0, ..PruneOptions::default() };
    for _ in 0..4 {
        prune::run(&repo, &options, &Tally::default()).unwrap();
    }
    for gone in ["snapshots", "seals"].map(name) {
        assert!(store.get(&gone, u64::MAX).is_err(), "{gone} is still there");
    }
    store.put_if_absent(&name("snapshots"), &bytes).unwrap();
    assert_clean(&repo);
}

fn assert_clean(repo: &Repo) {
    let options = CheckOptions { read_data: true };
    let report = check::run(repo, &options, &Tally::default()).unwrap();
    assert_eq!(report.damages, []);
}

/// Seeds by the hour, for `scripts/simulate.sh`: `SIM_SECONDS` for each class, from `SIM_FROM` on. Findings are printed
/// as they come.
#[test]
#[ignore = "takes as long as it is told to"]
fn hours() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seconds, mut from) = (number("SIM_SECONDS", 60), number("SIM_FROM", 1 << 32));
    let mut failed = 0;
    for class in CLASSES {
        let wanted = std::env::var("SIM_CLASS");
        if wanted.is_ok_and(|wanted| wanted != format!("{class:?}")) {
            continue;
        }
        let begun = Instant::now();
        let mut sum = Sum::default();
        while begun.elapsed().as_secs() < seconds {
            sum.add(run_seeds(class, from..from + 200));
            from += 200;
        }
        sum.tell(class, begun);
        failed += sum.failed.len();
    }
    assert_eq!(failed, 0, "seeds that found something");
}

/// One seed in full, for whoever looks into a finding: `SIM_CLASS=Writers SIM_SEED=31`.
#[test]
#[ignore = "for looking into one seed"]
fn replay() {
    let seed = std::env::var("SIM_SEED").unwrap().parse().unwrap();
    let wanted = std::env::var("SIM_CLASS").unwrap();
    let class = CLASSES.into_iter().find(|class| format!("{class:?}") == wanted);
    let outcome = sim::run(class.expect("a class of that name"), seed, &place());
    println!("{}\n{:#?}", outcome.tail, outcome.findings);
}
