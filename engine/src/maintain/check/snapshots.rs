//! Snapshots and tombstones: read, signed, opened where the key allows; nothing has vanished from a
//! writer's chain. What hangs below their roots is walked elsewhere.

use std::collections::HashSet;

use super::Check;
use super::objects::{Control, Listing};
use crate::error::{Named, Result};
use crate::format::id::{SessionId, hash};
use crate::format::record::{Kind, Record, check_rot};
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::repo::SnapshotInfo;
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found};
use crate::repo::seen::VANISHED;

#[derive(Default)]
pub struct Live {
    /// Snapshot objects that are not forgotten, or held.
    pub count: u64,
    /// Those that this key opened.
    pub roots: Vec<(SessionId, Directory)>,
}

/// H of the stored bytes of everything that a chain may cite, and who cites what.
#[derive(Default)]
struct Chains {
    known: HashSet<[u8; 32]>,
    infos: Vec<SnapshotInfo>,
}

pub fn check(check: &Check, listing: &Listing, control: &Control) -> Result<Live> {
    let mut live = Live::default();
    let mut chains = Chains::default();
    chains.known.extend(control.forgotten.values());
    for id in &listing.snapshots {
        check.go_on()?;
        let name = format!("snapshots/{id}");
        let object = match read(check, &name, &mut chains.known) {
            Err(error) if is_not_found(&error) => continue,
            object => object,
        };
        if matches!(object, Ok(Kind::Tombstone)) {
            continue;
        }
        if !control.is_live(id) {
            // What it needs may be gone, its seals too; a power loss may even have brought it back.
            check.findings.take(&name, object)?;
            continue;
        }
        live.count += 1;
        let info = object.and_then(|_| opened(check, &name, id));
        check_seals(check, id, info.is_err())?;
        match check.findings.sort(&name, info)? {
            Ok(Some(info)) => {
                live.roots.push((*id, info.snapshot.root));
                chains.infos.push(info);
            }
            Ok(None) | Err(None) => {}
            Err(Some(damage)) => check.findings.costs(damage, id, None),
        }
    }
    let vanished = check.findings.take("snapshots", check.repo.vanished())?;
    for id in vanished.into_iter().flatten() {
        check.findings.damage(&format!("snapshots/{id}"), VANISHED);
    }
    chains.check(check);
    chains.check_own(check, listing);
    Ok(live)
}

/// The form, the hash and the signature: no key is needed to see these.
fn read(check: &Check, name: &str, known: &mut HashSet<[u8; 32]>) -> Result<Kind> {
    let bytes = check.repo.get(name, RECORD_BYTES_MAX)?;
    check.read(bytes.len() as u64);
    check_rot(name, &bytes).named(name)?;
    let kind = Record::parse(&bytes, &[Kind::Snapshot, Kind::Tombstone]).named(name)?.kind;
    check.repo.check(kind, name, &bytes)?;
    known.insert(hash(&bytes));
    Ok(kind)
}

fn opened(check: &Check, name: &str, id: &SessionId) -> Result<Option<SnapshotInfo>> {
    if !check.repo.reads(Recipient::Meta) {
        let role = check.repo.role();
        let what = format!("not opened, and nothing below it checked: role {role} cannot read it");
        check.findings.notice(name, &what);
        return Ok(None);
    }
    check.repo.snapshot(id)
}

/// The secrets stand in the session's packs too: without both a snapshot cannot be opened by anybody.
fn check_seals(check: &Check, id: &SessionId, needs_them: bool) -> Result<()> {
    let name = format!("seals/{id}");
    if check.findings.take(&name, check.repo.exists(&name))? == Some(false) {
        let damage = check.findings.damage(&name, "it is missing, and the snapshot needs it");
        if needs_them {
            check.findings.costs(damage, id, None);
        }
    }
    Ok(())
}

impl Chains {
    /// The first of a chain cites none.
    fn knows(&self, previous: &Option<[u8; 32]>) -> bool {
        previous.is_none_or(|previous| self.known.contains(&previous))
    }

    /// A snapshot that vanished without a record is damage (DESIGN.md, 6.4); a chain that starts
    /// again is worth a notice.
    fn check(&self, check: &Check) {
        for info in &self.infos {
            let name = format!("snapshots/{}", info.id);
            let (author, snapshot) = (&info.author_name, &info.snapshot);
            match snapshot.previous {
                previous if !self.knows(&previous) => {
                    let what = format!(
                        "the snapshot of '{author}' that it follows is not there, \
                         and no record says that it was forgotten"
                    );
                    check.findings.damage(&name, &what);
                }
                None if self.infos.iter().any(|other| earlier(other, info)) => {
                    let what = format!("the chain of '{author}' starts again here");
                    check.findings.notice(&name, &what);
                }
                _ => {}
            }
        }
    }

    /// What this client remembers of its own chain tells even if the last snapshot vanished.
    fn check_own(&self, check: &Check, listing: &Listing) {
        if let Some((sequence, last)) = listing.own_chain
            && !self.known.contains(&last)
        {
            let what =
                format!("snapshot {sequence} that this client wrote is gone without a record");
            check.findings.damage("snapshots", &what);
        }
    }
}

fn earlier(other: &SnapshotInfo, than: &SnapshotInfo) -> bool {
    let (other, than) = (&other.snapshot, &than.snapshot);
    other.author == than.author && other.time_ns < than.time_ns
}
