//! The world of one seed: the objects, the clock, the faults, and whose turn it is. Each client runs real engine code in
//! a thread of its own, but only the one that has the turn runs; at every call to the store the turn may pass on. All
//! chance comes from the seed and is drawn by whoever has the turn, so the same seed gives the same trace.

use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use strongroom::env::TimeNs;
use strongroom::store::ObjectName;

use super::faults::{Call, Counts, FAULTS, Fault, Mix};
use super::objects::{ALL, Objects, SOME, Sure};
use super::rng::Rng;

/// A seed that takes more store calls than this does not end.
const STEPS_MAX: u64 = 100_000;
const SECOND_NS: TimeNs = 1_000_000_000;
pub const HOUR_NS: TimeNs = 3600 * SECOND_NS;

/// What a client's thread unwinds with when its process dies.
pub struct Died;

/// How the turn passes on.
#[derive(Clone, Debug)]
enum Policy {
    /// At each call, with this chance in 10,000, to anybody.
    Uniform(u32),
    /// The highest rank runs until it ends or, with this chance, falls behind all others.
    Ranks(u32),
    /// One after the other.
    InTurn,
}

#[derive(Debug)]
struct Turn {
    /// Has it more operations to do?
    alive: bool,
    rank: u64,
    /// Not chosen before this step, as long as anybody else can be.
    stalled_until: u64,
    /// Dies at its next call.
    doomed: bool,
    /// The power went since it last began an operation.
    power_lost: bool,
    /// It was given an error in the operation under way.
    faulted: bool,
}

/// A put or delete that arrives late, or again.
struct Letter {
    due: u64,
    name: ObjectName,
    /// `None`: a delete.
    bytes: Option<Arc<[u8]>>,
}

/// An object that rotted, and what it was.
pub struct Rotten {
    pub name: ObjectName,
    pub was: Arc<[u8]>,
    /// It is not there at all any more.
    pub vanished: bool,
}

/// One line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub step: u64,
    pub client: usize,
    pub what: String,
}

pub struct State {
    pub rng: Rng,
    pub objects: Objects,
    pub now: TimeNs,
    pub counts: Counts,
    pub trace: Vec<Event>,
    pub rotten: Vec<Rotten>,
    mix: Mix,
    policy: Policy,
    turns: Vec<Turn>,
    running: usize,
    step: u64,
    letters: Vec<Letter>,
}

pub struct World {
    state: Mutex<State>,
    wake: Vec<Condvar>,
}

impl World {
    pub fn new(objects: Objects, clients: usize, mix: Mix, now: TimeNs, mut rng: Rng) -> Arc<Self> {
        let policy = match rng.below(3) {
            _ if mix.is_planned() => Policy::InTurn,
            0 => Policy::Uniform(*rng.pick(&[500, 2_000, 7_000])),
            1 => Policy::Uniform(10_000),
            _ => Policy::Ranks(*rng.pick(&[50, 200, 600])),
        };
        let turn = |rng: &mut Rng| Turn {
            alive: true,
            rank: rng.next() >> 1,
            stalled_until: 0,
            doomed: false,
            power_lost: false,
            faulted: false,
        };
        let turns = (0..clients).map(|_| turn(&mut rng)).collect();
        let state = State {
            rng,
            objects,
            now,
            counts: Counts::default(),
            trace: Vec::new(),
            rotten: Vec::new(),
            mix,
            policy,
            turns,
            running: 0,
            step: 0,
            letters: Vec::new(),
        };
        let wake = (0..clients).map(|_| Condvar::new()).collect();
        Arc::new(Self { state: Mutex::new(state), wake })
    }

    /// A client that dies does so without holding this lock.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client's thread begins: it waits for its first turn.
    pub fn begin(&self, me: usize) {
        drop(self.wait(me, self.lock()));
    }

    /// A client's thread ends.
    pub fn end(&self, me: usize) {
        let mut state = self.lock();
        state.turns[me].alive = false;
        state.note(me, || "ends".to_owned());
        if state.turns.iter().any(|turn| turn.alive) {
            let next = state.next(me);
            state.running = next;
            self.wake[next].notify_one();
        }
    }

