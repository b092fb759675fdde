//! The source of `backup --stdin-name`: standard input, or the output of a command that has to exit
//! 0. Reads wait with `poll`, so that a signal ends them although nothing arrives.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use strongroom::error::Error;

use crate::fail::{Exit, Fail};
use crate::interrupt::Interrupt;
use crate::sanitise;

/// How long a signal may wait while nothing arrives.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

pub(super) struct Stream {
    reader: Reader,
    writer: Writer,
}

impl Stream {
    /// An empty `command` means standard input.
    pub(super) fn start(command: &[OsString], interrupt: &Interrupt) -> Result<Self, Fail> {
        let interrupt = interrupt.clone();
        let Some((program, args)) = command.split_first() else {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|source| {
                Fail::from(Error::Source { path: "standard input".into(), source })
            })?;
            let writer = Writer { child: None, what: String::new(), interrupt: interrupt.clone() };
            return Ok(Self { reader: Reader { from: stdin, interrupt }, writer });
        };
        let what = sanitise::raw(program.as_encoded_bytes());
        let mut child = Command::new(program)
            .args(args)
            .env_remove("STRONGROOM_PASSWORD")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Fail::new(Exit::Failure, format!("cannot run {what}: {e}")))?;
        let from = OwnedFd::from(child.stdout.take().expect("it is piped"));
        let writer = Writer { child: Some(child), what, interrupt: interrupt.clone() };
        Ok(Self { reader: Reader { from, interrupt }, writer })
    }

    pub(super) fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

pub(super) struct Reader {
    from: OwnedFd,
    interrupt: Interrupt,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.interrupt.asked() {
                // Not `ErrorKind::Interrupted`, which every caller takes as "try again".
                return Err(io::Error::other("stopped by a signal"));
            }
            let mut waiting = [PollFd::new(&self.from, PollFlags::IN)];
            match poll(&mut waiting, Some(&POLL)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => match rustix::io::read(&self.from, &mut *buffer) {
                    Err(Errno::INTR) => {}
                    read => return Ok(read?),
                },
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Whatever writes the stream; ended when this is dropped.
pub(super) struct Writer {
    child: Option<Child>,
    what: String,
    interrupt: Interrupt,
}

impl Writer {
    /// After the stream's end, before the commit: the exit code of the command, which has to be 0.
    pub(super) fn finish(&mut self) -> Result<Option<u32>, Error> {
        let status = self.child.as_mut().map(Child::wait);
        if self.interrupt.asked() {
            return Err(Error::Interrupted);
        }
        match status {
            None => Ok(None),
            Some(Ok(status)) if status.success() => Ok(Some(0)),
            Some(Ok(status)) => {
                Err(Error::Command { what: self.what.clone(), code: status.code() })
            }
            Some(Err(source)) => Err(Error::Source { path: self.what.clone().into(), source }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ends it if the backup failed first; after `finish` there is nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
