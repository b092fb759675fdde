//! Sealed frames become packs, packs become index runs. Frames are streamed to the store while they are hot; a pack's
//! name is the hash of what was streamed. Small sessions end in one mixed pack. It never looks inside a frame.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::TimeNs;
use crate::error::Result;
use crate::format::id::{PackId, hash};
use crate::format::index::{PackRow, RunBuilder};
use crate::format::pack::PackClass;
use crate::format::seal::Recipient;
use crate::repo::Repo;
use crate::repo::journal::{Journal, StoredPack};
use crate::repo::lookup::Index;
use crate::repo::pack_file::{FinishedPack, PackFrame};
use crate::repo::session::{SealedFrame, Session};
use crate::store::ObjectName;

pub use crate::repo::pack_file::OpenPack;

/// A session whose frames stay below this writes one mixed pack.
pub const MIXED_BELOW_BYTES: u64 = 4 << 20;
/// An index run is written after so many packs, or so many chunks in them (each takes some 300 bytes
/// in directories, claims and the run while that is made), or so long after the last one.
pub(super) const PACKS_PER_RUN: usize = 16;
pub const CHUNKS_PER_RUN: usize = 128 << 10;
const RUN_INTERVAL_NS: TimeNs = 300 * 1_000_000_000;

pub struct Packer<'r> {
    pub(super) repo: &'r Repo,
    session: &'r Session,
    pub(super) index: &'r Index,
    early: Mutex<Early>,
    /// Several open data packs, so that workers do not wait for each other; one for trees, one for references.
    lanes: Vec<Mutex<Option<OpenPack>>>,
    finished: Mutex<Finished>,
    stored_bytes: AtomicU64,
    /// Is told of every pack that is stored.
    journal: Option<&'r Journal>,
    /// Frames are made and dropped: nothing reaches the store.
    dry_run: bool,
}

/// Frames held back until it is clear that they are more than a mixed pack's worth.
#[derive(Default)]
struct Early {
    frames: Vec<SealedFrame>,
    bytes: u64,
    over: bool,
}

struct Finished {
    packs: Vec<FinishedPack>,
    last_run: TimeNs,
}

impl<'r> Packer<'r> {
    pub fn new(repo: &'r Repo, session: &'r Session, index: &'r Index, dry_run: bool) -> Self {
        let data_lanes = repo.env().threads();
        Self {
            repo,
            session,
            index,
            early: Mutex::default(),
            lanes: (0..data_lanes + 2).map(|_| Mutex::default()).collect(),
            finished: Mutex::new(Finished { packs: Vec::new(), last_run: repo.env().now() }),
            stored_bytes: AtomicU64::new(0),
            journal: None,
            dry_run,
        }
    }

    /// What is stored from now on can be adopted if this session dies.
    pub fn journaling(self, journal: Option<&'r Journal>) -> Self {
        Self { journal, ..self }
    }

