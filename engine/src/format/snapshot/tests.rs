//! Tests of ../snapshot.rs.
