//! A writer: announce, read `retired/`, list packs, read damage and the index, store what is
//! missing, commit (DESIGN 6.1–6.3).

use crate::protocol::{Protocol, Steps};
use crate::rules::Rule;
use crate::state::{
    DELTA_0, DELTA_1, GENERATIONS, Look, PACKS, RETIRED, RUNS, SESSIONS, SLOTS, SNAPSHOTS, State,
    Writer, bit, bits, readable,
};

pub const START: u8 = 0;
const RETIRED_READ: u8 = 1;
const PACKS_READ: u8 = 2;
const RUNS_READ: u8 = 3;
const PARENT: u8 = 4;
const ANNOUNCE: u8 = 5;
const PUT_PACK: u8 = 6;
const PUT_RUN: u8 = 7;
pub const COMMIT: u8 = 8;
pub const DONE: u8 = 9;

impl Protocol {
    pub fn writer(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        if writer.restarts > 0 && (RETIRED_READ..=COMMIT).contains(&writer.pc) {
            let mut next = *state;
            self.start_over(&mut next, number);
            steps.push("crashes and starts again", writer.session, next);
        }
        match writer.pc {
            START => self.open(state, number, steps),
            RETIRED_READ => self.read_retired(state, number, steps),
            PACKS_READ => self.list(
                state,
                (number, PACKS, writer.gone_packs),
                steps,
                |steps, mut next, seen| {
                    let writer = &mut next.writers[number];
                    writer.packs = if self.on(Rule::ListsPacks) { seen } else { 255 };
                    writer.pc = match self.on(Rule::RetiredBeforePacks) {
                        true => RUNS_READ,
                        false => RETIRED_READ,
                    };
                    writer.damaged = next.damaged;
                    steps.push("listed packs", seen, next);
                },
            ),
            RUNS_READ => self.list(state, (number, RUNS, 0), steps, |steps, next, seen| {
                self.look_up(next, number, seen, steps);
            }),
            PARENT => self.trust_parent(state, number, steps),
            ANNOUNCE => {
                let mut next = *state;
                next.create(SESSIONS, writer.session as usize);
                next.writers[number].pc = if writer.store == 0 { COMMIT } else { PUT_PACK };
                steps.push("announces late", writer.session, next);
            }
            PUT_PACK => self.store_pack(state, number, steps),
            PUT_RUN => {
                let mut next = *state;
                if next.put_run(writer.packs).is_some() {
                    next.writers[number] = if self.on(Rule::SnapshotLast) {
                        Writer { pc: COMMIT, packs: 0, ..writer }
                    } else {
                        Writer { pc: DONE, ..Writer::default() }
                    };
                    steps.push("puts a run of packs", writer.packs, next);
                }
            }
            COMMIT => self.commit(state, number, steps),
            _ => {}
        }
    }

    fn open(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let session = state.sessions_used;
        if session as usize == SLOTS {
            return;
        }
        let mut next = *state;
        next.sessions_used += 1;
        next.needs[session as usize] = self.config.writers[number];
        if self.on(Rule::SessionFirst) {
            next.create(SESSIONS, session as usize);
        }
        let old = state.writers[number];
        let pc = match () {
            () if !self.on(Rule::ParentLookedUp) && state.has(SNAPSHOTS, 0) => COMMIT,
            () if self.on(Rule::ReadsRetired) && self.on(Rule::RetiredBeforePacks) => RETIRED_READ,
            () => PACKS_READ,
        };
        next.writers[number] = Writer {
            pc,
            session,
            restarts: old.restarts,
            old_pack: old.old_pack,
            ..Writer::default()
        };
        steps.push("opens session", session, next);
    }

    fn read_retired(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        self.list(state, (number, RETIRED, 0), steps, |steps, mut next, seen| {
            let mut gone = self.verdicts(&next, seen)[PACKS];
            let mut undecided = false;
            for g in 0..GENERATIONS {
                if seen & bit(g) != 0 && seen & bit(4 + g) == 0 {
                    gone |= next.generations[g].proposal[PACKS];
                    undecided = true;
                }
            }
            let writer = &mut next.writers[number];
            writer.gone_packs = gone;
            writer.pc = if self.on(Rule::RetiredBeforePacks) { PACKS_READ } else { RUNS_READ };
            steps.push("read retired", seen, next);
            if self.config.unlooked && !(undecided && self.on(Rule::UnlookedNeedsDecided)) {
                next.writers[number].pc = PARENT;
                steps.push("read retired, trusts its parent", seen, next);
            }
        });
    }

