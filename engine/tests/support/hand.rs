//! A hand that holds an identity's keys and puts into the store what no code of ours would: records of any kind, signed
//! as told, sealed where their kind is.

use strongroom::format::id::{IdentityId, ObjectHash, SessionId, hash};
use strongroom::format::keys::SigningKey;
use strongroom::format::record::{Kind, Record};
use strongroom::format::seal::{Context, Recipient, seal_body};
use strongroom::format::slot::{Bundle, KeyFileSecret, Slot, Unlock};
use strongroom::repo::Repo;
use strongroom::store::{MemoryStore, ObjectName, Store};

pub struct Hand {
    pub store: MemoryStore,
    pub bundle: Bundle,
    pub roster: u32,
    suite: strongroom::repo::Suite,
}

pub fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

impl Hand {
    pub fn of(store: &MemoryStore, repo: &Repo, key: &KeyFileSecret) -> Self {
        let bytes = store.get(&name(&format!("slots/{}", repo.slot())), u64::MAX).unwrap();
        let slot = Slot::from_cbor(Record::parse(&bytes, &[Kind::Slot]).unwrap().body).unwrap();
        let bundle = slot.open(repo.id(), Unlock::KeyFile(key)).unwrap();
        let (roster, suite) = (repo.roster().number, repo.file().suite);
        Self { store: store.clone(), bundle, roster, suite }
    }

    pub fn signing(&self) -> (IdentityId, SigningKey) {
        (self.bundle.identity, self.bundle.signing_key())
    }

    /// Sealed to INDEX.
    pub fn sealed(&self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let context = Context {
            suite: self.suite,
            recipient: Recipient::Index,
            epoch: 1,
            repository: self.bundle.repository,
            session: SessionId([0; 16]),
            salt: hash(payload),
        };
        seal_body(&self.bundle.keys.index[0].1, &context, kind, payload)
    }

    pub fn record(&self, kind: Kind, name: &str, body: &[u8]) -> Vec<u8> {
        let (identity, key) = self.signing();
        Record::build(kind, body, name, &[(identity, self.roster, &key)], self.bundle.repository)
    }

    /// Puts a record under a stated name.
    pub fn put(&self, kind: Kind, stated: &str, body: &[u8]) -> ObjectName {
        let name = name(stated);
        self.store.put_if_absent(&name, &self.record(kind, stated, body)).unwrap();
        name
    }

    /// Puts a record under the name of its content.
    pub fn put_content(&self, kind: Kind, folder: &str, body: &[u8]) -> ObjectName {
        let bytes = self.record(kind, &format!("{folder}/"), body);
        let name = name(&format!("{folder}/{}", ObjectHash(hash(&bytes))));
        self.store.put_if_absent(&name, &bytes).unwrap();
        name
    }
}

/// The same objects in another store.
pub fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.put_if_absent(&name, &store.get(&name, u64::MAX).unwrap()).unwrap();
    }
    copy
}

pub fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with(folder)).collect()
}
