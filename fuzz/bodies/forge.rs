//! Records as a member gone bad could write them: the body of a sound one is changed and then sealed and signed again, so that readers get
//! past hashes, signatures and encryption to what the bytes say.

use std::collections::BTreeMap;

use strongroom::error::FormatError;
use strongroom::format::id::{IdentityId, ObjectHash, SessionId, hash};
use strongroom::format::keys::{SealInfo, open_secret};
use strongroom::format::kind::kinds_at;
use strongroom::format::record::{Kind, Record};
use strongroom::format::repo::RepoFile;
use strongroom::format::seal::{Context, Recipient, Secret, open_body, seal_body};
use strongroom::format::session::Seals;
use strongroom::format::slot::{Bundle, Slot, Unlock};
use strongroom::store::ObjectName;

use super::scene::KEY;

pub struct Forger {
    bundle: Bundle,
    /// META secret of each session.
    meta: BTreeMap<[u8; 16], Secret>,
}

impl Forger {
    pub fn new(objects: &[(ObjectName, Vec<u8>)]) -> Self {
        let below = |folder: &str| {
            let folder = folder.to_owned();
            objects.iter().filter(move |(name, _)| name.as_str().starts_with(&folder))
        };
        let (_, bytes) = below("repo.cbor").next().expect("every repository has one");
        let body = Record::parse(bytes, &[Kind::Repo]).unwrap().body;
        let repository = RepoFile::from_cbor(body).unwrap().repository;
        let (_, bytes) = below("slots/").next().expect("the owner's");
        let slot = Slot::from_cbor(Record::parse(bytes, &[Kind::Slot]).unwrap().body).unwrap();
        let bundle = slot.open(repository, Unlock::KeyFile(&KEY)).unwrap();
        let keys = bundle.keys.meta.as_deref().expect("the owner's");
        let mut meta = BTreeMap::new();
        for (_, bytes) in below("seals/") {
            let body = Record::parse(bytes, &[Kind::Seals]).unwrap().body;
            let seals = Seals::from_cbor(body).unwrap();
            for secret in seals.secrets.iter().filter(|of| of.recipient == Recipient::Meta) {
                let (epoch, recipient, session) = (secret.epoch, secret.recipient, seals.session);
                let info = SealInfo { repository, epoch, recipient, session };
                let opened = open_secret(&keys[0].1, &info, &secret.sealed).unwrap();
                meta.insert(session.0, opened);
            }
        }
        Self { bundle, meta }
    }

    fn secret(&self, context: &Context) -> Option<Secret> {
        match context.recipient {
            Recipient::Index => Some(self.bundle.keys.index[0].1.clone()),
            Recipient::Meta => self.meta.get(&context.session.0).cloned(),
            _ => None,
        }
    }

    /// The record under this name with its body changed, and the name that it then has. `None`: there is nothing to be forged.
    pub fn forge(
        &self,
        name: &ObjectName,
        bytes: &[u8],
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Option<(ObjectName, Vec<u8>)> {
        let kind = kinds_at(name.as_str()).iter().copied().find(|kind| {
            !matches!(kind, Kind::Pack | Kind::Slot | Kind::Repo)
                && Record::parse(bytes, &[*kind]).is_ok()
        })?;
        let record = Record::parse(bytes, &[kind]).ok()?;
        let missing = || FormatError::Commitment { object: "forged" };
        let opened =
            open_body(record.body, kind, |context| self.secret(context).ok_or_else(missing));
        let body = match opened {
            Ok((context, mut payload)) => {
                change(&mut payload);
                seal_body(&self.secret(&context)?, &context, kind, &payload)
            }
            Err(_) => {
                let mut body = record.body.to_vec();
                change(&mut body);
                body
            }
        };
        let root = self.bundle.keys.root.as_ref().expect("the owner's");
        let root = strongroom::format::keys::SigningKey::from_seed(&root.0);
        let own = self.bundle.signing_key();
        let signer = match kind {
            Kind::Roster => (IdentityId([0; 16]), record.signatures.first()?.roster, &root),
            _ => (self.bundle.identity, 1, &own),
        };
        let folder = format!("{}/", name.folder());
        let signed = if kind.stated() { name.as_str() } else { &folder };
        let bytes = Record::build(kind, &body, signed, &[signer], self.bundle.repository);
        let name = match kind.stated() {
            true => name.clone(),
            false => ObjectName::new(&format!("{folder}{}", ObjectHash(hash(&bytes)))).ok()?,
        };
        Some((name, bytes))
    }
}

/// The session that a name below `snapshots/` stands for.
pub fn snapshot(name: &ObjectName) -> Option<SessionId> {
    (name.folder() == "snapshots").then(|| SessionId::from_hex(name.last())).flatten()
}
