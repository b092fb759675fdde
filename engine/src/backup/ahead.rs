//! How far the backup may run ahead of itself: entries that are done wait for those before them in
//! their directory, and the names of a directory for the last of its entries. What waits so is
//! counted in bytes, and above a limit the walk hands out nothing more.
//!
//! The walk goes in the order of names, so whatever something waits for has been handed out before
//! it. Workers never wait for the walk: what waits gets less while the walk stands still, down to
//! nothing, and so the walk can always go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Some 100,000 small files: far more than are under way at a time, so that the walk only stops
/// where one file takes very long.
const AHEAD_BYTES_MAX: usize = 24 << 20;

#[derive(Default)]
pub struct Ahead {
    bytes: AtomicUsize,
    gate: Mutex<()>,
    less: Condvar,
}

impl Ahead {
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn sub(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > AHEAD_BYTES_MAX && before - bytes <= AHEAD_BYTES_MAX {
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

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > AHEAD_BYTES_MAX
    }
}
