//! Files with a shape, or nearly.
#![no_main]

#[path = "../../engine/tests/support/dicom.rs"]
mod build;
#[path = "../bodies/dicom.rs"]
mod dicom;
#[path = "../bodies/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dicom::run(bytes));
