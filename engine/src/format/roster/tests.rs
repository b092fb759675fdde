//! Golden bytes, what survives a rewrite, and who may continue the chain with what.

use proptest::prelude::{any, prop, proptest};

use super::{
    Epoch, Grant, Identity, Link, Roster, Settings, State, Trust, index_key_hash, validate_next,
};
use crate::error::FormatError;
use crate::format::id::{IdentityId, RepositoryId, SessionId, hash, to_hex};
use crate::format::keys::{KemPublic, SigningKey};
use crate::format::record::{Kind, Record};
use crate::format::seal::Secret;
use crate::format::slot::Role;

const REPOSITORY: RepositoryId = RepositoryId([0xaa; 16]);
const OWNER: IdentityId = IdentityId([1; 16]);
const ADMIN: IdentityId = IdentityId([2; 16]);
const BACKUP: IdentityId = IdentityId([3; 16]);

fn key(id: IdentityId) -> SigningKey {
    SigningKey::from_seed(&[id.0[0]; 32])
}

fn kem(byte: u8) -> KemPublic {
    KemPublic(Box::new([byte; 1216]))
}

fn identity(id: IdentityId, role: Role) -> Identity {
    Identity {
        id,
        name: role.name().into(),
        role,
        verifying: key(id).verifying_key(),
        kem: kem(id.0[0]),
        added_ns: 5,
        state: State::Active,
        sessions_kept: None,
        extra: vec![],
    }
}

fn first() -> Roster {
    Roster {
        number: 1,
        previous: None,
        root: key(IdentityId::ROOT).verifying_key(),
        identities: vec![
            identity(OWNER, Role::Owner),
            identity(ADMIN, Role::Admin),
            identity(BACKUP, Role::Backup),
        ],
        epochs: vec![Epoch {
            number: 1,
            data: kem(11),
            tree: kem(12),
            meta: kem(13),
            index_hash: index_key_hash(&Secret([14; 32])),
            extra: vec![],
        }],
        settings: Settings { trust: Trust::Attested, extra: vec![] },
        grants: vec![],
        time_ns: 6,
        extra: vec![],
    }
}

fn store(roster: &Roster, signer: IdentityId, cites: u32) -> Vec<u8> {
    let key = key(signer);
    let name = Roster::name(roster.number);
    let signers = [(signer, cites, &key)];
    Record::build(Kind::Roster, &roster.to_cbor(), &name, &signers, REPOSITORY)
}

fn validate(previous: Option<&Link>, number: u32, stored: &[u8]) -> Result<Link, FormatError> {
    let root = key(IdentityId::ROOT).verifying_key();
    validate_next(REPOSITORY, &root, previous, number, stored)
}

fn link() -> Link {
    validate(None, 1, &store(&first(), IdentityId::ROOT, 0)).unwrap()
}

/// Roster 2 after `link`, changed by `change`.
fn second(change: impl FnOnce(&mut Roster)) -> Roster {
    let mut roster = Roster { number: 2, previous: Some(link().1), time_ns: 7, ..first() };
    change(&mut roster);
    roster
}

#[test]
fn golden() {
    assert_eq!(Roster::from_cbor(&first().to_cbor()), Ok(first()));
    assert_eq!(
        to_hex(&hash(&first().to_cbor())),
        "650f13b79b4b650a46157d859fe3b4892b3341a5c10aae4f274d861fa342fc70"
    );
    assert_eq!(
        to_hex(&link().1),
        "d26280e8162a481e04bea603925d18648dc83ceaaec86163780b3c42f8842fc0"
    );
    let message = [b"strongroom/1/index-key".as_slice(), &[14; 32]].concat();
    assert_eq!(first().epoch().index_hash, hash(&message));
}

#[test]
fn unknown_keys_are_kept() {
    let extra = vec![(128, vec![0x01]), (4000, vec![0x81, 0xf6])];
    let mut roster = second(|roster| {
        roster.extra = extra.clone();
        roster.identities[1].extra = extra.clone();
        roster.epochs[0].extra = extra.clone();
        roster.settings.extra = extra.clone();
        let sealed = vec![1, 2, 3];
        roster.grants = vec![Grant { identity: ADMIN, epoch: 1, sealed, extra }];
    });
    assert_eq!(Roster::from_cbor(&roster.to_cbor()), Ok(roster.clone()));
    roster.extra = vec![(9, vec![0x01])];
    let read = Roster::from_cbor(&roster.to_cbor());
    let feature = "key 9".to_owned();
    assert_eq!(read, Err(FormatError::Unsupported { object: "roster", feature }));
}

#[test]
fn refused_bodies() {
    let read = |change: &dyn Fn(&mut Roster)| Roster::from_cbor(&second(change).to_cbor());
    assert!(read(&|_| {}).is_ok());
    assert!(read(&|r| r.identities.clear()).is_err());
    assert!(read(&|r| r.identities[0].id = IdentityId::ROOT).is_err());
    assert!(read(&|r| r.identities[0].id = r.identities[2].id).is_err());
    assert!(read(&|r| r.epochs.clear()).is_err());
    assert!(read(&|r| r.epochs[0].number = 0).is_err());
    assert!(read(&|r| r.epochs.push(r.epochs[0].clone())).is_err());
}

