//! Opening: the slot that our password or key file fits, the chain of rosters, and the index as a writer or a reader
//! may use it. The order of reads in `Repo::index` is part of the protocol (DESIGN.md, 6.1).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::env::Env;
use crate::error::{Error, FormatError, Named, Result};
use crate::format::control::{Attestation, Damage};
use crate::format::id::{ObjectHash, PackId, RepositoryId, from_hex, hash};
use crate::format::kind::parse_number;
use crate::format::record::{Kind, Record, check_rot};
use crate::format::repo::RepoFile;
use crate::format::roster::{Link, Roster, State, Trust, validate_next};
use crate::format::slot::{Bundle, Role, Slot, Unlock};
use crate::repo::Repo;
use crate::repo::despite::{Despite, PassedOver};
use crate::repo::lookup::{Index, Packs, Trusted};
use crate::repo::records::{RECORD_BYTES_MAX, RUN_BYTES_MAX, object_name};
use crate::repo::seen::{knows_roster, remember_roster};
use crate::store::{Store, StoreError};

/// How often the store is listed anew when runs vanish under us.
const LISTINGS_MAX: usize = 8;

/// When cached index runs are held to their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// All of them at opening: for whoever goes through all of them, and must not miss one.
    Now,
    /// Each byte when it is looked at. What turns out to be broken is unknown until the index is opened again.
    WhenUsed,
}

