//! A breadth-first search of its own for the large configurations: stateright's keeps the path to
//! every pending state and does not stop by time with one thread. The same model, the same
//! properties; it keeps 8 bytes a state and no paths.

use crate::protocol::Protocol;
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
