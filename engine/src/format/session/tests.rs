//! Golden bytes and round trips.

use proptest::prelude::{any, prop, proptest};

use super::{SealedSecret, Seals, Session, Tombstone};
use crate::format::cbor::encode_map;
use crate::format::id::{SessionId, hash, to_hex};
use crate::format::keys::SEALED_SECRET_LEN;
use crate::format::seal::Recipient;

const ID: SessionId = SessionId([0xcc; 16]);

fn seals() -> Seals {
    let secret = |recipient, byte| SealedSecret {
        recipient,
        epoch: 1,
        sealed: vec![byte; SEALED_SECRET_LEN],
    };
    let secrets = vec![secret(Recipient::Data, 1), secret(Recipient::Meta, 2)];
    Seals { session: ID, secrets }
}

#[test]
fn golden() {
    let id = "cc".repeat(16);
    let session = Session { session: ID, epoch: 2, time_ns: 1000, adopts: vec![ID] };
    let hex = format!("a40150{id}0202031903e8048150{id}");
    assert_eq!(to_hex(&session.to_cbor()), hex);
    let tombstone = Tombstone { session: ID, time_ns: -5, reason: "silent".into() };
    assert_eq!(to_hex(&tombstone.to_cbor()), format!("a30150{id}0224036673696c656e74"));
    assert_eq!(
        to_hex(&hash(&seals().to_cbor())),
        "f73b79b68d5750ccb9edf7534c1e97ccfc5dcfa021436dfa892cf2ca5e8d113a"
    );
    assert_eq!(Seals::from_cbor(&seals().to_cbor()), Ok(seals()));
}

#[test]
fn the_index_key_is_never_sealed() {
    let bytes = encode_map(|m| {
        m.bytes(1, ID);
        m.list(2, [()], |e, ()| {
            e.array(3);
            e.uint(4);
            e.uint(1);
            e.bytes(&[0; SEALED_SECRET_LEN]);
        });
    });
    assert!(Seals::from_cbor(&bytes).is_err());
}

proptest! {
    #[test]
    fn sessions_come_back(
        id: [u8; 16],
        epoch: u32,
        time_ns: i64,
        adopts in prop::collection::vec(any::<[u8; 16]>(), 0..40),
        reason: String,
    ) {
        let adopts = adopts.into_iter().map(SessionId).collect();
        let session = Session { session: SessionId(id), epoch, time_ns, adopts };
        assert_eq!(Session::from_cbor(&session.to_cbor()), Ok(session));
        let tombstone = Tombstone { session: SessionId(id), time_ns, reason };
        assert_eq!(Tombstone::from_cbor(&tombstone.to_cbor()), Ok(tombstone));
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (Session::from_cbor(&bytes), Seals::from_cbor(&bytes), Tombstone::from_cbor(&bytes));
    }
}
