//! Every codec's decoder: never more bytes than claimed, never fewer. The decoder lives on, as it
//! does in use.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use strongroom::format::codec::Decoder;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    codec: u8,
    plain_len: u32,
    bases: Vec<&'a [u8]>,
    encoded: &'a [u8],
}

thread_local! {
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
}

fuzz_target!(|input: Input<'_>| {
    let plain_len = input.plain_len % (1 << 21);
    DECODER.with_borrow_mut(|(decoder, out)| {
        let done = decoder.decode(input.codec % 5, input.encoded, plain_len, &input.bases, out);
        assert_eq!(out.len(), if done.is_ok() { plain_len as usize } else { 0 });
    });
});
