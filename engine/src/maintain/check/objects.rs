//! What there is, and every record but rosters, snapshots and index runs: parsed, held to its hash,
//! signed by somebody entitled, opened where it is sealed. What control records say is kept for the
//! other parts; which packs they need is not looked at here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use super::{Check, parallel};
use crate::error::{Error, Named, Result};
use crate::format::control::{
    Attestation, Damage, Doomed, Forgotten, Hold, Proposal, Release, Verdict,
};
use crate::format::id::{HoldId, ObjectHash, PackId, SessionId, from_hex, hash};
use crate::format::kind::{Kind, kinds_at};
use crate::format::record::{Record, check_rot};
use crate::format::roster::State;
use crate::format::session::{Seals, Session};
use crate::format::slot::Slot;
use crate::repo::records::{RECORD_BYTES_MAX, Read, is_not_found};

/// The folders of records that are checked here.
const FOLDERS: [&str; 9] =
    ["slots", "roster", "sessions", "seals", "forgotten", "holds", "retired", "damaged", "attest"];

/// All names, in the order that `Listing::read` says.
pub struct Listing {
    /// Number and H of the last snapshot that this client wrote, if its cache remembers.
    pub own_chain: Option<(u64, [u8; 32])>,
    pub snapshots: Vec<SessionId>,
    pub runs: Vec<ObjectHash>,
    /// Stored lengths in bytes.
    pub packs: HashMap<PackId, u64>,
    /// Names of all other objects.
    pub others: Vec<String>,
}

impl Listing {
    /// Snapshots come first and packs last: whatever a snapshot or run that we see needs was there before it.
    pub fn read(check: &Check) -> Result<Self> {
        let store = check.repo.store();
        let own_chain = check.repo.cache().and_then(|_| check.repo.chain().ok());
        let own_chain = own_chain.and_then(|(sequence, last)| Some((sequence, last?)));
        let mut snapshots = Vec::new();
        store
            .list("snapshots", &mut |name, _| snapshots.extend(SessionId::from_hex(name.last())))?;
        let runs = check.repo.object_hashes("index")?;
        let mut packs = HashMap::new();
        store.list("packs", &mut |name, len| {
            let ours = kinds_at(name.as_str()).contains(&Kind::Pack);
            packs.extend(from_hex(name.last()).filter(|_| ours).map(|id| (PackId(id), len)));
        })?;
        let mut others = vec!["repo.cbor".to_owned()];
        for folder in FOLDERS {
            store.list(folder, &mut |name, _| {
                if !kinds_at(name.as_str()).is_empty() {
                    others.push(name.as_str().to_owned());
                }
            })?;
        }
        Ok(Self { own_chain, snapshots, runs, packs, others })
    }
}

/// What the control records say.
#[derive(Default)]
pub struct Control {
    /// With H of the snapshot's stored bytes.
    pub forgotten: HashMap<SessionId, [u8; 32]>,
    pub held: HashSet<SessionId>,
    /// In a proposal or a verdict: may be gone.
    pub condemned_packs: HashSet<PackId>,
    /// Frames that are recorded as damaged, by pack and offset.
    pub damaged: BTreeSet<(PackId, u64)>,
    /// In a verdict, which no hold overrules.
    pub doomed_snapshots: HashSet<SessionId>,
}

impl Control {
    pub fn is_live(&self, snapshot: &SessionId) -> bool {
        let forgotten = self.forgotten.contains_key(snapshot) && !self.held.contains(snapshot);
        !forgotten && !self.doomed_snapshots.contains(snapshot)
    }
}

/// Collected by several threads.
#[derive(Default)]
struct Collected {
    control: Control,
    holds: HashMap<HoldId, SessionId>,
    released: HashSet<HoldId>,
}

/// Checks every record of the listing.
pub fn check_records(check: &Check, listing: &Listing) -> Result<Control> {
    let collected = Mutex::<Collected>::default();
    parallel::each(
        check.threads(),
        &listing.others,
        || (),
        |(), name| {
            check.go_on()?;
            check.watch.current(name.as_bytes());
            match record(check, name, &collected) {
                // Deleted between listing and reading. What never was listed is missed by those who need it.
                Err(error) if is_not_found(&error) && name != "repo.cbor" => Ok(()),
                checked => check.findings.take(name, checked).map(drop),
            }
        },
    )?;
    let Collected { mut control, holds, released } =
        collected.into_inner().expect("no panic holds this lock");
    let held = holds.into_iter().filter(|(hold, _)| !released.contains(hold));
    control.held.extend(held.map(|(_, snapshot)| snapshot));
    Ok(control)
}

