//! Making a repository: its keys, the owner's slot, the first roster, and last of all `repo.cbor`.

use std::sync::Arc;

use crate::env::Env;
use crate::error::{Error, Named, Result};
use crate::format::id::{IdentityId, ObjectHash, RepositoryId, hash};
use crate::format::keys::{KemSecret, SigningKey, kem_public};
use crate::format::record::{Kind, Record};
use crate::format::repo::{ChunkerSpec, RepoFile};
use crate::format::roster::{Epoch, Identity, Roster, Settings, State, Trust, index_key_hash};
use crate::format::seal::{Secret, Suite};
use crate::format::slot::{Bundle, Cost, Keys, Role, Slot, SlotRandom, Unlock};
use crate::repo::records::object_name;
use crate::store::{Put, Store};

/// Frames must fit: a pack holds at least four of the largest chunks.
const PACK_BYTES_RANGE: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);

#[derive(Debug, Clone)]
pub struct InitOptions {
    /// `None`: AES-256-GCM where the CPU has AES instructions, ChaCha20-Poly1305 elsewhere.
    pub suite: Option<Suite>,
    pub chunker: ChunkerSpec,
    /// Length of a full pack in bytes.
    pub pack_bytes: u64,
    pub owner_name: String,
}

impl Default for InitOptions {
    fn default() -> Self {
        let chunker = ChunkerSpec::default();
        Self { suite: None, chunker, pack_bytes: 64 << 20, owner_name: "owner".to_owned() }
    }
}

pub fn init(
    store: Arc<dyn Store>,
    unlock: Unlock,
    options: &InitOptions,
    env: &Env,
) -> Result<RepositoryId> {
    let place = store.describe();
    let file = repo_file(options, env)?;
    let mut empty = true;
    store.list("", &mut |_, _| empty = false)?;
    if !empty {
        return Err(Error::RepositoryExists { place });
    }
    let repo_bytes = Record::build(Kind::Repo, &file.to_cbor(), "repo.cbor", &[], file.repository);
    let (bundle, roster) = owner(&file, hash(&repo_bytes), &options.owner_name, env);
    let root = bundle.keys.root_key().expect("the owner has it");
    let signers = [(IdentityId::ROOT, 0, &root)];
    let roster_name = "roster/00000001";
    let roster_bytes =
        Record::build(Kind::Roster, &roster.to_cbor(), roster_name, &signers, file.repository);
    let slot = seal_slot(&bundle, unlock, env)?;
    put_new(&*store, roster_name, &roster_bytes)?;
    put_new(&*store, &format!("slots/{}", ObjectHash(hash(&slot))), &slot)?;
    // Without `repo.cbor` there is no repository: it comes last.
    put_new(&*store, "repo.cbor", &repo_bytes)?;
    Ok(file.repository)
}

fn put_new(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<()> {
    match store.put_if_absent(&object_name(name)?, bytes)? {
        Put::Created => Ok(()),
        Put::Existed => Err(Error::RepositoryExists { place: store.describe() }),
    }
}

fn repo_file(options: &InitOptions, env: &Env) -> Result<RepoFile> {
    let refuse = |what: String| Err(Error::Setting { what });
    if !options.chunker.is_valid() {
        return refuse(format!("the chunker cannot work with these sizes: {:?}", options.chunker));
    }
    if !PACK_BYTES_RANGE.contains(&options.pack_bytes) {
        return refuse(format!(
            "a pack of {} bytes: 1 MiB to 1 GiB are possible",
            options.pack_bytes
        ));
    }
    if u64::from(options.chunker.max_bytes()) * 2 > options.pack_bytes {
        return refuse("the largest chunk is more than half a pack".to_owned());
    }
    let by_cpu = || {
        if crate::sys::host::cpu_has_aes() { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
    };
    Ok(RepoFile {
        features: Vec::new(),
        repository: RepositoryId(env.random()),
        suite: options.suite.unwrap_or_else(by_cpu),
        chunker: options.chunker,
        pack_size: options.pack_bytes,
        created_ns: env.now(),
    })
}

fn owner(file: &RepoFile, repo_hash: [u8; 32], name: &str, env: &Env) -> (Bundle, Roster) {
    let root_seed = Secret(env.random());
    let seed = Secret(env.random());
    let kem = KemSecret(env.random());
    let index = Secret(env.random());
    let [data, tree, meta] = std::array::from_fn(|_| KemSecret(env.random()));
    let root = SigningKey::from_seed(&root_seed.0).verifying_key();
    let identity = Identity {
        id: IdentityId(env.random()),
        name: name.to_owned(),
        role: Role::Owner,
        verifying: SigningKey::from_seed(&seed.0).verifying_key(),
        kem: kem_public(&kem),
        added_ns: file.created_ns,
        state: State::Active,
        sessions_kept: None,
        extra: Vec::new(),
    };
    let epoch = Epoch {
        number: 1,
        data: kem_public(&data),
        tree: kem_public(&tree),
        meta: kem_public(&meta),
        index_hash: index_key_hash(&index),
        extra: Vec::new(),
    };
    let bundle = Bundle {
        repository: file.repository,
        repo_hash,
        root,
        roster: 1,
        identity: identity.id,
        role: Role::Owner,
        name: name.to_owned(),
        signing: seed,
        kem,
        keys: Keys {
            id: Some(Secret(env.random())),
            refid: Secret(env.random()),
            index: vec![(1, index)],
            data: Some(vec![(1, data)]),
            tree: Some(vec![(1, tree)]),
            meta: Some(vec![(1, meta)]),
            root: Some(root_seed),
        },
    };
    let roster = Roster {
        number: 1,
        previous: None,
        root,
        identities: vec![identity],
        epochs: vec![epoch],
        settings: Settings { trust: Trust::Attested, extra: Vec::new() },
        grants: Vec::new(),
        time_ns: file.created_ns,
        extra: Vec::new(),
    };
    (bundle, roster)
}

/// A slot record's bytes: the bundle sealed under a password or key file.
pub(crate) fn seal_slot(bundle: &Bundle, unlock: Unlock, env: &Env) -> Result<Vec<u8>> {
    let random = SlotRandom { salt: env.random(), nonce: env.random() };
    let slot = Slot::seal(bundle, unlock, Cost::DEFAULT, random).named("new slot")?;
    Ok(Record::build(Kind::Slot, &slot.to_cbor(), "slots/", &[], bundle.repository))
}
