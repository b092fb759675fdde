//! Bytes ↔ values, as `docs/format.md` says. No I/O, no clock, no randomness of its own.

pub mod id;
