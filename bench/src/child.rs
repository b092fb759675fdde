//! Runs one command and says what it cost: wall time, CPU time, peak memory. The one place of this
//! crate with `unsafe`, as neither std nor rustix offers `wait4`.
//!
//! Peak memory is told twice: the kernel's `ru_maxrss`, in which pages of mapped files count too (the
//! child also starts with the resident set of the runner, as Linux charges the memory map that exec
//! replaces), and the largest anonymous resident set of the child itself, looked at every few
//! milliseconds, so that a short peak may be missed.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a failed command's output that the error shows.
const SHOWN_BYTES: usize = 2000;
/// Between two looks at the child's anonymous memory.
const LOOK_EVERY: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    /// User and system time of the child and of what it waited for.
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
    pub peak_anonymous_bytes: u64,
}

/// Runs `command` to its end with its output in `log`; an exit code other than 0 is an error.
pub fn run(mut command: Command, log: &Path) -> io::Result<Cost> {
    let out = File::create(log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let started = Instant::now();
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("starting {:?}: {error}", command.get_program()))
    })?;
    let pid = child.id();
    let ended = AtomicBool::new(false);
    let (waited, wall, peak_anonymous_bytes) = thread::scope(|scope| {
        let looker = scope.spawn(|| peak_anonymous_bytes(pid, &ended));
        let waited = wait4(pid as libc::pid_t);
        let wall = started.elapsed();
        ended.store(true, Ordering::Relaxed);
        looker.thread().unpark();
        (waited, wall, looker.join().unwrap_or(0))
    });
    let (status, usage) = waited?;
    if !status.success() {
        let output = fs::read(log)?;
        let shown = String::from_utf8_lossy(&output[output.len().saturating_sub(SHOWN_BYTES)..]);
        return Err(io::Error::other(format!("{command:?} ended with {status}:\n{shown}")));
    }
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_rss_bytes = usage.ru_maxrss as u64 * 1024;
    Ok(Cost { wall, cpu, peak_rss_bytes, peak_anonymous_bytes })
}

/// The most that any look saw until the process `ended`.
fn peak_anonymous_bytes(pid: u32, ended: &AtomicBool) -> u64 {
    let status = format!("/proc/{pid}/status");
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        thread::park_timeout(LOOK_EVERY);
    }
    peak
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

#[expect(unsafe_code, reason = "wait4 has no safe wrapper in the crates this workspace uses")]
fn wait4(pid: libc::pid_t) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live locals of the types the call writes; `pid` is a child
        // of ours that nobody else waits for, as its `Child` is never waited on.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if got == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: a struct of integers, all bits zero before the call and written by it.
    let usage = unsafe { usage.assume_init() };
    Ok((ExitStatus::from_raw(status), usage))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::run;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_cost_of_a_busy_child_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let cost = run(shell(busy), &folder.path().join("log")).expect("runs");
        assert!(cost.cpu > Duration::from_millis(5), "{cost:?}");
        assert!(cost.wall >= Duration::from_millis(5), "{cost:?}");
        assert!(cost.peak_rss_bytes > 100 << 10, "{cost:?}");
        assert!((1..cost.peak_rss_bytes).contains(&cost.peak_anonymous_bytes), "{cost:?}");
    }

    #[test]
    fn a_failure_shows_what_the_child_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = run(shell("echo no such study; exit 3"), &folder.path().join("log"));
        let error = error.expect_err("exit code 3").to_string();
        assert!(error.contains("no such study"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }
}
