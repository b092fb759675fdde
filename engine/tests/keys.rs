//! Each role opens and can do what the table says and no more; "no more" holds for whoever writes other code, too: every secret that a
//! slot wraps is tried on everything that it must not open. Forged rosters are void, and what was taken back is noticed.

mod support;

use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::id::IdentityId;
use strongroom::format::keys::{KemSecret, SealInfo, SigningKey, kem_public, open_secret};
use strongroom::format::record::{Kind, Record};
use strongroom::format::roster::{Epoch, Identity, Roster, State};
use strongroom::format::seal::{Context, Label, Recipient, Sealer, Secret, body_header};
use strongroom::format::session::{SealedSecret, Seals};
use strongroom::format::slot::{Bundle, KeyFileSecret, Role, Slot, Unlock};
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::keys;
use strongroom::repo::Repo;
use strongroom::repo::fetch::Fetcher;
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::Tally;

use support::{KEY, back_up, new_store, noise, open};

const OTHERS: [Role; 4] = [Role::Backup, Role::Restore, Role::Auditor, Role::Admin];

fn env() -> Env {
    Env::system(2)
}

fn key_of(role: Role) -> KeyFileSecret {
    if role == Role::Owner { KEY } else { KeyFileSecret([role.code(); 32]) }
}

fn open_with(store: &MemoryStore, key: &KeyFileSecret) -> Result<Repo, Error> {
    Repo::open(Arc::new(store.clone()), Unlock::KeyFile(key), None, &env())
}

/// A repository with one snapshot and a slot for every role.
fn with_all_roles() -> (MemoryStore, Repo) {
    let store = new_store(&env());
    let owner = open(&store, None, &env());
    for role in OTHERS {
        keys::add(&owner, role, role.name(), Unlock::KeyFile(&key_of(role))).unwrap();
    }
    // Opened again: records cite the newest roster.
    let owner = open(&store, None, &env());
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("secret name"), noise(1, 100_000)).unwrap();
    back_up(&owner, source.path());
    (store, owner)
}

fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with(folder)).collect()
}

fn get(store: &MemoryStore, name: &ObjectName) -> Vec<u8> {
    store.get(name, u64::MAX).unwrap()
}

/// What the slot wraps, as altered code would take it out.
fn bundle(store: &MemoryStore, repo: &Repo, key: &KeyFileSecret) -> Bundle {
    let slots = names(store, "slots/").into_iter().map(|name| get(store, &name));
    let opened = slots.filter_map(|bytes| {
        let slot = Slot::from_cbor(Record::parse(&bytes, &[Kind::Slot]).unwrap().body).unwrap();
        slot.open(repo.id(), Unlock::KeyFile(key)).ok()
    });
    let [bundle] = &opened.collect::<Vec<_>>()[..] else { panic!("one slot") };
    bundle.clone()
}

#[test]
fn each_role_does_what_the_table_says() {
    let (store, _) = with_all_roles();
    for role in OTHERS.into_iter().chain([Role::Owner]) {
        let repo = open_with(&store, &key_of(role)).unwrap();
        assert_eq!((repo.role(), repo.identity_name()), (role, role.name()));
        let (content, meta) = match role {
            Role::Backup => (false, false),
            Role::Restore | Role::Owner => (true, true),
            Role::Auditor | Role::Admin => (false, true),
        };
        for (recipient, may) in [
            (Recipient::Data, content),
            (Recipient::Tree, content),
            (Recipient::Meta, meta),
            (Recipient::Index, true),
        ] {
            assert_eq!(repo.reads(recipient), may, "{role} {recipient:?}");
        }
        let is_role_error =
            |error: Error| matches!(error, Error::Role { role: of, .. } if of == role);

        let snapshots = repo.snapshots();
        assert_eq!(snapshots.is_ok(), meta, "{role}");
        assert!(snapshots.is_ok() || is_role_error(snapshots.unwrap_err()));

        let root = open(&store, None, &env()).snapshots().unwrap()[0].snapshot.root;
        let index = repo.index().unwrap();
        let fetcher = Fetcher::new(&repo, &index);
        assert_eq!(fetcher.chunk(&root.refs, repo.refid_key()).is_ok(), meta, "{role}");
        let tree = repo.id_key().and_then(|key| fetcher.chunk(&root.tree, key));
        assert_eq!(tree.is_ok(), content, "{role}");
        assert!(tree.is_ok() || is_role_error(tree.unwrap_err()));

        let source = tempfile::tempdir().unwrap();
        let paths = [source.path().to_owned()];
        let options = BackupOptions { dry_run: true, ..BackupOptions::default() };
        let done = backup::run(&repo, Source::Paths(&paths), &options, &Tally::default());
        assert_eq!(done.is_ok(), matches!(role, Role::Backup | Role::Owner), "{role}");
        assert!(done.is_ok() || is_role_error(done.unwrap_err()));

        for other in OTHERS {
            let copy = copy(&store);
            let repo = open_with(&copy, &key_of(role)).unwrap();
            let added = keys::add(&repo, other, "new", Unlock::KeyFile(&KeyFileSecret([99; 32])));
            assert_eq!(added.is_ok(), role == Role::Owner, "{role} adds {other}");
            assert!(added.is_ok() || is_role_error(added.unwrap_err()));
            assert_eq!(copy.names().len() > store.names().len(), role == Role::Owner);
        }
    }
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.put_if_absent(&name, &get(store, &name)).unwrap();
    }
    copy
}

