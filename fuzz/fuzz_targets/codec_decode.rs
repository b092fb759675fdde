//! Codecs: each decoder on hostile bytes, and encoding there and back.
#![no_main]

#[path = "../bodies/codec.rs"]
mod codec;
#[path = "../bodies/input.rs"]
mod input;

use std::cell::RefCell;

thread_local! {
    static CODECS: RefCell<codec::Codecs> = RefCell::default();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    CODECS.with_borrow_mut(|codecs| codecs.run(bytes));
});
