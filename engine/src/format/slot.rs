//! Slots: a role's keys, wrapped by a password or a key file (`docs/format.md`, 8.1). A role is
//! what its bundle holds, so building one drops what the role may not have, and reading one refuses
//! anything else than the role's table says.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::cbor::{Decoder, Encoder, Map, MapEncoder, decode_map, encode_map};
use super::id::{IdKey, IdentityId, RepositoryId, from_hex, to_hex};
use super::keys::{KemSecret, SigningKey, VerifyingKey};
use super::kind::Kind;
use super::seal::{Secret, check_commit, derive};
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

const SLOT: &str = "key slot";
const BUNDLE: &str = "key bundle";
const KEY_FILE: &str = "key file";
const KEY_FILE_HEAD: &str = "strongroom-key-1\n";

// ---- roles ----

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    Backup = 1,
    Restore = 2,
    Auditor = 3,
    Admin = 4,
    Owner = 5,
}

/// Which secrets a role has besides REFID and INDEX, which all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    pub id: bool,
    /// DATA and TREE.
    pub content: bool,
    pub meta: bool,
    pub root: bool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        (1..=5).filter_map(Role::from_code).find(|role| role.name() == text).ok_or(())
    }
}

impl Role {
    /// May it add backups?
    pub fn writes(self) -> bool {
        matches!(self, Role::Backup | Role::Owner)
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u64) -> Option<Role> {
        match code {
            1 => Some(Role::Backup),
            2 => Some(Role::Restore),
            3 => Some(Role::Auditor),
            4 => Some(Role::Admin),
            5 => Some(Role::Owner),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Backup => "backup",
            Role::Restore => "restore",
            Role::Auditor => "auditor",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }

    pub fn holds(self) -> Holds {
        let (id, content, meta, root) = match self {
            Role::Backup => (true, false, false, false),
            Role::Restore => (true, true, true, false),
            Role::Auditor | Role::Admin => (false, false, true, false),
            Role::Owner => (true, true, true, true),
        };
        Holds { id, content, meta, root }
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Role> {
        let code = decoder.uint()?;
        Role::from_code(code).ok_or_else(|| FormatError::Unsupported {
            object: decoder.object(),
            feature: format!("role {code}"),
        })
    }
}

// ---- bundles ----

/// The secrets that a repository has, or those that a role has of them. Epochs ascend.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: Option<Secret>,
    pub refid: Secret,
    pub index: Vec<(u32, Secret)>,
    pub data: Option<Vec<(u32, KemSecret)>>,
    pub tree: Option<Vec<(u32, KemSecret)>>,
    pub meta: Option<Vec<(u32, KemSecret)>>,
    /// The root's Ed25519 seed.
    pub root: Option<Secret>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// What `role` may have of them. Fails if they lack something that it must have.
    pub fn for_role(&self, role: Role) -> Result<Keys> {
        let holds = role.holds();
        let keys = Keys {
            id: self.id.clone().filter(|_| holds.id),
            refid: self.refid.clone(),
            index: self.index.clone(),
            data: self.data.clone().filter(|_| holds.content),
            tree: self.tree.clone().filter(|_| holds.content),
            meta: self.meta.clone().filter(|_| holds.meta),
            root: self.root.clone().filter(|_| holds.root),
        };
        keys.check(role)?;
        Ok(keys)
    }

    fn check(&self, role: Role) -> Result<()> {
        let holds = role.holds();
        let found = [
            (self.id.is_some(), holds.id),
            (self.data.is_some(), holds.content),
            (self.tree.is_some(), holds.content),
            (self.meta.is_some(), holds.meta),
            (self.root.is_some(), holds.root),
        ];
        let what = "its keys are not those of its role";
        if found.iter().all(|(has, should)| has == should) {
            return Ok(());
        }
        Err(FormatError::Malformed { object: BUNDLE, what })
    }

    pub fn id_key(&self) -> Option<IdKey> {
        self.id.as_ref().map(|id| IdKey(id.0))
    }

    pub fn refid_key(&self) -> IdKey {
        IdKey(self.refid.0)
    }

    pub fn root_key(&self) -> Option<SigningKey> {
        self.root.as_ref().map(|seed| SigningKey::from_seed(&seed.0))
    }
}

/// What a slot wraps: an identity with its keys, and what it must trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub repository: RepositoryId,
    /// H of the stored bytes of `repo.cbor`.
    pub repo_hash: [u8; 32],
    pub root: VerifyingKey,
    /// The newest roster when the slot was written.
    pub roster: u32,
    pub identity: IdentityId,
    pub role: Role,
    pub name: String,
    /// Ed25519 seed of the identity.
    pub signing: Secret,
    pub kem: KemSecret,
    /// Exactly what the role holds (`Keys::for_role`).
    pub keys: Keys,
}

