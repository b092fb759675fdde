//! The way in.

pub mod chunk;