/// Every 32 secret bytes in a bundle.
fn secrets(bundle: &Bundle) -> Vec<[u8; 32]> {
    let keys = &bundle.keys;
    let kem = [&keys.data, &keys.tree, &keys.meta].into_iter().flatten().flatten();
    let mut all: Vec<[u8; 32]> = kem.map(|(_, key)| key.0).collect();
    all.extend(keys.index.iter().map(|(_, key)| key.0));
    all.extend([&keys.id, &keys.root].into_iter().flatten().map(|key| key.0));
    all.extend([keys.refid.0, bundle.signing.0, bundle.kem.0]);
    all
}

/// Which recipients' secrets and frames, and which snapshots, any of these secrets opens.
fn opens(store: &MemoryStore, owner: &Repo, secrets: &[[u8; 32]]) -> Vec<String> {
    let mut opened = Vec::new();
    for name in names(store, "seals/") {
        let bytes = get(store, &name);
        let seals = Record::parse(&bytes, &[Kind::Seals]).unwrap();
        let seals = Seals::from_cbor(seals.body).unwrap();
        for SealedSecret { recipient, epoch, sealed } in &seals.secrets {
            let info = SealInfo {
                repository: owner.id(),
                epoch: *epoch,
                recipient: *recipient,
                session: seals.session,
            };
            let fits =
                |secret: &&[u8; 32]| open_secret(&KemSecret(**secret), &info, sealed).is_ok();
            opened.extend(secrets.iter().find(fits).map(|_| format!("seal {recipient:?}")));
        }
    }
    let derives = |secret: &[u8; 32], context: &[u8; 72], commit: &[u8; 32], label| {
        let context = Context::from_bytes(context).unwrap();
        Sealer::opening(&Secret(*secret), &context, label, commit, "").is_ok()
    };
    for segment in owner.index().unwrap().segments() {
        for row in segment.run().contexts() {
            let recipient = Context::from_bytes(&row.context).unwrap().recipient;
            let fits = |s: &&[u8; 32]| derives(s, &row.context, &row.commit, Label::Frame);
            opened.extend(secrets.iter().find(fits).map(|_| format!("frame {recipient:?}")));
        }
    }
    for name in names(store, "snapshots/") {
        let bytes = get(store, &name);
        let record = Record::parse(&bytes, &[Kind::Snapshot]).unwrap();
        let (context, commit, _) = body_header(record.body, Kind::Snapshot).unwrap();
        let label = Label::Object(Kind::Snapshot);
        let fits = |s: &&[u8; 32]| derives(s, &context.to_bytes(), &commit, label);
        opened.extend(secrets.iter().find(fits).map(|_| "snapshot".to_owned()));
    }
    opened
}

#[test]
fn altered_code_opens_no_more() {
    let (store, owner) = with_all_roles();
    let everything = opens(&store, &owner, &secrets(&bundle(&store, &owner, &KEY)));
    assert_eq!(everything, ["seal Data", "seal Tree", "seal Meta"], "the trial itself works");
    let session_secrets = |role| {
        let bundle = bundle(&store, &owner, &key_of(role));
        let holds = |keys: &Option<Vec<_>>| keys.is_some();
        assert_eq!(holds(&bundle.keys.data) || holds(&bundle.keys.tree), role == Role::Restore);
        opens(&store, &owner, &secrets(&bundle))
    };
    assert_eq!(session_secrets(Role::Backup), [""; 0]);
    assert_eq!(session_secrets(Role::Auditor), ["seal Meta"]);
    assert_eq!(session_secrets(Role::Admin), ["seal Meta"]);
    assert_eq!(session_secrets(Role::Restore), everything);

    // With the session's own secrets, as an auditor gets the one for META: frames of META open, no others.
    let meta = bundle(&store, &owner, &key_of(Role::Auditor)).keys.meta.unwrap()[0].1.clone();
    let bytes = get(&store, &names(&store, "seals/")[0]);
    let seals = Seals::from_cbor(Record::parse(&bytes, &[Kind::Seals]).unwrap().body).unwrap();
    let sealed = seals.secrets.iter().find(|secret| secret.recipient == Recipient::Meta).unwrap();
    let (repository, session) = (owner.id(), seals.session);
    let info = SealInfo { repository, epoch: 1, recipient: Recipient::Meta, session };
    let secret = open_secret(&meta, &info, &sealed.sealed).unwrap();
    assert_eq!(opens(&store, &owner, &[secret.0]), ["frame Meta", "snapshot"]);
}

