//! An opened repository: whose keys we hold, what the roster says, and how records get in and out of the store.
//! Made by `init`, opened with a slot. What a backup, a restore or a check does with it is theirs.

pub mod adopt;
pub mod base_cache;
pub(crate) mod catalogue;
pub(crate) mod checked;
pub(crate) mod control;
pub mod damage;
pub(crate) mod despite;
pub mod fetch;
pub mod init;
pub mod journal;
pub(crate) mod live;
pub mod lookup;
pub(crate) mod mover;
pub mod opening;
pub mod pack_file;
pub mod pack_list;
pub mod packer;
pub mod parallel;
pub(crate) mod recent;
pub mod records;
pub(crate) mod seen;
pub mod segment;
pub mod session;
pub mod snapshots;
pub(crate) mod tier;
pub(crate) mod tiers;
pub mod trees;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::format::id::{IdKey, IdentityId, ObjectHash, PackId, RepositoryId, SessionId};
use crate::format::keys::{KemSecret, SealInfo, SigningKey, open_secret};
use crate::format::pack::SealRow;
use crate::format::roster::Roster;
use crate::format::seal::{Context, Recipient, Secret};
use crate::format::slot::Bundle;
use crate::repo::damage::is_proof;
use crate::repo::records::is_not_found;
use crate::store::Store;

pub use crate::format::repo::{ChunkerSpec, RepoFile};
pub use crate::format::seal::Suite;
pub use crate::format::slot::{KeyFileSecret, Role, Unlock};
pub use control::HoldInfo;
pub use init::{InitOptions, init};
pub use snapshots::SnapshotInfo;

pub struct Repo {
    store: Arc<dyn Store>,
    env: Env,
    file: RepoFile,
    bundle: Bundle,
    id_key: Option<IdKey>,
    refid_key: IdKey,
    signing: SigningKey,
    slot: ObjectHash,
    roster: Roster,
    roster_hash: [u8; 32],
    /// Numbers of all valid rosters: a signature that cites another was made by somebody who has seen more.
    rosters: BTreeSet<u32>,
    /// The folder for this repository below the client's cache folder.
    cache: Option<PathBuf>,
    secrets: Mutex<HashMap<(SessionId, u8), Secret>>,
}

impl Repo {
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn id(&self) -> RepositoryId {
        self.file.repository
    }

    /// What never changes: cipher suite, chunker, pack size.
    pub fn file(&self) -> &RepoFile {
        &self.file
    }

    pub fn role(&self) -> Role {
        self.bundle.role
    }

    pub fn identity(&self) -> IdentityId {
        self.bundle.identity
    }

