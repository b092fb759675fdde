//! A pruner: read `retired/`, then decide the newest generation or propose the next one, again and
//! again (DESIGN 6.5).
//!
//! Deleting is no step of the pruner: what a published verdict names may be deleted at any time by
//! anyone (`world.rs`).

use crate::choose::View;
use crate::protocol::{Protocol, Steps};
use crate::rules::Rule;
use crate::state::{
    GENERATIONS, Look, Names, PACKS, PROCESSES, Pruner, RETIRED, RUNS, SESSIONS, SNAPSHOTS, State,
    bit, bits,
};

const IDLE: u8 = 0;
const SNAPSHOTS_READ: u8 = 1;
const HOLDS_READ: u8 = 2;
const PACKS_READ: u8 = 3;
const SESSIONS_READ: u8 = 4;
const RUNS_READ: u8 = 5;
const PUT_PACK: u8 = 6;
const PUT_RUN: u8 = 7;
const PROPOSE: u8 = 8;
const OPEN_READ: u8 = 9;
const WAIT: u8 = 10;
const SNAPSHOTS_AGAIN: u8 = 11;
const HOLDS_AGAIN: u8 = 12;
const RUNS_AGAIN: u8 = 13;
const PACKS_AGAIN: u8 = 14;
pub const DECIDE: u8 = 15;
const RETIRED_AGAIN: u8 = 16;

impl Protocol {
    /// Packs proposed by pruners that have read the snapshots again, or begun to, and miss this
    /// one.
    pub fn unseen(state: &State, snapshot: usize) -> u8 {
        let blind = |(pruner, look): &(&Pruner, &Look)| match pruner.pc {
            SNAPSHOTS_AGAIN => look.kind != 0 && look.must & bit(snapshot) == 0,
            HOLDS_AGAIN | RUNS_AGAIN | PACKS_AGAIN => pruner.live & bit(snapshot) == 0,
            _ => false,
        };
        let pruners = state.pruners.iter().zip(&state.looks[PROCESSES..]).filter(blind);
        pruners.fold(0, |all, (pruner, _)| all | pruner.plan[PACKS])
    }

    pub fn pruner(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        match pruner.pc {
            // It has seen that there is nothing to do any more: it does not even look.
            IDLE if pruner.generation as usize > GENERATIONS => {}
            IDLE => {
                let retired = (PROCESSES + number, RETIRED, 0);
                self.list(state, retired, steps, |steps, next, seen| {
                    self.turn(next, number, seen, steps);
                });
            }
            SNAPSHOTS_READ | SNAPSHOTS_AGAIN => self.read_snapshots(state, number, steps),
            HOLDS_READ | HOLDS_AGAIN => self.read_holds(state, number, steps),
            PACKS_READ | SESSIONS_READ | RUNS_READ => self.read_for_plan(state, number, steps),
            PUT_PACK | PUT_RUN => self.prepare(state, number, steps),
            PROPOSE => self.propose(state, number, steps),
            OPEN_READ => self.read_open(state, number, steps),
            WAIT if pruner.open & !state.closed() != 0 => {}
            WAIT => {
                let mut next = *state;
                let again = self.on(Rule::SecondRead) || pruner.need & 64 == 0;
                let pc = match again {
                    true if self.config.split_lists && self.on(Rule::RetiredReadAgain) => {
                        RETIRED_AGAIN
                    }
                    true => self.first_read(true),
                    false => self.copies_again(),
                };
                next.pruners[number] = Pruner { pc, open: 0, ..pruner };
                steps.push("waited for all", pruner.open, next);
            }
            // An atomic listing that showed the proposal has shown the verdicts before it.
            RETIRED_AGAIN => {
                let retired = (PROCESSES + number, RETIRED, 0);
                self.list(state, retired, steps, |steps, mut next, seen| {
                    let gone = self.verdicts(&next, seen);
                    let pruner = &mut next.pruners[number];
                    if self.on(Rule::VerdictGone) {
                        pruner.gone = gone;
                    }
                    pruner.pc = self.first_read(true);
                    steps.push("read retired again", seen, next);
                });
            }
            RUNS_AGAIN | PACKS_AGAIN => self.read_for_verdict(state, number, steps),
            _ => self.decide(state, number, steps),
        }
    }