#[test]
fn passwords() {
    let store = new_store(&env());
    let owner = open(&store, None, &env());
    let with = |password: &[u8]| {
        Repo::open(Arc::new(store.clone()), Unlock::Password(password), None, &env())
    };
    assert!(matches!(with(b"any"), Err(Error::WrongKey { slots: 1 })), "only a key file fits");
    let new = keys::change_password(&owner, Unlock::Password(b"first")).unwrap();
    assert!(matches!(open_with(&store, &KEY), Err(Error::WrongKey { slots: 1 })));
    assert!(matches!(with(b"other"), Err(Error::WrongKey { slots: 1 })));
    let again = with(b"first").unwrap();
    assert_eq!((again.slot(), again.identity()), (new, owner.identity()));
    let [slot] = &keys::list(&again).unwrap()[..] else { panic!("one slot") };
    assert_eq!((slot.method, slot.ours, slot.active), ("password", true, true));
    // The slot that this one was opened with is gone: it must not make another.
    let twice = keys::change_password(&owner, Unlock::KeyFile(&KEY));
    assert!(matches!(twice, Err(Error::Setting { .. })));
    keys::change_password(&again, Unlock::KeyFile(&KEY)).unwrap();
    assert_eq!(names(&store, "slots/").len(), 1);
    open_with(&store, &KEY).unwrap();
}

#[test]
fn slots_come_and_go() {
    let (store, owner) = with_all_roles();
    let slots = keys::list(&owner).unwrap();
    assert_eq!(slots.len(), 5);
    assert!(
        slots.iter().all(|slot| slot.active && slot.method == "key file" && slot.added.is_some())
    );
    assert_eq!(slots.iter().filter(|slot| slot.ours).count(), 1);
    let id = |role| slots.iter().find(|slot| slot.role == role).unwrap().id.to_string();
    let refused = |repo: &Repo, prefix: &str| {
        assert!(matches!(keys::remove(repo, prefix), Err(Error::Setting { .. })), "{prefix}");
    };
    refused(&owner, "");
    refused(&owner, "xyz");
    refused(&owner, &id(Role::Owner));
    for role in [Role::Backup, Role::Restore, Role::Auditor] {
        let repo = open_with(&store, &key_of(role)).unwrap();
        assert!(
            matches!(keys::remove(&repo, &id(Role::Backup)), Err(Error::Role { .. })),
            "{role}"
        );
    }
    let admin = open_with(&store, &key_of(Role::Admin)).unwrap();
    assert!(matches!(keys::remove(&admin, &id(Role::Restore)), Err(Error::Role { .. })));
    assert_eq!(keys::remove(&admin, &id(Role::Backup)[..12]).unwrap().role, Role::Backup);
    assert!(matches!(open_with(&store, &key_of(Role::Backup)), Err(Error::WrongKey { slots: 4 })));

    // With a second owner, the first slot may go.
    let second = KeyFileSecret([50; 32]);
    let (slot, identity) =
        keys::add(&owner, Role::Owner, "second", Unlock::KeyFile(&second)).unwrap();
    let second = open_with(&store, &second).unwrap();
    assert_eq!((second.slot(), second.identity(), second.role()), (slot, identity, Role::Owner));
    assert!(keys::remove(&owner, &id(Role::Owner)).unwrap().ours);
    refused(&second, &slot.to_string());
    keys::add(&second, Role::Restore, "by the second", Unlock::KeyFile(&KEY)).unwrap();
    assert_eq!(open_with(&store, &KEY).unwrap().role(), Role::Restore);
    assert_eq!(
        check::run(&second, &CheckOptions::default(), &Tally::default()).unwrap().damages,
        []
    );
}

#[test]
fn several_add_at_once() {
    let store = new_store(&env());
    let owners: Vec<Repo> = (0..4).map(|_| open(&store, None, &env())).collect();
    std::thread::scope(|scope| {
        for (i, owner) in owners.iter().enumerate() {
            scope.spawn(move || {
                let key = KeyFileSecret([i as u8 + 60; 32]);
                keys::add(owner, Role::Backup, "machine", Unlock::KeyFile(&key)).unwrap();
            });
        }
    });
    assert_eq!(names(&store, "roster/").len(), 5);
    assert_eq!(open(&store, None, &env()).roster().identities.len(), 5);
    (60..64).for_each(|key| drop(open_with(&store, &KeyFileSecret([key; 32])).unwrap()));
}

