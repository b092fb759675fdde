//! Tests of ../cbor.rs.