    fn read_for_plan(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        let kind = match pruner.pc {
            PACKS_READ => PACKS,
            SESSIONS_READ => SESSIONS,
            _ => RUNS,
        };
        let which = (PROCESSES + number, kind, pruner.gone[kind]);
        self.list(state, which, steps, |steps, mut next, seen| {
            let pruner = &mut next.pruners[number];
            match kind {
                PACKS => {
                    (pruner.packs, pruner.pc) = (seen, SESSIONS_READ);
                    if self.on(Rule::DamagedNoCopy) {
                        pruner.damaged = next.damaged;
                    }
                    steps.push("listed packs", seen, next);
                }
                SESSIONS => {
                    (pruner.open, pruner.pc) = (seen, RUNS_READ);
                    steps.push("listed sessions", seen, next);
                }
                _ => self.make_plan(next, number, seen, steps),
            }
        });
    }

    /// Moved frames, then the run that describes them and the rows of merged runs.
    fn prepare(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        let mut next = *state;
        if pruner.pc == PUT_PACK {
            if let Some(pack) = next.put_pack(pruner.moved, 15) {
                let rows = pruner.rows | bit(pack);
                next.pruners[number] = Pruner { pc: PUT_RUN, rows, moved: 0, ..pruner };
                steps.push("puts moved pack", pack as u16, next);
            }
        } else if next.put_run(pruner.rows).is_some() {
            let pc = if self.on(Rule::MoveDurable) { PROPOSE } else { OPEN_READ };
            next.pruners[number] = Pruner { pc, rows: 0, run: false, ..pruner };
            steps.push("puts run of packs", pruner.rows, next);
        }
    }

    fn read_for_verdict(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        let lists_packs = pruner.pc == PACKS_AGAIN;
        let kind = if lists_packs { PACKS } else { RUNS };
        let which = (PROCESSES + number, kind, pruner.gone[kind]);
        self.list(state, which, steps, |steps, mut next, seen| {
            let pruner = &mut next.pruners[number];
            *(if lists_packs { &mut pruner.packs } else { &mut pruner.runs }) = seen;
            if lists_packs != self.config.packs_first {
                return self.judge(next, number, steps);
            }
            pruner.pc = if lists_packs { RUNS_AGAIN } else { PACKS_AGAIN };
            steps.push(if lists_packs { "listed packs" } else { "listed runs" }, seen, next);
        });
    }

    /// What `retired/` says: decide the newest generation, or propose the next.
    fn turn(&self, mut next: State, number: usize, seen: u8, steps: &mut Steps<'_>) {
        let newest = (0..GENERATIONS).rev().find(|&g| seen & (bit(g) | bit(4 + g)) != 0);
        let gone = self.verdicts(&next, seen);
        let gone = if self.on(Rule::VerdictGone) { gone } else { Names::default() };
        let fresh = Pruner { gone, ..Pruner::default() };
        if let Some(g) = newest.filter(|&g| seen & bit(4 + g) == 0) {
            let plan = next.generations[g].proposal;
            let generation = g as u8;
            let mut decides = next;
            decides.pruners[number] = Pruner { pc: OPEN_READ, generation, plan, ..fresh };
            steps.push("decides generation", generation + 1, decides);
            if self.on(Rule::OneAtATime) {
                return;
            }
        }
        let generation = newest.map_or(0, |g| g as u8 + 1);
        next.pruners[number] = if (generation as usize) < self.config.generations {
            Pruner { pc: self.first_read(false), generation, ..fresh }
        } else {
            Pruner { generation: GENERATIONS as u8 + 1, ..Pruner::default() }
        };
        steps.push("starts generation", generation + 1, next);
    }

    fn first_read(&self, again: bool) -> u8 {
        let holds_first = self.config.holds && !self.on(Rule::ForgottenBeforeHolds);
        match (again, holds_first) {
            (false, false) => SNAPSHOTS_READ,
            (false, true) => HOLDS_READ,
            (true, false) => SNAPSHOTS_AGAIN,
            (true, true) => HOLDS_AGAIN,
        }
    }

    fn copies_again(&self) -> u8 {
        if self.config.packs_first { PACKS_AGAIN } else { RUNS_AGAIN }
    }

