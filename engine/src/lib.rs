//! Strongroom: a content-defined-deduplicating, encrypted backup engine.
//!
//! ```text
//! way in    walk → unchanged? → read → chunk → identify → known? → encode → seal → pack → store → index run → snapshot
//! way back  snapshot → tree → plan → fetch → open → decode → verify → write
//! ```
//!
//! `backup::run`, `restore::run`, `browse`, `maintain::check` and `maintain::keys` are what a
//! program calls; each takes an opened `repo::Repo` and a `watch::Watch` that is told what happens.
//! `benchmark::run` measures what they are made of and says what bounds them.
//! The engine never prints, exits, or reads the environment.

pub mod backup;
pub mod benchmark;
pub mod browse;
pub mod env;
pub mod error;
pub mod format;
pub mod maintain;
pub mod repo;
pub mod restore;
pub mod store;
pub mod sys;
pub mod watch;
