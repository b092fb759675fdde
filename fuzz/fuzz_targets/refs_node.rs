//! A REFS node: what parses, comes back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::tree::RefsNode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = RefsNode::from_bytes(bytes) {
        assert_eq!(RefsNode::from_bytes(&node.to_bytes()), Ok(node));
    }
});
