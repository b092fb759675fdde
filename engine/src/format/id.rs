//! Identifiers as newtypes, their hex, and the two hashes: unkeyed for names, keyed for chunk ids.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// BLAKE3-256, unkeyed.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Lower-case hex of exactly `N` bytes.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub fn from_hex(text: &str) -> Option<Self> {
                from_hex(text).map(Self)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &to_hex(&self.0)[..8])
            }
        }
    };
}

id!(
    /// Keyed BLAKE3 of a chunk's plain bytes.
    ChunkId, 32
);
id!(
    /// BLAKE3 of a pack's stored bytes.
    PackId, 32
);
id!(
    /// BLAKE3 of an object's stored bytes: index runs, slots, damage records, attestations.
    ObjectHash, 32
);
id!(RepositoryId, 16);
id!(
    /// One run of a writer; names its snapshot too.
    SessionId, 16
);
id!(
    /// A person or machine with keys; all zero stands for the root key.
    IdentityId, 16
);
id!(HoldId, 16);

impl IdentityId {
    pub const ROOT: IdentityId = IdentityId([0; 16]);
}

/// The key that turns plain bytes into chunk ids: ID for content and TREE nodes, REFID for REFS nodes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKey(pub [u8; 32]);

impl IdKey {
    pub fn id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(…)")
    }
}
