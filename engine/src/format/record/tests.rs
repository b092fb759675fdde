//! Tests of ../record.rs.
