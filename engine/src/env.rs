//! Randomness, clock and thread count, so that a run can be replayed: with a seeded `Env` there is one thread, every
//! stage runs inline in fixed order and the same bytes come out. Not an abstraction over the operating system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type TimeNs = i64;

#[derive(Clone, Debug)]
pub struct Env {
    source: Arc<Source>,
    threads: usize,
}

#[derive(Debug)]
enum Source {
    System,
    Seeded { seed: [u8; 32], draws: AtomicU64, ticks: AtomicU64, start_ns: TimeNs },
}

impl Env {
    /// The real clock and the operating system's randomness. `threads` is at least 1.
    pub fn system(threads: usize) -> Self {
        Self { source: Arc::new(Source::System), threads: threads.max(1) }
    }

    /// Replayable: one thread, randomness from `seed`, a clock that starts at `start_ns` and ticks one
    /// millisecond a reading. For tests and simulations only: never for real data.
    pub fn seeded(seed: u64, start_ns: TimeNs) -> Self {
        let seed = *blake3::hash(&seed.to_le_bytes()).as_bytes();
        let source =
            Source::Seeded { seed, draws: AtomicU64::new(0), ticks: AtomicU64::new(0), start_ns };
        Self { source: Arc::new(source), threads: 1 }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn now(&self) -> TimeNs {
        match &*self.source {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }
            Source::Seeded { ticks, start_ns, .. } => {
                start_ns + ticks.fetch_add(1, Ordering::Relaxed) as i64 * 1_000_000
            }
        }
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        match &*self.source {
            // Without randomness nothing may be sealed; there is no way on.
            Source::System => getrandom::fill(bytes).expect("the system's randomness fails"),
            Source::Seeded { seed, draws, .. } => {
                let draw = draws.fetch_add(1, Ordering::Relaxed);
                blake3::Hasher::new_keyed(seed)
                    .update(&draw.to_le_bytes())
                    .finalize_xof()
                    .fill(bytes);
            }
        }
    }

    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
