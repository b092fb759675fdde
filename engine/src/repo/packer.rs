//! Sealed frames become packs, packs become index runs. Frames are streamed to the store while they are hot; a pack's
//! name is the hash of what was streamed. Small sessions end in one mixed pack. It never looks inside a frame.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::TimeNs;
use crate::error::{Named, Result};
use crate::format::id::PackId;
use crate::format::index::RunBuilder;
use crate::format::pack::{
    DirectoryShape, Directory, FrameRow, PACK_HEADER_LEN, PackClass, PackHeader, PackRow, TRAILER_LEN, Trailer,
};
use crate::format::record::Kind;
use crate::format::seal::{Context, Label, Recipient, Sealer, padme, sealed_stream_len};
use crate::repo::Repo;
use crate::repo::lookup::Index;
use crate::repo::session::{SealedFrame, Session};
use crate::store::{ObjectName, Staged};

/// A session whose frames stay below this writes one mixed pack.
const MIXED_BELOW_BYTES: u64 = 4 << 20;
/// An index run is written after so many packs, or so long after the last one.
const PACKS_PER_RUN: usize = 16;
const RUN_INTERVAL_NS: TimeNs = 300 * 1_000_000_000;

pub struct Packer<'r> {
    repo: &'r Repo,
    session: &'r Session,
    index: &'r Index,
    early: Mutex<Early>,
    /// Several open data packs, so that workers do not wait for each other; one for trees, one for references.
    lanes: Vec<Mutex<Option<OpenPack>>>,
    finished: Mutex<Finished>,
    stored_bytes: AtomicU64,
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

struct FinishedPack {
    row: PackRow,
    name: ObjectName,
    directory: Directory,
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
    pub fn new(repo: &'r Repo, session: &'r Session, index: &'r Index) -> Self {
        let data_lanes = repo.env().threads().div_ceil(2);
        Self {
            repo,
            session,
            index,
            early: Mutex::default(),
            lanes: (0..data_lanes + 2).map(|_| Mutex::default()).collect(),
            finished: Mutex::new(Finished { packs: Vec::new(), last_run: repo.env().now() }),
            stored_bytes: AtomicU64::new(0),
        }
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
        let open = self.lanes.iter().map(|lane| lane.lock().expect("no panic holds this lock").take());
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
        let limit = self.repo.file().pack_bytes;
        if let Some(pack) = lane.as_ref() {
            if pack.len_with(&frame) > limit {
                full(lane.take().expect("just seen"))?;
            }
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
        let needed = pack.len_of(end, &shape);
        let limit = self.repo.file().pack_bytes;
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
            frames: shape.frames,
            chunks: shape.chunks,
        };
        let sealed = trailer.seal(&Sealer::new(&secret, &context, Label::PackTrailer), &context, total);
        pack.write(&sealed)?;
        assert_eq!(pack.len, total, "a pack has the length that was planned");
        self.register(pack, total)
    }

    fn register(&self, pack: OpenPack, len: u64) -> Result<()> {
        let OpenPack { staged, hasher, class, directory, .. } = pack;
        let id = PackId(*hasher.finalize().as_bytes());
        let name = pack_name(&id);
        staged.commit(&name)?;
        self.stored_bytes.fetch_add(len, Ordering::Relaxed);
        let row = PackRow { id, len, author: self.repo.identity(), class };
        let mut finished = self.finished.lock().expect("no panic holds this lock");
        finished.packs.push(FinishedPack { row, name, directory });
        Ok(())
    }

    fn write_run(&self, packs: Vec<FinishedPack>) -> Result<()> {
        self.repo.store().make_durable(&mut packs.iter().map(|pack| &pack.name))?;
        let mut builder = RunBuilder::new();
        for pack in &packs {
            builder.push_pack(&pack.row, &pack.directory);
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
        let header =
            PackHeader { session: session.id, epoch: session.epoch, class, suite: repo.file().suite as u8 };
        pack.write(&header.to_bytes())?;
        assert_eq!(pack.len, PACK_HEADER_LEN as u64);
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
            self.directory.contexts.push(keys.context.clone());
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

    fn shape(&self) -> DirectoryShape {
        self.directory.shape()
    }

    /// Length of the whole pack, unpadded, if its frames ended at `end`.
    fn len_of(&self, end: u64, shape: &DirectoryShape) -> u64 {
        end + 32 + sealed_stream_len(shape.encoded_len()) + TRAILER_LEN as u64
    }

    fn len_with(&self, frame: &SealedFrame) -> u64 {
        let mut shape = self.shape();
        if !self.recipients.contains(&frame.recipient) {
            shape.contexts += 1;
            shape.seals += 1;
        }
        shape.frames += 1;
        shape.chunks += frame.chunks.len() as u32;
        shape.bases += frame.bases.len() as u32;
        self.len_of(self.len + frame.stored.len() as u64, &shape)
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

pub fn pack_name(id: &PackId) -> ObjectName {
    let hex = id.to_string();
    ObjectName::new(&format!("packs/{}/{hex}", &hex[..2])).expect("hex makes a valid name")
}