impl Bundle {
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.signing.0)
    }

    /// Panics if the keys are not those of the role: use `Keys::for_role`.
    pub fn to_cbor(&self) -> Zeroizing<Vec<u8>> {
        self.keys.check(self.role).expect("a bundle holds what its role holds");
        let keys = &self.keys;
        let kem = [&keys.data, &keys.tree, &keys.meta].into_iter().flatten().map(Vec::len);
        let epochs = keys.index.len() + kem.sum::<usize>();
        let room = 1024 + self.name.len() + 48 * epochs;
        let mut encoder = Encoder::with_capacity(room);
        encoder.map(|m| {
            m.bytes(1, self.repository);
            m.bytes(2, self.repo_hash);
            m.bytes(3, self.root);
            m.uint(4, self.roster);
            m.bytes(5, self.identity);
            m.uint(6, self.role.code());
            m.text(7, &self.name);
            m.bytes(8, self.signing.0);
            m.bytes(9, self.kem.0);
            self.keys.encode(m);
        });
        let cbor = Zeroizing::new(encoder.into_bytes());
        assert!(cbor.len() <= room, "secrets are written once");
        cbor
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Bundle> {
        decode_map(bytes, BUNDLE, |m| {
            let bundle = Bundle {
                repository: RepositoryId(m.req(1, Decoder::fixed)?),
                repo_hash: m.req(2, Decoder::fixed)?,
                root: VerifyingKey(m.req(3, Decoder::fixed)?),
                roster: m.req(4, Decoder::small)?,
                identity: IdentityId(m.req(5, Decoder::fixed)?),
                role: m.req(6, Role::decode)?,
                name: m.req(7, Decoder::string)?,
                signing: Secret(m.req(8, Decoder::fixed)?),
                kem: KemSecret(m.req(9, Decoder::fixed)?),
                keys: Keys::decode(m)?,
            };
            bundle.keys.check(bundle.role)?;
            Ok(bundle)
        })
    }
}

impl Keys {
    fn encode(&self, m: &mut MapEncoder<'_>) {
        m.opt_bytes(10, self.id.as_ref().map(|id| id.0));
        m.bytes(11, self.refid.0);
        encode_keys(m, 12, &self.index, |secret| &secret.0);
        for (key, secrets) in [(13, &self.data), (14, &self.tree), (15, &self.meta)] {
            if let Some(secrets) = secrets {
                encode_keys(m, key, secrets, |secret| &secret.0);
            }
        }
        m.opt_bytes(16, self.root.as_ref().map(|root| root.0));
    }

    fn decode(m: &mut Map<'_, '_>) -> Result<Keys> {
        let kem = |d: &mut Decoder<'_>| decode_keys(d, KemSecret);
        Ok(Keys {
            id: m.opt(10, Decoder::fixed)?.map(Secret),
            refid: Secret(m.req(11, Decoder::fixed)?),
            index: m.req(12, |d| decode_keys(d, Secret))?,
            data: m.opt(13, kem)?,
            tree: m.opt(14, kem)?,
            meta: m.opt(15, kem)?,
            root: m.opt(16, Decoder::fixed)?.map(Secret),
        })
    }
}

fn encode_keys<T>(
    m: &mut MapEncoder<'_>,
    key: u64,
    secrets: &[(u32, T)],
    bytes: impl Fn(&T) -> &[u8; 32],
) {
    assert!(secrets.is_sorted_by(|a, b| a.0 < b.0) && !secrets.is_empty(), "epochs ascend");
    m.list(key, secrets, |e, (epoch, secret)| {
        e.array(2);
        e.uint((*epoch).into());
        e.bytes(bytes(secret));
    });
}

