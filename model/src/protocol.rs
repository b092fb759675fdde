//! The protocol as a `stateright` model: which steps are possible in a state, and what must hold in
//! every state.
//!
//! A crash needs no step of its own: every interleaving in which a process never moves again is
//! explored, and nothing waits for a process but the verdict for open sessions, which may be fenced
//! at any time.

use crate::config::{Config, Drop};
use crate::pruner;
use crate::rules::Rule;
use crate::state::{
    GENERATIONS, Look, Names, PACKS, PROCESSES, RETIRED, RUNS, SESSIONS, SNAPSHOTS, State, bit,
    bits, readable, subsets,
};
use stateright::{Model, Property};
use std::fmt::{self, Display, Formatter};

pub struct Protocol {
    pub config: Config,
}

/// What the first step of a listing is called, by kind.
const BEGINS: [&str; 5] =
    ["lists packs", "lists runs", "lists snapshots", "lists sessions", "lists retired"];

/// One store call of one process, or something that happens to the store.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub who: &'static str,
    pub number: u8,
    pub what: &'static str,
    pub detail: u16,
    pub next: State,
}

impl Display for Step {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{} {} {} {:#b}", self.who, self.number, self.what, self.detail)
    }
}

pub struct Steps<'a> {
    pub out: &'a mut Vec<Step>,
    pub who: &'static str,
    pub number: usize,
}

impl Steps<'_> {
    pub fn push(&mut self, what: &'static str, detail: impl Into<u16>, next: State) {
        let number = self.number as u8;
        self.out.push(Step { who: self.who, number, what, detail: detail.into(), next });
    }
}

impl Protocol {
    pub fn on(&self, rule: Rule) -> bool {
        self.config.rules.has(rule)
    }

    /// Objects of a kind that may be there or not, however often one looks: with `flicker`, all
    /// that a verdict has named. That stands for deletes by anyone at any time, for late duplicates
    /// of any number of puts and deletes, and for dropped proposals.
    pub fn flickering(&self, state: &State, kind: usize) -> u8 {
        match kind {
            _ if !self.config.flicker => 0,
            RETIRED if self.config.drop == Drop::Nothing => 0,
            RETIRED => {
                let decided = state.have[RETIRED] >> 4;
                let next_decided = if self.on(Rule::NewestStays) { decided >> 1 } else { decided };
                state.have[RETIRED] & decided & next_decided
            }
            _ => state.doomed[kind],
        }
    }

