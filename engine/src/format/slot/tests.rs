//! Roles hold what their table says and nothing else; slots open with their key only; every flip and cut is rejected.

use proptest::prelude::proptest;

use super::{
    BUNDLE, Bundle, Cost, KeyFileSecret, Keys, Method, Role, SLOT, Slot, SlotRandom, Unlock,
};
use crate::error::FormatError;
use crate::format::cbor::{Decoder, decode_map, encode_map};
use crate::format::id::{IdentityId, RepositoryId, hash, to_hex};
use crate::format::keys::{KemSecret, SigningKey};
use crate::format::seal::Secret;

const ROLES: [Role; 5] = [Role::Backup, Role::Restore, Role::Auditor, Role::Admin, Role::Owner];
const REPOSITORY: RepositoryId = RepositoryId([0xaa; 16]);
const RANDOM: SlotRandom = SlotRandom { salt: [0xbb; 32], nonce: [0xcc; 24] };
const KEY_FILE: KeyFileSecret = KeyFileSecret([0xdd; 32]);
const DATA: [u8; 32] = [0xd1; 32];
const TREE: [u8; 32] = [0xd2; 32];
const META: [u8; 32] = [0xd3; 32];
const ID: [u8; 32] = [0xd4; 32];
const ROOT: [u8; 32] = [0xd5; 32];

fn all() -> Keys {
    let kem = |seed| Some(vec![(1, KemSecret(seed)), (2, KemSecret(seed))]);
    Keys {
        id: Some(Secret(ID)),
        refid: Secret([0xd6; 32]),
        index: vec![(1, Secret([0xd7; 32]))],
        data: kem(DATA),
        tree: kem(TREE),
        meta: kem(META),
        root: Some(Secret(ROOT)),
    }
}

fn bundle(role: Role) -> Bundle {
    Bundle {
        repository: REPOSITORY,
        repo_hash: [1; 32],
        root: SigningKey::from_seed(&ROOT).verifying_key(),
        roster: 1,
        identity: IdentityId([2; 16]),
        role,
        name: "Böhm".into(),
        signing: Secret([3; 32]),
        kem: KemSecret([4; 32]),
        keys: all().for_role(role).unwrap(),
    }
}

fn slot(role: Role) -> Slot {
    Slot::seal(&bundle(role), Unlock::KeyFile(&KEY_FILE), Cost::DEFAULT, RANDOM).unwrap()
}

#[test]
fn a_role_holds_what_its_table_says() {
    let table = [
        (Role::Backup, [true, false, false, false, false]),
        (Role::Restore, [true, true, true, true, false]),
        (Role::Auditor, [false, false, false, true, false]),
        (Role::Admin, [false, false, false, true, false]),
        (Role::Owner, [true, true, true, true, true]),
    ];
    for (role, holds) in table {
        let bytes = bundle(role).to_cbor();
        for (secret, held) in [ID, DATA, TREE, META, ROOT].iter().zip(holds) {
            let found = bytes.windows(32).any(|window| window == secret);
            assert_eq!(found, held, "{role:?} {:x}", secret[0]);
        }
        assert_eq!(Bundle::from_cbor(&bytes), Ok(bundle(role)));
    }
}

#[test]
fn a_bundle_that_is_not_its_roles_is_refused() {
    let as_role = |bytes: &[u8], role: Role| {
        // key 6 and its value are the only 06 0x that follow the 16 bytes of the identity
        let at = bytes.windows(17).position(|w| w[..16] == [2; 16] && w[16] == 6).unwrap() + 17;
        let mut bytes = bytes.to_vec();
        bytes[at] = role.code();
        Bundle::from_cbor(&bytes)
    };
    for role in ROLES {
        for claimed in ROLES {
            let read = as_role(&bundle(role).to_cbor(), claimed);
            assert_eq!(read.is_ok(), role.holds() == claimed.holds(), "{role:?} as {claimed:?}");
        }
    }
    let what = "its keys are not those of its role";
    let malformed = Err(FormatError::Malformed { object: BUNDLE, what });
    assert_eq!(as_role(&bundle(Role::Owner).to_cbor(), Role::Backup), malformed);
}

#[test]
fn a_role_cannot_be_given_what_is_not_there() {
    for holder in ROLES {
        let keys = all().for_role(holder).unwrap();
        for role in ROLES {
            let (have, need) = (holder.holds(), role.holds());
            let enough = have.id >= need.id
                && have.content >= need.content
                && have.meta >= need.meta
                && have.root >= need.root;
            assert_eq!(keys.for_role(role).is_ok(), enough, "{role:?} from {holder:?}");
        }
    }
}

#[test]
#[should_panic(expected = "a bundle holds what its role holds")]
fn a_bundle_with_too_much_is_never_written() {
    Bundle { keys: all(), ..bundle(Role::Backup) }.to_cbor();
}