fn newcomer(role: Role) -> Identity {
    Identity {
        id: IdentityId([7; 16]),
        name: "newcomer".to_owned(),
        role,
        verifying: SigningKey::from_seed(&[8; 32]).verifying_key(),
        kem: kem_public(&KemSecret([9; 32])),
        added_ns: 0,
        state: State::Active,
        sessions_kept: None,
        extra: Vec::new(),
    }
}

#[test]
fn an_admin_cannot_make_more_of_himself() {
    let (store, owner) = with_all_roles();
    let admin = bundle(&store, &owner, &key_of(Role::Admin));
    let before = owner.roster().clone();
    type Change = fn(&mut Roster);
    let forge: [(&str, bool, Change); 6] = [
        ("a backup identity", true, |roster| roster.identities.push(newcomer(Role::Backup))),
        ("an owner", false, |roster| roster.identities.push(newcomer(Role::Owner))),
        ("a reader", false, |roster| roster.identities.push(newcomer(Role::Restore))),
        ("another role", false, |roster| {
            roster.identities.last_mut().unwrap().role = Role::Restore
        }),
        ("epoch keys", false, |roster| roster.epochs[0].data = kem_public(&KemSecret([1; 32]))),
        ("an epoch", false, |roster| {
            let next = Epoch { number: 2, ..roster.epoch().clone() };
            roster.epochs.push(Epoch { data: kem_public(&KemSecret([1; 32])), ..next });
        }),
    ];
    for (what, valid, change) in forge {
        let store = copy(&store);
        let mut next = before.clone();
        change(&mut next);
        next.number += 1;
        let last = names(&store, "roster/").pop().unwrap();
        next.previous = Some(*blake3::hash(&get(&store, &last)).as_bytes());
        let name = Roster::name(next.number);
        let signer = (admin.identity, before.number, &admin.signing_key());
        let bytes = Record::build(Kind::Roster, &next.to_cbor(), &name, &[signer], owner.id());
        store.put_if_absent(&ObjectName::new(&name).unwrap(), &bytes).unwrap();
        let repo = open(&store, None, &env());
        assert_eq!(repo.roster().number, before.number + u32::from(valid), "{what}");
        let watch = Tally::default();
        let report = check::run(&repo, &CheckOptions::default(), &watch).unwrap();
        assert_eq!(
            (report.damages, watch.problems().len()),
            (vec![], usize::from(!valid)),
            "{what}"
        );
        // A void number stays void; the next one counts.
        keys::add(&repo, Role::Backup, "next", Unlock::KeyFile(&KeyFileSecret([70; 32]))).unwrap();
        let added = open_with(&store, &KeyFileSecret([70; 32])).unwrap();
        assert_eq!(added.roster().number, before.number + 2, "{what}");
    }
}

#[test]
fn slots_of_another_repository() {
    let (ours, theirs) = (new_store(&env()), new_store(&env()));
    let foreign = names(&theirs, "slots/")[0].clone();
    ours.put_if_absent(&foreign, &get(&theirs, &foreign)).unwrap();
    // Both were made with the same key file: only our own slot opens.
    let owner = open_with(&ours, &KEY).unwrap();
    assert_ne!(format!("slots/{}", owner.slot()), foreign.as_str());
    let own = ObjectName::new(&format!("slots/{}", owner.slot())).unwrap();
    ours.delete(&own).unwrap();
    assert!(matches!(open_with(&ours, &KEY), Err(Error::WrongKey { slots: 1 })));
    // Nor does theirs open with our `repo.cbor` under it.
    let repo_file = ObjectName::new("repo.cbor").unwrap();
    theirs.delete(&repo_file).unwrap();
    theirs.put_if_absent(&repo_file, &get(&ours, &repo_file)).unwrap();
    assert!(matches!(open_with(&theirs, &KEY), Err(Error::WrongKey { slots: 1 })));
}

#[test]
fn rollback() {
    let (store, owner) = with_all_roles();
    let newest = names(&store, "roster/").pop().unwrap();
    assert_eq!(newest.as_str(), "roster/00000005");
    let report =
        |repo: &Repo| check::run(repo, &CheckOptions::default(), &Tally::default()).unwrap();
    store.delete(&newest).unwrap();
    // The last slot was written when roster 5 was the newest.
    let last = open_with(&store, &key_of(Role::Admin));
    assert!(matches!(last, Err(Error::Rollback { .. })), "{last:?}");
    // The owner's slot has seen roster 1 only, but records cite a later one.
    let repo = open(&store, None, &env());
    assert_eq!(repo.roster().number, 4);
    assert!(matches!(repo.snapshots(), Err(Error::Rollback { .. })));
    let cites = report(&repo).damages;
    assert!(cites.iter().any(|found| found.object.starts_with("snapshots/")), "{cites:?}");
    assert!(report(&owner).damages.iter().any(|found| found.object == newest.as_str()));
}