fn decode_keys<T>(
    decoder: &mut Decoder<'_>,
    wrap: impl Fn([u8; 32]) -> T,
) -> Result<Vec<(u32, T)>> {
    let keys = decoder.list(|d| d.tuple(2, |d| Ok((d.small::<u32>()?, wrap(d.fixed()?)))))?;
    if keys.is_empty() || !keys.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(decoder.malformed("epochs missing or not ascending"));
    }
    Ok(keys)
}

// ---- wrapping ----

/// Argon2id: memory in KiB, passes, lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub m_kib: u32,
    pub t: u32,
    pub p: u32,
}

impl Cost {
    /// RFC 9106, second recommended option; the floor too but for its lanes.
    pub const DEFAULT: Cost = Cost { m_kib: 65_536, t: 3, p: 4 };

    fn check(self) -> Result<()> {
        let within = (65_536..=1 << 20).contains(&self.m_kib)
            && (3..=64).contains(&self.t)
            && (1..=64).contains(&self.p);
        if within { Ok(()) } else { Err(FormatError::Limit { object: SLOT, what: "Argon2 cost" }) }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Cost> {
        let cost =
            decoder.tuple(3, |d| Ok(Cost { m_kib: d.small()?, t: d.small()?, p: d.small()? }))?;
        cost.check().map(|()| cost)
    }
}

/// The 32 secret bytes of a key file.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyFileSecret(pub [u8; 32]);

impl fmt::Debug for KeyFileSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFileSecret(…)")
    }
}

impl KeyFileSecret {
    pub fn to_text(&self) -> Zeroizing<String> {
        let hex = Zeroizing::new(to_hex(&self.0));
        Zeroizing::new([KEY_FILE_HEAD, &hex, "\n"].concat())
    }

    pub fn from_text(text: &str) -> Result<KeyFileSecret> {
        let hex = text
            .strip_prefix(KEY_FILE_HEAD)
            .ok_or(FormatError::NotOurs { object: KEY_FILE })?
            .strip_suffix('\n')
            .ok_or(FormatError::Truncated { object: KEY_FILE })?;
        let what = "it needs 64 lower-case hex digits and a newline";
        let secret = from_hex(hex).ok_or(FormatError::Malformed { object: KEY_FILE, what })?;
        Ok(KeyFileSecret(secret))
    }
}

#[derive(Clone, Copy)]
pub enum Unlock<'a> {
    Password(&'a [u8]),
    KeyFile(&'a KeyFileSecret),
}

impl fmt::Debug for Unlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unlock::Password(_) => "Password(…)",
            Unlock::KeyFile(_) => "KeyFile(…)",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Password(Cost),
    KeyFile,
}

/// Fresh random bytes for one slot.
#[derive(Clone, Copy)]
pub struct SlotRandom {
    pub salt: [u8; 32],
    pub nonce: [u8; 24],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub method: Method,
    pub salt: [u8; 32],
    pub nonce: [u8; 24],
    pub commitment: [u8; 32],
    pub ciphertext: Vec<u8>,
    /// This and the next two are a hint until the slot is open; they must be what the bundle says.
    pub identity: IdentityId,
    pub name: String,
    pub role: Role,
}

impl Slot {
    /// `cost` counts for passwords only.
    pub fn seal(
        bundle: &Bundle,
        unlock: Unlock<'_>,
        cost: Cost,
        random: SlotRandom,
    ) -> Result<Slot> {
        let method = match unlock {
            Unlock::Password(_) => Method::Password(cost),
            Unlock::KeyFile(_) => Method::KeyFile,
        };
        let bound = bound_to(bundle.repository, bundle.identity);
        let ikm = stretch(unlock, method, &random.salt)?;
        let (kek, commitment) = derive(&ikm, &random.salt, &[&bound]);
        let cipher = XChaCha20Poly1305::new(&Key::from(kek.0));
        let plain = bundle.to_cbor();
        let payload = Payload { msg: &plain, aad: &bound };
        let ciphertext = cipher.encrypt(&XNonce::from(random.nonce), payload);
        Ok(Slot {
            method,
            salt: random.salt,
            nonce: random.nonce,
            commitment,
            ciphertext: ciphertext.expect("a bundle is far below the cipher's limit"),
            identity: bundle.identity,
            name: bundle.name.clone(),
            role: bundle.role,
        })
    }

