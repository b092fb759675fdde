//! Strongroom: a content-defined-deduplicating, encrypted backup engine.
