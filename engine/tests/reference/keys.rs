//! Section 8 and 7.1: key file → slot → bundle; `repo.cbor`; the chain of rosters.

use std::collections::BTreeMap;

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use ciborium::Value;
use ed25519_dalek::SigningKey;

use super::cbor::{self, Map};
use super::record::{ROOT, Record};
use super::seal::{self, Recipient, hkdf, kem_public};
use super::{Id, Result, Short, from_hex, h, need};

const BACKUP: u64 = 1;
pub const ADMIN: u64 = 4;
const OWNER: u64 = 5;

pub struct RepoFile {
    pub repository: Short,
    pub suite: u64,
    pub pack_size: u64,
}

impl RepoFile {
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut map = Map::parse("repo", body)?;
        need(map.uint(1)? == 1, "version of the repository")?;
        need(map.list(2)?.is_empty(), "required features: none are known")?;
        let (repository, suite) = (map.array(3)?, map.uint(4)?);
        chunker(map.take(5)?)?;
        let pack_size = map.uint(6)?;
        map.int(7)?;
        map.finish()?;
        Ok(Self { repository, suite, pack_size })
    }
}

fn chunker(value: Value) -> Result<()> {
    let mut map = Map::new("chunker", value)?;
    let keys: &[u64] = match map.uint(1)? {
        1 => &[2, 4],
        2 => &[2, 3, 4],
        other => return Err(format!("unknown chunker {other}")),
    };
    keys.iter().try_for_each(|key| map.uint(*key).map(drop))?;
    map.finish()
}

pub fn key_file(text: &str) -> Result<[u8; 32]> {
    let digits = text.strip_prefix("strongroom-key-1\n").and_then(|rest| rest.strip_suffix('\n'));
    from_hex(digits.ok_or("not a key file")?)
}

type EpochKeys = BTreeMap<u64, [u8; 32]>;

pub struct Bundle {
    pub repository: Short,
    pub repo_hash: Id,
    pub root: [u8; 32],
    pub roster: u64,
    pub identity: Short,
    pub role: u64,
    pub name: String,
    signing: [u8; 32],
    kem: [u8; 32],
    pub id: [u8; 32],
    pub refid: [u8; 32],
    keys: BTreeMap<Recipient, EpochKeys>,
    root_seed: [u8; 32],
}

impl Bundle {
    /// Opens a slot with the secret of a key file.
    pub fn open(slot_body: &[u8], secret: &[u8; 32], repository: &Short) -> Result<Self> {
        let mut map = Map::parse("slot", slot_body)?;
        need(map.uint(1)? == 1, "version of a slot")?;
        need(map.uint(2)? == 2, "this reader opens slots of key files only")?;
        let (salt, nonce) = (map.array::<32>(4)?, map.array::<24>(5)?);
        let commit = map.array::<32>(6)?;
        let sealed = cbor::bytes(map.take(7)?)?;
        let (identity, name, role) = (map.array::<16>(8)?, map.text(9)?, map.uint(10)?);
        map.finish()?;
        let aad = [b"strongroom/1/slot".as_slice(), repository, &identity].concat();
        let (kek, derived) = hkdf(secret, &salt, &aad);
        need(commit == derived, "commitment of a slot")?;
        let payload = Payload { msg: &sealed, aad: &aad };
        let opened = XChaCha20Poly1305::new(&kek.into()).decrypt(&nonce.into(), payload);
        let bundle = Self::parse(&opened.map_err(|_| "tag of a slot")?)?;
        need(
            (bundle.identity, &bundle.name, bundle.role) == (identity, &name, role),
            "slot and bundle",
        )?;
        need(bundle.repository == *repository, "repository of the bundle")?;
        Ok(bundle)
    }