    pub fn session(&self) -> &'r Session {
        self.session
    }

    /// Bytes written to the store so far: packs and index runs.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Takes a frame in. A pack that became full is handed to `full`, which must see to `complete`.
    pub fn add(&self, frame: SealedFrame, full: &dyn Fn(OpenPack) -> Result<()>) -> Result<()> {
        if self.dry_run {
            self.stored_bytes.fetch_add(frame.stored.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        let mut early = self.early.lock().expect("no panic holds this lock");
        if early.over {
            drop(early);
            return self.append(frame, full);
        }
        early.bytes += frame.stored.len() as u64;
        early.frames.push(frame);
        if early.bytes < MIXED_BELOW_BYTES {
            return Ok(());
        }
        early.over = true;
        let frames = std::mem::take(&mut early.frames);
        drop(early);
        frames.into_iter().try_for_each(|frame| self.append(frame, full))
    }

    /// Finishes every open pack, then writes the last index run. No frame may come after this.
    pub fn finish(&self) -> Result<()> {
        let mut early = self.early.lock().expect("no panic holds this lock");
        let frames = std::mem::take(&mut early.frames);
        drop(early);
        let mut mixed = None;
        for frame in frames {
            self.push_to(&mut mixed, PackClass::Mixed, frame, &|pack| self.complete(pack))?;
        }
        let open =
            self.lanes.iter().map(|lane| lane.lock().expect("no panic holds this lock").take());
        for pack in mixed.into_iter().chain(open.flatten()) {
            self.close(pack, false)?;
        }
        let packs = {
            let mut finished = self.finished.lock().expect("no panic holds this lock");
            std::mem::take(&mut finished.packs)
        };
        if packs.is_empty() { Ok(()) } else { self.write_run(packs) }
    }

    /// Makes a full pack durable and, when it is time, writes an index run.
    pub fn complete(&self, pack: OpenPack) -> Result<()> {
        self.close(pack, true)?;
        let now = self.repo.env().now();
        let mut finished = self.finished.lock().expect("no panic holds this lock");
        let chunks: usize = finished.packs.iter().map(|pack| pack.directory.chunks.len()).sum();
        if finished.packs.len() < PACKS_PER_RUN
            && chunks < CHUNKS_PER_RUN
            && now - finished.last_run < RUN_INTERVAL_NS
        {
            return Ok(());
        }
        let packs = std::mem::take(&mut finished.packs);
        finished.last_run = now;
        drop(finished);
        self.write_run(packs)
    }

    fn append(&self, frame: SealedFrame, full: &dyn Fn(OpenPack) -> Result<()>) -> Result<()> {
        let (class, lanes) = match frame.recipient {
            Recipient::Tree => (PackClass::Tree, &self.lanes[..1]),
            Recipient::Meta => (PackClass::Refs, &self.lanes[1..2]),
            Recipient::Data | Recipient::Index => (PackClass::Data, &self.lanes[2..]),
        };
        let free = lanes.iter().find_map(|lane| lane.try_lock().ok());
        let mut lane = free.unwrap_or_else(|| lanes[0].lock().expect("no panic holds this lock"));
        self.push_to(&mut lane, class, frame, full)
    }

    fn push_to(
        &self,
        lane: &mut Option<OpenPack>,
        class: PackClass,
        frame: SealedFrame,
        full: &dyn Fn(OpenPack) -> Result<()>,
    ) -> Result<()> {
        let limit = self.repo.file().pack_size;
        let frame = PackFrame::of(&frame, self.session);
        if let Some(pack) = lane.take_if(|pack| pack.len_with(&frame) > limit) {
            full(pack)?;
        }
        if lane.is_none() {
            let (session, epoch) = (self.session.id, self.session.epoch);
            *lane = Some(OpenPack::begin(self.repo, session, epoch, class)?);
        }
        lane.as_mut().expect("just begun").push(&frame)
    }

    fn close(&self, pack: OpenPack, is_full: bool) -> Result<()> {
        let pack = pack.close(self.repo, self.repo.identity(), is_full)?;
        if let Some(journal) = self.journal {
            let PackRow { id, len, class, .. } = pack.row;
            let directory = hash(&pack.directory.to_bytes());
            journal.append_pack(&StoredPack { id, len, class, directory });
        }
        self.stored_bytes.fetch_add(pack.row.len, Ordering::Relaxed);
        self.finished.lock().expect("no panic holds this lock").packs.push(pack);
        Ok(())
    }

    pub(super) fn write_run(&self, packs: Vec<FinishedPack>) -> Result<()> {
        self.repo.store().make_durable(&mut packs.iter().map(|pack| &pack.name))?;
        let mut builder = RunBuilder::new();
        for pack in packs {
            let directory = pack.directory;
            builder.push_directory(pack.row, &directory);
        }
        let payload = builder.finish();
        let (name, bytes) = self.repo.put_sealed_run(&payload, self.session.epoch)?;
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.index.add_own(&name, payload)
    }
}

pub fn pack_name(id: &PackId) -> ObjectName {
    let hex = id.to_string();
    ObjectName::new(&format!("packs/{}/{hex}", &hex[..2])).expect("hex makes a valid name")
}
