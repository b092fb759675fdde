//! Deterministic CBOR (RFC 8949, 4.2.1) with integer-keyed maps. Writing goes through minicbor;
//! reading is our own, because a reader must reject everything that is not in the one permitted
//! form. Borrows from its input; allocates nothing on the word of a length alone.

mod read;
mod write;

pub use read::{Decoder, Map, decode, decode_map};
pub use write::{Encoder, MapEncoder, encode, encode_map};

/// Deepest nesting of arrays and maps.
pub const DEPTH_MAX: u8 = 16;
/// Unknown map keys from here on are ignored, and kept by whoever rewrites the object.
pub const FREE_KEYS: u64 = 128;

/// Unknown keys from 128 on with their encoded values, as they came.
pub type Extra = Vec<(u64, Vec<u8>)>;

#[cfg(test)]
mod tests;