#[test]
fn the_chain_begins_with_the_root() {
    assert_eq!(link().0, first());
    assert!(validate(None, 1, &store(&first(), ADMIN, 0)).is_err());
    assert!(validate(None, 1, &store(&first(), IdentityId::ROOT, 1)).is_err(), "cites 1");
    assert!(validate(None, 2, &store(&first(), IdentityId::ROOT, 0)).is_err(), "moved");
    let forged = Roster { root: key(ADMIN).verifying_key(), ..first() };
    let admin = key(ADMIN);
    let signers = [(IdentityId::ROOT, 0, &admin)];
    let name = Roster::name(1);
    let stored = Record::build(Kind::Roster, &forged.to_cbor(), &name, &signers, REPOSITORY);
    assert!(validate(None, 1, &stored).is_err(), "another root");
    assert!(validate(Some(&link()), 1, &store(&first(), IdentityId::ROOT, 0)).is_err());
}

#[test]
fn links_follow_the_last_valid_one() {
    let good = second(|_| {});
    assert_eq!(validate(Some(&link()), 2, &store(&good, IdentityId::ROOT, 1)).unwrap().0, good);
    let skipped = second(|roster| roster.number = 5);
    assert!(validate(Some(&link()), 5, &store(&skipped, IdentityId::ROOT, 1)).is_ok());
    for bad in [
        second(|roster| roster.previous = None),
        second(|roster| roster.previous = Some([0; 32])),
        second(|roster| roster.number = 3),
        second(|roster| roster.root = key(ADMIN).verifying_key()),
    ] {
        assert!(validate(Some(&link()), 2, &store(&bad, IdentityId::ROOT, 1)).is_err());
    }
    assert!(validate(None, 2, &store(&good, IdentityId::ROOT, 0)).is_err());
}

#[test]
fn who_may_change_what() {
    let new = IdentityId([9; 16]);
    let mut epoch_2 = first().epochs[0].clone();
    epoch_2.number = 2;
    let grant = Grant { identity: ADMIN, epoch: 1, sealed: vec![], extra: vec![] };
    let (revoked, kept) = (State::Revoked, Some(vec![SessionId([7; 16])]));
    // what changed, the next roster, may an admin?
    let cases: Vec<(&str, Roster, bool)> = vec![
        ("nothing", second(|_| {}), true),
        ("adds a backup", second(|r| r.identities.push(identity(new, Role::Backup))), true),
        ("in front", second(|r| r.identities.insert(0, identity(new, Role::Backup))), true),
        ("revokes a backup", second(|r| r.identities[2].state = revoked), true),
        ("keeps its sessions", second(|r| r.identities[2].sessions_kept = kept), true),
        ("adds an admin", second(|r| r.identities.push(identity(new, Role::Admin))), false),
        ("promotes a backup", second(|r| r.identities[2].role = Role::Restore), false),
        ("demotes the owner", second(|r| r.identities[0].role = Role::Backup), false),
        ("drops the owner", second(|r| drop(r.identities.remove(0))), false),
        ("revokes the owner", second(|r| r.identities[0].state = revoked), false),
        ("its own key", second(|r| r.identities[1].verifying = key(new).verifying_key()), false),
        ("an epoch", second(|r| r.epochs.push(epoch_2)), false),
        ("an epoch's key", second(|r| r.epochs[0].data = kem(99)), false),
        ("settings", second(|r| r.settings.trust = Trust::All), false),
        ("grants", second(|r| r.grants.push(grant)), false),
        ("free keys", second(|r| r.extra = vec![(200, vec![0])]), false),
    ];
    for (what, roster, admin_may) in cases {
        let by = |signer, cites| validate(Some(&link()), 2, &store(&roster, signer, cites));
        assert!(by(IdentityId::ROOT, 1).is_ok(), "root: {what}");
        assert_eq!(by(ADMIN, 1).is_ok(), admin_may, "admin: {what}");
        assert!(by(ADMIN, 0).is_err(), "cites another roster: {what}");
        for other in [OWNER, BACKUP, new] {
            assert!(by(other, 1).is_err(), "{other:?}: {what}");
        }
    }
}

#[test]
fn a_revoked_admin_may_nothing() {
    let revoked = second(|roster| roster.identities[1].state = State::Revoked);
    let link = validate(Some(&link()), 2, &store(&revoked, IdentityId::ROOT, 1)).unwrap();
    let third = Roster { number: 3, previous: Some(link.1), ..revoked };
    assert!(validate(Some(&link), 3, &store(&third, ADMIN, 2)).is_err());
    assert!(validate(Some(&link), 3, &store(&third, IdentityId::ROOT, 2)).is_ok());
}

#[test]
fn flips_make_it_void() {
    let stored = store(&first(), IdentityId::ROOT, 0);
    for at in 0..stored.len() {
        let mut flipped = stored.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(validate(None, 1, &flipped).is_err(), "{at}");
    }
    for len in (0..stored.len()).step_by(97) {
        assert!(validate(None, 1, &stored[..len]).is_err(), "cut at {len}");
    }
}

proptest! {
    #[test]
    fn comes_back(
        number: u32,
        previous: Option<[u8; 32]>,
        names in prop::collection::vec(any::<String>(), 1..5),
        sealed: Vec<u8>,
        time_ns: i64,
    ) {
        let identities = (1..).zip(names).map(|(byte, name)| {
            Identity { name, ..identity(IdentityId([byte; 16]), Role::Restore) }
        });
        let grants = vec![Grant { identity: OWNER, epoch: number, sealed, extra: vec![] }];
        let identities = identities.collect();
        let roster = Roster { number, previous, identities, grants, time_ns, ..first() };
        assert_eq!(Roster::from_cbor(&roster.to_cbor()), Ok(roster));
    }
}