    /// Between two operations: a new process, with a clean slate.
    pub fn between(&self, me: usize) -> (MutexGuard<'_, State>, Between) {
        let mut state = self.lock();
        let fault = state.strike(me, Call::Between, "");
        let (clock, cache_lost) =
            (fault == Some(Fault::ClockJump), fault == Some(Fault::CacheLost));
        if clock {
            let hours = *state.rng.pick(&[1, 20, 30, 100]);
            state.now += hours * HOUR_NS;
        }
        if fault == Some(Fault::Rot) {
            state.rot();
        }
        let mut state = self.pass(me, state);
        let turn = &mut state.turns[me];
        let power_lost = std::mem::take(&mut turn.power_lost);
        (turn.doomed, turn.faulted) = (false, false);
        state.now += SECOND_NS;
        (state, Between { cache_lost, power_lost })
    }

    /// A call to the store: others may have their turn first, and the client may die here. The fault that strikes it.
    pub fn call(
        &self,
        me: usize,
        call: Call,
        name: &str,
    ) -> (MutexGuard<'_, State>, Option<Fault>) {
        let mut state = self.lock();
        if std::thread::panicking() {
            // It is dead already; what its destructors do reaches nobody.
            return (state, Some(Fault::Fail));
        }
        assert!(state.step < STEPS_MAX, "it does not end");
        state.deliver();
        let fault = state.strike(me, call, name);
        if fault == Some(Fault::Crash) {
            state.turns[me].doomed = true;
        }
        let mut state = self.pass(me, state);
        if state.turns[me].doomed {
            state.note(me, || format!("dies before {call:?} {name}"));
            drop(state);
            resume_unwind(Box::new(Died));
        }
        state.note(me, || match fault {
            Some(fault) => format!("{call:?} {name}: {fault:?}"),
            None => format!("{call:?} {name}"),
        });
        let gives_error =
            [Fault::Fail, Fault::Full, Fault::AppliedButFailed, Fault::Late].map(Some);
        state.turns[me].faulted |= gives_error.contains(&fault);
        (state, fault)
    }

    /// Was the client given an error since its operation began?
    pub fn faulted(&self, me: usize) -> bool {
        self.lock().turns[me].faulted
    }

    fn pass<'w>(&'w self, me: usize, mut state: MutexGuard<'w, State>) -> MutexGuard<'w, State> {
        let next = state.next(me);
        if next == me {
            return state;
        }
        state.running = next;
        self.wake[next].notify_one();
        self.wait(me, state)
    }

