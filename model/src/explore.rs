//! A breadth-first search of its own for the large configurations: stateright's keeps the path to every pending state and does not stop by time
//! with one thread. The same model, the same properties; it keeps 8 bytes a state and no paths.

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
    /// Also run every n-th state to quiescence; 0: none.
    pub liveness_every: u64,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub states: u64,
    pub unique: usize,
    pub depth: usize,
    pub complete: bool,
    pub loss: Option<Box<State>>,
    pub stuck: Option<(Box<State>, String)>,
    pub quiesced: u64,
}

pub fn explore(protocol: &Protocol, bounds: Bounds) -> Outcome {
    let begin = Instant::now();
    let mut outcome = Outcome::default();
    let mut known: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    let mut frontier = protocol.init_states();
    let mut steps = Vec::new();
    let mut expanded = 0u64;
    while !frontier.is_empty() {
        let mut next_frontier = Vec::new();
        for state in std::mem::take(&mut frontier) {
            steps.clear();
            protocol.steps(&state, &mut steps);
            for step in &steps {
                outcome.states += 1;
                if !known.insert(step.next.fingerprint()) {
                    continue;
                }
                if protocol.losses(&step.next) != 0 {
                    outcome.loss = Some(Box::new(step.next));
                }
                next_frontier.push(step.next);
            }
            outcome.unique = known.len();
            expanded += 1;
            let late = expanded.is_multiple_of(4096) && begin.elapsed() > bounds.time;
            if outcome.loss.is_some() || late || outcome.unique > bounds.states_max {
                return outcome;
            }
        }
        outcome.depth += 1;
        frontier = next_frontier;
    }
    outcome.complete = true;
    outcome
}
