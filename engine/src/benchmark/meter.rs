//! How speeds are taken: work is done again and again for a short time, by one thread, then by all of them at once, and
//! divided by the processor time it took. Other load on the machine therefore hardly counts; what all threads share,
//! memory and caches, does.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::sys::clock::thread_cpu;
use crate::watch::Watch;

/// A measurement that has to wait for its processor ends after so many times its length.
const PATIENCE: f64 = 4.0;

/// What is done, or bytes, in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// By one thread.
    pub one: f64,
    /// By all of them together.
    pub all: f64,
}

pub struct Meter<'m> {
    pub threads: usize,
    /// Processors that run at once; more threads than that are no faster.
    pub cores: usize,
    /// For each speed, of one thread and of all.
    pub seconds: f64,
    pub watch: &'m dyn Watch,
}

impl Meter<'_> {
    /// `begin` is called in each thread and gives what is measured: it works once and says how much was done.
    pub fn speed<W: FnMut() -> u64>(&self, begin: impl Fn() -> W + Sync) -> Result<Speed> {
        let one = self.rate(1, &begin)?;
        // More threads than processors are no faster, and take longer to say so.
        let threads = self.threads.min(self.cores);
        let all = if threads == 1 { one } else { self.rate(threads, &begin)? };
        Ok(Speed { one, all })
    }

    fn rate<W: FnMut() -> u64>(
        &self,
        threads: usize,
        begin: &(impl Fn() -> W + Sync),
    ) -> Result<f64> {
        self.go_on()?;
        Ok(std::thread::scope(|scope| {
            let run = || {
                let mut work = begin();
                work();
                timed(self.seconds, work)
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(join).sum()
        }))
    }

    pub fn go_on(&self) -> Result<()> {
        if self.watch.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Of the threads' own speeds, what the processors give them.
pub fn share(threads: usize, cores: usize) -> f64 {
    (cores as f64 / threads as f64).min(1.0)
}

pub fn join<T>(thread: std::thread::ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn timed(seconds: f64, mut work: impl FnMut() -> u64) -> f64 {
    let (started, cpu) = (Instant::now(), thread_cpu());
    let mut done = 0;
    loop {
        done += work();
        let spent = (thread_cpu() - cpu).as_secs_f64();
        if spent >= seconds || started.elapsed().as_secs_f64() >= seconds * PATIENCE {
            return done as f64 / spent.max(1e-9);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Meter, share};
    use crate::watch::Tally;

    #[test]
    fn every_thread_works_at_least_once_and_all_count() {
        let watch = Tally::default();
        let meter = Meter { threads: 3, cores: 3, seconds: 0.0, watch: &watch };
        let (begun, worked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = || {
            begun.fetch_add(1, Ordering::Relaxed);
            || {
                worked.fetch_add(1, Ordering::Relaxed);
                1_000
            }
        };
        let speed = meter.speed(begin).unwrap();
        assert!(speed.one > 0.0 && speed.all > 0.0, "{speed:?}");
        // One thread, then three; each once before the clock runs and once while it does.
        let counts = (begun.into_inner(), worked.into_inner());
        assert_eq!(counts, (4, 8));
    }

    #[test]
    fn threads_without_processors_add_nothing() {
        assert_eq!(share(2, 4), 1.0);
        assert_eq!(share(4, 2), 0.5);
    }
}
