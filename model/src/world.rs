//! What happens besides writers and pruners: deletes of what verdicts name (by anyone, late,
//! repeated), fences, forgets, holds, dropped lists, late duplicates of puts, and damage.

use crate::config::Drop;
use crate::protocol::{Protocol, Steps};
use crate::rules::Rule;
use crate::state::{
    GENERATIONS, Names, PACKS, PROCESSES, RETIRED, RUNS, SESSIONS, SNAPSHOTS, State, bit, bits,
};

impl Protocol {
    pub fn world(&self, state: &State, steps: &mut Steps<'_>) {
        if !self.config.flicker {
            self.deletes(state, steps);
        }
        self.unstay(state, steps);
        let announced = state.have[SESSIONS];
        for s in bits(announced & !state.closed() & !state.committed) {
            if self.config.fences {
                let mut next = *state;
                next.tombstones |= bit(s);
                steps.push("fences session", s as u16, next);
            }
        }
        if state.forgets_left > 0 {
            for s in bits(state.have[SNAPSHOTS] & !state.forgotten) {
                let mut next = *state;
                next.forgotten |= bit(s);
                next.forgets_left -= 1;
                steps.push("forgets snapshot", s as u16, next);
            }
        }
        if self.config.drop != Drop::Nothing && !self.config.flicker {
            self.drops(state, steps);
        }
        if state.duplicates_left > 0 {
            self.duplicates(state, steps);
        }
        if state.damage_left > 0 {
            self.damage(state, steps);
        }
        if self.config.holds {
            self.hold(state, steps);
        }
    }

    fn deletes(&self, state: &State, steps: &mut Steps<'_>) {
        const WHAT: [&str; 4] =
            ["deletes pack", "deletes run", "deletes snapshot", "deletes session record"];
        for kind in [PACKS, RUNS, SNAPSHOTS, SESSIONS] {
            for index in bits(state.doomed[kind] & state.have[kind]) {
                let mut next = *state;
                next.delete(kind, index);
                steps.push(WHAT[kind], index as u16, next);
            }
        }
    }

    /// Records that stay are deleted, if that rule is off.
    fn unstay(&self, state: &State, steps: &mut Steps<'_>) {
        if !self.on(Rule::TombstonesStay) {
            for s in bits(state.tombstones & !state.forgotten) {
                let mut next = *state;
                next.tombstones &= !bit(s);
                next.delete(SESSIONS, s);
                steps.push("deletes tombstone and session", s as u16, next);
            }
        }
        if !self.on(Rule::ForgottenStays) {
            for s in bits(state.forgotten & !state.have[SNAPSHOTS]) {
                let mut next = *state;
                next.forgotten &= !bit(s);
                // With the record the promise ends too: nobody counts on a snapshot whose deletion
                // was carried out.
                next.committed &= !bit(s);
                steps.push("deletes forgotten record", s as u16, next);
            }
        }
    }

    fn drops(&self, state: &State, steps: &mut Steps<'_>) {
        for g in 0..GENERATIONS {
            let generation = &state.generations[g];
            let newer = (g + 1..GENERATIONS).any(|n| state.has(RETIRED, 4 + n));
            if !state.has(RETIRED, 4 + g) || !newer && self.on(Rule::NewestStays) {
                continue;
            }
            if !generation.carried_out && self.on(Rule::DropWhenGone) {
                continue;
            }
            let mut next = *state;
            if state.has(RETIRED, g) {
                next.delete(RETIRED, g);
                steps.push("drops proposal", g as u16 + 1, next);
                continue;
            }
            let named = state.rows(state.have[RUNS]) & generation.verdict[PACKS] != 0;
            if named && self.on(Rule::RunsForgetPacks) {
                continue;
            }
            if !self.on(Rule::VerdictsStay) {
                next.delete(RETIRED, 4 + g);
                steps.push("drops verdict", g as u16 + 1, next);
            } else if self.config.drop == Drop::Lists && !generation.dropped {
                next.generations[g].dropped = true;
                steps.push("drops the lists of verdict", g as u16 + 1, next);
            }
        }
    }

