//! What is said and which exit code is given when something fails: one exhaustive match from the
//! engine's errors, decided nowhere else. The engine states the fact; the remedy is added here.

use std::error::Error as StdError;
use std::io;

use strongroom::error::{Error, FormatError};
use strongroom::store::StoreError;

use crate::sanitise;

/// Exit codes (docs/cli.md): scripts rely on them, so a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    SourceUnread = 3,
    NoRepository = 10,
    Busy = 11,
    WrongKey = 12,
    Role = 13,
    Damage = 14,
    Interrupted = 130,
}

impl Exit {
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "success",
            Exit::Failure => "failure",
            Exit::Usage => "wrong usage: an option or argument that cannot be",
            Exit::SourceUnread => {
                "the snapshot was made, but some source files could not be read, or kept changing"
            }
            Exit::NoRepository => "there is no repository at that place",
            Exit::Busy => "fenced by another client, or busy: run it again",
            Exit::WrongKey => "wrong password or key file, or none could be had",
            Exit::Role => "the role of this key may not do this",
            Exit::Damage => "damage was found, or a restore lost something",
            Exit::Interrupted => "interrupted by a signal",
        }
    }
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Fail {
    pub(crate) exit: Exit,
    /// One line, safe for a terminal. Empty: end in silence (whoever read our output has closed the
    /// pipe).
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fail {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Standard output could not be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Failure, "");
        }
        Self::new(Exit::Failure, format!("cannot write to standard output: {error}"))
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Error::Store(error).into()
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let system_hint = system_hint(&error);
        let (exit, message, hint) = explain(error);
        let message = sanitise::text(&message);
        Self { exit, message, hint: system_hint.or(hint).map(str::to_owned) }
    }
}

const NO_REPOSITORY: &str = "check --repo or STRONGROOM_REPO; `strongroom init` makes a repository";
const DAMAGE: &str =
    "`strongroom check --read-data` says what is affected; everything else stays restorable";
const LIST: &str = "`strongroom snapshots` lists them";
const BROWSE: &str = "`strongroom ls SNAP:PATH` shows what is there";