    /// A listing by the process with this look: atomic, or begun and ended in two steps between
    /// which objects come and go. `end` is called with each set of objects that it may have seen,
    /// less those that it ignores anyway.
    pub fn list(
        &self,
        state: &State,
        (look, kind, ignored): (usize, usize, u8),
        steps: &mut Steps<'_>,
        mut end: impl FnMut(&mut Steps<'_>, State, u8),
    ) {
        let mut next = *state;
        let mut must = state.have[kind] & !self.flickering(state, kind);
        let mut may = state.have[kind];
        if self.config.split_lists {
            if state.looks[look].kind == 0 {
                let (must, may) = (must & !ignored, may & !ignored);
                next.looks[look] = Look { kind: kind as u8 + 1, must, may };
                return steps.push(BEGINS[kind], may, next);
            }
            must &= state.looks[look].must;
            may = state.looks[look].may;
            next.looks[look] = Look::default();
        }
        for more in subsets(may & !must & !ignored) {
            end(steps, next, must & !ignored | more);
        }
    }

    /// Names that count as deleted for whoever saw these objects in `retired/`.
    pub fn verdicts(&self, state: &State, seen: u8) -> Names {
        let mut names = Names::default();
        for g in 0..GENERATIONS {
            let generation = &state.generations[g];
            if seen & bit(4 + g) != 0 && !generation.dropped {
                for (all, more) in names.iter_mut().zip(generation.verdict) {
                    *all |= more;
                }
            }
        }
        names
    }

    /// Snapshots that somebody counts on.
    pub fn promised(state: &State) -> u8 {
        let held = state.holds_promised & !state.released;
        (state.committed | state.have[SNAPSHOTS]) & !state.forgotten | state.committed & held
    }

    /// Snapshots (of those) that miss something when only these packs count.
    pub fn broken(state: &State, snapshots: u8, packs: u8) -> u8 {
        let found = readable(state.frames(packs & state.rows(state.have[RUNS])));
        bits(snapshots)
            .filter(|&s| !state.has(SNAPSHOTS, s) || state.needs[s] & !found != 0)
            .fold(0, |all, s| all | bit(s))
    }

    /// What is surely there.
    pub fn surely(&self, state: &State) -> State {
        let mut sure = *state;
        for kind in [PACKS, RUNS, SNAPSHOTS, SESSIONS] {
            sure.have[kind] &= !self.flickering(state, kind);
        }
        sure
    }

    /// Packs that are retired, or about to be by a pruner that has read all it will read.
    pub fn leaving(state: &State) -> u8 {
        let judged = state.pruners.iter().filter(|p| p.pc == pruner::DECIDE);
        judged.fold(state.doomed[PACKS], |all, p| all | p.verdict[PACKS])
    }

    pub fn losses(&self, state: &State) -> u8 {
        let sure = self.surely(state);
        let sound = sure.have[PACKS] & !state.damaged;
        Self::broken(&sure, Self::promised(state), sound) & !state.excused
    }

    fn settle(&self, state: &mut State) {
        if state.excused != 0 {
            let sure = self.surely(state);
            let undecided = state.have[RETIRED] & !(state.have[RETIRED] >> 4) & 15;
            let proposed = bits(undecided).map(|g| state.generations[g].proposal[PACKS]);
            let leaving = proposed.fold(Self::leaving(state), |all, packs| all | packs);
            let sound = sure.have[PACKS] & !state.damaged & !leaving;
            state.excused &= Self::broken(&sure, state.excused, sound);
        }
        for g in 0..GENERATIONS {
            let generation = &mut state.generations[g];
            if !self.config.flicker
                && self.config.drop != Drop::Nothing
                && state.have[RETIRED] & bit(4 + g) != 0
            {
                let kinds = [PACKS, RUNS, SNAPSHOTS, SESSIONS];
                generation.carried_out |=
                    kinds.iter().all(|&k| generation.verdict[k] & state.have[k] == 0);
            }
        }
        if (state.pruners[1], state.looks[3]) < (state.pruners[0], state.looks[2]) {
            state.pruners.swap(0, 1);
            state.looks.swap(2, 3);
        }
        let [first, second] = self.config.writers;
        if first == second
            && (state.writers[1], state.looks[1]) < (state.writers[0], state.looks[0])
        {
            state.writers.swap(0, 1);
            state.looks.swap(0, 1);
        }
    }

    pub fn steps(&self, state: &State, out: &mut Vec<Step>) {
        for number in 0..PROCESSES {
            if self.config.writers[number] != 0 {
                self.writer(state, number, &mut Steps { out, who: "writer", number });
            }
        }
        for number in 0..self.config.pruners {
            self.pruner(state, number, &mut Steps { out, who: "pruner", number });
        }
        if self.config.reader {
            self.reader(state, &mut Steps { out, who: "reader", number: 0 });
        }
        self.world(state, &mut Steps { out, who: "world", number: 0 });
        for step in out.iter_mut() {
            self.settle(&mut step.next);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.config.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        self.steps(state, actions);
    }

    fn next_state(&self, _: &State, step: Step) -> Option<State> {
        Some(step.next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties =
            vec![Property::<Self>::always("no live snapshot misses a chunk", |model, state| {
                model.losses(state) == 0
            })];
        if self.config.reader {
            properties
                .push(Property::<Self>::always("a reader finds what is there", |_, state| {
                    !state.reader.failed
                }));
        }
        if self.config.liveness {
            properties.push(Property::<Self>::always("garbage can be freed", |model, state| {
                state.excused != 0 || model.quiesce(state).is_ok()
            }));
        }
        properties
    }
}
