//! Slots and identities: who has a key to this repository, adding one, removing one, changing a
//! password. Removing a slot destroys that copy of the keys, no more: whoever kept the slot object,
//! or what it wraps, still has what the role holds, and the identity stays listed in the roster.
//! Revoking an identity (a new epoch) is not done here.

use crate::env::TimeNs;
use crate::error::{Error, Named, Result};
use crate::format::id::{IdentityId, ObjectHash, hash};
use crate::format::keys::{KemSecret, SigningKey, kem_public};
use crate::format::kind::parse_number;
use crate::format::record::{Kind, Record, check_rot};
use crate::format::roster::{Identity, Link, Roster, State, validate_next};
use crate::format::seal::Secret;
use crate::format::slot::{Bundle, Method, Role, Slot, Unlock};
use crate::repo::Repo;
use crate::repo::init::seal_slot;
use crate::repo::opening::newest_roster;
use crate::repo::records::{RECORD_BYTES_MAX, object_name};
use crate::store::Put;

/// How often another writer of rosters may be faster than we are.
const RACES_MAX: usize = 16;

/// A slot as it shows itself without being opened: all but `added` and `active` is a hint until somebody opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub id: ObjectHash,
    /// "password" or "key file".
    pub method: &'static str,
    pub identity: IdentityId,
    pub name: String,
    pub role: Role,
    /// When the roster says that the identity was added; `None`: it does not list it.
    pub added: Option<TimeNs>,
    /// The roster lists the identity, in this role and not revoked.
    pub active: bool,
    /// It is the slot that opened this repository.
    pub ours: bool,
}

/// Every slot, in the order of their ids.
pub fn list(repo: &Repo) -> Result<Vec<SlotInfo>> {
    let (roster, _) = newest_roster(&**repo.store(), repo.bundle())?.newest;
    let ids = repo.object_hashes("slots")?;
    ids.into_iter().map(|id| info(repo, &roster, id)).collect()
}

/// Makes a new identity and a slot that wraps its role's keys; ids of the slot and of the identity.
/// An owner may add every role. An admin may add role backup as far as the roster goes, but can
/// wrap only keys that it holds. The roster is durable before the slot: a slot whose identity
/// nobody knows would open nothing.
pub fn add(
    repo: &Repo,
    role: Role,
    name: &str,
    unlock: Unlock,
) -> Result<(ObjectHash, IdentityId)> {
    check_may_manage(repo, role)?;
    let ours = repo.bundle();
    let keys = ours.keys.for_role(role).map_err(|_| Error::Role {
        role: repo.role(),
        needs: "every key that the new slot is to hold (owner)",
    })?;
    let (env, signing, kem) =
        (repo.env(), Secret(repo.env().random()), KemSecret(repo.env().random()));
    let identity = Identity {
        id: IdentityId(env.random()),
        name: name.to_owned(),
        role,
        verifying: SigningKey::from_seed(&signing.0).verifying_key(),
        kem: kem_public(&kem),
        added_ns: env.now(),
        state: State::Active,
        sessions_kept: None,
        extra: Vec::new(),
    };
    let id = identity.id;
    let roster = enlist(repo, &identity)?;
    let bundle = Bundle {
        repository: ours.repository,
        repo_hash: ours.repo_hash,
        root: ours.root,
        roster: roster.number,
        identity: id,
        role,
        name: identity.name,
        signing,
        kem,
        keys,
    };
    Ok((put_slot(repo, &bundle, unlock)?, id))
}

/// Deletes the slot whose id begins with `slot_prefix`, and says which it was. The identity stays
/// listed and is not revoked. An owner may remove every slot, an admin those of role backup. The
/// last owner's slot stays, and so does the slot in use unless another owner's is there.
pub fn remove(repo: &Repo, slot_prefix: &str) -> Result<SlotInfo> {
    let slots = list(repo)?;
    let wanted = slot_prefix.to_ascii_lowercase();
    let refuse = |what: String| Err(Error::Setting { what });
    let mut found =
        slots.iter().filter(|slot| !wanted.is_empty() && slot.id.to_string().starts_with(&wanted));
    let slot = match (found.next(), found.count()) {
        (Some(slot), 0) => slot,
        (None, _) => return refuse(format!("there is no slot '{slot_prefix}'")),
        (_, more) => {
            return refuse(format!("'{slot_prefix}' is the beginning of {} slots' ids", more + 1));
        }
    };
    check_may_manage(repo, slot.role)?;
    let is_owner = |slot: &SlotInfo| slot.role == Role::Owner && slot.active;
    let other_owner = slots.iter().any(|other| other.id != slot.id && is_owner(other));
    if !other_owner && (is_owner(slot) || slot.ours) {
        return refuse(format!("slot {} is the last one of an owner, or in use", slot.id));
    }
    repo.store().delete(&object_name(&slot_name(&slot.id))?)?;
    Ok(slot.clone())
}