impl Repo {
    /// Opens the repository in `store` with the first slot that `unlock` fits. `cache` is the
    /// client's cache folder; below it each repository and identity has its own. Without one
    /// nothing is cached.
    pub fn open(
        store: Arc<dyn Store>,
        unlock: Unlock,
        cache: Option<&Path>,
        env: &Env,
    ) -> Result<Self> {
        let (file, repo_hash) = read_repo_file(&*store)?;
        let (slot, bundle) = open_slot(&*store, file.repository, unlock)?;
        if bundle.repo_hash != repo_hash {
            let cause = "it is not the one that this slot belongs to".to_owned();
            return Err(Error::Damaged { what: "repo.cbor".to_owned(), cause });
        }
        let Rosters { newest: (roster, roster_hash), valid } = newest_roster(&*store, &bundle)?;
        let ours = roster.identity(bundle.identity);
        if ours.is_none_or(|member| member.role != bundle.role) {
            let cause = "it does not list the identity of this slot in its role".to_owned();
            return Err(Error::Damaged { what: "the roster".to_owned(), cause });
        }
        let cache = cache
            .map(|folder| {
                folder.join(file.repository.to_string()).join(bundle.identity.to_string())
            })
            .map(|path| {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path.join("runs"))
                    .map(|()| path.clone())
                    .map_err(|source| Error::Cache { path, source })
            })
            .transpose()?;
        let cached = cache.as_deref();
        if !cached.map_or(Ok(false), |cache| knows_roster(cache, &roster, roster_hash))? {
            // All that we sign cites it, and we remember it: it must not vanish, and visible is not yet durable. A
            // store that cannot even be synced shows itself when something is written.
            let name = object_name(&Roster::name(roster.number))?;
            let durable = store.make_durable(&mut std::iter::once(&name));
            cached
                .filter(|_| durable.is_ok())
                .inspect(|c| remember_roster(c, &roster, roster_hash));
        }
        let signing = bundle.signing_key();
        let (id_key, refid_key) = (bundle.keys.id_key(), bundle.keys.refid_key());
        let secrets = Mutex::new(HashMap::new());
        let env = env.clone();
        Ok(Self {
            store,
            env,
            file,
            bundle,
            id_key,
            refid_key,
            signing,
            slot,
            roster,
            roster_hash,
            rosters: valid,
            cache,
            secrets,
        })
    }

    /// The index: every run, every pack that is there. A run or record that is damaged is an error.
    pub fn index(&self) -> Result<Index> {
        Ok(self.index_despite(Despite::Nothing, Proof::Now)?.0)
    }

    pub(crate) fn index_despite(
        &self,
        despite: Despite,
        proof: Proof,
    ) -> Result<(Index, PassedOver)> {
        // A run that was merged away between listing and reading stands in another run, which may be too new for the
        // listing that we have: so everything is listed again.
        for _ in 0..LISTINGS_MAX {
            let mut damaged = PassedOver::new(despite);
            if let Some(index) = self.index_as_listed(&mut damaged, proof)? {
                return Ok((index, damaged));
            }
        }
        let cause = "its index runs vanish as fast as they are listed".to_owned();
        Err(Error::Damaged { what: "index".to_owned(), cause })
    }

    /// `None`: a run that was listed is gone.
    fn index_as_listed(&self, damaged: &mut PassedOver, proof: Proof) -> Result<Option<Index>> {
        let mut packs = Packs::default();
        let retired = self.read_retired(&mut packs);
        damaged.take(Despite::Retired, "retired", retired)?;
        let mut listed = Vec::new();
        self.store().list("packs", &mut |name, len| {
            listed.extend(from_hex(name.last()).map(|id| (PackId(id), len)));
        })?;
        packs.listed = listed.into_iter().collect();
        // Verdicts are kept for ever; what is gone need not be remembered.
        let Packs { listed, condemned, doomed, .. } = &mut packs;
        condemned.retain(|id| listed.contains(id));
        doomed.retain(|id| listed.contains(id));
        self.read_attested(&mut packs, damaged)?;
        self.read_damaged(&mut packs, damaged)?;
        let runs = self.cache().map(|cache| cache.join("runs"));
        let mut index = Index::new(packs, self.trusted(), runs);
        if proof == Proof::Now {
            index.prove_cached(self.env().threads())?;
        }
        let names = self.object_hashes("index")?;
        for name in &names {
            if index.add_cached(name) {
                continue;
            }
            let fetched = self.fetch_run(&index, name);
            if damaged.take(Despite::Runs, &format!("index/{name}"), fetched)? == Some(false) {
                return Ok(None);
            }
        }
        index.settle();
        Ok(Some(index))
    }

    /// `false`: it is not there.
    pub(crate) fn fetch_run(&self, index: &Index, id: &ObjectHash) -> Result<bool> {
        let name = format!("index/{id}");
        let read = match self.read(Kind::IndexRun, &name, RUN_BYTES_MAX) {
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(false),
            read => read?,
        };
        let (_, payload) = self.open_sealed(Kind::IndexRun, &name, &read.body)?;
        let run = crate::format::index::Run::new(&payload).named(&name)?;
        let merges = matches!(read.role, Role::Admin | Role::Owner);
        if !merges && run.packs().any(|pack| pack.author != read.author) {
            let cause = "it describes packs of another author".to_owned();
            return Err(Error::Damaged { what: name, cause });
        }
        index.add(id, payload).map(|()| true)
    }

    /// The hashes that name the objects below a content-named folder.
    pub(crate) fn object_hashes(&self, folder: &str) -> Result<Vec<ObjectHash>> {
        let mut hashes = Vec::new();
        self.store().list(folder, &mut |name, _| {
            hashes.extend(ObjectHash::from_hex(name.last()));
        })?;
        Ok(hashes)
    }

    /// Packs in undecided proposals and in verdicts.
    fn read_retired(&self, packs: &mut Packs) -> Result<()> {
        packs.verdicts = self.verdicts()?;
        for generation in self.retired()?.into_values() {
            match (generation.verdict, generation.proposal) {
                (Some(verdict), _) => {
                    packs.doomed.extend(verdict.doomed.packs);
                    packs.doomed_runs.extend(verdict.doomed.runs);
                }
                (None, Some(proposed)) => packs.condemned.extend(proposed.proposal.doomed.packs),
                (None, None) => {}
            }
        }
        packs.condemned.extend(packs.doomed.iter());
        Ok(())
    }

    fn read_attested(&self, packs: &mut Packs, damaged: &mut PassedOver) -> Result<()> {
        for id in self.object_hashes("attest")? {
            let name = format!("attest/{id}");
            let read = self.read(Kind::Attestation, &name, RECORD_BYTES_MAX);
            let attested = read.and_then(|read| Attestation::from_cbor(&read.body).named(&name));
            packs.attested.extend(
                damaged.take(Despite::Records, &name, attested)?.into_iter().flat_map(|a| a.packs),
            );
        }
        Ok(())
    }

    fn read_damaged(&self, packs: &mut Packs, damaged: &mut PassedOver) -> Result<()> {
        for id in self.object_hashes("damaged")? {
            let name = format!("damaged/{id}");
            match damaged.take(Despite::Records, &name, self.damage(&name))? {
                Some(found) => packs
                    .damaged
                    .extend(found.frames.iter().map(|frame| (frame.pack, frame.offset))),
                None => packs.unsure = true,
            }
        }
        Ok(())
    }

    fn damage(&self, name: &str) -> Result<Damage> {
        let read = self.read(Kind::Damage, name, RECORD_BYTES_MAX)?;
        let (_, body) = self.open_sealed(Kind::Damage, name, &read.body)?;
        Damage::from_cbor(&body).named(name)
    }

    /// Packs of our own, of owners, and attested ones (DESIGN.md, 5).
    fn trusted(&self) -> Trusted {
        let trust = self.roster().settings.trust;
        let owners = self
            .roster()
            .identities
            .iter()
            .filter(|member| member.role == Role::Owner && member.state == State::Active);
        let mut authors = HashSet::from([self.identity()]);
        if trust != Trust::Own {
            authors.extend(owners.map(|member| member.id));
        }
        Trusted { everyone: trust == Trust::All, attested: trust == Trust::Attested, authors }
    }
}