    fn read_snapshots(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let look = PROCESSES + number;
        let pruner = state.pruners[number];
        let ignored = pruner.gone[SNAPSHOTS];
        self.list(state, (look, SNAPSHOTS, ignored), steps, |steps, mut next, seen| {
            let again = pruner.pc == SNAPSHOTS_AGAIN;
            let forgotten = next.forgotten;
            let held = pruner.live;
            // Kept for the next step: `live` all that are there, `dead` what is forgotten.
            next.pruners[number] = Pruner { live: seen, dead: forgotten & seen, ..pruner };
            next.pruners[number].closed = seen | next.tombstones | forgotten;
            if self.config.holds && self.on(Rule::ForgottenBeforeHolds) {
                next.pruners[number].pc = if again { HOLDS_AGAIN } else { HOLDS_READ };
            } else {
                self.mark(&mut next, number, held);
            }
            steps.push("read snapshots", seen, next);
        });
    }

    /// Holds are read after the forgotten records (or, with that rule off, before: then this step
    /// comes first).
    fn read_holds(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let mut next = *state;
        let skips = state.pruners[number].pc == HOLDS_AGAIN && !self.on(Rule::HoldsReadAgain);
        let held = if skips { 0 } else { state.held() };
        if self.on(Rule::ForgottenBeforeHolds) {
            self.mark(&mut next, number, held);
        } else {
            let again = state.pruners[number].pc == HOLDS_AGAIN;
            next.pruners[number].pc = if again { SNAPSHOTS_AGAIN } else { SNAPSHOTS_READ };
            next.pruners[number].live = held;
        }
        steps.push("read holds", held, next);
    }

    fn mark(&self, next: &mut State, number: usize, held: u8) {
        let pruner = next.pruners[number];
        let again = matches!(pruner.pc, SNAPSHOTS_AGAIN | HOLDS_AGAIN);
        let unnamed = again && self.on(Rule::UnnamedLives);
        let unnamed = if unnamed { !pruner.plan[SNAPSHOTS] } else { 0 };
        let live = pruner.live & (!pruner.dead | held | unnamed);
        let need = bits(live).fold(0, |all, s| all | next.needs[s]);
        let dead = pruner.live & !live;
        next.pruners[number] = match pruner.pc {
            SNAPSHOTS_READ | HOLDS_READ => {
                let need = if self.on(Rule::SecondRead) { need } else { need | 64 };
                Pruner { pc: PACKS_READ, need, live, dead, ..pruner }
            }
            _ => Pruner { pc: self.copies_again(), need, live, dead: 0, closed: 0, ..pruner },
        };
    }

    fn make_plan(&self, next: State, number: usize, runs: u8, steps: &mut Steps<'_>) {
        let pruner = next.pruners[number];
        let view = View {
            packs: pruner.packs,
            runs,
            need: pruner.need & 3,
            live: pruner.live,
            dead: pruner.dead,
            closed: pruner.closed,
            open: pruner.open & !pruner.closed,
            sessions: pruner.open,
            damaged: pruner.damaged,
            gone: pruner.gone,
        };
        let give_up = |mut state: State| {
            state.pruners[number] = Pruner::default();
            state
        };
        let Some(plans) = self.plans(&next, &view) else {
            return steps.push("stops: a live chunk is nowhere", 0u8, give_up(next));
        };
        if plans.is_empty() {
            return steps.push("has nothing to propose", 0u8, give_up(next));
        }
        let late_put = |run| if run { PUT_RUN } else { PROPOSE };
        for plan in plans {
            let mut next = next;
            let keep_need = !self.on(Rule::SecondRead);
            let pc = match () {
                () if !self.on(Rule::MoveDurable) => PROPOSE,
                () if plan.moved != 0 => PUT_PACK,
                () => late_put(plan.run),
            };
            next.pruners[number] = Pruner {
                pc,
                generation: pruner.generation,
                gone: pruner.gone,
                plan: plan.names,
                moved: plan.moved,
                rows: plan.rows,
                run: plan.run,
                need: if keep_need { pruner.need } else { 0 },
                live: if keep_need { pruner.live } else { 0 },
                open: if self.on(Rule::SessionsAfterProposal) { 0 } else { view.open },
                damaged: if self.on(Rule::DamageReadAgain) { 0 } else { pruner.damaged },
                ..Pruner::default()
            };
            steps.push("plans to retire packs", plan.names[PACKS], next);
        }
    }