/// The one place that knows every engine error. Message, hint and code stand side by side so that a
/// new variant needs all three: therefore longer than a function should be.
fn explain(error: Error) -> (Exit, String, Option<&'static str>) {
    match error {
        Error::Store(e @ StoreError::NoStore { .. }) => {
            (Exit::NoRepository, e.to_string(), Some(NO_REPOSITORY))
        }
        Error::Store(e) => (Exit::Failure, chain(&e), None),
        Error::NoRepository { place } => {
            (Exit::NoRepository, format!("there is no repository at {place}"), Some(NO_REPOSITORY))
        }
        Error::RepositoryExists { place } => (
            Exit::Failure,
            format!("there is a repository at {place} already"),
            Some("nothing was changed; choose another folder"),
        ),
        Error::Format { name, source } => explain_format(&name, &source),
        Error::WrongKey { slots } => (
            Exit::WrongKey,
            format!("none of the {slots} key slots opens with this password or key file"),
            Some("run with -v to see where the password or key file was taken from"),
        ),
        Error::KeyFile { path, what } => {
            (Exit::WrongKey, format!("key file {}: {what}", path.display()), None)
        }
        Error::Role { role, needs } => (
            Exit::Role,
            format!("the role {role} may not do this; it needs {needs}"),
            Some("use the password or key file of another role"),
        ),
        Error::NoSnapshot { wanted } => {
            (Exit::Failure, format!("there is no snapshot {wanted}"), Some(LIST))
        }
        Error::AmbiguousSnapshot { wanted, found } => (
            Exit::Failure,
            format!("{found} snapshots begin with {wanted}"),
            Some("give more digits of the id"),
        ),
        Error::NoPath { snapshot, path } => {
            let path = sanitise::raw(&path);
            (Exit::Failure, format!("snapshot {snapshot} has no {path}"), Some(BROWSE))
        }
        Error::NotAFile { path } => (
            Exit::Failure,
            format!("{} is not a file", sanitise::raw(&path)),
            Some("`strongroom restore` brings back folders and other entries"),
        ),
        Error::NotADirectory { path } => {
            (Exit::Failure, format!("{} is not a folder", sanitise::raw(&path)), None)
        }
        Error::Damaged { what, cause } => {
            (Exit::Damage, format!("{what} is damaged: {cause}"), Some(DAMAGE))
        }
        Error::Rollback { what } => (
            Exit::Damage,
            format!("the repository has gone back in time: {what}"),
            Some("an older copy was put in its place, or objects were removed: ask who runs it"),
        ),
        Error::NoHold { wanted } => (
            Exit::Failure,
            format!("there is no hold {wanted}"),
            Some("`strongroom hold list` lists them"),
        ),
        Error::HoldTooLate { snapshot, generation, is_final } => (
            if is_final { Exit::Failure } else { Exit::Busy },
            format!("the hold came too late: prune {generation} is deleting snapshot {snapshot}"),
            if is_final {
                Some(
                    "the snapshot was forgotten, and it was decided to delete it; nothing can stop that",
                )
            } else {
                Some("that is not decided yet: run `strongroom prune`, then try again")
            },
        ),
        Error::Fenced { session } => (
            Exit::Busy,
            format!("session {session} was fenced by another client; nothing is lost"),
            Some("run it again: it goes on from what is stored already"),
        ),
        Error::Source { path, source } => {
            (Exit::Failure, format!("cannot read {}: {source}", path.display()), None)
        }
        Error::Target { path, source } => {
            (Exit::Failure, format!("cannot restore to {}: {source}", path.display()), None)
        }
        Error::Cache { path, source } => (
            Exit::Failure,
            format!("cannot use the cache {}: {source}", path.display()),
            Some("choose another folder with --cache-dir or STRONGROOM_CACHE_DIR"),
        ),
        Error::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => {
            (Exit::Failure, String::new(), None)
        }
        Error::Output { source } => {
            (Exit::Failure, format!("cannot write the output: {source}"), None)
        }
        Error::Command { what, code } => {
            let how = code.map_or("was ended by a signal".to_owned(), |c| format!("exited {c}"));
            let hint = "no snapshot was made, since its output may be incomplete";
            (Exit::Failure, format!("the command {what} {how}"), Some(hint))
        }
        Error::Interrupted => (
            Exit::Interrupted,
            "interrupted".to_owned(),
            Some("run the same command again: what was done so far is not done twice"),
        ),
        Error::Setting { what } => (Exit::Usage, what, None),
    }
}

fn explain_format(name: &str, error: &FormatError) -> (Exit, String, Option<&'static str>) {
    let message = format!("{name}: {error}");
    match error {
        FormatError::Newer { .. } | FormatError::Unsupported { .. } => {
            (Exit::Failure, message, Some("a newer strongroom wrote this; use that"))
        }
        FormatError::Truncated { .. }
        | FormatError::NotOurs { .. }
        | FormatError::Kind { .. }
        | FormatError::Malformed { .. }
        | FormatError::Limit { .. }
        | FormatError::Rot { .. }
        | FormatError::Commitment { .. }
        | FormatError::Altered { .. }
        | FormatError::Signature { .. } => (Exit::Damage, message, Some(DAMAGE)),
    }
}

