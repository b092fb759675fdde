//! A breadth-first search of its own for the large configurations: stateright's keeps the path to
//! every pending state and does not stop by time with one thread. The same model, the same
//! properties; it keeps 8 bytes a state and no paths.

use crate::protocol::{Protocol, Step};
use crate::state::State;
use stateright::Model;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

/// Fingerprints are hashes already.
#[derive(Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub time: Duration,
    pub states_max: usize,
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps taken, and different states among those they led to.
    pub steps: u64,
    pub states: usize,
    /// Steps from the start to the deepest level that was explored in full.
    pub depth: usize,
    /// Nothing is left to explore.
    pub complete: bool,
    pub fault: Option<(Box<State>, &'static str)>,
    /// What led to the fault, of a random run.
    pub way: Vec<String>,
}

pub fn explore(protocol: &Protocol, bounds: Bounds) -> Outcome {
    let begin = Instant::now();
    let properties = protocol.properties();
    let mut outcome = Outcome::default();
    let mut known: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    let mut frontier = protocol.init_states();
    known.extend(frontier.iter().map(State::fingerprint));
    let mut steps = Vec::new();
    let mut expanded = 0u64;
    while !frontier.is_empty() {
        let mut next_frontier = Vec::new();
        for state in std::mem::take(&mut frontier) {
            steps.clear();
            protocol.steps(&state, &mut steps);
            for step in &steps {
                outcome.steps += 1;
                if !known.insert(step.next.fingerprint()) {
                    continue;
                }
                if let Some(p) = properties.iter().find(|p| !(p.condition)(protocol, &step.next)) {
                    outcome.fault = Some((Box::new(step.next), p.name));
                }
                next_frontier.push(step.next);
            }
            outcome.states = known.len();
            expanded += 1;
            let late = expanded.is_multiple_of(4096) && begin.elapsed() > bounds.time;
            if outcome.fault.is_some() || late || outcome.states > bounds.states_max {
                return outcome;
            }
        }
        outcome.depth += 1;
        frontier = next_frontier;
    }
    outcome.complete = true;
    outcome
}

/// Random runs from the start, for configurations whose deep states no search reaches. First a
/// process is chosen, then one of its steps; now and then one falls asleep for up to 100 steps.
/// `states` counts runs, `depth` is the longest.
pub fn walk(protocol: &Protocol, bounds: Bounds, seed: u64) -> Outcome {
    const STEPS_MAX: usize = 400;
    let begin = Instant::now();
    let properties = protocol.properties();
    let mut outcome = Outcome::default();
    let mut random = seed | 1;
    let mut steps = Vec::new();
    let mut asleep = Vec::new();
    while outcome.fault.is_none()
        && begin.elapsed() < bounds.time
        && outcome.states < bounds.states_max
    {
        let mut state = protocol.config.start();
        let mut length = 0;
        outcome.way.clear();
        asleep.clear();
        while length < STEPS_MAX && outcome.fault.is_none() {
            steps.clear();
            protocol.steps(&state, &mut steps);
            steps.retain(|step| step.next != state);
            let Some((who, number)) = awake(&steps, &mut asleep, length, &mut random) else {
                break;
            };
            steps.retain(|step| step.who == who && step.number == number);
            let step = pick(&steps, &mut random).expect("it has one");
            outcome.way.push(step.to_string());
            state = step.next;
            length += 1;
            if let Some(p) = properties.iter().find(|p| !(p.condition)(protocol, &state)) {
                outcome.fault = Some((Box::new(state), p.name));
            }
        }
        outcome.steps += length as u64;
        outcome.states += 1;
        outcome.depth = outcome.depth.max(length);
    }
    outcome
}

type Process = (&'static str, u8);

/// Chooses who moves. If all sleep, all wake up.
fn awake(
    steps: &[Step],
    asleep: &mut Vec<(Process, usize)>,
    now: usize,
    random: &mut u64,
) -> Option<Process> {
    let mut processes: Vec<Process> = steps.iter().map(|s| (s.who, s.number)).collect();
    processes.dedup();
    asleep.retain(|(process, until)| *until > now && processes.contains(process));
    if asleep.len() == processes.len() {
        asleep.clear();
    }
    processes.retain(|process| !asleep.iter().any(|(other, _)| other == process));
    let chosen = *pick(&processes, random)?;
    if *pick(&[true, false, false, false, false, false, false, false], random)? {
        let long = *random as usize % 100;
        asleep.push((chosen, now + long));
    }
    Some(chosen)
}

/// xorshift64*, Vigna 2016.
fn pick<'a, T>(all: &'a [T], random: &mut u64) -> Option<&'a T> {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    let value = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
    all.get((value as usize).checked_rem(all.len())?)
}
