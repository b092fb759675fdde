//! The client's own files, spoilt.
#![no_main]

#[path = "../bodies/cache.rs"]
mod cache;
#[path = "../bodies/forge.rs"]
mod forge;
#[path = "../bodies/input.rs"]
mod input;
#[path = "../bodies/mutated.rs"]
mod mutated;
#[path = "../bodies/scene.rs"]
mod scene;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cache::run(bytes));
