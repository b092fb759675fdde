//! Golden bytes, round trips, and what is refused.

use proptest::prelude::{any, proptest};

use super::{CHUNK_LEN_MAX, ChunkerSpec, RepoFile};
use crate::error::FormatError;
use crate::format::id::{RepositoryId, to_hex};
use crate::format::seal::Suite;

fn repo() -> RepoFile {
    RepoFile {
        features: vec![],
        repository: RepositoryId([0xaa; 16]),
        suite: Suite::Aes256Gcm,
        chunker: ChunkerSpec::WindowedMinimum { min: 1, max: 256 },
        pack_size: 64 << 20,
        created_ns: -1,
    }
}

#[test]
fn golden() {
    let hex = "a70101028003_50aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_0401_05a30101020104190100_061a04000000_0720";
    assert_eq!(to_hex(&repo().to_cbor()), hex.replace('_', ""));
}

#[test]
fn refused() {
    let read = |repo: RepoFile| RepoFile::from_cbor(&repo.to_cbor());
    let features = vec!["time travel".to_owned()];
    let unsupported = |feature: &str| {
        Err(FormatError::Unsupported { object: "repository description", feature: feature.into() })
    };
    assert_eq!(read(RepoFile { features, ..repo() }), unsupported("time travel"));
    for chunker in [
        ChunkerSpec::WindowedMinimum { min: 0, max: 1 },
        ChunkerSpec::WindowedMinimum { min: 2, max: 1 },
        ChunkerSpec::FastCdc { min: 1, average: 3, max: 2 },
        ChunkerSpec::FastCdc { min: 3, average: 2, max: 4 },
        ChunkerSpec::WindowedMinimum { min: 2, max: CHUNK_LEN_MAX + 1 },
    ] {
        assert!(read(RepoFile { chunker, ..repo() }).is_err(), "{chunker:?}");
    }
    assert!(read(RepoFile { pack_size: (1 << 30) + 1, ..repo() }).is_err());
    let mut chunker_3 = repo().to_cbor();
    let at = chunker_3.iter().rposition(|b| *b == 0xa3).unwrap();
    chunker_3[at + 2] = 3;
    assert_eq!(RepoFile::from_cbor(&chunker_3), unsupported("chunker 3"));
}

proptest! {
    #[test]
    fn comes_back(a in 1_u32..1000, b in 0_u32..1000, c in 0_u32..1000, fast: bool, created_ns: i64) {
        let chunker = if fast {
            ChunkerSpec::FastCdc { min: a, average: a + b, max: a + b + c }
        } else {
            ChunkerSpec::WindowedMinimum { min: a, max: a + b }
        };
        let repo = RepoFile { chunker, created_ns, suite: Suite::ChaCha20Poly1305, ..repo() };
        assert_eq!(RepoFile::from_cbor(&repo.to_cbor()), Ok(repo));
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = RepoFile::from_cbor(&bytes);
    }
}
