//! Tests of ../session.rs.
