//! Tests of ../control.rs.
