//! Garbage is freed in the end: from any state on, if everybody crashes and one pruner then runs
//! undisturbed, a few generations leave nothing that no live snapshot needs.
//!
//! This is checked in each state by running that pruner to quiescence with the same functions that
//! the model's pruners decide with; it needs no fairness argument and no cycles, because such a run
//! is deterministic and its length is bounded.

use crate::choose::{Plan, View};
use crate::protocol::Protocol;
use crate::rules::Rule;
use crate::state::{
    GENERATIONS, Names, PACKS, RETIRED, RUNS, SESSIONS, SNAPSHOTS, State, bit, bits, readable,
};

/// Generations that must suffice: one that was left undecided, one for what it did not name, one
/// for runs that this emptied.
pub const GENERATIONS_MAX: usize = 3;

impl Protocol {
    /// How many generations it takes, or what goes wrong.
    pub fn quiesce(&self, state: &State) -> Result<usize, &'static str> {
        let mut state = *state;
        let mut gone = self.verdicts(&state, state.have[RETIRED]);
        self.carry_out(&mut state, gone);
        let newest =
            (0..GENERATIONS).rev().find(|&g| state.have[RETIRED] & (bit(g) | bit(4 + g)) != 0);
        let mut left = newest.filter(|&g| !state.has(RETIRED, 4 + g));
        for generations in 0.. {
            // Whoever crashed is silent for long by now, and is fenced even if there is nothing
            // else to do.
            if self.on(Rule::FencesIdle) || generations > 0 {
                state.tombstones |= state.have[SESSIONS] & !state.closed();
            }
            let view = self.view(&state, gone);
            let proposal = match left.take() {
                Some(g) => state.generations[g].proposal,
                None => {
                    let plans = self.plans(&state, &view).ok_or("a live chunk is nowhere")?;
                    match plans.iter().find(|p| !p.run && p.moved == 0) {
                        Some(Plan { names, .. }) => *names,
                        None => return self.clean(&state, &view).map(|()| generations),
                    }
                }
            };
            if generations == GENERATIONS_MAX {
                return Err("still garbage after all generations");
            }
            let names = self.verdict(&state, &view, proposal).ok_or("a live chunk is nowhere")?;
            for (all, more) in gone.iter_mut().zip(names) {
                *all |= more;
            }
            self.carry_out(&mut state, names);
        }
        unreachable!("the loop returns")
    }

    fn carry_out(&self, state: &mut State, names: Names) {
        for kind in [PACKS, RUNS, SNAPSHOTS, SESSIONS] {
            state.have[kind] &= !names[kind] & !state.doomed[kind];
        }
    }

    fn view(&self, state: &State, gone: Names) -> View {
        let snapshots = state.have[SNAPSHOTS] & !gone[SNAPSHOTS];
        let live = snapshots & (!state.forgotten | state.held());
        View {
            packs: state.have[PACKS],
            runs: state.have[RUNS],
            need: bits(live).fold(0, |all, s| all | state.needs[s]),
            live,
            dead: snapshots & !live,
            closed: state.closed(),
            open: state.have[SESSIONS] & !state.closed(),
            sessions: state.have[SESSIONS],
            damaged: state.damaged,
            gone,
        }
    }

    /// Each pack is needed, each run names one, no dead snapshot is left.
    fn clean(&self, state: &State, view: &View) -> Result<(), &'static str> {
        for pack in bits(view.packs) {
            let others =
                state.frames(view.packs & !bit(pack) & state.rows(view.runs) & !view.damaged);
            if view.need & !readable(others) == 0 {
                return Err("a pack that nobody needs is left");
            }
        }
        if bits(view.runs).any(|r| state.run[r] & view.packs == 0) {
            return Err("a run of deleted packs is left");
        }
        if view.dead != 0 {
            return Err("a dead snapshot is left");
        }
        Ok(())
    }
}
