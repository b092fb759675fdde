//! The deletion protocol (DESIGN section 6) as an explicit-state model: writers, pruners, and a
//! store on which everything that can go wrong does. It knows nothing of the engine's code;
//! `docs/concurrency.md` says which rule is coded where.

pub mod catalogue;
pub mod choose;
pub mod config;
pub mod explore;
pub mod fingerprint;
pub mod liveness;
pub mod protocol;
pub mod pruner;
pub mod reader;
pub mod rules;
pub mod state;
pub mod world;
pub mod writer;