    /// Takes over a whole parent unlooked, or, if there is none that is alive, goes the long way.
    fn trust_parent(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        let forgotten = if self.on(Rule::UnlookedNeedsLiving) { state.forgotten } else { 0 };
        let undamaged = state.damaged == 0 || !self.on(Rule::DamagedAbsent);
        let mut next = *state;
        next.writers[number].pc = PACKS_READ;
        steps.push("finds no parent", 0u8, next);
        for parent in bits(state.have[SNAPSHOTS] & !forgotten).filter(|_| undamaged) {
            let mut next = *state;
            next.needs[writer.session as usize] = state.needs[parent];
            next.writers[number] = Writer { pc: COMMIT, gone_packs: 0, ..writer };
            steps.push("takes over parent", parent as u16, next);
        }
    }

    /// The runs are read: which chunks are there, and how are the others stored?
    fn look_up(&self, state: State, number: usize, runs: u8, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        let mut there = writer.packs & !writer.gone_packs;
        if self.on(Rule::DamagedAbsent) {
            there &= !writer.damaged;
        }
        let old = writer.old_pack & if self.on(Rule::AdoptedLookedUp) { there } else { 255 };
        let adopt = old & !state.rows(runs);
        let frames = state.frames(there & state.rows(runs) | old);
        let copies = (frames | frames >> 2) & 3;
        let found = if self.on(Rule::BaseLookedUp) { readable(frames) } else { copies };
        let missing = state.needs[writer.session as usize] & !found;
        for store in self.ways_to_store(missing, frames) {
            let mut next = state;
            let pc = match () {
                () if !self.on(Rule::SessionFirst) => ANNOUNCE,
                () if !self.on(Rule::SnapshotLast) => COMMIT,
                () if store != 0 => PUT_PACK,
                () if adopt != 0 => PUT_RUN,
                () => COMMIT,
            };
            let Writer { session, restarts, damaged, .. } = writer;
            let packs = adopt;
            // Only to tell later what it did not count on.
            let gone_packs = if self.config.damage > 0 { writer.gone_packs } else { 0 };
            next.writers[number] = Writer {
                pc,
                session,
                gone_packs,
                restarts,
                damaged,
                packs,
                store,
                ..Writer::default()
            };
            steps.push("read runs, will store frames", store, next);
        }
    }

    fn ways_to_store(&self, missing: u8, frames: u8) -> Vec<u8> {
        let mut ways = vec![missing];
        if self.config.deltas {
            let full = frames & 3;
            if missing & 2 != 0 && (full | missing) & 1 != 0 {
                ways.push(missing & 1 | DELTA_1);
            }
            if missing & 1 != 0 && (full | missing) & 2 != 0 {
                ways.push(missing & 2 | DELTA_0);
            }
        }
        ways
    }

    fn store_pack(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        let mut next = *state;
        if let Some(pack) = next.put_pack(writer.store, writer.session) {
            next.writers[number] =
                Writer { pc: PUT_RUN, packs: writer.packs | bit(pack), store: 0, ..writer };
            steps.push("puts pack", pack as u16, next);
        }
    }

    /// A new session, if any is left, which will adopt what this one has stored; its own journal
    /// names that.
    fn start_over(&self, next: &mut State, number: usize) {
        let Writer { restarts, session, .. } = next.writers[number];
        let mine = |p: &usize| next.owner(*p) == session;
        let old_pack = bits(next.have[PACKS]).filter(mine).fold(0, |all, p| all | bit(p));
        next.looks[number] = Look::default();
        next.writers[number] = match restarts {
            0 => Writer { pc: DONE, ..Writer::default() },
            _ => Writer { pc: START, restarts: restarts - 1, old_pack, ..Writer::default() },
        };
    }

    fn commit(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        let session = writer.session as usize;
        let mut next = *state;
        let fenced = state.tombstones & bit(session) != 0 && self.on(Rule::CommitIfAbsent);
        if fenced {
            self.start_over(&mut next, number);
            return steps.push("is fenced", writer.session, next);
        }
        next.tombstones &= !bit(session);
        next.create(SNAPSHOTS, session);
        next.committed |= bit(session);
        next.put_once |= bit(session);
        // Damage that nobody had recorded when the writer looked is no fault of the protocol.
        let unknown = state.damaged & !writer.damaged;
        let sure = self.surely(&next);
        let counts_on = sure.have[PACKS] & !writer.gone_packs;
        let sound = counts_on & !state.damaged & !Self::leaving(state);
        let broken = Self::broken(&sure, bit(session), sound);
        let believed = sound | counts_on & unknown;
        next.excused |= broken & !Self::broken(&sure, bit(session), believed);
        if self.config.lost_answers {
            steps.push("commits, but does not hear of it", writer.session, next);
        }
        next.writers[number] = if writer.store != 0 && !self.on(Rule::SnapshotLast) {
            Writer { pc: PUT_PACK, ..writer }
        } else {
            Writer { pc: DONE, ..Writer::default() }
        };
        steps.push("commits", writer.session, next);
    }
}
