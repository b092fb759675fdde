//! Sealed frames moved into new packs as they are: by a prune out of half-dead packs, by a repair
//! out of rotten ones. A session of its own keeps pruners off the new packs. Which frames move, and
//! what becomes of the old packs, is theirs.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::id::{IdentityId, SessionId, hash};
use crate::format::index::{PackRow, RunBuilder};
use crate::format::pack::{PACK_LEN_MAX, PackClass};
use crate::format::record::Kind;
use crate::format::session::Session;
use crate::repo::Repo;
use crate::repo::pack_file::{FinishedPack, OpenPack, PackFrame};
use crate::repo::packer::PACKS_PER_RUN;
use crate::watch::{Counter, Watch};

/// In the client's cache: the session in which frames were being moved.
const MARK: &str = "mover";

pub(crate) struct Mover<'a> {
    repo: &'a Repo,
    watch: &'a dyn Watch,
    session: SessionId,
    epoch: u32,
    /// New packs being filled, one an author and class.
    lanes: BTreeMap<(IdentityId, u8), OpenPack>,
    finished: Vec<FinishedPack>,
}

impl<'a> Mover<'a> {
    /// Announces its session, which `close` must end.
    pub fn begin(repo: &'a Repo, watch: &'a dyn Watch) -> Result<Self> {
        let session = SessionId(repo.env().random());
        if let Some(cache) = repo.cache() {
            let path = cache.join(MARK);
            std::fs::write(&path, session.to_string())
                .map_err(|source| Error::Cache { path, source })?;
        }
        let epoch = repo.roster().epoch().number;
        let intent = Session { session, epoch, time_ns: repo.env().now(), adopts: Vec::new() };
        repo.put_stated(Kind::Session, &format!("sessions/{session}"), &intent.to_cbor())?;
        let (lanes, finished) = Default::default();
        Ok(Self { repo, watch, session, epoch, lanes, finished })
    }

    /// Takes a frame of `source` in.
    pub fn push(&mut self, source: &PackRow, frame: &PackFrame) -> Result<()> {
        let lane = (source.author, source.class as u8);
        let open = self.lanes.get(&lane);
        let full = open.is_some_and(|pack| pack.len_with(frame) > self.repo.file().pack_size);
        // Two source packs may both hold it, say one that an earlier prune moved it to, and a pack
        // holds it once.
        let again = open.is_some_and(|pack| pack.holds(frame));
        if (full || again)
            && let Some(pack) = self.lanes.remove(&lane)
        {
            self.close_pack(lane.0, pack, full)?;
        }
        if !self.lanes.contains_key(&lane) {
            let class = PackClass::from_u8(lane.1).expect("the class of a pack");
            let pack = OpenPack::begin(self.repo, self.session, self.epoch, class)?;
            self.lanes.insert(lane, pack);
        }
        self.lanes.get_mut(&lane).expect("just entered").push(frame)
    }

    /// The last packs and their run.
    pub fn finish(&mut self) -> Result<()> {
        for (lane, pack) in std::mem::take(&mut self.lanes) {
            self.close_pack(lane.0, pack, false)?;
        }
        self.write_run()
    }

    /// Ends the session, whatever has happened: an open one would hold up every verdict.
    pub fn close(self) -> Result<()> {
        end(self.repo, &self.session)
    }

    fn close_pack(&mut self, author: IdentityId, pack: OpenPack, is_full: bool) -> Result<()> {
        let pack = pack.close(self.repo, author, is_full)?;
        self.watch.add(Counter::BytesStored, pack.row.len);
        self.finished.push(pack);
        if self.finished.len() < PACKS_PER_RUN { Ok(()) } else { self.write_run() }
    }

    /// The new packs are durable, and what was stored is what was sealed, before a run says where
    /// the frames are now.
    fn write_run(&mut self) -> Result<()> {
        let repo = self.repo;
        let packs = std::mem::take(&mut self.finished);
        if packs.is_empty() {
            return Ok(());
        }
        repo.store().make_durable(&mut packs.iter().map(|pack| &pack.name))?;
        let mut builder = RunBuilder::new();
        for pack in packs {
            let bytes = repo.get(pack.name.as_str(), PACK_LEN_MAX)?;
            if hash(&bytes) != pack.row.id.0 {
                let cause = "it does not read back as it was written".to_owned();
                return Err(Error::Damaged { what: pack.name.to_string(), cause });
            }
            builder.push_directory(pack.row, &pack.directory);
        }
        let (name, _) = repo.put_sealed_run(&builder.finish(), self.epoch)?;
        repo.read_back_run(&name)
    }
}

/// Ends the session that a killed prune or repair of this client left open. If it lives all the
/// same, nothing happens to it: a tombstone takes no pack away that is needed.
pub(crate) fn close_left(repo: &Repo) -> Result<()> {
    let left = repo.cache().and_then(|cache| std::fs::read_to_string(cache.join(MARK)).ok());
    match left.and_then(|text| SessionId::from_hex(&text)) {
        Some(session) => end(repo, &session),
        None => Ok(()),
    }
}

fn end(repo: &Repo, session: &SessionId) -> Result<()> {
    repo.put_tombstone(session, "it moved frames, and is done")?;
    if let Some(cache) = repo.cache() {
        let _ = std::fs::remove_file(cache.join(MARK));
    }
    Ok(())
}
