//! What can go wrong, one enum a layer. Errors state the fact and name the object; the remedy is the CLI's.

use thiserror::Error;

/// Bytes that are not what `docs/format.md` says. `object` is the kind ("snapshot", "pack directory" …); whoever
/// read the bytes adds the name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
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
