//! Tests of ../repo.rs.
