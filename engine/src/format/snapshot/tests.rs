//! Golden bytes, round trips, and every flip and cut of a stored snapshot.

use proptest::prelude::{any, prop, proptest};

use super::{Class, Clock, Counts, Directory, Snapshot};
use crate::format::id::{ChunkId, IdentityId, RepositoryId, SessionId, hash, to_hex};
use crate::format::keys::SigningKey;
use crate::format::record::{Kind, Record};
use crate::format::seal::{Context, Recipient, Secret, Suite, open_body, seal_body};

fn snapshot() -> Snapshot {
    let labels = [("study", "ABC-1"), ("system", "EDC"), ("x", "")];
    Snapshot {
        sequence: 3,
        previous: Some([1; 32]),
        time_ns: 1_700_000_000_000_000_000,
        utc_offset_s: -3600,
        zone: Some("Atlantic/Azores".into()),
        clock: Clock::Synchronised,
        author: IdentityId([2; 16]),
        host: "pacs".into(),
        tool: "strongroom 0.1.0".into(),
        roots: vec![b"/data/\xff".to_vec()],
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        tags: vec!["nightly".into()],
        class: Class::Archive,
        retain_until_ns: Some(i64::MAX),
        counts: Counts { files: 1, bytes: 1 << 40, bytes_stored: 9, ..Counts::default() },
        exit_code: Some(0),
        root: Directory { refs: ChunkId([3; 32]), tree: ChunkId([4; 32]) },
        parent: Some(SessionId([5; 16])),
        end_ns: 1_700_000_001_000_000_000,
    }
}

#[test]
fn golden() {
    let full = snapshot().to_cbor();
    assert_eq!(
        to_hex(&hash(&full)),
        "dfc6782396b8c7b781a067622e99a958bbbc47ee66cfffc8d0c28b0809cfe817"
    );
    assert_eq!(Snapshot::from_cbor(&full), Ok(snapshot()));
    let bare = Snapshot {
        previous: None,
        zone: None,
        retain_until_ns: None,
        exit_code: None,
        parent: None,
        ..snapshot()
    };
    assert_eq!(
        to_hex(&hash(&bare.to_cbor())),
        "c3056cf1d7e1612875b17fea4621efb38fe4c39da85775bff996809a494f7452"
    );
    assert_eq!(Snapshot::from_cbor(&bare.to_cbor()), Ok(bare));
}

/// The whole way: CBOR, seal, record, signature, and back.
#[test]
fn every_flip_and_cut_of_a_stored_snapshot_is_rejected() {
    let (repository, session) = (RepositoryId([6; 16]), SessionId([7; 16]));
    let context = Context {
        suite: Suite::Aes256Gcm,
        recipient: Recipient::Meta,
        epoch: 1,
        repository,
        session,
        salt: [8; 32],
    };
    let (secret, key, author) =
        (Secret([9; 32]), SigningKey::from_seed(&[10; 32]), IdentityId([2; 16]));
    let name = format!("snapshots/{session}");
    let body = seal_body(&secret, &context, Kind::Snapshot, &snapshot().to_cbor());
    let stored = Record::build(Kind::Snapshot, &body, &name, &[(author, 1, &key)], repository);
    let read = |stored: &[u8]| {
        let record = Record::parse(stored, &[Kind::Snapshot, Kind::Tombstone])?;
        record.verify(repository, &name, author, &key.verifying_key())?;
        let (_, payload) = open_body(record.body, record.kind, |_| Ok(secret.clone()))?;
        Snapshot::from_cbor(&payload)
    };
    assert_eq!(read(&stored), Ok(snapshot()));
    assert_eq!(
        to_hex(&hash(&stored)),
        "407b0756d712f06e5577dbad7a6c114d7f187a87c41a74b37da86f467e0e5f5b"
    );
    for at in 0..stored.len() {
        let mut flipped = stored.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(&flipped).is_err(), "{at}");
        assert!(read(&stored[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn comes_back(
        sequence: u64,
        labels in prop::collection::btree_map(any::<String>(), any::<String>(), 0..30),
        tags: Vec<String>,
        roots: Vec<Vec<u8>>,
        exit_code: Option<u32>,
        bytes: u64,
        utc_offset_s: i32,
    ) {
        let counts = Counts { bytes, ..Counts::default() };
        let snapshot =
            Snapshot { sequence, labels, tags, roots, exit_code, counts, utc_offset_s, ..snapshot() };
        assert_eq!(Snapshot::from_cbor(&snapshot.to_cbor()), Ok(snapshot));
    }

    #[test]
    fn altered_bytes_never_panic(at in 0_usize..400, value: u8) {
        let mut bytes = snapshot().to_cbor();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(snapshot) = Snapshot::from_cbor(&bytes) {
            assert_eq!(snapshot.to_cbor(), bytes, "one form only");
        }
    }
}
