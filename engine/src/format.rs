//! Bytes ↔ values, as `docs/format.md` says. No I/O, no clock, no randomness of its own.

pub mod codec;
pub mod id;
pub mod index;
mod layout;
#[cfg(test)]
mod mangle;
pub mod pack;
pub mod tree;
