//! Where the nodes of huge directories and long files end. The writer's affair, but a changed rule
//! would make unchanged directories new, so the rule stands in the format.

use crate::format::id::{ChunkId, hash};

/// A file with more chunks than this uses a chunk list.
pub const LIST_ABOVE_CHUNKS: usize = 1_024;

const LEAF_ENTRIES: (usize, usize) = (256, 4_096);
const LEAF_TREE_BYTES: usize = 4 << 20;
const LEAF_REFS_CHUNKS: usize = 65_536;
const INNER_CHILDREN: (usize, usize) = (64, 1_024);
const LIST_ROWS: (usize, usize) = (512, 8_192);

/// Whether a leaf ends after the entry `name`. The counts include it: entries, bytes of the TREE
/// node (as `leaf_from_encoded` will make it), chunks of the REFS node.
pub fn ends_leaf(name: &[u8], entries: usize, tree_bytes: usize, refs_chunks: usize) -> bool {
    let full = tree_bytes > LEAF_TREE_BYTES || refs_chunks > LEAF_REFS_CHUNKS;
    full || ends(LEAF_ENTRIES, entries, || u16_at(&hash(name), 0).is_multiple_of(1_024))
}

/// Whether an inner node ends after the child with this first name; `children` includes it.
pub fn ends_inner(first_name: &[u8], children: usize) -> bool {
    ends(INNER_CHILDREN, children, || u16_at(&hash(first_name), 2).is_multiple_of(256))
}

/// Whether a node of a chunk list ends after the row with this id; `rows` includes it.
pub fn ends_list(id: &ChunkId, rows: usize) -> bool {
    ends(LIST_ROWS, rows, || u16_at(&id.0, 30).is_multiple_of(4_096))
}

fn ends((min, max): (usize, usize), count: usize, mark: impl FnOnce() -> bool) -> bool {
    count >= max || (count >= min && mark())
}

fn u16_at(hash: &[u8; 32], at: usize) -> u16 {
    u16::from_le_bytes([hash[at], hash[at + 1]])
}
