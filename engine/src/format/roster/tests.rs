//! Tests of ../roster.rs.