/// The error and its causes on one line, none said twice.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The operating system's refusals have remedies of their own, whatever was being done.
fn system_hint(error: &Error) -> Option<&'static str> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Some(
                    "free some space there, then run it again; what is stored stays valid",
                );
            }
            Some(io::ErrorKind::ReadOnlyFilesystem) => {
                return Some("that file system is mounted read-only");
            }
            Some(io::ErrorKind::PermissionDenied) => {
                return Some("check owner and mode, or run as a user who may");
            }
            _ => next = cause.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use strongroom::format::id::SessionId;
    use strongroom::repo::Role;

    use super::*;

    fn check(error: Error, exit: Exit, says: &str) {
        let fail = Fail::from(error);
        assert_eq!(fail.exit, exit, "{}", fail.message);
        assert!(fail.message.contains(says), "{}", fail.message);
    }

    fn os(kind: io::ErrorKind) -> io::Error {
        kind.into()
    }

    #[test]
    fn each_error_has_its_code_and_names_its_object() {
        let place = || "/r".to_owned();
        let path = || PathBuf::from("/p/q");
        let bytes = || b"/b\x1b[31m".to_vec();
        check(Error::Store(StoreError::NoStore { place: place() }), Exit::NoRepository, "/r");
        check(Error::NoRepository { place: place() }, Exit::NoRepository, "/r");
        check(Error::RepositoryExists { place: place() }, Exit::Failure, "/r");
        check(Error::WrongKey { slots: 3 }, Exit::WrongKey, "3 key slots");
        check(Error::KeyFile { path: path(), what: "x".into() }, Exit::WrongKey, "/p/q");
        check(Error::Role { role: Role::Backup, needs: "TREE" }, Exit::Role, "backup");
        check(Error::NoSnapshot { wanted: "3f".into() }, Exit::Failure, "3f");
        check(Error::AmbiguousSnapshot { wanted: "3f".into(), found: 2 }, Exit::Failure, "2 snap");
        check(Error::NoPath { snapshot: "3f".into(), path: bytes() }, Exit::Failure, r"/b\x1b[31m");
        check(Error::NotAFile { path: bytes() }, Exit::Failure, r"/b\x1b[31m");
        check(Error::NotADirectory { path: bytes() }, Exit::Failure, r"/b\x1b[31m");
        check(
            Error::Damaged { what: "pack 3f".into(), cause: "y".into() },
            Exit::Damage,
            "pack 3f",
        );
        check(Error::Rollback { what: "roster 3".into() }, Exit::Damage, "roster 3");
        check(Error::Fenced { session: SessionId([0x3f; 16]) }, Exit::Busy, "3f3f3f");
        let denied = || os(io::ErrorKind::PermissionDenied);
        check(Error::Source { path: path(), source: denied() }, Exit::Failure, "/p/q");
        check(Error::Target { path: path(), source: denied() }, Exit::Failure, "/p/q");
        check(Error::Cache { path: path(), source: denied() }, Exit::Failure, "/p/q");
        check(Error::Output { source: denied() }, Exit::Failure, "output");
        check(
            Error::Command { what: "dump".into(), code: Some(3) },
            Exit::Failure,
            "dump exited 3",
        );
        check(Error::Command { what: "dump".into(), code: None }, Exit::Failure, "signal");
        check(Error::Interrupted, Exit::Interrupted, "interrupted");
        check(Error::Setting { what: "chunk size".into() }, Exit::Usage, "chunk size");
    }

    #[test]
    fn format_errors_are_damage_unless_only_too_new() {
        let format = |source| Error::Format { name: "packs/3f".into(), source };
        check(format(FormatError::Rot { object: "pack" }), Exit::Damage, "packs/3f");
        check(format(FormatError::Truncated { object: "pack" }), Exit::Damage, "packs/3f");
        let newer = FormatError::Newer { object: "pack", version: 2 };
        check(format(newer), Exit::Failure, "version 2");
        let unknown = FormatError::Unsupported { object: "tree", feature: "f".into() };
        check(format(unknown), Exit::Failure, "'f'");
    }

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_has_a_remedy() {
        let closed = Fail::from(Error::Output { source: os(io::ErrorKind::BrokenPipe) });
        assert_eq!((closed.exit, closed.message.as_str()), (Exit::Failure, ""));
        let full = Error::Target { path: "/t".into(), source: os(io::ErrorKind::StorageFull) };
        assert!(Fail::from(full).hint.is_some_and(|hint| hint.contains("space")));
    }
}
