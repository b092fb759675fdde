//! Tests of ../keys.rs.
