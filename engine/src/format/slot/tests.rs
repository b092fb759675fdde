//! Tests of ../slot.rs.
