//! Real engine code over a simulated store, from a seed: see `world` for how clients take turns, `faults` for what goes
//! wrong, `oracle` for what must hold all the same.

pub mod client;
pub mod faults;
pub mod objects;
pub mod oracle;
pub mod record;
pub mod rng;
pub mod sources;
pub mod store;
pub mod world;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::keys;
use strongroom::repo::Repo;
use strongroom::store::Store;
use strongroom::watch::Tally;

use crate::support::{FUTURE_NS, KEY, new_store, open};
use client::{Client, Part, Shared, Step};
use faults::{Counts, Fault, Mix, Planned};
use objects::{Objects, Sure};
use record::Record;
use rng::Rng;
use sources::STREAM;
use store::SimStore;
use world::{HOUR_NS, World};

/// Two writers that do not trust each other, and an admin.
pub const WRITER_A: KeyFileSecret = KeyFileSecret([1; 32]);
pub const WRITER_B: KeyFileSecret = KeyFileSecret([2; 32]);
pub const ADMIN: KeyFileSecret = KeyFileSecret([3; 32]);

/// Seeds begin with none to so many less one snapshots.
const BEGINNINGS: u64 = 5;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Streams, by two or three writers, with restores and checks beside them.
    Writers,
    /// The same with directories. Their times are the file system's, so their trees have other ids in every run: a seed
    /// gives the same turns and faults again, but not the same names.
    Directories,
    /// Writers, with forgetting, holds and one to three pruners beside them.
    Prune,
    /// The same, while objects rot.
    Rot,
}

impl Class {
    fn prunes(self) -> bool {
        matches!(self, Self::Prune | Self::Rot)
    }
}

pub struct Outcome {
    pub findings: Vec<String>,
    pub digest: blake3::Hash,
    pub counts: Counts,
    pub committed: usize,
    pub steps: usize,
    /// Frames in the end that need others to be decoded.
    pub deltas: u64,
    /// The last part of the trace.
    pub tail: String,
}

/// Where a seed begins: a store, and what is known of it.
#[derive(Clone)]
struct Beginning {
    objects: Objects,
    record: Record,
}

/// The repositories that seeds begin with, made once: roles for all clients, and a few snapshots of theirs.
fn beginnings() -> &'static [Beginning] {
    static BASES: OnceLock<Vec<Beginning>> = OnceLock::new();
    BASES.get_or_init(|| (0..BEGINNINGS).map(beginning).collect())
}

fn beginning(number: u64) -> Beginning {
    let env = Env::seeded(number, FUTURE_NS - HOUR_NS);
    let store = new_store(&env);
    let roles = [(Role::Backup, WRITER_A), (Role::Backup, WRITER_B), (Role::Admin, ADMIN)];
    for (n, (role, key)) in roles.into_iter().enumerate() {
        let owner = open(&store, None, &env);
        keys::add(&owner, role, &format!("client {n}"), Unlock::KeyFile(&key)).unwrap();
    }
    let (mut record, mut rng) = (Record::default(), Rng::new(number, 0));
    for key in [KEY, WRITER_A, WRITER_B, KEY].iter().take(number as usize) {
        let tree = sources::draw(&mut rng, true);
        let tags = vec![record.begin(&tree)];
        let options = BackupOptions { tags, host: host(), ..BackupOptions::default() };
        let repo = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(key), None, &env).unwrap();
        let bytes = sources::picture(&tree).remove(STREAM).unwrap();
        let (name, reader) = (STREAM.as_bytes(), &mut &bytes[..]);
        let source = Source::Stream { name, reader, finish: &mut || Ok(None) };
        let report = backup::run(&repo, source, &options, &Tally::default()).unwrap();
        record.backups.last_mut().unwrap().committed = report.snapshot;
    }
    let mut objects = Objects::default();
    for name in store.names() {
        let bytes = store.get(&name, u64::MAX).unwrap();
        objects.put(&name, bytes.into(), Sure::All);
    }
    Beginning { objects, record }
}

pub fn host() -> Option<String> {
    Some("host".to_owned())
}

/// Runs one seed, with its files below `place`.
pub fn run(class: Class, seed: u64, place: &Path) -> Outcome {
    let mut rng = Rng::new(seed, 0);
    let mut mix = Mix::draw(&mut rng);
    if class == Class::Rot {
        mix = mix.with(Fault::Rot, 1_000);
    }
    let mut beginning = rng.pick(beginnings());
    let mut parts = cast(class, &mut rng);
    if class == Class::Prune && rng.chance(2_500) {
        mix = Mix::none().with(Fault::Stall, 300);
        beginning = beginnings().last().expect("there are some");
        parts = race(&mut rng);
    }
    let power_loss = mix.rate(Fault::PowerLoss) > 0 && rng.chance(5_000);
    act(class, seed, place, Scene { beginning, parts, mix, power_loss, rng })
}

