//! A reader of snapshot 0: reads the index, lists packs, gets what it needs; what is gone makes it
//! look again (DESIGN 6.6).

use crate::protocol::{Protocol, Steps};
use crate::rules::Rule;
use crate::state::{PACKS, PROCESSES, RETIRED, RUNS, Reader, State, readable};

const START: u8 = 0;
const RUNS_READ: u8 = 1;
const PACKS_READ: u8 = 2;
const GET: u8 = 3;
const DOUBT: u8 = 4;
const DONE: u8 = 5;

impl Protocol {
    pub fn reader(&self, state: &State, steps: &mut Steps<'_>) {
        let reader = state.reader;
        let look = 2 * PROCESSES;
        match reader.pc {
            START => self.list(state, (look, RETIRED, 0), steps, |steps, mut next, seen| {
                next.reader = Reader { pc: RUNS_READ, verdicts: seen >> 4, ..Reader::default() };
                steps.push("read retired", seen, next);
            }),
            RUNS_READ => self.list(state, (look, RUNS, 0), steps, |steps, mut next, seen| {
                (next.reader.runs, next.reader.pc) = (seen, PACKS_READ);
                steps.push("read runs", seen, next);
            }),
            PACKS_READ => self.list(state, (look, PACKS, 0), steps, |steps, mut next, seen| {
                let packs = seen & next.rows(reader.runs);
                let found = next.needs[0] & !readable(next.frames(packs)) == 0;
                let pc = match found {
                    true => GET,
                    false if self.on(Rule::ReaderLooksAgain) => DOUBT,
                    false => DONE,
                };
                next.reader =
                    Reader { pc, packs: if found { packs } else { 0 }, runs: 0, ..reader };
                if pc == DONE {
                    next.reader.failed = Self::promised(&next) & 1 != 0;
                }
                steps.push("listed packs", seen, next);
            }),
            GET => {
                // It tries every copy that it knows of.
                let sure = self.surely(state);
                for got in [sure.have[PACKS], state.have[PACKS]] {
                    let mut next = *state;
                    let whole = state.needs[0] & !readable(state.frames(reader.packs & got)) == 0;
                    let again = !whole && self.on(Rule::ReaderLooksAgain);
                    next.reader =
                        Reader { pc: if again { START } else { DONE }, ..Reader::default() };
                    next.reader.failed = !whole && !again && Self::promised(state) & 1 != 0;
                    steps.push("gets packs", got, next);
                }
            }
            DOUBT => self.list(state, (look, RETIRED, 0), steps, |steps, mut next, seen| {
                let new = seen >> 4 != reader.verdicts && self.on(Rule::ReaderChecksVerdicts);
                next.reader = Reader { pc: if new { START } else { DONE }, ..Reader::default() };
                next.reader.failed = !new && Self::promised(&next) & 1 != 0;
                steps.push("doubts; read retired again", seen, next);
            }),
            _ => {}
        }
    }
}
