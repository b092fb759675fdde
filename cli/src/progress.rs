//! What is seen while the engine works: a bar on a terminal, problems as they come, and the cancel
//! flag. Threads of the engine only add to counters here; one thread of ours draws, ten times a
//! second.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use strongroom::watch::{Counter, Problem, ProblemKind, Tally, Watch};

use crate::Tool;
use crate::format;
use crate::interrupt::{Interrupt, Orderly};
use crate::output::{Output, talk};
use crate::sanitise;

const TICK: Duration = Duration::from_millis(100);
/// The shown rate forgets what is older than a few times this.
const SMOOTH: Duration = Duration::from_secs(4);

/// What the bar measures, and how problems are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Backup,
    Restore,
    Check,
    Prune,
}

/// Lives as long as the run it watches; meanwhile the first signal stops that run in order.
pub(crate) struct Progress<'a> {
    shared: Arc<Shared>,
    out: &'a Output,
    interrupt: &'a Interrupt,
    drawer: Option<JoinHandle<()>>,
    stop_told: AtomicBool,
    _orderly: Orderly<'a>,
}

struct Shared {
    work: Work,
    tally: Tally,
    current: Mutex<Vec<u8>>,
    bar: Option<ProgressBar>,
    done: AtomicBool,
}

impl<'a> Progress<'a> {
    pub(crate) fn start(tool: &'a Tool, work: Work) -> Self {
        let bar = (io::stderr().is_terminal() && !tool.out.quiet()).then(new_bar);
        let shared = Arc::new(Shared {
            work,
            tally: Tally::default(),
            current: Mutex::default(),
            bar,
            done: AtomicBool::new(false),
        });
        let drawn = Arc::clone(&shared);
        let drawer = shared.bar.is_some().then(|| thread::spawn(move || draw(&drawn)));
        Self {
            shared,
            out: &tool.out,
            interrupt: &tool.interrupt,
            drawer,
            stop_told: AtomicBool::new(false),
            _orderly: tool.interrupt.orderly(),
        }
    }

