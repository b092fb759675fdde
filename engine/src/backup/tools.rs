//! What storing new chunks takes in memory: contexts, a chunk's copies, bundles. Each worker has such
//! tools to itself as long as all of them together fit into what a backup may hold; more workers than
//! that take turns with them. Scanning, hashing and looking up need none, so only what is new waits.
//!
//! The sums are of limits, with chunks of the default size: nothing measured comes near
//! (`docs/performance.md`, "Memory").

use std::sync::{Condvar, Mutex};

use crate::backup::ahead::AHEAD_BYTES_MAX;
use crate::backup::bases::{CHUNK_BASE_BYTES_MAX, HELD_BYTES};
use crate::backup::encode::{BUNDLE_BASE_BYTES_MAX, BUNDLES_MAX, Bundle};
use crate::backup::unchanged::PARTS_BYTES_MAX;
use crate::format::codec::{Decoder, Encoder};
use crate::repo::fetch::RECENT_BYTES;
use crate::repo::packer::{CHUNKS_PER_RUN, MIXED_BELOW_BYTES};

const MIB: usize = 1 << 20;
/// What a backup may hold of anonymous memory, whatever its source and however many threads it has;
/// with up to eight threads it is below 512 MiB. With that for any number, half of sixteen workers would
/// wait wherever everything is new.
pub const BOUND: usize = 800 * MIB;

/// The largest chunk by default.
const CHUNK: usize = 3 * MIB / 2;
/// Private, what zstd writes to, a second try, encoded, sealed, decoded again; and the four buffers of
/// the numeric filter.
const COPIES: usize = 10 * CHUNK;
/// Of zstd, 0.1 to 0.6 MiB each: for plain data both ways, planes, the chooser's two, probes, decoding; and
/// the one of a delta, while it runs.
const CONTEXTS: usize = 3 * MIB + 4 * MIB;
/// A bundle is given away when it has 768 KiB; the chunk that fills it is below 256.
const BUNDLE: usize = MIB;
const TOOLS: usize = COPIES
    + CONTEXTS
    + (BUNDLES_MAX + 1) * BUNDLE
    + BUNDLE_BASE_BYTES_MAX
    + CHUNK_BASE_BYTES_MAX as usize;

/// In directories, claims and the run while that is made.
const ROW: usize = 300;
/// Names of a million entries on the path to where the walk is.
const NAMES: usize = 16 * MIB;
/// What all workers share: what waits for others, frames held back, rows that no run has yet, decoded
/// frames with bases, the parent's directories where there is no journal.
const SHARED: usize = AHEAD_BYTES_MAX
    + MIXED_BELOW_BYTES as usize
    + CHUNKS_PER_RUN * ROW
    + HELD_BYTES
    + 2 * RECENT_BYTES
    + PARTS_BYTES_MAX
    + NAMES;
/// Small files as they were read, of all workers.
const SMALL_FILES: usize = 32 * MIB;

/// As many as fit.
pub const TOOLS_MAX: usize = (BOUND - SHARED - SMALL_FILES) / TOOLS;

/// Files from here on are mapped, so that the small ones of all workers fit.
pub fn large_bytes(threads: usize, most: u64) -> u64 {
    most.min((SMALL_FILES / threads) as u64)
}

/// Contexts and buffers that are used again and again.
#[derive(Default)]
pub struct Tools {
    pub encoder: Encoder,
    pub decoder: Decoder,
    /// The private copy of a chunk that is being stored.
    pub private: Vec<u8>,
    /// What the encoder made of it; then a finished frame, opened again.
    pub encoded: Vec<u8>,
    /// And decoded again.
    pub proof: Vec<u8>,
    /// Small chunks that will share a frame, by what they have in common; the last used last.
    pub bundles: Vec<Bundle>,
    /// Empty buffers of bundles.
    pub spare: Vec<Vec<u8>>,
}

/// Tools that workers take turns with; empty if each has its own.
pub struct Chest {
    free: Mutex<Vec<Tools>>,
    returned: Condvar,
    is_shared: bool,
}

impl Chest {
    pub fn new(threads: usize) -> Self {
        let is_shared = threads > TOOLS_MAX;
        let count = if is_shared { TOOLS_MAX } else { 0 };
        let free = Mutex::new((0..count).map(|_| Tools::default()).collect());
        Self { free, returned: Condvar::new(), is_shared }
    }

    /// What a worker has from its beginning to its end.
    pub fn own(&self) -> Option<Tools> {
        (!self.is_shared).then(Tools::default)
    }

    /// The last ones that were given back, as they are in the cache. `None`: `stopped`.
    pub fn take(&self, stopped: impl Fn() -> bool) -> Option<Tools> {
        let mut free = self.free.lock().expect("no panic holds this lock");
        loop {
            if stopped() {
                return None;
            }
            match free.pop() {
                Some(tools) => return Some(tools),
                None => free = self.returned.wait(free).expect("no panic holds this lock"),
            }
        }
    }

    /// Some with bundles in them, at the end.
    pub fn take_filled(&self) -> Option<Tools> {
        let mut free = self.free.lock().expect("no panic holds this lock");
        let place = free.iter().position(|tools| !tools.bundles.is_empty())?;
        Some(free.swap_remove(place))
    }

    pub fn give(&self, tools: Tools) {
        self.free.lock().expect("no panic holds this lock").push(tools);
        self.returned.notify_one();
    }

    /// Whoever waits asks again whether it is stopped.
    pub fn wake(&self) {
        drop(self.free.lock().expect("no panic holds this lock"));
        self.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::{BOUND, Chest, SHARED, SMALL_FILES, TOOLS, TOOLS_MAX, large_bytes};
    use crate::backup::read::LARGE_BYTES;

    #[test]
    fn what_may_be_held_is_bounded_with_any_number_of_threads() {
        let held = |threads: usize| {
            let files = threads * large_bytes(threads, LARGE_BYTES) as usize;
            SHARED + files + threads.min(TOOLS_MAX) * TOOLS
        };
        for threads in 1..=1024 {
            assert!(held(threads) <= BOUND, "{threads} threads: {} MiB", held(threads) >> 20);
        }
        assert_eq!(TOOLS_MAX, 16, "{} MiB", TOOLS >> 20);
        assert!(held(8) <= 512 << 20, "{} MiB", held(8) >> 20);
        assert!(held(2) <= 308 << 20, "{} MiB", held(2) >> 20);
        assert_eq!(large_bytes(SMALL_FILES >> 22, LARGE_BYTES), LARGE_BYTES);
    }

    #[test]
    fn no_more_tools_are_out_than_there_are_and_nobody_waits_for_ever() {
        let chest = Chest::new(TOOLS_MAX + 1);
        assert!(chest.own().is_none());
        let (out, rounds) = (AtomicUsize::new(0), 500);
        std::thread::scope(|scope| {
            for _ in 0..2 * TOOLS_MAX {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let tools = chest.take(|| false).expect("nothing stops");
                        assert!(out.fetch_add(1, Ordering::Relaxed) < TOOLS_MAX);
                        out.fetch_sub(1, Ordering::Relaxed);
                        chest.give(tools);
                    }
                });
            }
        });
        let all: Vec<_> = (0..TOOLS_MAX).map(|_| chest.take(|| false)).collect();
        assert!(all.iter().all(Option::is_some));
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| chest.take(|| stopped.load(Ordering::Relaxed)).is_none());
            stopped.store(true, Ordering::Relaxed);
            chest.wake();
            assert!(waiting.join().expect("it goes on"));
        });
        assert!(Chest::new(TOOLS_MAX).own().is_some());
    }
}
