//! What the model remembers: the objects in the store, what each process knows, and a few facts
//! that only the properties look at.
//!
//! Everything is a small bit mask, because the number of states is what counts. Objects get their
//! slots in the order in which they are first put, so histories that differ in names only fall
//! together. Nothing is decided here.

/// Packs, runs and sessions have at most this many slots each; a put that finds none left is not
/// taken (a stated bound).
pub const SLOTS: usize = 8;
/// Generations of prune.
pub const GENERATIONS: usize = 3;
/// Writers and pruners at most.
pub const PROCESSES: usize = 2;

/// What a listing can list. A number in `have` and in [`Look`].
pub const PACKS: usize = 0;
pub const RUNS: usize = 1;
pub const SNAPSHOTS: usize = 2;
pub const SESSIONS: usize = 3;
/// Bits 0–3: proposals, bits 4–7: verdicts.
pub const RETIRED: usize = 4;
const KINDS: usize = 5;

/// Frames in a pack. A delta's base is the other chunk.
pub const FULL_0: u8 = 1;
pub const FULL_1: u8 = 2;
pub const DELTA_0: u8 = 4;
pub const DELTA_1: u8 = 8;

/// The names in a proposal or a verdict, by kind of object.
pub type Names = [u8; 4];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Generation {
    pub proposal: Names,
    pub verdict: Names,
    /// The proposal that the verdict cites (stands for its hash).
    pub cites: Names,
    /// Somebody saw that all the verdict names is gone.
    pub carried_out: bool,
    /// Its lists were dropped: nobody can read any more what it named.
    pub dropped: bool,
}

/// A listing under way: what it must have seen (there from its begin on) and what it may have seen
/// (there at some time).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Look {
    /// Kind + 1, 0 for none.
    pub kind: u8,
    pub must: u8,
    pub may: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Writer {
    pub pc: u8,
    pub session: u8,
    /// Packs that do not count (named by an undecided proposal or a verdict).
    pub gone_packs: u8,
    pub packs: u8,
    /// Packs with a frame that was recorded as damaged at opening.
    pub damaged: u8,
    /// Frames to store, once that is known.
    pub store: u8,
    /// Starts still left after being fenced.
    pub restarts: u8,
    /// Packs of the dead session that it adopts.
    pub old_pack: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Pruner {
    pub pc: u8,
    /// Index of the generation it works on.
    pub generation: u8,
    /// What verdicts name, as it read them.
    pub gone: Names,
    /// Chunks that live snapshots need (as first read: low nibble; at the verdict: high nibble).
    pub need: u8,
    pub live: u8,
    pub dead: u8,
    pub closed: u8,
    pub open: u8,
    pub packs: u8,
    pub runs: u8,
    pub damaged: u8,
    /// What it is going to propose, or the proposal it decides.
    pub plan: Names,
    /// Frames that it moves to a new pack; rows of the new run besides that pack; whether there is
    /// a new run.
    pub moved: u8,
    pub rows: u8,
    pub run: bool,
    /// What it decided, on the way to the store.
    pub verdict: Names,
}

/// Somebody who reads snapshot 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Reader {
    pub pc: u8,
    /// Verdicts that were there before it looked.
    pub verdicts: u8,
    pub runs: u8,
    pub packs: u8,
    /// It reported a live snapshot as damaged.
    pub failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub have: [u8; KINDS],
    pub packs_used: u8,
    pub runs_used: u8,
    pub sessions_used: u8,
    /// Frames of each pack (low nibble) and the session it belongs to (high nibble; 15: a
    /// pruner's).
    pub pack: [u8; SLOTS],
    /// Packs that each run describes.
    pub run: [u8; SLOTS],
    /// Chunks that each session's snapshot needs.
    pub needs: [u8; SLOTS],
    pub tombstones: u8,
    pub forgotten: u8,
    pub holds: u8,
    pub released: u8,
    pub damaged: u8,
    pub generations: [Generation; GENERATIONS],
    /// Deletes that were issued at some time; each may still arrive, any number of times.
    pub doomed: Names,
    pub duplicates_left: u8,
    pub damage_left: u8,
    pub forgets_left: u8,
    /// Progress of the one who adds a hold.
    pub holder: u8,
    pub writers: [Writer; PROCESSES],
    pub pruners: [Pruner; PROCESSES],
    pub reader: Reader,
    pub looks: [Look; 2 * PROCESSES + 1],
    // Facts for the properties only.
    pub committed: u8,
    /// Snapshots that were put at some time.
    pub put_once: u8,
    pub holds_promised: u8,
    /// Snapshots that miss a chunk because the storage damaged it, not because of the protocol.
    pub excused: u8,
}

pub fn bit(index: usize) -> u8 {
    1 << index
}

pub fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |&i| mask & bit(i) != 0)
}

/// All subsets of a mask, the empty one first.
pub fn subsets(mask: u8) -> impl Iterator<Item = u8> {
    let mut next = Some(0u8);
    std::iter::from_fn(move || {
        let now = next?;
        next = (now != mask).then(|| now.wrapping_sub(mask) & mask);
        Some(now)
    })
}

impl State {
    pub fn create(&mut self, kind: usize, index: usize) {
        self.have[kind] |= bit(index);
        for look in &mut self.looks {
            if look.kind as usize == kind + 1 {
                look.may |= bit(index);
            }
        }
    }

    pub fn delete(&mut self, kind: usize, index: usize) {
        self.have[kind] &= !bit(index);
        for look in &mut self.looks {
            if look.kind as usize == kind + 1 {
                look.must &= !bit(index);
            }
        }
    }

    pub fn has(&self, kind: usize, index: usize) -> bool {
        self.have[kind] & bit(index) != 0
    }

    pub fn frames(&self, packs: u8) -> u8 {
        bits(packs).fold(0, |all, p| all | self.pack[p] & 15)
    }

    pub fn owner(&self, pack: usize) -> u8 {
        self.pack[pack] >> 4
    }

    pub fn rows(&self, runs: u8) -> u8 {
        bits(runs).fold(0, |all, r| all | self.run[r])
    }

    /// Sessions that have a snapshot, a tombstone or a forgotten record.
    pub fn closed(&self) -> u8 {
        self.have[SNAPSHOTS] | self.tombstones | self.forgotten
    }

    pub fn held(&self) -> u8 {
        self.holds & !self.released
    }

    /// Puts a pack into a new slot.
    pub fn put_pack(&mut self, frames: u8, owner: u8) -> Option<usize> {
        let slot = self.packs_used as usize;
        if slot == SLOTS {
            return None;
        }
        self.packs_used += 1;
        self.pack[slot] = frames | owner << 4;
        self.create(PACKS, slot);
        Some(slot)
    }

    pub fn put_run(&mut self, packs: u8) -> Option<usize> {
        let slot = self.runs_used as usize;
        if slot == SLOTS {
            return None;
        }
        self.runs_used += 1;
        self.run[slot] = packs;
        self.create(RUNS, slot);
        Some(slot)
    }
}

/// Chunks (bit 0, bit 1) that can be read from these frames: a delta counts only with a full copy
/// of its base.
pub fn readable(frames: u8) -> u8 {
    let zero = frames & FULL_0 != 0 || frames & DELTA_0 != 0 && frames & FULL_1 != 0;
    let one = frames & FULL_1 != 0 || frames & DELTA_1 != 0 && frames & FULL_0 != 0;
    u8::from(zero) | u8::from(one) << 1
}