    pub fn identity_name(&self) -> &str {
        &self.bundle.name
    }

    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) fn roster_hash(&self) -> [u8; 32] {
        self.roster_hash
    }

    /// Was there a valid roster of this number when the repository was opened?
    pub(crate) fn knows_roster(&self, number: u32) -> bool {
        self.rosters.contains(&number)
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The slot that opened this repository.
    pub fn slot(&self) -> ObjectHash {
        self.slot
    }

    pub fn cache(&self) -> Option<&PathBuf> {
        self.cache.as_ref()
    }

    /// The key of content and TREE ids.
    pub fn id_key(&self) -> Result<&IdKey> {
        let needs = "the ID key (backup, restore or owner)";
        self.id_key.as_ref().ok_or(Error::Role { role: self.role(), needs })
    }

    /// The key of REFS ids.
    pub fn refid_key(&self) -> &IdKey {
        &self.refid_key
    }

    pub fn index_key(&self, epoch: u32) -> Result<Secret> {
        let known = self.bundle.keys.index.iter().find(|(of, _)| *of == epoch);
        let needs = "the INDEX key of that epoch";
        known.map(|(_, key)| key.clone()).ok_or(Error::Role { role: self.role(), needs })
    }

    /// Can this key read what was sealed to `recipient`?
    pub fn reads(&self, recipient: Recipient) -> bool {
        recipient == Recipient::Index || !self.kem_keys(recipient).is_empty()
    }

    fn kem_keys(&self, recipient: Recipient) -> &[(u32, KemSecret)] {
        match recipient {
            Recipient::Data => self.bundle.keys.data.as_deref(),
            Recipient::Tree => self.bundle.keys.tree.as_deref(),
            Recipient::Meta => self.bundle.keys.meta.as_deref(),
            Recipient::Index => None,
        }
        .unwrap_or_default()
    }

    /// The secret that opens a frame or record with this context. Session secrets come from `seals/<session>`, and
    /// where that is lost, from the directory of a pack that needs them.
    pub(crate) fn frame_secret(
        &self,
        context: &Context,
        pack: &PackId,
        len: u64,
    ) -> Result<Secret> {
        self.secret(context).or_else(|error| match error {
            Error::Role { .. } => Err(error),
            _ => {
                let rows = self.pack_directory(pack, len)?.seals;
                self.secret_from(context, &rows).unwrap_or(Err(error))
            }
        })
    }

    pub(crate) fn secret(&self, context: &Context) -> Result<Secret> {
        if context.recipient == Recipient::Index {
            return self.index_key(context.epoch);
        }
        let key = (context.session, context.recipient as u8);
        if let Some(secret) = self.secrets.lock().expect("no panic holds this lock").get(&key) {
            return Ok(secret.clone());
        }
        self.kem_key(context)?;
        let seals = match self.seals(&context.session) {
            // Every pack of the session has them too.
            Err(error) if is_proof(&error) || is_not_found(&error) => {
                self.seals_in_packs(&context.session)?.ok_or(error)?
            }
            seals => seals?,
        };
        let missing = || Error::Damaged {
            what: format!("seals/{}", context.session),
            cause: "it lacks a recipient".to_owned(),
        };
        let secret = self.secret_from(context, &seals).ok_or_else(missing)??;
        let mut secrets = self.secrets.lock().expect("no panic holds this lock");
        secrets.insert(key, secret.clone());
        Ok(secret)
    }

    fn kem_key(&self, context: &Context) -> Result<&KemSecret> {
        let needs = match context.recipient {
            Recipient::Data => "the DATA key (restore or owner)",
            Recipient::Tree => "the TREE key (restore or owner)",
            Recipient::Meta => "the META key (restore, auditor, admin or owner)",
            Recipient::Index => "the INDEX key",
        };
        let keys = self.kem_keys(context.recipient);
        let key = keys.iter().find(|(epoch, _)| *epoch == context.epoch);
        key.map(|(_, key)| key).ok_or(Error::Role { role: self.role(), needs })
    }

    /// The sealed secret that a context needs, for a pack that its frames are moved to.
    pub(crate) fn seal_row(&self, context: &Context) -> Result<SealRow> {
        let seals = match self.seals(&context.session) {
            Err(error) if is_proof(&error) || is_not_found(&error) => {
                self.seals_in_packs(&context.session)?.ok_or(error)?
            }
            seals => seals?,
        };
        let row = seals
            .into_iter()
            .find(|row| row.recipient == context.recipient as u8 && row.epoch == context.epoch);
        row.ok_or_else(|| Error::Damaged {
            what: format!("seals/{}", context.session),
            cause: "it lacks a recipient".to_owned(),
        })
    }

    fn secret_from(&self, context: &Context, seals: &[SealRow]) -> Option<Result<Secret>> {
        let row = seals.iter().find(|row| {
            row.session == context.session
                && row.recipient == context.recipient as u8
                && row.epoch == context.epoch
        })?;
        let info = SealInfo {
            repository: self.id(),
            epoch: context.epoch,
            recipient: context.recipient,
            session: context.session,
        };
        Some(self.kem_key(context).and_then(|key| {
            open_secret(key, &info, &row.sealed[..]).map_err(|source| Error::Format {
                name: format!("seals/{}", context.session),
                source,
            })
        }))
    }
}

impl std::fmt::Debug for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repo").field("id", &self.id()).field("role", &self.role()).finish()
    }
}
