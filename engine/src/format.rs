//! Bytes ↔ values, as `docs/format.md` says. No I/O, no clock, no randomness of its own.

pub mod codec;
pub mod id;
pub mod index;
mod layout;
pub mod pack;
pub mod tree;
