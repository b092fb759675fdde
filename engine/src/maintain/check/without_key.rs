//! Rot, told without any key: every object is read, held to its content name or its end hash, and
//! to the form that every reader sees. What is missing altogether, or was exchanged by somebody
//! with the keys, cannot be seen here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::CheckReport;
use super::findings::Findings;
use super::stream::{Buffer, PackStream};
use crate::error::{Error, Named, Result};
use crate::format::id::{PackId, from_hex};
use crate::format::kind::{Kind, kinds_at};
use crate::format::pack::{HEADER_LEN, PACK_LEN_MAX, PackHeader, TRAILER_LEN};
use crate::format::record::{Record, check_rot, stored_len_max};
use crate::format::repo::RepoFile;
use crate::repo::records::is_not_found;
use crate::store::{ObjectName, Store, StoreError};
use crate::watch::{Counter, Watch};

/// Names that wait for a thread.
const QUEUED_NAMES: usize = 1_024;

struct Rot<'a> {
    store: &'a dyn Store,
    watch: &'a dyn Watch,
    findings: Findings<'a>,
    snapshots: AtomicU64,
    packs: AtomicU64,
    index_runs: AtomicU64,
    others: AtomicU64,
    bytes_read: AtomicU64,
}

/// Reads every object of the store and says which have rotted.
pub fn without_key(store: &dyn Store, watch: &dyn Watch) -> Result<CheckReport> {
    let started = Instant::now();
    check_is_repository(store)?;
    let [snapshots, packs, index_runs, others, bytes_read] =
        std::array::from_fn(|_| AtomicU64::new(0));
    let findings = Findings::new(watch);
    let rot = Rot { store, watch, findings, snapshots, packs, index_runs, others, bytes_read };
    rot.each_object()?;
    Ok(CheckReport {
        snapshots: rot.snapshots.into_inner(),
        packs: rot.packs.into_inner(),
        index_runs: rot.index_runs.into_inner(),
        other_objects: rot.others.into_inner(),
        chunks: 0,
        bytes_read: rot.bytes_read.into_inner(),
        recorded: 0,
        damages: rot.findings.into_damages(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A repository of a newer version is no damage: it is not ours to judge.
fn check_is_repository(store: &dyn Store) -> Result<()> {
    let name = "repo.cbor";
    let bytes = match store.get(&ObjectName::new(name)?, stored_len_max(Kind::Repo) as u64) {
        Err(StoreError::NotFound { .. }) => {
            return Err(Error::NoRepository { place: store.describe() });
        }
        // Reported below, with all the others.
        Err(_) => return Ok(()),
        Ok(bytes) => bytes,
    };
    if check_rot(name, &bytes).is_err() {
        return Ok(());
    }
    let record = Record::parse(&bytes, &[Kind::Repo]).named(name)?;
    RepoFile::from_cbor(record.body).named(name).map(drop)
}

impl Rot<'_> {
    /// The listing feeds the threads while it goes on, so that its length does not matter.
    fn each_object(&self) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (names_in, names) = bounded::<(ObjectName, u64)>(QUEUED_NAMES);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let names = names.clone();
                    scope.spawn(move || {
                        let mut buffer = Buffer::default();
                        names
                            .iter()
                            .try_for_each(|(name, len)| self.object(&name, len, &mut buffer))
                    })
                })
                .collect();
            drop(names);
            // A closed queue means that every thread has stopped; their error is the one that counts.
            let listed = self.store.list("", &mut |name, len| drop(names_in.send((name, len))));
            drop(names_in);
            let worked = workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            worked.and(listed.map_err(Error::from))
        })
    }

    fn object(&self, name: &ObjectName, len: u64, buffer: &mut Buffer) -> Result<()> {
        let kinds = kinds_at(name.as_str());
        let Some(kind) = kinds.first() else { return Ok(()) };
        self.read(0)?;
        self.watch.current(name.as_str().as_bytes());
        let checked = if *kind == Kind::Pack {
            self.pack(name, len, buffer)
        } else {
            self.record(name, kinds)
        };
        match checked {
            // Deleted between listing and reading.
            Err(error) if is_not_found(&error) => Ok(()),
            checked => self.findings.take(name.as_str(), checked).map(drop),
        }
    }

    fn read(&self, bytes: u64) -> Result<()> {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.watch.add(Counter::BytesRead, bytes);
        if self.watch.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn record(&self, name: &ObjectName, kinds: &[Kind]) -> Result<()> {
        let counter = match kinds[0] {
            Kind::Snapshot => &self.snapshots,
            Kind::IndexRun => &self.index_runs,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let bytes = self.store.get(name, stored_len_max(kinds[0]) as u64)?;
        self.read(bytes.len() as u64)?;
        check_rot(name.as_str(), &bytes).named(name.as_str())?;
        Record::parse(&bytes, kinds).named(name.as_str()).map(drop)
    }

    fn pack(&self, name: &ObjectName, len: u64, buffer: &mut Buffer) -> Result<()> {
        self.packs.fetch_add(1, Ordering::Relaxed);
        self.watch.add(Counter::PacksFound, 1);
        let damaged =
            |cause: &str| Err(Error::Damaged { what: name.to_string(), cause: cause.to_owned() });
        if !((HEADER_LEN + TRAILER_LEN) as u64..=PACK_LEN_MAX).contains(&len) {
            return damaged(&format!("no pack has a length of {len} bytes"));
        }
        let id = PackId(from_hex(name.last()).expect("the kind was told by the name"));
        let on_read = |bytes| self.read(bytes);
        let mut stream = PackStream::new(self.store, &id, len, buffer, &on_read);
        let header =
            stream.range(0, HEADER_LEN as u64)?.map(|header| PackHeader::from_bytes(header));
        let hash = stream.finish()?;
        self.watch.add(Counter::PacksDone, 1);
        if hash != id.0 {
            return damaged(ROTTEN);
        }
        header.expect("longer than a header").named(name.as_str()).map(drop)
    }
}

/// Of a pack whose bytes are not those that it was named after.
pub(super) const ROTTEN: &str = "pack has rotted: its bytes do not match their hash";
