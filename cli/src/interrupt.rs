//! SIGINT and SIGTERM. While something runs that can stop in order, the first signal asks it to and
//! the second ends the process at once; at any other time the first one ends it. Either way the
//! exit code is 130.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::fail::Exit;

#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    at_once: Arc<AtomicBool>,
}

impl Interrupt {
    pub(crate) fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let at_once = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: only a signal that finds `at_once` set from before ends
            // the process.
            flag::register_conditional_shutdown(
                signal,
                Exit::Interrupted as i32,
                Arc::clone(&at_once),
            )?;
            flag::register(signal, Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self { asked, at_once })
    }

    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Until the guard is dropped, the first signal only sets `asked`.
    pub(crate) fn orderly(&self) -> Orderly<'_> {
        self.at_once.store(false, Ordering::SeqCst);
        Orderly { interrupt: self }
    }
}

pub(crate) struct Orderly<'a> {
    interrupt: &'a Interrupt,
}

impl Drop for Orderly<'_> {
    fn drop(&mut self) {
        self.interrupt.at_once.store(true, Ordering::SeqCst);
    }
}
