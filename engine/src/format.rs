//! Bytes ↔ values, as `docs/format.md` says. No I/O, no clock, no randomness of its own.

pub mod cbor;
pub mod codec;
pub mod control;
pub mod id;
pub mod index;
pub mod keys;
pub mod kind;
mod layout;
#[cfg(test)]
mod mangle;
pub mod pack;
pub mod record;
pub mod repo;
pub mod roster;
pub mod seal;
pub mod session;
pub mod slot;
pub mod snapshot;
pub mod tree;