    fn propose(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        let g = pruner.generation as usize;
        let mut next = *state;
        if state.has(RETIRED, g) {
            if self.flickering(state, RETIRED) & bit(g) != 0 {
                // The name is free again: a stale proposal beside the verdict of another.
                next.generations[g].proposal = pruner.plan;
                next.pruners[number] = Pruner { pc: OPEN_READ, ..pruner };
                steps.push("puts stale proposal", pruner.generation + 1, next);
            }
            next.pruners[number] = Pruner::default();
            let decided = state.has(RETIRED, 4 + g);
            if !self.on(Rule::StateAfterVerdict) && decided && g + 1 < self.config.generations {
                next.pruners[number] = Pruner { generation: pruner.generation + 1, ..pruner };
            }
            return steps.push("comes too late with proposal", pruner.generation + 1, next);
        }
        next.generations[g].proposal = pruner.plan;
        next.create(RETIRED, g);
        if self.config.lost_answers {
            steps.push("puts proposal, but does not hear of it", pruner.generation + 1, next);
        }
        let pc = match () {
            () if pruner.moved != 0 => PUT_PACK,
            () if pruner.run => PUT_RUN,
            () => OPEN_READ,
        };
        next.pruners[number] = Pruner { pc, ..pruner };
        steps.push("puts proposal", pruner.generation + 1, next);
    }

    fn read_open(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        if !self.on(Rule::SessionsAfterProposal) || !self.on(Rule::WaitsForOpen) {
            let open = if self.on(Rule::WaitsForOpen) { pruner.open } else { 0 };
            let mut next = *state;
            next.pruners[number] = Pruner { pc: WAIT, open, ..pruner };
            return steps.push("does not list sessions", 0u8, next);
        }
        let look = PROCESSES + number;
        let ignored = pruner.gone[SESSIONS];
        self.list(state, (look, SESSIONS, ignored), steps, |steps, mut next, seen| {
            let open = seen & !next.closed();
            next.pruners[number] = Pruner { pc: WAIT, open, ..pruner };
            steps.push("listed open sessions", open, next);
        });
    }

    /// All is read again: what remains of the proposal?
    fn judge(&self, mut next: State, number: usize, steps: &mut Steps<'_>) {
        let pruner = next.pruners[number];
        let own = pruner.damaged;
        let view = View {
            packs: pruner.packs,
            runs: pruner.runs,
            need: pruner.need & 3,
            live: pruner.live,
            damaged: if self.on(Rule::DamageReadAgain) { next.damaged } else { own },
            gone: pruner.gone,
            ..View::default()
        };
        let verdict = self.verdict(&next, &view, pruner.plan);
        let Pruner { generation, plan, .. } = pruner;
        next.pruners[number] = match verdict {
            Some(verdict) => Pruner { pc: DECIDE, generation, plan, verdict, ..Pruner::default() },
            None => Pruner::default(),
        };
        let packs = verdict.map_or(0, |v| v[PACKS]);
        steps.push(if verdict.is_some() { "judges packs" } else { "stops" }, packs, next);
    }

    fn decide(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let pruner = state.pruners[number];
        let g = pruner.generation as usize;
        let mut next = *state;
        next.pruners[number] = Pruner::default();
        let first = !state.has(RETIRED, 4 + g);
        if first {
            let generation = &mut next.generations[g];
            generation.verdict = pruner.verdict;
            generation.cites = pruner.plan;
            generation.carried_out = false;
            next.create(RETIRED, 4 + g);
        }
        if first || !self.on(Rule::SingleVerdict) {
            for (all, more) in next.doomed.iter_mut().zip(pruner.verdict) {
                *all |= more;
            }
        }
        if first && self.config.lost_answers {
            let mut next = next;
            next.pruners[number] = pruner;
            steps.push("puts verdict, but does not hear of it", pruner.generation + 1, next);
        }
        let what = if first { "puts verdict" } else { "finds another verdict" };
        steps.push(what, pruner.verdict[PACKS], next);
    }
}
