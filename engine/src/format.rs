//! Bytes ↔ values, as `docs/format.md` says. No I/O, no clock, no randomness of its own.

pub mod cbor;
pub mod control;
pub mod id;
pub mod keys;
pub mod kind;
pub mod record;
pub mod repo;
pub mod roster;
pub mod seal;
pub mod session;
pub mod slot;
pub mod snapshot;
