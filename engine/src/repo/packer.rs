//! Sealed frames become packs, packs become index runs. Frames are streamed to the store while they are hot; a pack's
//! name is the hash of what was streamed. Small sessions end in one mixed pack. It never looks inside a frame.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::TimeNs;
use crate::error::Result;
use crate::format::id::{PackId, hash};
use crate::format::index::{PackRow, RunBuilder};
use crate::format::pack::{
    Directory, FrameRow, HEADER_LEN, PackClass, PackHeader, TRAILER_LEN, Trailer,
};
use crate::format::seal::{
    COMMIT_LEN, Context, Label, Recipient, Sealer, frame_nonce, padme, sealed_stream_len,
};
use crate::repo::Repo;
use crate::repo::journal::{Journal, StoredPack};
use crate::repo::lookup::Index;
use crate::repo::records::trailer_aad;
use crate::repo::session::{SealedFrame, Session};
use crate::store::{ObjectName, Staged};

/// A session whose frames stay below this writes one mixed pack.
const MIXED_BELOW_BYTES: u64 = 4 << 20;
/// An index run is written after so many packs, or so long after the last one.
pub(super) const PACKS_PER_RUN: usize = 16;
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

pub(super) struct FinishedPack {
    pub row: PackRow,
    pub name: ObjectName,
    pub directory: Directory,
}

/// A pack being filled.
pub struct OpenPack {
    staged: Box<dyn Staged>,
    hasher: blake3::Hasher,
    class: PackClass,
    len: u64,
    directory: Directory,
    recipients: Vec<Recipient>,
}

