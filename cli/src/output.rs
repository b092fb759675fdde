//! The only place that writes: the result to standard output, the talk to standard error. A reader
//! that closes the pipe (`| head`) ends a listing quietly, but never a backup. Names are sanitised
//! by the callers.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::args::Globals;
use crate::fail::Fail;
use crate::sanitise;

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    stdout: Arc<Mutex<BufWriter<Box<dyn Write + Send>>>>,
}

impl Output {
    pub(crate) fn new(globals: &Globals) -> Self {
        // A descriptor of our own, since `Stdout` looks for line ends in everything and flushes at
        // each.
        let stdout: Box<dyn Write + Send> = match io::stdout().as_fd().try_clone_to_owned() {
            Ok(own) => Box::new(File::from(own)),
            Err(_) => Box::new(io::stdout()),
        };
        Self {
            json: globals.json,
            quiet: globals.quiet,
            verbose: globals.verbose,
            stdout: Arc::new(Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, stdout))),
        }
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    pub(crate) fn verbose(&self) -> bool {
        self.verbose
    }

    /// Part of the result: what the command was asked for.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fail> {
        writeln!(self.stdout(), "{text}").map_err(|e| Fail::output(&e))
    }

    /// What a command did, of which `--quiet` spares the reader. A closed pipe is no failure: the
    /// work is done.
    pub(crate) fn summary(&self, text: &str) -> Result<(), Fail> {
        if self.quiet {
            return Ok(());
        }
        // At once, so that what is said next comes after it on a terminal.
        unless_closed(self.line(text).and_then(|()| self.flush()))
    }

    pub(crate) fn object(&self, object: &Value) -> Result<(), Fail> {
        self.line(&sanitise::json_line(object))
    }

    /// An object that stands for work done: at once, and a closed pipe is no failure.
    pub(crate) fn event(&self, object: &Value) -> Result<(), Fail> {
        unless_closed(self.object(object).and_then(|()| self.flush()))
    }

    /// Raw bytes for `dump` and completions.
    pub(crate) fn bytes(&self) -> Bytes<'_> {
        Bytes(self)
    }

    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            talk(text);
        }
    }

    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            talk(text);
        }
    }

    /// Said even with `--quiet`.
    pub(crate) fn warn(&self, text: &str) {
        talk(&format!("warning: {text}"));
    }

    /// The end of a command that failed. `on_stdout`: with `--json` the failure is an object there
    /// too.
    pub(crate) fn fail(&self, fail: &Fail, on_stdout: bool) {
        let _ = self.finish();
        if fail.message.is_empty() {
            return;
        }
        talk(&format!("error: {}", fail.message));
        if let Some(hint) = &fail.hint {
            talk(&format!("hint: {hint}"));
        }
        if self.json && on_stdout {
            let object = json!({"type": "error", "message": fail.message, "hint": fail.hint,
                "exit_code": fail.exit as u8});
            let _ = self.event(&object);
        }
    }

    pub(crate) fn finish(&self) -> Result<(), Fail> {
        unless_closed(self.flush())
    }

    fn flush(&self) -> Result<(), Fail> {
        self.stdout().flush().map_err(|e| Fail::output(&e))
    }

    fn stdout(&self) -> MutexGuard<'_, BufWriter<Box<dyn Write + Send>>> {
        self.stdout.lock().expect("no panic holds this lock")
    }
}

/// Takes the lock for each write only, so that a failure can be told while the engine still holds
/// the writer.
pub(crate) struct Bytes<'a>(&'a Output);

impl Write for Bytes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.stdout().flush()
    }
}

/// Like `eprintln!`, which would panic where standard error is closed.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn unless_closed(written: Result<(), Fail>) -> Result<(), Fail> {
    match written {
        Err(fail) if fail.message.is_empty() => Ok(()),
        other => other,
    }
}
