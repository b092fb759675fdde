//! Operations on a repository, driven by bytes.
#![no_main]

#[path = "../bodies/input.rs"]
mod input;
#[path = "../bodies/operations.rs"]
mod operations;
#[path = "../bodies/scene.rs"]
mod scene;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::run(bytes));
