//! How far the backup may run ahead of itself: entries that are done wait for those before them in
//! their directory, and the names of a directory for the last of its entries. What waits so is
//! counted in bytes, and above a limit the walk hands out nothing more.
//!
//! The walk goes in the order of names, so whatever something waits for has been handed out before
//! it. Workers never wait for the walk: what waits gets less while the walk stands still, down to
//! nothing, and so the walk can always go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Some 60,000 small files: far more than are under way at a time, so that the walk only pauses
/// where one file takes very long.
pub const AHEAD_BYTES_MAX: usize = 16 << 20;

pub struct Ahead {
    max_bytes: usize,
    bytes: AtomicUsize,
    gate: Mutex<()>,
    less: Condvar,
}

impl Ahead {
    /// In a repository of small packs, as in tests, less may wait.
    pub fn new(pack_bytes: u64) -> Self {
        let max_bytes = AHEAD_BYTES_MAX.min(pack_bytes as usize / 4);
        Self { max_bytes, bytes: AtomicUsize::new(0), gate: Mutex::new(()), less: Condvar::new() }
    }

    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn sub(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > self.max_bytes && before - bytes <= self.max_bytes {
            self.wake();
        }
    }

    /// Waits until there is room, or `stopped`; whoever makes that true calls `wake`.
    pub fn wait(&self, stopped: impl Fn() -> bool) {
        if !self.is_full() {
            return;
        }
        let mut gate = self.gate.lock().expect("no panic holds this lock");
        while self.is_full() && !stopped() {
            gate = self.less.wait(gate).expect("no panic holds this lock");
        }
    }

    pub fn wake(&self) {
        // Whoever is about to wait has either seen the news, or is waiting when this lock is had.
        drop(self.gate.lock().expect("no panic holds this lock"));
        self.less.notify_all();
    }

    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Ahead;

    #[test]
    fn the_walk_waits_until_there_is_less_or_until_it_is_told_to_stop() {
        let (ahead, stopped) = (Ahead::new(4_000), AtomicBool::new(false));
        let wait = || ahead.wait(|| stopped.load(Ordering::Relaxed));
        ahead.add(1_000);
        wait();
        for round in 0..100 {
            ahead.add(500 + round);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(wait);
                ahead.sub(400);
                ahead.sub(100 + round);
                waiting.join().expect("it goes on");
            });
        }
        ahead.add(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            stopped.store(true, Ordering::Relaxed);
            ahead.wake();
            waiting.join().expect("it goes on");
        });
    }
}
