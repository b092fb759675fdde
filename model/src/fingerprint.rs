//! States are told apart by a 64-bit hash of their bytes (folded multiplication, as in wyhash): two
//! different states fall together with probability n² / 2^65 for n states, one in 3,700 for 100
//! million.

use crate::state::{Look, Names, Pruner, State, Writer};
use std::hash::{Hash, Hasher};

const BYTES: usize = 192;

struct Bytes {
    all: [u8; BYTES],
    used: usize,
}

impl Bytes {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.all[self.used..self.used + N].copy_from_slice(&bytes);
        self.used += N;
    }

    fn writer(&mut self, w: &Writer) {
        self.put([w.pc, w.session, w.gone_packs, w.packs, w.damaged, w.store, w.restarts]);
        self.put([w.old_pack]);
    }

    fn pruner(&mut self, p: &Pruner) {
        self.put([p.pc, p.generation, p.need, p.live, p.dead, p.closed, p.open, p.packs]);
        self.put([p.runs, p.damaged, p.moved, p.rows, u8::from(p.run)]);
        for names in [p.gone, p.plan, p.verdict] {
            self.put::<{ size_of::<Names>() }>(names);
        }
    }
}

impl State {
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = Bytes { all: [0; BYTES], used: 0 };
        bytes.put(self.have);
        bytes.put([self.packs_used, self.runs_used, self.sessions_used]);
        bytes.put(self.pack);
        bytes.put(self.run);
        bytes.put(self.needs);
        bytes.put([self.tombstones, self.forgotten, self.holds, self.released, self.damaged]);
        for g in &self.generations {
            bytes.put(g.proposal);
            bytes.put(g.verdict);
            bytes.put(g.cites);
            bytes.put([u8::from(g.carried_out) | u8::from(g.dropped) << 1]);
        }
        bytes.put(self.doomed);
        bytes.put([self.duplicates_left, self.damage_left, self.forgets_left, self.holder]);
        self.writers.iter().for_each(|w| bytes.writer(w));
        self.pruners.iter().for_each(|p| bytes.pruner(p));
        let r = self.reader;
        bytes.put([r.pc, r.verdicts, r.runs, r.packs, u8::from(r.failed)]);
        for Look { kind, must, may } in self.looks {
            bytes.put([kind, must, may]);
        }
        bytes.put([self.put_once, self.committed, self.holds_promised, self.excused]);
        let mut hash = 0x9e37_79b9_7f4a_7c15u64;
        for pair in bytes.all.chunks_exact(16) {
            let word =
                |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().expect("8 bytes"));
            let product = u128::from(word(0) ^ 0xa076_1d64_78bd_642f)
                * u128::from(word(8) ^ hash ^ 0xe703_7ed1_a0b4_28db);
            hash = (product as u64 ^ (product >> 64) as u64).rotate_left(29)
                ^ hash.wrapping_mul(0x8ebc_6af0_9c88_c6e3);
        }
        hash
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.fingerprint());
    }
}