    /// A put that was made before arrives once more.
    fn duplicates(&self, state: &State, steps: &mut Steps<'_>) {
        let mut again = *state;
        again.duplicates_left -= 1;
        let below = |used: u8| ((1u16 << used) - 1) as u8;
        let puts = [
            (PACKS, below(state.packs_used), "pack arrives again"),
            (RUNS, below(state.runs_used), "run arrives again"),
            (SNAPSHOTS, state.put_once & !state.tombstones, "snapshot arrives again"),
            (SESSIONS, below(state.sessions_used), "session arrives again"),
        ];
        for (kind, ever, what) in puts {
            for index in bits(ever & !state.have[kind]) {
                let mut next = again;
                next.create(kind, index);
                steps.push(what, index as u16, next);
            }
        }
        for g in 0..GENERATIONS {
            let generation = &state.generations[g];
            let proposed = generation.proposal != Names::default();
            if proposed && !state.has(RETIRED, g) {
                let mut next = again;
                next.create(RETIRED, g);
                steps.push("proposal arrives again", g as u16 + 1, next);
            }
            let decided = generation.cites != Names::default();
            if decided && !state.has(RETIRED, 4 + g) {
                let mut next = again;
                next.create(RETIRED, 4 + g);
                steps.push("verdict arrives again", g as u16 + 1, next);
            }
        }
    }

    /// Storage damages a pack, and it is recorded. What nobody could know in time is excused:
    /// copies that a pruner has retired already, or is about to after its last look at the damage
    /// records.
    fn damage(&self, state: &State, steps: &mut Steps<'_>) {
        let leaving = Self::leaving(state);
        for p in bits(state.have[PACKS] & !state.damaged) {
            let mut next = *state;
            next.damage_left -= 1;
            next.damaged |= bit(p);
            let left = next.have[PACKS] & !next.damaged & !leaving;
            for s in bits(next.have[SNAPSHOTS]) {
                next.excused |= Self::broken(&next, bit(s), left & !Self::unseen(state, s));
            }
            steps.push("damages pack", p as u16, next);
        }
    }

    /// Adds a hold on snapshot 0 and looks whether it came in time; releases it some time.
    fn hold(&self, state: &State, steps: &mut Steps<'_>) {
        let mut next = *state;
        match state.holder {
            0 if state.has(SNAPSHOTS, 0) => {
                next.holds |= 1;
                next.holder = 1;
                steps.push("puts hold on snapshot", 0u8, next);
            }
            1 | 4 => {
                let look = (2 * PROCESSES, RETIRED, 0);
                self.list(state, look, steps, |steps, mut next, seen| {
                    let late = self.verdicts(&next, seen)[SNAPSHOTS] & 1 != 0;
                    let names = |g: &usize| next.generations[*g].proposal[SNAPSHOTS] & 1 != 0;
                    let undecided = (0..GENERATIONS)
                        .any(|g| seen & bit(g) != 0 && seen & bit(4 + g) == 0 && names(&g));
                    if late && self.on(Rule::HoldChecksVerdict) {
                        next.holder = 3;
                        steps.push("hold: too late", seen, next);
                    } else if undecided && self.on(Rule::HoldWaits) {
                        next.holder = 1;
                        steps.push("hold: not decided yet", seen, next);
                    } else if state.holder == 1
                        && self.config.split_lists
                        && self.on(Rule::HoldLooksTwice)
                    {
                        next.holder = 4;
                        steps.push("hold: read retired once", seen, next);
                    } else {
                        next.holder = 2;
                        next.holds_promised |= 1;
                        steps.push("hold: promised", seen, next);
                    }
                });
            }
            2 => {
                next.released |= 1;
                next.holder = 3;
                steps.push("releases hold on snapshot", 0u8, next);
            }
            _ => {}
        }
    }
}