impl<'r> Packer<'r> {
    pub fn new(repo: &'r Repo, session: &'r Session, index: &'r Index, dry_run: bool) -> Self {
        let data_lanes = repo.env().threads().div_ceil(2);
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
        if finished.packs.len() < PACKS_PER_RUN && now - finished.last_run < RUN_INTERVAL_NS {
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
        if let Some(pack) = lane.take_if(|pack| pack.len_with(&frame) > limit) {
            full(pack)?;
        }
        if lane.is_none() {
            *lane = Some(OpenPack::begin(self.repo, self.session, class)?);
        }
        lane.as_mut().expect("just begun").push(self.session, frame)
    }

    /// Directory, padding and trailer; then the pack is durable under its name.
    fn close(&self, mut pack: OpenPack, is_full: bool) -> Result<()> {
        let end = pack.len;
        let shape = pack.shape();
        let needed = shape.pack_len(end);
        let limit = self.repo.file().pack_size;
        let total = if is_full { limit } else { padme(needed).min(limit) };
        pack.pad(self.repo, total - needed)?;
        let context = Context {
            suite: self.repo.file().suite,
            recipient: Recipient::Index,
            epoch: self.session.epoch,
            repository: self.repo.id(),
            session: self.session.id,
            salt: self.repo.env().random(),
        };
        let secret = self.repo.index_key(self.session.epoch)?;
        let offset = pack.len;
        let sealer = Sealer::new(&secret, &context, Label::PackDirectory);
        pack.write(sealer.commit())?;
        pack.write(&sealer.seal_stream(&pack.directory.to_bytes()))?;
        let trailer = Trailer {
            directory_offset: offset,
            directory_len: pack.len - offset,
            frames_end: end,
            frames: shape.frames as u32,
            chunks: shape.chunks as u32,
        };
        let sealer = Sealer::new(&secret, &context, Label::PackTrailer);
        let mut sealed = trailer.to_bytes().to_vec();
        sealer.seal_in_place(frame_nonce(0), &trailer_aad(&sealer, total), &mut sealed);
        pack.write(&context.to_bytes())?;
        pack.write(sealer.commit())?;
        pack.write(&sealed)?;
        assert_eq!(pack.len, total, "a pack has the length that was planned");
        self.register(pack, total)
    }

    fn register(&self, pack: OpenPack, len: u64) -> Result<()> {
        let OpenPack { staged, hasher, class, directory, .. } = pack;
        let id = PackId(*hasher.finalize().as_bytes());
        let name = pack_name(&id);
        staged.commit(&name)?;
        if let Some(journal) = self.journal {
            let directory = hash(&directory.to_bytes());
            journal.append_pack(&StoredPack { id, len, class, directory });
        }
        self.stored_bytes.fetch_add(len, Ordering::Relaxed);
        let row = PackRow { id, len, author: self.repo.identity(), class };
        let mut finished = self.finished.lock().expect("no panic holds this lock");
        finished.packs.push(FinishedPack { row, name, directory });
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

impl OpenPack {
    fn begin(repo: &Repo, session: &Session, class: PackClass) -> Result<Self> {
        let mut pack = Self {
            staged: repo.store().stage()?,
            hasher: blake3::Hasher::new(),
            class,
            len: 0,
            directory: Directory::default(),
            recipients: Vec::new(),
        };
        let header = PackHeader {
            session: session.id,
            epoch: session.epoch,
            class,
            suite: repo.file().suite.code(),
        };
        pack.write(&header.to_bytes())?;
        assert_eq!(pack.len, HEADER_LEN as u64);
        Ok(pack)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(self.staged.write(bytes)?)
    }

    fn push(&mut self, session: &Session, frame: SealedFrame) -> Result<()> {
        let known = self.recipients.iter().position(|&recipient| recipient == frame.recipient);
        let context = known.unwrap_or_else(|| {
            let keys = session.keys(frame.recipient);
            self.directory.contexts.push(keys.context);
            self.directory.seals.push(keys.seal.clone());
            self.recipients.push(frame.recipient);
            self.recipients.len() - 1
        });
        self.directory.frames.push(FrameRow {
            offset: self.len,
            ordinal: frame.ordinal,
            stored: frame.stored.len() as u32,
            plain: frame.plain_len,
            chunks: frame.chunks.len() as u32,
            bases: frame.bases.len() as u32,
            context: context as u32,
            codec: frame.codec as u8,
        });
        self.directory.chunks.extend_from_slice(&frame.chunks);
        self.directory.bases.extend_from_slice(&frame.bases);
        self.write(&frame.stored)
    }

    fn shape(&self) -> Shape {
        Shape {
            contexts: self.directory.contexts.len() as u64,
            frames: self.directory.frames.len() as u64,
            chunks: self.directory.chunks.len() as u64,
            bases: self.directory.bases.len() as u64,
        }
    }

    /// Length of the whole pack, unpadded, with one more frame.
    fn len_with(&self, frame: &SealedFrame) -> u64 {
        let mut shape = self.shape();
        shape.contexts += u64::from(!self.recipients.contains(&frame.recipient));
        shape.frames += 1;
        shape.chunks += frame.chunks.len() as u64;
        shape.bases += frame.bases.len() as u64;
        shape.pack_len(self.len + frame.stored.len() as u64)
    }

    /// Random bytes: whoever holds the store cannot tell them from frames.
    fn pad(&mut self, repo: &Repo, mut n: u64) -> Result<()> {
        let mut stream = blake3::Hasher::new_keyed(&repo.env().random()).finalize_xof();
        let mut buffer = vec![0; 64 << 10];
        while n > 0 {
            let piece = &mut buffer[..n.min(64 << 10) as usize];
            stream.fill(piece);
            self.write(piece)?;
            n -= piece.len() as u64;
        }
        Ok(())
    }
}

/// How many rows a directory has; there are as many seals as contexts.
struct Shape {
    contexts: u64,
    frames: u64,
    chunks: u64,
    bases: u64,
}

impl Shape {
    /// Length of the whole pack, unpadded, whose frames end at `end`.
    fn pack_len(&self, end: u64) -> u64 {
        let Self { contexts, frames, chunks, bases } = *self;
        let directory = Directory::encoded_len(contexts, contexts, frames, chunks, bases);
        end + COMMIT_LEN as u64 + sealed_stream_len(directory) + TRAILER_LEN as u64
    }
}

pub fn pack_name(id: &PackId) -> ObjectName {
    let hex = id.to_string();
    ObjectName::new(&format!("packs/{}/{hex}", &hex[..2])).expect("hex makes a valid name")
}