    /// Of an owner: every key must be there.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut map = Map::parse("bundle", bytes)?;
        let recipients = [
            (12, Recipient::Index),
            (13, Recipient::Data),
            (14, Recipient::Tree),
            (15, Recipient::Meta),
        ];
        let bundle = Self {
            repository: map.array(1)?,
            repo_hash: map.array(2)?,
            root: map.array(3)?,
            roster: map.uint(4)?,
            identity: map.array(5)?,
            role: map.uint(6)?,
            name: map.text(7)?,
            signing: map.array(8)?,
            kem: map.array(9)?,
            id: map.array(10)?,
            refid: map.array(11)?,
            keys: recipients
                .map(|(key, recipient)| Ok((recipient, epoch_keys(map.take(key)?)?)))
                .into_iter()
                .collect::<Result<_>>()?,
            root_seed: map.array(16)?,
        };
        map.finish()?;
        need(bundle.role == OWNER, "role: these are an owner's keys")?;
        need(public(&bundle.root_seed) == bundle.root, "root key")?;
        Ok(bundle)
    }

    pub fn key(&self, recipient: Recipient, epoch: u32) -> Result<&[u8; 32]> {
        let key = self.keys[&recipient].get(&u64::from(epoch));
        key.ok_or_else(|| format!("no {recipient:?} key of epoch {epoch}"))
    }

    /// Our secret keys belong to the public ones in the roster.
    pub fn check_against(&self, roster: &Roster) -> Result<()> {
        need(roster.number >= self.roster, "the roster is older than the bundle knows")?;
        let ours = roster.identities.get(&self.identity).ok_or("not in the roster")?;
        need(ours.role == self.role && ours.name == self.name, "role and name in the roster")?;
        need(ours.verifying == public(&self.signing), "our verifying key")?;
        need(ours.kem == kem_public(&self.kem), "our X-Wing key")?;
        for (number, epoch) in &roster.epochs {
            let keys =
                [Recipient::Data, Recipient::Tree, Recipient::Meta].into_iter().zip(&epoch.keys);
            for (recipient, key) in keys {
                let secret = self.key(recipient, *number as u32)?;
                need(kem_public(secret) == *key, "public key of an epoch")?;
            }
            let index = self.key(Recipient::Index, *number as u32)?;
            let hash = h(&[b"strongroom/1/index-key".as_slice(), index].concat());
            need(hash == epoch.index_hash, "hash of an epoch's INDEX key")?;
        }
        Ok(())
    }

    /// A session's secret for a recipient.
    pub fn session_secret(
        &self,
        session: &Short,
        recipient: Recipient,
        epoch: u32,
        sealed: &[u8],
    ) -> Result<[u8; 32]> {
        let code = [recipient as u8];
        let label = b"strongroom/1/seal".as_slice();
        let info = [label, &self.repository, &epoch.to_le_bytes(), &code, session].concat();
        seal::open_secret(self.key(recipient, epoch)?, &info, sealed)
    }
}

