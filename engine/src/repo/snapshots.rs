//! Snapshots as users name them: all of them, one by the beginning of its id, the latest.

use crate::error::{Error, Named, Result};
use crate::format::id::{SessionId, hash};
use crate::format::record::{Kind, Record, check_rot};
use crate::format::seal::Recipient;
use crate::format::session::Session;
use crate::format::snapshot::Snapshot;
use crate::repo::Repo;
use crate::repo::damage::is_proof;
use crate::repo::records::{RECORD_BYTES_MAX, is_not_found, object_name};
use crate::store::StoreError;
use crate::sys::fault;

#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    pub id: SessionId,
    pub snapshot: Snapshot,
    pub author_name: String,
    /// H of the stored object: what the next snapshot of this author cites.
    pub hash: [u8; 32],
    /// Stored length of the snapshot object itself.
    pub stored_bytes: u64,
}

/// Snapshots that cannot be read, each with the reason.
pub type DamagedSnapshots = Vec<(SessionId, Error)>;

impl Repo {
    /// Every live snapshot, oldest first. One that cannot be read is an error that names it, and so is a record that
    /// says which are live.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let (snapshots, damaged) = self.read_snapshots(self.live_snapshot_ids()?)?;
        damaged.into_iter().next().map_or(Ok(snapshots), |(_, error)| Err(error))
    }

    /// Snapshots for reading: live ones that can be read, oldest first, and those that are damaged. If it cannot be
    /// said which are live, all that are there.
    pub fn snapshots_despite(&self) -> Result<(Vec<SnapshotInfo>, DamagedSnapshots)> {
        self.read_snapshots(self.readable_ids()?)
    }

    fn readable_ids(&self) -> Result<Vec<SessionId>> {
        match self.live_snapshot_ids() {
            Err(error) if is_proof(&error) => self.session_ids("snapshots"),
            ids => ids,
        }
    }

    fn read_snapshots(&self, ids: Vec<SessionId>) -> Result<(Vec<SnapshotInfo>, DamagedSnapshots)> {
        let (mut snapshots, mut damaged) = (Vec::new(), Vec::new());
        for id in ids {
            match self.snapshot(&id) {
                Err(error) if is_proof(&error) || is_not_found(&error) => damaged.push((id, error)),
                snapshot => snapshots.extend(snapshot?),
            }
        }
        snapshots.sort_by_key(|info| (info.snapshot.time_ns, info.id));
        Ok((snapshots, damaged))
    }

    /// The newest live snapshot. If one is damaged that may be newer, that is the error.
    fn latest_snapshot(&self) -> Result<Option<SnapshotInfo>> {
        let (mut snapshots, damaged) = self.snapshots_despite()?;
        let latest = snapshots.pop();
        let time_ns = latest.as_ref().map_or(i64::MIN, |info| info.snapshot.time_ns);
        // A session is announced when its backup begins, which is the time of its snapshot.
        let is_older =
            |id: &SessionId| self.session_time(id).is_ok_and(|announced| announced < time_ns);
        match damaged.into_iter().find(|(id, _)| !is_older(id)) {
            Some((_, error)) => Err(error),
            None => Ok(latest),
        }
    }

    fn session_time(&self, id: &SessionId) -> Result<i64> {
        let name = format!("sessions/{id}");
        let read = self.read(Kind::Session, &name, RECORD_BYTES_MAX)?;
        Ok(Session::from_cbor(&read.body).named(&name)?.time_ns)
    }

    /// Sessions whose snapshot counts; tombstones are still among them.
    pub(crate) fn live_snapshot_ids(&self) -> Result<Vec<SessionId>> {
        Ok(self.liveness()?.live)
    }

    /// `None`: a tombstone, or it was deleted meanwhile.
    pub(crate) fn snapshot(&self, id: &SessionId) -> Result<Option<SnapshotInfo>> {
        let name = format!("snapshots/{id}");
        let bytes = match self.get(&name, RECORD_BYTES_MAX) {
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
            bytes => bytes?,
        };
        let kinds = [Kind::Snapshot, Kind::Tombstone];
        check_rot(&name, &bytes).named(&name)?;
        if Record::parse(&bytes, &kinds).named(&name)?.kind == Kind::Tombstone {
            self.check(Kind::Tombstone, &name, &bytes)?;
            return Ok(None);
        }
        let read = self.check(Kind::Snapshot, &name, &bytes)?;
        let (context, body) = self.open_sealed(Kind::Snapshot, &name, &read.body)?;
        let snapshot = Snapshot::from_cbor(&body).named(&name)?;
        if snapshot.author != read.author || context.session != *id {
            let cause = "it was signed by another than its author, or moved".to_owned();
            return Err(Error::Damaged { what: name, cause });
        }
        let author = self.roster().identity(read.author);
        let author_name = author.map(|member| member.name.clone()).unwrap_or_default();
        let stored_bytes = read.stored_bytes;
        Ok(Some(SnapshotInfo { id: *id, snapshot, author_name, hash: read.hash, stored_bytes }))
    }

    /// A snapshot by the beginning of its id, or `latest`.
    pub fn find_snapshot(&self, wanted: &str) -> Result<SnapshotInfo> {
        let none = || Error::NoSnapshot { wanted: wanted.to_owned() };
        if wanted == "latest" {
            return self.latest_snapshot()?.ok_or_else(none);
        }
        let wanted_lower = wanted.to_ascii_lowercase();
        let mut found: Vec<SessionId> = self.readable_ids()?;
        found.retain(|id| !wanted_lower.is_empty() && id.to_string().starts_with(&wanted_lower));
        match found[..] {
            [] => Err(none()),
            [id] => self.snapshot(&id)?.ok_or_else(none),
            _ => Err(Error::AmbiguousSnapshot { wanted: wanted.to_owned(), found: found.len() }),
        }
    }

    /// Sequence and hash of this identity's last snapshot: from the cache, else, where the key
    /// reads, from the store. If both are lost the chain starts again, visibly.
    pub(crate) fn chain(&self) -> Result<(u64, Option<[u8; 32]>)> {
        let kept = self.cache().and_then(|cache| std::fs::read(cache.join("chain")).ok());
        // Nobody synced it: after a power loss it may be cut or full of zeros.
        let kept = kept.as_deref().and_then(<[u8]>::split_last_chunk::<32>);
        let kept = kept.filter(|(chain, sum)| hash(chain) == **sum);
        let kept = kept.and_then(|(chain, _)| chain.split_first_chunk::<8>());
        if let Some((sequence, Ok(last))) = kept.map(|(first, last)| (first, last.try_into())) {
            return Ok((u64::from_le_bytes(*sequence), Some(last)));
        }
        if !self.reads(Recipient::Meta) {
            return Ok((0, None));
        }
        let (snapshots, _) = self.snapshots_despite()?;
        let ours = snapshots.into_iter().filter(|info| info.snapshot.author == self.identity());
        let Some(last) = ours.max_by_key(|info| info.snapshot.sequence) else {
            return Ok((0, None));
        };
        // It may be visible from a put that was told to have failed. Cited, it must not vanish.
        let name = object_name(&format!("snapshots/{}", last.id))?;
        self.store().make_durable(&mut std::iter::once(&name))?;
        Ok((last.snapshot.sequence, Some(last.hash)))
    }

    pub(crate) fn keep_chain(&self, sequence: u64, last: [u8; 32]) -> Result<()> {
        let Some(cache) = self.cache() else { return Ok(()) };
        let (path, fresh) = (cache.join("chain"), cache.join("chain.new"));
        let chain = [&sequence.to_le_bytes()[..], &last].concat();
        let chain = [&chain[..], &hash(&chain)].concat();
        fault::write("cache write", &chain, |chain| std::fs::write(&fresh, chain))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|source| {
                // The one before would make the next snapshot take this one's place in the chain.
                let _ = std::fs::remove_file(&path);
                Error::Cache { path, source }
            })
    }
}