/// Wraps the keys of the slot that opened this repository anew; id of the new slot. The old one is
/// deleted once the new one is durable. `Repo::slot` keeps naming the old one.
pub fn change_password(repo: &Repo, unlock: Unlock) -> Result<ObjectHash> {
    let old = slot_name(&repo.slot());
    if !repo.exists(&old)? {
        return Err(Error::Setting { what: format!("{old} is gone: open the repository again") });
    }
    let (roster, _) = newest_roster(&**repo.store(), repo.bundle())?.newest;
    let bundle = Bundle { roster: roster.number, ..repo.bundle().clone() };
    let id = put_slot(repo, &bundle, unlock)?;
    repo.store().delete(&object_name(&old)?)?;
    Ok(id)
}

/// May this key add or remove slots of `role`?
fn check_may_manage(repo: &Repo, role: Role) -> Result<()> {
    match repo.role() {
        Role::Owner => Ok(()),
        Role::Admin if role == Role::Backup => Ok(()),
        ours => Err(Error::Role { role: ours, needs: "the owner's key" }),
    }
}

fn slot_name(id: &ObjectHash) -> String {
    format!("slots/{id}")
}

fn info(repo: &Repo, roster: &Roster, id: ObjectHash) -> Result<SlotInfo> {
    let name = slot_name(&id);
    let bytes = repo.get(&name, RECORD_BYTES_MAX)?;
    check_rot(&name, &bytes).named(&name)?;
    let record = Record::parse(&bytes, &[Kind::Slot]).named(&name)?;
    let slot = Slot::from_cbor(record.body).named(&name)?;
    let listed = roster.identity(slot.identity);
    Ok(SlotInfo {
        id,
        method: match slot.method {
            Method::Password(_) => "password",
            Method::KeyFile => "key file",
        },
        identity: slot.identity,
        role: slot.role,
        added: listed.map(|identity| identity.added_ns),
        active: listed
            .is_some_and(|identity| identity.state == State::Active && identity.role == slot.role),
        ours: id == repo.slot(),
        name: slot.name,
    })
}

/// Durable when it returns.
fn put_slot(repo: &Repo, bundle: &Bundle, unlock: Unlock) -> Result<ObjectHash> {
    let bytes = seal_slot(bundle, unlock, repo.env())?;
    let id = ObjectHash(hash(&bytes));
    let name = object_name(&slot_name(&id))?;
    repo.store().put_if_absent(&name, &bytes)?;
    repo.store().make_durable(&mut std::iter::once(&name))?;
    Ok(id)
}

/// Writes the next roster, with one more identity. Whoever loses a race begins again from what the winner wrote.
fn enlist(repo: &Repo, identity: &Identity) -> Result<Roster> {
    let store = &**repo.store();
    for _ in 0..RACES_MAX {
        // In this order: a roster that comes in between is either the newest or has our number.
        // The other way round we would cite one before it, and ours would be void.
        let highest = highest_number(repo)?;
        let newest = newest_roster(store, repo.bundle())?.newest;
        let (next, bytes) = with_identity(repo, &newest, highest, identity)?;
        let name = object_name(&Roster::name(next.number))?;
        if store.put_if_absent(&name, &bytes)? == Put::Created {
            return Ok(next);
        }
        // A store that repeated the request tells us of our own.
        if store.get(&name, RECORD_BYTES_MAX)? == bytes {
            store.make_durable(&mut std::iter::once(&name))?;
            return Ok(next);
        }
    }
    let cause = format!("others were faster {RACES_MAX} times in a row");
    Err(Error::Damaged { what: "the roster".to_owned(), cause })
}

/// The roster behind `newest`; `highest` is the number of the last object there is, valid or void.
fn with_identity(
    repo: &Repo,
    newest: &Link,
    highest: u32,
    identity: &Identity,
) -> Result<(Roster, Vec<u8>)> {
    let (last, last_hash) = newest;
    let mut next = last.clone();
    next.number = highest.max(last.number) + 1;
    next.previous = Some(*last_hash);
    next.time_ns = repo.env().now();
    next.identities.push(identity.clone());
    let name = Roster::name(next.number);
    let root = repo.bundle().keys.root_key();
    let signer = match &root {
        Some(root) => (IdentityId::ROOT, last.number, root),
        None => (repo.identity(), last.number, repo.signing()),
    };
    let bytes = Record::build(Kind::Roster, &next.to_cbor(), &name, &[signer], repo.id());
    // What we write must not be void: an admin who was revoked meanwhile learns it here.
    validate_next(repo.id(), &repo.bundle().root, Some(newest), next.number, &bytes)
        .named(&name)?;
    Ok((next, bytes))
}

fn highest_number(repo: &Repo) -> Result<u32> {
    let mut highest = 0;
    repo.store().list("roster", &mut |name, _| {
        highest = highest.max(parse_number(name.last()).unwrap_or_default());
    })?;
    Ok(highest)
}
