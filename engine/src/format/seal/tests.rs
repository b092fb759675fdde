//! Tests of ../seal.rs.