/// Clients one after the other, with faults where the plan has them; then the power goes.
pub fn run_plan(parts: &[(&KeyFileSecret, &[Step])], plan: &[Planned], place: &Path) -> Outcome {
    let (beginning, rng) = (&beginnings()[0], Rng::new(0, 0));
    let part = |(me, (key, steps)): (usize, &(&KeyFileSecret, &[Step]))| Part {
        key: (*key).clone(),
        operations: steps.len(),
        steps: steps.to_vec(),
        in_order: true,
        cache_of: me,
        cache_shared: false,
    };
    let parts = parts.iter().enumerate().map(part).collect();
    let mix = Mix::planned(plan);
    act(Class::Prune, 0, place, Scene { beginning, parts, mix, power_loss: true, rng })
}

/// The one race that all of this is about: what was forgotten is needed again by a writer that stalls, while it is
/// deleted.
fn race(rng: &mut Rng) -> Vec<Part> {
    let steps: [&[Step]; 4] = [
        &[Step::Backup, Step::Backup],
        &[Step::Backup],
        &[Step::Forget, Step::Prune, Step::Prune],
        &[Step::Prune, Step::Forget, Step::Prune],
    ];
    let part = |(me, steps): (usize, &&[Step])| {
        let key = if me < 2 { KEY } else { rng.pick(&[KEY, ADMIN]).clone() };
        let (operations, steps) = (steps.len(), steps.to_vec());
        Part { key, steps, operations, in_order: true, cache_of: me, cache_shared: false }
    };
    steps.iter().enumerate().map(part).collect()
}

/// All that a run depends on.
struct Scene<'a> {
    beginning: &'a Beginning,
    parts: Vec<Part>,
    mix: Mix,
    /// At the end, before anybody looks.
    power_loss: bool,
    rng: Rng,
}

fn act(class: Class, seed: u64, place: &Path, scene: Scene) -> Outcome {
    let Scene { beginning, parts, mix, power_loss, mut rng } = scene;
    let place = tempfile::tempdir_in(place).unwrap();
    let shared = Arc::new(Shared {
        seed,
        place: place.path().to_owned(),
        streams: class != Class::Directories,
        prunes: class.prunes(),
        record: Mutex::new(beginning.record.clone()),
        findings: Mutex::default(),
        deltas: AtomicU64::new(0),
    });
    let verify_rng = rng.next();
    let world = World::new(beginning.objects.clone(), parts.len(), mix, FUTURE_NS, rng);
    let client = |(me, part)| {
        let store = SimStore { world: world.clone(), client: me };
        Client::new(shared.clone(), store, part)
    };
    // All of them before the first begins.
    let clients: Vec<Client> = parts.into_iter().enumerate().map(client).collect();
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || client.run());
        }
    });
    let mut state = world.lock();
    state.deliver_rest();
    if power_loss {
        state.lose_power();
    }
    oracle::verify(&mut state, &shared, &mut Rng::new(verify_rng, 0));
    let findings = std::mem::take(&mut *shared.findings.lock().unwrap());
    Outcome {
        findings,
        digest: state.digest(),
        counts: state.counts,
        committed: shared.record().backups.iter().filter(|b| b.committed.is_some()).count(),
        steps: state.trace.len(),
        deltas: shared.deltas.load(Ordering::Relaxed),
        tail: state.tail(1_000),
    }
}

/// The clients of a seed.
fn cast(class: Class, rng: &mut Rng) -> Vec<Part> {
    // Many short stories find more than few long ones; some things take a long one.
    let most = if rng.chance(2_500) { 4 } else { 2 };
    let mut parts: Vec<Part> = Vec::new();
    let part = |key: &KeyFileSecret, steps: &[Step], operations: usize| {
        let (key, steps) = (key.clone(), steps.to_vec());
        Part { key, steps, operations, in_order: false, cache_of: 0, cache_shared: false }
    };
    for _ in 0..2 + rng.below(2) {
        parts.push(part(
            rng.pick(&[KEY, WRITER_A, WRITER_B]),
            &[Step::Backup],
            1 + rng.below(most),
        ));
    }
    // One user who starts a second backup while the first still runs.
    if rng.chance(1_500) {
        parts[1].key = parts[0].key.clone();
        parts[..2].iter_mut().for_each(|part| part.cache_shared = true);
    }
    if rng.chance(if class.prunes() { 3_000 } else { 6_000 }) {
        let steps = [Step::Restore, Step::Restore, Step::Check];
        parts.push(part(&KEY, &steps, 1 + rng.below(most)));
    }
    if class.prunes() {
        let mixes: [&[Step]; 4] = [
            &[Step::Prune],
            &[Step::Prune, Step::Forget],
            &[Step::Forget, Step::Forget, Step::Prune],
            &[Step::Forget, Step::Hold, Step::Release, Step::Prune],
        ];
        if rng.chance(1_000) {
            parts.push(part(&KEY, &[Step::AddKey, Step::Backup, Step::Prune], 1 + rng.below(most)));
        }
        for _ in 0..2 + rng.below(2) {
            let (key, steps) = (rng.pick(&[KEY, ADMIN]).clone(), rng.pick(&mixes));
            parts.push(part(&key, steps, 1 + rng.below(most + 1)));
        }
    }
    for (me, part) in parts.iter_mut().enumerate().filter(|(_, part)| !part.cache_shared) {
        part.cache_of = me;
    }
    parts
}
