//! What prune decides, as plain functions of what it has read: what to propose, and what remains of
//! a proposal in the verdict.

use crate::protocol::Protocol;
use crate::rules::Rule;
use crate::state::{
    Names, PACKS, RUNS, SESSIONS, SLOTS, SNAPSHOTS, State, bit, bits, readable, subsets,
};

/// What prune has read.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    pub packs: u8,
    pub runs: u8,
    /// Chunks that live snapshots need.
    pub need: u8,
    pub live: u8,
    /// Snapshots that are there but not live.
    pub dead: u8,
    pub closed: u8,
    pub open: u8,
    pub sessions: u8,
    pub damaged: u8,
    pub gone: Names,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub names: Names,
    pub moved: u8,
    pub rows: u8,
    pub run: bool,
}

impl Protocol {
    /// Do these frames serve all needed chunks, as far as the rules look?
    fn serves(&self, frames: u8, need: u8) -> bool {
        let copies = (frames | frames >> 2) & 3;
        if !self.on(Rule::BasesLive) {
            return need & !copies == 0;
        }
        if !self.on(Rule::DeltaNeedsBase) {
            // The base counts as live, but any copy of it will do.
            let only_delta = (frames >> 2) & !frames & need;
            let bases = (only_delta >> 1 | only_delta << 1) & 3;
            return (need | bases) & !copies == 0;
        }
        need & !readable(frames) == 0
    }

    fn sound(&self, state: &State, view: &View) -> u8 {
        let runs = view.runs & !view.gone[RUNS];
        view.packs & state.rows(runs) & !view.gone[PACKS] & !view.damaged
    }

    /// Every way to propose: which copies to keep, whether to move frames out of a half-dead pack,
    /// whether to merge the runs. `None`: a live chunk is nowhere, prune stops.
    pub fn plans(&self, state: &State, view: &View) -> Option<Vec<Plan>> {
        let sound = self.sound(state, view);
        if !self.serves(state.frames(sound), view.need) {
            return None;
        }
        let enough: Vec<u8> =
            subsets(sound).filter(|&k| self.serves(state.frames(k), view.need)).collect();
        let smallest = |&k: &u8| !enough.iter().any(|&less| less != k && less & k == less);
        let mut plans = Vec::new();
        for keep in enough.iter().copied().filter(smallest) {
            self.plans_keeping(state, view, keep, 0, &mut plans);
            if !self.config.moves {
                continue;
            }
            for pack in bits(keep) {
                let frames = state.pack[pack] & 15;
                let others = state.frames(keep & !bit(pack));
                let wanted = subsets(frames).find(|&f| self.serves(others | f, view.need));
                if let Some(moved) = wanted.filter(|&f| f != frames && f != 0) {
                    self.plans_keeping(state, view, keep & !bit(pack), moved, &mut plans);
                }
            }
        }
        Some(plans)
    }

    fn plans_keeping(&self, state: &State, view: &View, keep: u8, moved: u8, out: &mut Vec<Plan>) {
        let of_open = |p: &usize| {
            let owner = state.owner(*p) as usize;
            owner < SLOTS && view.open & bit(owner) != 0 && self.on(Rule::OpenSessionsStay)
        };
        let open = bits(view.packs).filter(of_open).fold(0, |all, p| all | bit(p));
        let mut names = Names::default();
        names[PACKS] = view.packs & !view.gone[PACKS] & !keep & !open;
        names[SNAPSHOTS] = view.dead;
        if self.config.sweep_sessions {
            let closed = if self.on(Rule::OpenSessionRecords) { view.closed } else { 255 };
            names[SESSIONS] = view.sessions & closed;
        }
        // Runs all of whose packs are gone go too.
        let there = view.packs & !view.gone[PACKS];
        let empty = |r: &usize| state.run[*r] & there & !names[PACKS] == 0;
        let runs = view.runs & !view.gone[RUNS];
        let mut plan = Plan { names, moved, ..Plan::default() };
        plan.run = moved != 0;
        if self.config.merges && runs.count_ones() > 1 {
            let rows = match self.on(Rule::MergeKeepsRows) {
                true => state.rows(runs) & there,
                false => state.rows(runs) & keep,
            };
            let mut merged = Plan { rows, run: true, ..plan };
            merged.names[RUNS] = runs;
            out.push(merged);
        }
        plan.names[RUNS] = bits(runs).filter(empty).fold(0, |all, r| all | bit(r));
        if plan.names != Names::default() {
            out.push(plan);
        }
    }

    /// What remains of a proposal. `None`: a live chunk is nowhere, prune stops.
    pub fn verdict(&self, state: &State, view: &View, proposal: Names) -> Option<Names> {
        let mut names = proposal;
        names[SNAPSHOTS] &= !view.live;
        if !self.on(Rule::Rescue) {
            return Some(names);
        }
        let sound = self.sound(state, view);
        if !self.serves(state.frames(sound), view.need) {
            return None;
        }
        // Chunk by chunk, all sound copies of a chunk that would be lost are rescued.
        for _ in 0..2 {
            let kept = state.frames(sound & !names[PACKS]);
            if self.serves(kept, view.need) {
                break;
            }
            let helps = |p: &usize| {
                let frames = state.pack[*p] & 15;
                bits(view.need).any(|c| {
                    let chunk = bit(c) | bit(c) << 2;
                    let base = bit(1 - c);
                    !self.serves(kept, bit(c)) && frames & (chunk | base) != 0
                })
            };
            names[PACKS] &=
                !bits(sound & names[PACKS]).filter(helps).fold(0, |all, p| all | bit(p));
        }
        if self.on(Rule::RunRescue) {
            let stays = view.packs & !view.gone[PACKS] & !names[PACKS];
            for run in bits(view.runs & names[RUNS]) {
                let others = view.runs & !view.gone[RUNS] & !names[RUNS];
                if state.run[run] & stays & !state.rows(others) != 0 {
                    names[RUNS] &= !bit(run);
                }
            }
        }
        Some(names)
    }
}