    /// `FormatError::Commitment`: wrong password or key. The caller compares `Bundle::repo_hash`.
    pub fn open(&self, repository: RepositoryId, unlock: Unlock<'_>) -> Result<Bundle> {
        let bound = bound_to(repository, self.identity);
        let ikm = stretch(unlock, self.method, &self.salt)?;
        let (kek, commitment) = derive(&ikm, &self.salt, &[&bound]);
        check_commit(&commitment, &self.commitment, SLOT)?;
        let cipher = XChaCha20Poly1305::new(&Key::from(kek.0));
        let payload = Payload { msg: &self.ciphertext, aad: &bound };
        let plain = cipher.decrypt(&XNonce::from(self.nonce), payload);
        let plain = Zeroizing::new(plain.map_err(|_| FormatError::Altered { object: SLOT })?);
        let bundle = Bundle::from_cbor(&plain)?;
        let inside = (bundle.repository, bundle.identity, bundle.role, &bundle.name);
        if inside != (repository, self.identity, self.role, &self.name) {
            return Err(FormatError::Altered { object: SLOT });
        }
        Ok(bundle)
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        encode_map(|m| {
            m.uint(1, 1u8);
            match self.method {
                Method::Password(cost) => {
                    m.uint(2, 1u8);
                    m.list(3, [cost.m_kib, cost.t, cost.p], |e, n| e.uint(n.into()));
                }
                Method::KeyFile => m.uint(2, 2u8),
            }
            m.bytes(4, self.salt);
            m.bytes(5, self.nonce);
            m.bytes(6, self.commitment);
            m.bytes(7, &self.ciphertext);
            m.bytes(8, self.identity);
            m.text(9, &self.name);
            m.uint(10, self.role.code());
        })
    }

    pub fn from_cbor(bytes: &[u8]) -> Result<Slot> {
        decode_map(bytes, Kind::Slot.name(), |m| {
            let version = m.req(1, Decoder::uint)?;
            if version != 1 {
                return Err(FormatError::Newer { object: m.object(), version });
            }
            let method = match m.req(2, Decoder::uint)? {
                1 => Method::Password(m.req(3, Cost::decode)?),
                2 => Method::KeyFile,
                code => {
                    let feature = format!("unlock method {code}");
                    return Err(FormatError::Unsupported { object: m.object(), feature });
                }
            };
            Ok(Slot {
                method,
                salt: m.req(4, Decoder::fixed)?,
                nonce: m.req(5, Decoder::fixed)?,
                commitment: m.req(6, Decoder::fixed)?,
                ciphertext: m.req(7, Decoder::bytes)?.to_vec(),
                identity: IdentityId(m.req(8, Decoder::fixed)?),
                name: m.req(9, Decoder::string)?,
                role: m.req(10, Role::decode)?,
            })
        })
    }
}

/// What key and ciphertext are bound to.
fn bound_to(repository: RepositoryId, identity: IdentityId) -> Vec<u8> {
    [b"strongroom/1/slot".as_slice(), &repository.0, &identity.0].concat()
}

fn stretch(unlock: Unlock<'_>, method: Method, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    let (password, cost) = match (unlock, method) {
        (Unlock::KeyFile(secret), Method::KeyFile) => return Ok(Zeroizing::new(secret.0)),
        (Unlock::Password(password), Method::Password(cost)) => (password, cost),
        _ => return Err(FormatError::Commitment { object: SLOT }),
    };
    cost.check()?;
    let unfit = |_| FormatError::Limit { object: SLOT, what: "Argon2 cost or password length" };
    let params = argon2::Params::new(cost.m_kib, cost.t, cost.p, Some(32)).map_err(unfit)?;
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut ikm = Zeroizing::new([0; 32]);
    argon.hash_password_into(password, salt, ikm.as_mut()).map_err(unfit)?;
    Ok(ikm)
}

#[cfg(test)]
mod tests;