#[test]
fn golden() {
    for role in ROLES {
        let slot = slot(role);
        assert_eq!(slot.open(REPOSITORY, Unlock::KeyFile(&KEY_FILE)), Ok(bundle(role)));
        assert_eq!(Slot::from_cbor(&slot.to_cbor()), Ok(slot));
    }
    assert_eq!(
        to_hex(&hash(&bundle(Role::Owner).to_cbor())),
        "bfdcfeb15542f2c5175170eb001b6af12494b994a8db758bf28323f162c24a54"
    );
    assert_eq!(
        to_hex(&hash(&slot(Role::Owner).to_cbor())),
        "987933cc9bb2d19a37848cc8672aed59636dbbc303648e65d084fbfab46085a0"
    );
    assert_eq!(
        to_hex(&hash(&slot(Role::Backup).to_cbor())),
        "e477e07373589c8e5b796ce630e2157e9488a873ee390a2830eb35c16c8ba261"
    );
}

#[test]
fn passwords() {
    let unlock = Unlock::Password(b"correct horse");
    let slot = Slot::seal(&bundle(Role::Backup), unlock, Cost::DEFAULT, RANDOM).unwrap();
    assert_eq!(
        to_hex(&hash(&slot.to_cbor())),
        "11d152bfa22b6f6fd54fe0d2ba2a36605e534d17d59c6fb3da6eb23adaaf146f"
    );
    assert_eq!(Slot::from_cbor(&slot.to_cbor()), Ok(slot.clone()));
    assert_eq!(slot.open(REPOSITORY, unlock), Ok(bundle(Role::Backup)));
    let wrong = Err(FormatError::Commitment { object: SLOT });
    assert_eq!(slot.open(REPOSITORY, Unlock::Password(b"correct house")), wrong);
    assert_eq!(slot.open(REPOSITORY, Unlock::KeyFile(&KEY_FILE)), wrong);
    assert_eq!(slot.open(RepositoryId([0; 16]), unlock), wrong);
}

#[test]
fn cost_has_a_floor_and_a_cap() {
    let cost = |m_kib, t, p| Cost { m_kib, t, p };
    assert!(cost(65_536, 3, 1).check().is_ok());
    assert!(cost(1 << 20, 64, 64).check().is_ok());
    let bad = [
        cost(65_535, 3, 1),
        cost(65_536, 2, 1),
        cost(65_536, 3, 0),
        cost((1 << 20) + 1, 3, 1),
        cost(65_536, 65, 1),
        cost(65_536, 3, 65),
    ];
    for cost in bad {
        let limit = FormatError::Limit { object: SLOT, what: "Argon2 cost" };
        let unlock = Unlock::Password(b"x");
        let sealed = Slot::seal(&bundle(Role::Backup), unlock, cost, RANDOM);
        assert_eq!(sealed, Err(limit.clone()));
        let slot = Slot { method: Method::Password(cost), ..slot(Role::Backup) };
        assert_eq!(Slot::from_cbor(&slot.to_cbor()), Err(limit.clone()));
        assert_eq!(slot.open(REPOSITORY, unlock), Err(limit));
    }
}

#[test]
fn every_flip_and_cut_of_a_slot_is_rejected() {
    let bytes = slot(Role::Auditor).to_cbor();
    let open = |bytes: &[u8]| Slot::from_cbor(bytes)?.open(REPOSITORY, Unlock::KeyFile(&KEY_FILE));
    assert_eq!(open(&bytes), Ok(bundle(Role::Auditor)));
    for at in 0..bytes.len() {
        for flip in [1, 2, 0x10, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            assert!(open(&bytes).is_err(), "{at} {flip}");
        }
        assert!(open(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn epochs_ascend() {
    for epochs in [&[][..], &[1, 1], &[2, 1]] {
        let bytes = encode_map(|m| {
            m.list(1, epochs, |e, epoch| {
                e.array(2);
                e.uint(*epoch);
                e.bytes(&[0; 32]);
            });
        });
        let read = decode_map(&bytes, "test", |m| {
            m.req(1, |d: &mut Decoder<'_>| super::decode_keys(d, Secret))
        });
        assert!(read.is_err(), "{epochs:?}");
    }
}

#[test]
fn key_files() {
    let text = format!("strongroom-key-1\n{}\n", "dd".repeat(32));
    assert_eq!(*KEY_FILE.to_text(), text);
    assert_eq!(KeyFileSecret::from_text(&text), Ok(KEY_FILE));
    for bad in [
        "".to_owned(),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        text.replace('\n', "\r\n"),
        text.replace("dd", "DD"),
        text.replace("key-1", "key-2"),
        text.replacen("dd", "", 1),
    ] {
        assert!(KeyFileSecret::from_text(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn secrets_do_not_show() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        bundle(Role::Owner),
        KEY_FILE,
        Unlock::Password(b"hunter2"),
        all()
    );
    for hidden in ["d1", "d4", "209, 209", "212, 212", "3, 3, 3", "4, 4, 4", "hunter", "104, 117"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}

proptest! {
    #[test]
    fn any_key_file_opens_its_slot(
        secret: [u8; 32],
        salt: [u8; 32],
        nonce: [u8; 24],
        name: String,
        role in 1_u64..=5,
    ) {
        let (key, random) = (KeyFileSecret(secret), SlotRandom { salt, nonce });
        let bundle = Bundle { name, ..bundle(Role::from_code(role).unwrap()) };
        let slot = Slot::seal(&bundle, Unlock::KeyFile(&key), Cost::DEFAULT, random).unwrap();
        let slot = Slot::from_cbor(&slot.to_cbor()).unwrap();
        assert_eq!(slot.open(REPOSITORY, Unlock::KeyFile(&key)), Ok(bundle));
    }
}
