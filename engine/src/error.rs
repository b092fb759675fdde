//! What can go wrong, one enum a layer. Errors state the fact and name the object; the remedy is the CLI's.

use std::io;
use std::path::PathBuf;

use crate::format::id::SessionId;
use crate::format::slot::Role;
use crate::store::StoreError;

/// What an operation of the engine can end with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no repository at {place}")]
    NoRepository { place: String },
    #[error("there is a repository at {place} already")]
    RepositoryExists { place: String },
    #[error("{name}: {source}")]
    Format { name: String, source: FormatError },
    #[error("none of the {slots} slots opens with this password or key file")]
    WrongKey { slots: usize },
    #[error("key file {}: {what}", path.display())]
    KeyFile { path: PathBuf, what: String },
    #[error("the role {role} may not do this: it takes {needs}")]
    Role { role: Role, needs: &'static str },
    #[error("there is no snapshot '{wanted}'")]
    NoSnapshot { wanted: String },
    #[error("'{wanted}' is the beginning of {found} snapshots' ids")]
    AmbiguousSnapshot { wanted: String, found: usize },
    #[error("snapshot {snapshot} has no {}", String::from_utf8_lossy(path))]
    NoPath { snapshot: String, path: Vec<u8> },
    #[error("{} is not a file", String::from_utf8_lossy(path))]
    NotAFile { path: Vec<u8> },
    #[error("{} is not a directory", String::from_utf8_lossy(path))]
    NotADirectory { path: Vec<u8> },
    #[error("{what} is damaged: {cause}")]
    Damaged { what: String, cause: String },
    #[error("the store is older than what this client has seen: {what}")]
    Rollback { what: String },
    #[error("there is no hold '{wanted}'")]
    NoHold { wanted: String },
    #[error(
        "the hold on {snapshot} came too late: generation {generation} of prune deletes the snapshot"
    )]
    HoldTooLate { snapshot: SessionId, generation: u32, is_final: bool },
    #[error("session {session} was fenced by a prune")]
    Fenced { session: SessionId },
    #[error("{}: {source}", path.display())]
    Source { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Target { path: PathBuf, source: io::Error },
    #[error("cache {}: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error("writing the output failed: {source}")]
    Output { source: io::Error },
    #[error("{what}")]
    Command { what: String, code: Option<i32> },
    #[error("interrupted")]
    Interrupted,
    #[error("{what}")]
    Setting { what: String },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Gives a `FormatError` the name of the object it came from.
pub(crate) trait Named<T> {
    fn named(self, name: &str) -> Result<T>;
}

impl<T> Named<T> for Result<T, FormatError> {
    fn named(self, name: &str) -> Result<T> {
        self.map_err(|source| Error::Format { name: name.to_owned(), source })
    }
}

/// Bytes that are not what `docs/format.md` says. `object` is the kind ("snapshot", "pack directory" …); whoever
/// read the bytes adds the name.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum FormatError {
    #[error("{object} is cut short")]
    Truncated { object: &'static str },
    #[error("{object} does not begin with the magic of a Strongroom object")]
    NotOurs { object: &'static str },
    #[error("expected {expected}, found an object of kind {found}")]
    Kind { expected: &'static str, found: u8 },
    #[error("{object} has version {version}; this program knows version 1")]
    Newer { object: &'static str, version: u64 },
    #[error("{object} needs '{feature}', which this program does not know")]
    Unsupported { object: &'static str, feature: String },
    #[error("{object} is malformed: {what}")]
    Malformed { object: &'static str, what: &'static str },
    #[error("{object} exceeds a limit: {what}")]
    Limit { object: &'static str, what: &'static str },
    #[error("{object} has rotted: its bytes do not match their hash")]
    Rot { object: &'static str },
    #[error("{object} does not open with this key")]
    Commitment { object: &'static str },
    #[error("{object} was altered: authentication failed")]
    Altered { object: &'static str },
    #[error("{object} has no valid signature: {what}")]
    Signature { object: &'static str, what: &'static str },
}
