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
use std::sync::{Arc, Mutex, OnceLock};

use strongroom::env::Env;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::keys;
use strongroom::store::Store;

use crate::support::{FUTURE_NS, KEY, new_store, open};
use client::{Client, Shared, Step};
use faults::{Counts, Fault, Mix};
use objects::{Objects, Sure};
use record::Record;
use rng::Rng;
use store::SimStore;
use world::World;

/// Two writers that do not trust each other, and an admin.
pub const WRITER_A: KeyFileSecret = KeyFileSecret([1; 32]);
pub const WRITER_B: KeyFileSecret = KeyFileSecret([2; 32]);
pub const ADMIN: KeyFileSecret = KeyFileSecret([3; 32]);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Streams, by two or three writers, with restores and checks beside them.
    Writers,
    /// The same with directories. Their times are the file system's, so their trees have other ids in every run: a seed
    /// gives the same turns and faults again, but not the same names.
    Directories,
}

pub struct Outcome {
    pub findings: Vec<String>,
    pub digest: blake3::Hash,
    pub counts: Counts,
    pub committed: usize,
    pub steps: usize,
    /// The last part of the trace.
    pub tail: String,
}

/// The repository that every seed begins with, made once.
fn beginning() -> &'static Objects {
    static BASE: OnceLock<Objects> = OnceLock::new();
    BASE.get_or_init(|| {
        let env = Env::seeded(0, FUTURE_NS);
        let store = new_store(&env);
        let roles = [(Role::Backup, WRITER_A), (Role::Backup, WRITER_B), (Role::Admin, ADMIN)];
        for (n, (role, key)) in roles.into_iter().enumerate() {
            let owner = open(&store, None, &env);
            keys::add(&owner, role, &format!("client {n}"), Unlock::KeyFile(&key)).unwrap();
        }
        let mut objects = Objects::default();
        for name in store.names() {
            let bytes = store.get(&name, u64::MAX).unwrap();
            objects.put(&name, bytes.into(), Sure::All);
        }
        objects
    })
}

/// Runs one seed, with its files below `place`.
pub fn run(class: Class, seed: u64, place: &Path) -> Outcome {
    let mut rng = Rng::new(seed, 0);
    let mix = Mix::draw(&mut rng);
    let place = tempfile::tempdir_in(place).unwrap();
    let shared = Arc::new(Shared {
        seed,
        place: place.path().to_owned(),
        streams: class != Class::Directories,
        record: Mutex::new(Record::default()),
        findings: Mutex::default(),
    });
    let casts = cast(&mut rng);
    let last_power_loss = mix.rate(Fault::PowerLoss) > 0 && rng.chance(5_000);
    let verify_rng = rng.next();
    let world = World::new(beginning().clone(), casts.len(), mix, FUTURE_NS, rng);
    std::thread::scope(|scope| {
        for (me, (key, steps, operations)) in casts.into_iter().enumerate() {
            let store = SimStore { world: world.clone(), client: me };
            let client = Client::new(shared.clone(), store, key, steps, operations);
            scope.spawn(move || client.run());
        }
    });
    let mut state = world.lock();
    state.deliver_rest();
    if last_power_loss {
        state.lose_power();
    }
    let store = oracle::quiet(&state.objects);
    oracle::verify(&store, &shared, state.now, &mut Rng::new(verify_rng, 0));
    let findings = std::mem::take(&mut *shared.findings.lock().unwrap());
    Outcome {
        findings,
        digest: state.digest(),
        counts: state.counts,
        committed: shared.record().backups.iter().filter(|b| b.committed.is_some()).count(),
        steps: state.trace.len(),
        tail: state.tail(1_000),
    }
}

/// The clients of a seed: their keys, what they do, and how often.
fn cast(rng: &mut Rng) -> Vec<(KeyFileSecret, Vec<Step>, usize)> {
    let keys = [KEY, WRITER_A, WRITER_B];
    let mut casts = Vec::new();
    for _ in 0..2 + rng.below(2) {
        let key = rng.pick(&keys).clone();
        casts.push((key, vec![Step::Backup], 1 + rng.below(3)));
    }
    if rng.chance(6_000) {
        casts.push((KEY, vec![Step::Restore, Step::Restore, Step::Check], 1 + rng.below(3)));
    }
    casts
}
