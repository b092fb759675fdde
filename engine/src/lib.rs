//! Strongroom: a content-defined-deduplicating, encrypted backup engine.
//!
//!     way in    walk → unchanged? → read → chunk → identify → known? → encode → seal → pack → store → index run → snapshot
//!     way back  snapshot → tree → plan → fetch → open → decode → verify → write

pub mod backup;
pub mod env;
pub mod error;
pub mod format;
pub mod repo;
pub mod store;
pub mod sys;
pub mod watch;