fn read_repo_file(store: &dyn Store) -> Result<(RepoFile, [u8; 32])> {
    let bytes = match store.get(&object_name("repo.cbor")?, RECORD_BYTES_MAX) {
        Err(StoreError::NotFound { .. }) => {
            return Err(Error::NoRepository { place: store.describe() });
        }
        read => read?,
    };
    let record = Record::parse(&bytes, &[Kind::Repo]).named("repo.cbor")?;
    Ok((RepoFile::from_cbor(record.body).named("repo.cbor")?, hash(&bytes)))
}

/// Tries every slot. One that is broken does not hide the others.
fn open_slot(
    store: &dyn Store,
    repository: RepositoryId,
    unlock: Unlock,
) -> Result<(ObjectHash, Bundle)> {
    let mut ids = Vec::new();
    store.list("slots", &mut |name, _| ids.extend(ObjectHash::from_hex(name.last())))?;
    let mut broken = None;
    for id in &ids {
        let name = format!("slots/{id}");
        let opened = store
            .get(&object_name(&name)?, RECORD_BYTES_MAX)
            .map_err(Error::from)
            .and_then(|bytes| {
                check_rot(&name, &bytes).named(&name)?;
                let record = Record::parse(&bytes, &[Kind::Slot]).named(&name)?;
                let slot = Slot::from_cbor(record.body).named(&name)?;
                match slot.open(repository, unlock) {
                    Err(FormatError::Commitment { .. }) => Ok(None),
                    bundle => bundle.named(&name).map(Some),
                }
            });
        match opened {
            Ok(Some(bundle)) => return Ok((*id, bundle)),
            Ok(None) => {}
            Err(error) => broken = Some(error),
        }
    }
    Err(broken.unwrap_or(Error::WrongKey { slots: ids.len() }))
}

/// The chain of rosters as the store shows it now.
pub(crate) struct Rosters {
    pub newest: Link,
    /// Numbers of all valid ones.
    pub valid: BTreeSet<u32>,
}

/// Follows the chain from the root key; invalid objects are void, the newest valid one counts.
pub(crate) fn newest_roster(store: &dyn Store, bundle: &Bundle) -> Result<Rosters> {
    let mut names = Vec::new();
    store.list("roster", &mut |name, _| names.push(name))?;
    let mut newest: Option<Link> = None;
    let mut valid = BTreeSet::new();
    for name in &names {
        let Some(number) = parse_number(name.last()) else { continue };
        let bytes = store.get(name, RECORD_BYTES_MAX)?;
        let repository = bundle.repository;
        if let Ok(next) = validate_next(repository, &bundle.root, newest.as_ref(), number, &bytes) {
            newest = Some(next);
            valid.insert(number);
        }
    }
    let (roster, roster_hash) = newest.ok_or_else(|| Error::Damaged {
        what: "the roster".to_owned(),
        cause: "no object below roster/ carries a valid signature of the root key".to_owned(),
    })?;
    if roster.number < bundle.roster {
        let what = format!(
            "roster {} is the newest here, this slot has seen {}",
            roster.number, bundle.roster
        );
        return Err(Error::Rollback { what });
    }
    Ok(Rosters { newest: (roster, roster_hash), valid })
}