fn public(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

fn epoch_keys(value: Value) -> Result<EpochKeys> {
    let rows = cbor::list(value)?.into_iter().map(|row| {
        let [epoch, key] = cbor::tuple(row)?;
        Ok((cbor::uint(epoch)?, cbor::array(key)?))
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    need(!rows.is_empty() && rows.is_sorted_by(|a, b| a.0 < b.0), "epochs ascend")?;
    Ok(rows.into_iter().collect())
}

// ---- rosters ----

#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub role: u64,
    pub verifying: [u8; 32],
    kem: Vec<u8>,
    pub state: u64,
    added_ns: i64,
    sessions_kept: Option<Vec<Vec<u8>>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Epoch {
    keys: [Vec<u8>; 3],
    index_hash: Id,
}

#[derive(Clone)]
pub struct Roster {
    pub number: u64,
    previous: Option<Id>,
    root: [u8; 32],
    pub identities: BTreeMap<Short, Identity>,
    epochs: BTreeMap<u64, Epoch>,
    settings: u64,
    grants: Vec<Value>,
    /// H of the stored bytes.
    hash: Id,
}

impl Roster {
    fn parse(body: &[u8], hash: Id) -> Result<Self> {
        let mut map = Map::parse("roster", body)?;
        let (number, root) = (map.uint(1)?, map.array(3)?);
        let previous = map.maybe(2, cbor::array)?;
        let identities = map.list(4)?.into_iter().map(identity).collect::<Result<Vec<_>>>()?;
        let epochs = map.list(5)?.into_iter().map(epoch).collect::<Result<Vec<_>>>()?;
        let mut settings = Map::new("settings", map.take(6)?)?;
        let trust = settings.uint(1)?;
        settings.finish()?;
        let grants = map.list(7)?;
        map.int(8)?;
        map.finish()?;
        need((1..=3).contains(&trust), "dedup trust")?;
        need(!epochs.is_empty() && epochs[0].0 >= 1, "epochs from 1")?;
        need(epochs.is_sorted_by(|a, b| a.0 < b.0), "epochs ascend")?;
        let count = identities.len();
        let identities: BTreeMap<_, _> = identities.into_iter().collect();
        need((1..=65_535).contains(&count), "number of identities")?;
        need(identities.len() == count && !identities.contains_key(&ROOT), "identities")?;
        let epochs = epochs.into_iter().collect();
        Ok(Self { number, previous, root, identities, epochs, settings: trust, grants, hash })
    }

    /// The same but for what an admin may change.
    fn admin_may_make(&self, next: &Roster) -> bool {
        let fixed = |roster: &Roster| {
            let mut identities = roster.identities.clone();
            identities.retain(|_, identity| identity.role != BACKUP);
            (identities, roster.epochs.clone(), roster.settings, roster.grants.clone())
        };
        fixed(self) == fixed(next)
    }
}

fn identity(value: Value) -> Result<(Short, Identity)> {
    let mut map = Map::new("identity", value)?;
    let id = map.array(1)?;
    let kept = |value| cbor::list(value)?.into_iter().map(cbor::bytes).collect();
    let identity = Identity {
        name: map.text(2)?,
        role: map.uint(3)?,
        verifying: map.array(4)?,
        kem: map.array::<1216>(5)?.to_vec(),
        state: map.uint(7)?,
        added_ns: map.int(6)?,
        sessions_kept: map.maybe(8, kept)?,
    };
    map.finish()?;
    need((1..=5).contains(&identity.role) && (1..=2).contains(&identity.state), "role and state")?;
    Ok((id, identity))
}

fn epoch(value: Value) -> Result<(u64, Epoch)> {
    let mut map = Map::new("epoch", value)?;
    let number = map.uint(1)?;
    let mut key = |n| Ok::<_, String>(map.array::<1216>(n)?.to_vec());
    let keys = [key(2)?, key(3)?, key(4)?];
    let index_hash = map.array(5)?;
    map.finish()?;
    Ok((number, Epoch { keys, index_hash }))
}

/// The valid rosters, oldest first. Takes records and H of their stored bytes by number.
pub fn rosters(records: &BTreeMap<u64, (Record<'_>, Id)>, bundle: &Bundle) -> Result<Vec<Roster>> {
    let mut valid: Vec<Roster> = Vec::new();
    for (number, (record, hash)) in records {
        // An invalid object at a number is void.
        valid.extend(next_roster(*number, record, *hash, valid.last(), bundle).ok());
    }
    need(!valid.is_empty(), "no valid roster")?;
    Ok(valid)
}

fn next_roster(
    number: u64,
    record: &Record<'_>,
    hash: Id,
    last: Option<&Roster>,
    bundle: &Bundle,
) -> Result<Roster> {
    let roster = Roster::parse(record.body, hash)?;
    need(roster.number == number && roster.root == bundle.root, "number and root key")?;
    need(roster.previous == last.map(|last| last.hash), "link to the last valid roster")?;
    need(last.is_some() || number == 1, "the first roster is number 1")?;
    let [signed] = &record.signatures[..] else { return Err("one signature".to_owned()) };
    need(u64::from(signed.roster) == last.map_or(0, |last| last.number), "cited roster")?;
    let key = match last {
        _ if signed.identity == ROOT => roster.root,
        None => return Err("roster 1 is signed by the root".to_owned()),
        Some(last) => {
            let admin = last.identities.get(&signed.identity).ok_or("unknown signer")?;
            need(admin.role == ADMIN && admin.state == 1, "an active admin")?;
            need(last.admin_may_make(&roster), "what an admin may change")?;
            admin.verifying
        }
    };
    record.verify(signed, &bundle.repository, &key)?;
    Ok(roster)
}