    fn wait<'w>(&'w self, me: usize, mut state: MutexGuard<'w, State>) -> MutexGuard<'w, State> {
        while state.running != me {
            state = self.wake[me].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

/// What happened to a client since its last operation.
pub struct Between {
    pub cache_lost: bool,
    pub power_lost: bool,
}

impl State {
    pub fn note(&mut self, client: usize, what: impl FnOnce() -> String) {
        self.trace.push(Event { step: self.step, client, what: what() });
    }

    pub fn rate(&self, fault: Fault) -> u32 {
        self.mix.rate(fault)
    }

    /// Puts or deletes `name` some time later, whatever has happened by then.
    pub fn post(&mut self, name: &ObjectName, bytes: Option<Arc<[u8]>>) {
        let delay = *self.rng.pick(&[3, 30, 300, 1_000]);
        let due = self.step + 1 + self.rng.below(delay) as u64;
        self.letters.push(Letter { due, name: name.clone(), bytes });
    }

    /// All that is still under way arrives now, or never.
    pub fn deliver_rest(&mut self) {
        for letter in std::mem::take(&mut self.letters) {
            if self.rng.chance(5_000) {
                self.arrive(letter);
            }
        }
    }

    pub fn lose_power(&mut self) {
        self.counts[Fault::PowerLoss as usize] += 1;
        // By plan all is lost that may be.
        let chances = if matches!(self.policy, Policy::InTurn) { ALL } else { SOME };
        let (lost, back) = self.objects.lose_power(&mut self.rng, chances);
        // What was under way to the host is lost with it.
        self.letters.clear();
        for turn in &mut self.turns {
            (turn.doomed, turn.power_lost) = (true, true);
        }
        let nobody = self.turns.len();
        self.note(nobody, || format!("power loss: lost {lost:?}, back {back:?}"));
    }

    /// Some object that carries data or says where it is.
    fn rot(&mut self) {
        let folder = *self.rng.pick(&["packs", "packs", "packs", "index", "snapshots", "seals"]);
        let names = self.objects.after(folder, None, usize::MAX);
        if names.is_empty() {
            return;
        }
        let name = self.rng.pick(&names).0.clone();
        let was = self.objects.get(&name).expect("just listed").clone();
        let mut bytes = was.to_vec();
        let at = self.rng.below(bytes.len());
        let vanished = match self.rng.below(4) {
            0 => true,
            1 => {
                bytes.truncate(at);
                false
            }
            _ => {
                bytes[at] ^= 1 << self.rng.below(8);
                false
            }
        };
        self.objects.replace(&name, (!vanished).then(|| bytes.into()));
        let nobody = self.turns.len();
        self.note(nobody, || format!("{name} rots at {at}, vanished: {vanished}"));
        self.rotten.push(Rotten { name, was, vanished });
    }

    fn deliver(&mut self) {
        if self.letters.iter().all(|letter| letter.due > self.step) {
            return;
        }
        let step = self.step;
        let (due, later) = std::mem::take(&mut self.letters)
            .into_iter()
            .partition(|letter: &Letter| letter.due <= step);
        self.letters = later;
        let due: Vec<Letter> = due;
        due.into_iter().for_each(|letter| self.arrive(letter));
    }

    fn arrive(&mut self, letter: Letter) {
        let nobody = self.turns.len();
        let Letter { name, bytes, .. } = letter;
        let kind = if bytes.is_some() { "put" } else { "delete" };
        self.note(nobody, || format!("late {kind} of {name}"));
        match bytes {
            Some(bytes) => drop(self.objects.put(&name, bytes, Sure::All)),
            None => self.objects.delete(&name),
        }
    }

    /// Counts the step, and draws what strikes it.
    fn strike(&mut self, me: usize, call: Call, name: &str) -> Option<Fault> {
        self.step += 1;
        let fault = self.mix.strike(&mut self.rng, call, name)?;
        match fault {
            Fault::PowerLoss => {
                self.lose_power();
                return None;
            }
            Fault::Stall => {
                let steps = *self.rng.pick(&[20, 100, 500, 2_000]);
                self.turns[me].stalled_until = self.step + self.rng.below(steps) as u64;
                self.counts[Fault::Stall as usize] += 1;
                return None;
            }
            _ => self.counts[fault as usize] += 1,
        }
        Some(fault)
    }

    /// Whose turn it is now. There is somebody alive.
    fn next(&mut self, me: usize) -> usize {
        let alive: Vec<usize> =
            (0..self.turns.len()).filter(|&client| self.turns[client].alive).collect();
        let free: Vec<usize> = (alive.iter().copied())
            .filter(|&client| self.turns[client].stalled_until <= self.step)
            .collect();
        let candidates = if free.is_empty() { alive } else { free };
        match self.policy {
            Policy::InTurn => candidates[0],
            Policy::Uniform(chance) => {
                let stays = candidates.contains(&me) && !self.rng.chance(chance);
                if stays { me } else { *self.rng.pick(&candidates) }
            }
            Policy::Ranks(chance) => {
                if self.rng.chance(chance) {
                    // Ranks begin in the upper half; whoever falls behind comes last of all so far.
                    self.turns[me].rank = (1 << 62) - self.step;
                }
                *candidates
                    .iter()
                    .max_by_key(|&&client| self.turns[client].rank)
                    .expect("somebody is alive")
            }
        }
    }

    /// A digest of all that happened.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for event in &self.trace {
            hasher.update(&event.step.to_le_bytes()).update(&(event.client as u64).to_le_bytes());
            hasher.update(event.what.as_bytes()).update(b"\n");
        }
        hasher.finalize()
    }

    /// The last events, one a line.
    pub fn tail(&self, lines: usize) -> String {
        let from = self.trace.len().saturating_sub(lines);
        let line = |event: &Event| format!("{:6} [{}] {}\n", event.step, event.client, event.what);
        self.trace[from..].iter().map(line).collect()
    }
}

/// Names of the faults beside their counts, without those that never struck.
pub fn told(counts: &Counts) -> String {
    let struck = FAULTS.iter().filter(|fault| counts[**fault as usize] > 0);
    struck
        .map(|fault| format!("{fault:?} {}", counts[*fault as usize]))
        .collect::<Vec<_>>()
        .join(", ")
}
