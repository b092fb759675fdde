//! What is explored: how many processes, which features, from which repository on.

use crate::rules::{Rule, Rules};
use crate::state::{
    FULL_0, Generation, Look, PACKS, PROCESSES, RETIRED, SESSIONS, SNAPSHOTS, State, Writer, bit,
};
use crate::writer;

/// What is dropped of a generation that was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    Nothing,
    Proposals,
    /// The lists of a verdict too; its name stays taken.
    Lists,
}

/// Where it starts. The later ones can be reached from the first, but no search gets far beyond
/// them from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Quiet,
    /// Generation 1 proposes pack 0 and snapshot 0, while writer 0 is about to commit what it found
    /// in that pack.
    Midway,
    /// Generation 1 is decided: pack 0 and snapshot 0 go. A pruner has been listing `retired/`
    /// since before its proposal.
    SlowList,
}

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    /// Chunks that each writer's source has (0: no such writer).
    pub writers: [u8; PROCESSES],
    pub restarts: u8,
    pub pruners: usize,
    pub generations: usize,
    /// Frames of the packs that are there at the start, each with its own session, run and (if any
    /// chunks are given) snapshot.
    pub packs: &'static [u8],
    pub snapshots: &'static [u8],
    /// One run describes all packs of the start, instead of one each.
    pub one_run: bool,
    pub forgets: u8,
    pub fences: bool,
    pub deltas: bool,
    pub moves: bool,
    pub merges: bool,
    pub sweep_sessions: bool,
    pub unlooked: bool,
    pub holds: bool,
    pub reader: bool,
    pub split_lists: bool,
    /// What verdicts name may be there or not whenever somebody looks.
    pub flicker: bool,
    /// The verdict lists packs before runs (as `repo/live.rs` does) instead of after.
    pub packs_first: bool,
    pub drop: Drop,
    pub duplicates: u8,
    /// A put may be carried out and yet be reported as failed: then it is repeated.
    pub lost_answers: bool,
    pub damage: u8,
    pub start: Start,
    /// Each state is also run to quiescence.
    pub liveness: bool,
    pub rules: Rules,
}

pub const BASE: Config = Config {
    name: "base",
    writers: [1, 1],
    restarts: 0,
    pruners: 2,
    generations: 2,
    packs: &[FULL_0],
    snapshots: &[1],
    one_run: false,
    forgets: 1,
    fences: true,
    deltas: false,
    moves: false,
    merges: false,
    sweep_sessions: false,
    unlooked: false,
    holds: false,
    reader: false,
    split_lists: false,
    flicker: true,
    packs_first: true,
    drop: Drop::Nothing,
    duplicates: 0,
    lost_answers: false,
    damage: 0,
    start: Start::Quiet,
    liveness: false,
    rules: Rules::ALL,
};

impl Config {
    pub fn without(self, rule: Rule) -> Config {
        Config { rules: self.rules.without(rule), ..self }
    }

    pub fn start(&self) -> State {
        let mut state = State::default();
        for (i, &frames) in self.packs.iter().enumerate() {
            state.put_pack(frames, i as u8);
            if !self.one_run {
                state.put_run(bit(i));
            }
            state.create(SESSIONS, i);
        }
        if self.one_run {
            state.put_run(state.have[PACKS]);
        }
        state.sessions_used = self.packs.len() as u8;
        for s in 0..self.packs.len() {
            match self.snapshots.get(s).copied().unwrap_or(0) {
                0 => state.tombstones |= bit(s),
                needs => {
                    state.needs[s] = needs;
                    state.create(SNAPSHOTS, s);
                    state.committed |= bit(s);
                    state.put_once |= bit(s);
                }
            }
        }
        state.forgets_left = self.forgets;
        state.duplicates_left = self.duplicates;
        state.damage_left = self.damage;
        for writer in &mut state.writers {
            writer.restarts = self.restarts;
        }
        match self.start {
            Start::Quiet => {}
            Start::Midway => self.midway(&mut state),
            Start::SlowList => self.slow_list(&mut state),
        }
        state
    }

    fn midway(&self, state: &mut State) {
        let session = state.sessions_used;
        state.forgotten |= 1;
        state.generations[0].proposal = [1, 0, 1, 0];
        state.create(RETIRED, 0);
        state.create(SESSIONS, session as usize);
        state.needs[session as usize] = self.writers[0];
        state.sessions_used += 1;
        state.writers[0] = Writer { pc: writer::COMMIT, session, ..state.writers[0] };
    }

    fn slow_list(&self, state: &mut State) {
        let names = [1, 0, 1, 0];
        state.forgotten |= 1;
        state.looks[PROCESSES] = Look { kind: RETIRED as u8 + 1, must: 0, may: 0 };
        state.generations[0] =
            Generation { proposal: names, verdict: names, cites: names, ..state.generations[0] };
        state.create(RETIRED, 0);
        state.create(RETIRED, 4);
        state.doomed = names;
    }
}
