//! System calls that fail on a plan, for tests: every call into the file system that the engine makes for a source, a
//! target, a local store or the client's cache asks here first. Built only for tests (the feature `faults`, which
//! nothing but the engine's own tests turns on); else it is nothing at all.
//!
//! A plan belongs to a thread and sees the calls of that thread in order, so with one thread
//! (`Env::seeded`) the same plan over the same run fails the same call. What a call is named says where
//! it belongs: `source read`, `target write`, `store sync`, `cache write`. Deliberately absent: faults in
//! the middle of what the kernel makes atomic.

use std::io;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The call is not made; the error number is its answer.
    Fail(i32),
    /// A read or write moves half of its bytes: a read then ends there, a write fails with the error number of a full
    /// disk. Like `Fail` with an input/output error where nothing is moved.
    Short,
}

#[cfg(any(test, feature = "faults"))]
pub use planned::with_plan;
#[cfg(any(test, feature = "faults"))]
pub(crate) use planned::{pass, pass_bytes};

#[cfg(any(test, feature = "faults"))]
mod planned {
    use std::cell::RefCell;
    use std::io;

    use rustix::io::Errno;

    use super::Fault;

    type Plan = Box<dyn FnMut(&'static str) -> Fault>;

    thread_local! {
        static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    }

    /// Runs `run` with `plan` deciding every call that this thread makes.
    pub fn with_plan<T>(
        plan: impl FnMut(&'static str) -> Fault + 'static,
        run: impl FnOnce() -> T,
    ) -> T {
        struct Clear;
        impl Drop for Clear {
            fn drop(&mut self) {
                PLAN.set(None);
            }
        }
        PLAN.set(Some(Box::new(plan)));
        let _clear = Clear;
        run()
    }

    fn strike(call: &'static str) -> Fault {
        PLAN.with_borrow_mut(|plan| plan.as_mut().map_or(Fault::None, |plan| plan(call)))
    }

    pub(crate) fn pass(call: &'static str) -> io::Result<()> {
        match strike(call) {
            Fault::None => Ok(()),
            Fault::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Short => Err(Errno::IO.into()),
        }
    }

    /// How many of `len` bytes a call may move.
    pub(crate) fn pass_bytes(call: &'static str, len: usize) -> io::Result<usize> {
        match strike(call) {
            Fault::None => Ok(len),
            Fault::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Short => Ok(len / 2),
        }
    }
}

/// May this call be made?
#[cfg(not(any(test, feature = "faults")))]
#[inline(always)]
pub(crate) fn pass(_call: &'static str) -> io::Result<()> {
    Ok(())
}

#[cfg(not(any(test, feature = "faults")))]
#[inline(always)]
pub(crate) fn pass_bytes(_call: &'static str, len: usize) -> io::Result<usize> {
    Ok(len)
}

/// Writes through the plan: `write` is handed what may be written.
#[inline(always)]
pub(crate) fn write(
    call: &'static str,
    bytes: &[u8],
    write: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let n = pass_bytes(call, bytes.len())?;
    write(&bytes[..n])?;
    if n < bytes.len() { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
}
