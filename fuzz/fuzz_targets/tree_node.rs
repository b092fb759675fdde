//! A TREE node: what parses, comes back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::tree::{RefsNode, TreeNode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = TreeNode::from_bytes(bytes) {
        assert_eq!(TreeNode::from_bytes(&node.to_bytes()).as_ref(), Ok(&node));
        let refs = RefsNode::Leaf { children: vec![], chunks: vec![], lists: vec![] };
        let _ = node.check_against(&refs);
    }
});
