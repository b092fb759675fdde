//! A whole repository, mutated.
#![no_main]

#[path = "../bodies/forge.rs"]
mod forge;
#[path = "../bodies/input.rs"]
mod input;
#[path = "../bodies/mutated.rs"]
mod mutated;
#[path = "../bodies/scene.rs"]
mod scene;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mutated::run(bytes));
