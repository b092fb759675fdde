//! Runs one command and says what it cost: wall time, CPU time, peak memory. The one place of this
//! crate with `unsafe`, as neither std nor rustix offers `wait4`.
//!
//! Peak memory is the kernel's `ru_maxrss`: the largest resident set of the child or of any child it
//! waited for itself, in which pages of mapped files count too, so a tool that maps its source looks
//! larger than its anonymous memory. The child also starts with the resident set of the runner
//! (Linux charges the memory map that exec replaces), so the runner keeps itself small.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a failed command's output that the error shows.
const SHOWN_BYTES: usize = 2000;

#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    /// User and system time of the child and of what it waited for.
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
}

/// Runs `command` to its end with its output in `log`; an exit code other than 0 is an error.
pub fn run(mut command: Command, log: &Path) -> io::Result<Cost> {
    let out = File::create(log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let started = Instant::now();
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("starting {:?}: {error}", command.get_program()))
    })?;
    let (status, usage) = wait4(child.id() as libc::pid_t)?;
    let wall = started.elapsed();
    if !status.success() {
        let output = fs::read(log)?;
        let shown = String::from_utf8_lossy(&output[output.len().saturating_sub(SHOWN_BYTES)..]);
        return Err(io::Error::other(format!("{command:?} ended with {status}:\n{shown}")));
    }
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    Ok(Cost { wall, cpu, peak_rss_bytes: usage.ru_maxrss as u64 * 1024 })
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