fn record(check: &Check, name: &str, collected: &Mutex<Collected>) -> Result<()> {
    let kind = *kinds_at(name).first().expect("only names of ours are listed");
    match kind {
        Kind::Repo => return repo_file(check, name),
        Kind::Slot => return slot(check, name),
        // The chain has a file of its own.
        Kind::Roster => return Ok(()),
        _ => {}
    }
    let read = check.repo.read(kind, name, RECORD_BYTES_MAX)?;
    check.read(read.stored_bytes);
    let body = opened(check, kind, name, &read)?;
    let mut collected = collected.lock().expect("no panic holds this lock");
    take_in(&mut collected, kind, name, &body)
}

/// The CBOR of a record, opened if it is sealed to INDEX, which every role can read.
fn opened(check: &Check, kind: Kind, name: &str, read: &Read) -> Result<Vec<u8>> {
    match kind {
        Kind::Forgotten | Kind::Hold | Kind::Release | Kind::Damage => {
            Ok(check.repo.open_sealed(kind, name, &read.body)?.1)
        }
        _ => Ok(read.body.clone()),
    }
}

fn take_in(collected: &mut Collected, kind: Kind, name: &str, body: &[u8]) -> Result<()> {
    match kind {
        Kind::Session => same_id(name, Session::from_cbor(body).named(name)?.session),
        Kind::Seals => same_id(name, Seals::from_cbor(body).named(name)?.session),
        Kind::Forgotten => {
            let forgotten = Forgotten::from_cbor(body).named(name)?;
            let (snapshot, stored) = (forgotten.snapshot, forgotten.stored_hash);
            collected.control.forgotten.insert(snapshot, stored);
            same_id(name, snapshot)
        }
        Kind::Hold => {
            let hold = Hold::from_cbor(body).named(name)?;
            let id = name.rsplit('/').next().and_then(HoldId::from_hex);
            collected.holds.extend(id.map(|id| (id, hold.snapshot)));
            Ok(())
        }
        Kind::Release => {
            collected.released.insert(Release::from_cbor(body).named(name)?.hold);
            Ok(())
        }
        Kind::Proposal => condemn(collected, Proposal::from_cbor(body).named(name)?.doomed),
        Kind::Verdict => {
            let doomed = Verdict::from_cbor(body).named(name)?.doomed;
            collected.control.doomed_snapshots.extend(doomed.snapshots.iter().copied());
            condemn(collected, doomed)
        }
        Kind::Damage => {
            let frames = Damage::from_cbor(body).named(name)?.frames;
            let damaged = frames.iter().map(|frame| (frame.pack, frame.offset));
            collected.control.damaged.extend(damaged);
            Ok(())
        }
        Kind::Attestation => Attestation::from_cbor(body).named(name).map(drop),
        _ => Ok(()),
    }
}

fn condemn(collected: &mut Collected, doomed: Doomed) -> Result<()> {
    collected.control.condemned_packs.extend(doomed.packs);
    Ok(())
}

fn same_id(name: &str, id: SessionId) -> Result<()> {
    if name.ends_with(&format!("/{id}")) {
        return Ok(());
    }
    let cause = format!("it is that of session {id}");
    Err(Error::Damaged { what: name.to_owned(), cause })
}

fn repo_file(check: &Check, name: &str) -> Result<()> {
    let bytes = check.repo.get(name, RECORD_BYTES_MAX)?;
    check.read(bytes.len() as u64);
    check_rot(name, &bytes).named(name)?;
    Record::parse(&bytes, &[Kind::Repo]).named(name)?;
    if hash(&bytes) == check.repo.bundle().repo_hash {
        return Ok(());
    }
    let cause = "it is not the one that this key's slot belongs to".to_owned();
    Err(Error::Damaged { what: name.to_owned(), cause })
}

/// What it wraps can be seen only by whoever can open it.
fn slot(check: &Check, name: &str) -> Result<()> {
    let bytes = check.repo.get(name, RECORD_BYTES_MAX)?;
    check.read(bytes.len() as u64);
    check_rot(name, &bytes).named(name)?;
    let record = Record::parse(&bytes, &[Kind::Slot]).named(name)?;
    let slot = Slot::from_cbor(record.body).named(name)?;
    let listed = check.repo.roster().identity(slot.identity);
    if listed.is_none_or(|member| member.role != slot.role || member.state != State::Active) {
        check.findings.notice(name, "the roster does not list its identity, or has revoked it");
    }
    Ok(())
}
