//! Strongroom: a content-defined-deduplicating, encrypted backup engine.

pub mod backup;