    /// Without tearing the bar.
    fn say(&self, text: &str) {
        match &self.shared.bar {
            Some(bar) => bar.suspend(|| talk(text)),
            None => talk(text),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(drawer) = self.drawer.take() {
            drawer.thread().unpark();
            let _ = drawer.join();
        }
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Progress<'_> {
    fn add(&self, counter: Counter, n: u64) {
        self.shared.tally.add(counter, n);
    }

    fn current(&self, name: &[u8]) {
        if self.shared.bar.is_none() {
            return;
        }
        // A name that is missed because another thread tells its own does not matter; waiting
        // would.
        if let Ok(mut current) = self.shared.current.try_lock() {
            current.clear();
            current.extend_from_slice(name);
        }
    }

    fn problem(&self, problem: Problem) {
        // Only counted: the tally would keep every problem in memory, and they are told at once.
        self.shared.tally.add(Counter::Problems, 1);
        let minor = problem.kind == ProblemKind::Notice;
        if !(minor && self.out.quiet()) {
            self.say(&problem_text(&problem));
        }
        // A check lists its damages itself, with the snapshots and paths they hit.
        if self.out.json() && self.shared.work != Work::Check {
            let _ = self.out.event(&problem_object(&problem));
        }
    }

    fn cancelled(&self) -> bool {
        let asked = self.interrupt.asked();
        if asked && !self.stop_told.swap(true, Ordering::Relaxed) && !self.out.quiet() {
            self.say("stopping; a second signal ends at once");
        }
        asked
    }
}

fn problem_text(problem: &Problem) -> String {
    let (name, cause) = (sanitise::name(&problem.name), sanitise::text(&problem.cause));
    let what = match problem.kind {
        ProblemKind::Unread => "not read",
        ProblemKind::Inconsistent => "changed while it was read",
        ProblemKind::Metadata => "metadata not restored in full",
        ProblemKind::NotRestored => "not restored",
        ProblemKind::Damage => "damaged",
        ProblemKind::Notice => "note",
    };
    format!("{what}: {name}: {cause}")
}

fn problem_object(problem: &Problem) -> Value {
    let kind = match problem.kind {
        ProblemKind::Unread => "unread",
        ProblemKind::Inconsistent => "inconsistent",
        ProblemKind::Metadata => "metadata",
        ProblemKind::NotRestored => "not_restored",
        ProblemKind::Damage => "damage",
        ProblemKind::Notice => "notice",
    };
    let mut object = Map::new();
    object.insert("type".to_owned(), "problem".into());
    object.insert("kind".to_owned(), kind.into());
    sanitise::insert_name(&mut object, "name", &problem.name);
    object.insert("cause".to_owned(), problem.cause.clone().into());
    Value::Object(object)
}

fn new_bar() -> ProgressBar {
    // The shorter line last: what is typed, ^C say, is echoed behind it and must not begin a line.
    let style = ProgressStyle::with_template("{wide_msg}\n{bar:20} {prefix}")
        .expect("the template is sound")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
}

fn draw(shared: &Shared) {
    let Some(bar) = &shared.bar else { return };
    let mut speed = Speed::new();
    while !shared.done.load(Ordering::Relaxed) {
        let (done, found) = shared.position();
        let read = match shared.work {
            Work::Check => shared.tally.get(Counter::BytesRead),
            Work::Prune => shared.tally.get(Counter::BytesStored),
            Work::Backup | Work::Restore => done,
        };
        let per_second = speed.update(read, Instant::now());
        bar.set_length(found.max(1));
        bar.set_position(done.min(found));
        bar.set_prefix(shared.figures(done, found, read, per_second));
        if let Ok(current) = shared.current.lock() {
            bar.set_message(sanitise::name(&current));
        }
        thread::park_timeout(TICK);
    }
}

impl Shared {
    fn position(&self) -> (u64, u64) {
        let (done, found) = match self.work {
            Work::Backup | Work::Restore => (Counter::BytesDone, Counter::BytesFound),
            Work::Check | Work::Prune => (Counter::PacksDone, Counter::PacksFound),
        };
        (self.tally.get(done), self.tally.get(found))
    }

    fn figures(&self, done: u64, found: u64, read: u64, per_second: f64) -> String {
        let rate = format::bytes(per_second as u64);
        let rest = match self.work {
            Work::Backup | Work::Restore => found.saturating_sub(done) as f64 / per_second,
            // Packs are alike in size, so the mean so far says how much is left.
            Work::Check | Work::Prune => {
                let left = found.saturating_sub(done) as f64 * read as f64 / done.max(1) as f64;
                left / per_second
            }
        };
        let eta = match rest.is_finite() && done < found {
            true => format!("  {} left", format::duration(rest.max(1.0).round())),
            false => String::new(),
        };
        let amount = match self.work {
            Work::Backup | Work::Restore => {
                let files = format::count(self.tally.get(Counter::FilesDone));
                format!("{} of {}  {files} files", format::bytes(done), format::bytes(found))
            }
            Work::Check | Work::Prune => {
                format!("{} of {} packs", format::count(done), format::count(found))
            }
        };
        format!("{amount}  {rate}/s{eta}")
    }
}

/// Bytes per second, smoothed exponentially.
struct Speed {
    last: Instant,
    last_bytes: u64,
    per_second: f64,
    /// How much of `per_second` rests on observation; below 1 at the start, where the mean would
    /// lag behind.
    weight: f64,
}

impl Speed {
    fn new() -> Self {
        Self { last: Instant::now(), last_bytes: 0, per_second: 0.0, weight: 0.0 }
    }

    fn update(&mut self, bytes: u64, now: Instant) -> f64 {
        let seconds = now.duration_since(self.last).as_secs_f64();
        if seconds > 0.0 {
            let keep = (-seconds / SMOOTH.as_secs_f64()).exp();
            let current = bytes.saturating_sub(self.last_bytes) as f64 / seconds;
            self.per_second = self.per_second * keep + current * (1.0 - keep);
            self.weight = self.weight * keep + (1.0 - keep);
            (self.last, self.last_bytes) = (now, bytes);
        }
        if self.weight > 0.0 { self.per_second / self.weight } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_right_from_the_start_and_follows() {
        let mut speed = Speed::new();
        let start = speed.last;
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        assert!((speed.update(1000, at(1)) - 10_000.0).abs() < 1.0);
        for tenths in 2..200 {
            speed.update(1000 * tenths, at(tenths));
        }
        assert!((speed.update(200_000, at(200)) - 10_000.0).abs() < 1.0);
        assert!(speed.update(200_000, at(400)) < 100.0);
    }

    #[test]
    fn problems_name_their_object_safely() {
        let problem = Problem {
            kind: ProblemKind::Unread,
            name: b"/a\x1b\xff".to_vec(),
            cause: "denied\n".to_owned(),
        };
        assert_eq!(problem_text(&problem), r"not read: /a\x1b\xff: denied\n");
        let object = sanitise::json_line(&problem_object(&problem));
        assert!(object.contains("\"name_hex\":\"2f611bff\""), "{object}");
    }
}
