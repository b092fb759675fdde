//! One pack on its way into the store: header, frames as they come, then directory, padding and
//! trailer. Its name is the hash of what was streamed. Frames arrive sealed, of one session or
//! moved from other packs; it never looks inside.

use crate::error::Result;
use crate::format::id::{IdentityId, PackId, SessionId};
use crate::format::index::PackRow;
use crate::format::pack::{
    BaseRow, ChunkRow, ContextRow, Directory, FrameRow, HEADER_LEN, PackClass, PackHeader, SealRow,
    TRAILER_LEN, Trailer,
};
use crate::format::seal::{
    COMMIT_LEN, Context, Label, Recipient, Sealer, frame_nonce, padme, sealed_stream_len,
};
use crate::repo::Repo;
use crate::repo::packer::pack_name;
use crate::repo::records::trailer_aad;
use crate::repo::session::{SealedFrame, Session};
use crate::store::{ObjectName, Staged};

/// A pack being filled.
pub struct OpenPack {
    staged: Box<dyn Staged>,
    hasher: blake3::Hasher,
    session: SessionId,
    epoch: u32,
    class: PackClass,
    len: u64,
    directory: Directory,
}

/// A pack that is in the store; its name is not durable yet.
pub struct FinishedPack {
    pub row: PackRow,
    pub name: ObjectName,
    pub directory: Directory,
}

/// A sealed frame with all that its pack has to say of it.
pub struct PackFrame<'a> {
    pub context: &'a ContextRow,
    pub seal: &'a SealRow,
    pub codec: u8,
    pub ordinal: u64,
    pub plain: u32,
    /// Ciphertext with its tag.
    pub stored: &'a [u8],
    pub chunks: &'a [ChunkRow],
    pub bases: &'a [BaseRow],
}

impl<'a> PackFrame<'a> {
    /// Of a frame that `session` has sealed.
    pub fn of(frame: &'a SealedFrame, session: &'a Session) -> Self {
        let keys = session.keys(frame.recipient);
        Self {
            context: &keys.context,
            seal: &keys.seal,
            codec: frame.codec as u8,
            ordinal: frame.ordinal,
            plain: frame.plain_len,
            stored: &frame.stored,
            chunks: &frame.chunks,
            bases: &frame.bases,
        }
    }
}

impl OpenPack {
    pub fn begin(repo: &Repo, session: SessionId, epoch: u32, class: PackClass) -> Result<Self> {
        let mut pack = Self {
            staged: repo.store().stage()?,
            hasher: blake3::Hasher::new(),
            session,
            epoch,
            class,
            len: 0,
            directory: Directory::default(),
        };
        let suite = repo.file().suite.code();
        pack.write(&PackHeader { session, epoch, class, suite }.to_bytes())?;
        assert_eq!(pack.len, HEADER_LEN as u64);
        Ok(pack)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(self.staged.write(bytes)?)
    }

    pub fn push(&mut self, frame: &PackFrame) -> Result<()> {
        let directory = &mut self.directory;
        let known = directory.contexts.iter().position(|context| context == frame.context);
        let context = known.unwrap_or_else(|| {
            directory.contexts.push(*frame.context);
            if !directory.seals.contains(frame.seal) {
                directory.seals.push(frame.seal.clone());
            }
            directory.contexts.len() - 1
        });
        directory.frames.push(FrameRow {
            offset: self.len,
            ordinal: frame.ordinal,
            stored: frame.stored.len() as u32,
            plain: frame.plain,
            chunks: frame.chunks.len() as u32,
            bases: frame.bases.len() as u32,
            context: context as u32,
            codec: frame.codec,
        });
        directory.chunks.extend_from_slice(frame.chunks);
        directory.bases.extend_from_slice(frame.bases);
        self.write(frame.stored)
    }

    /// Has it a frame of this context and ordinal already? There may be only one.
    pub fn holds(&self, frame: &PackFrame) -> bool {
        let Directory { contexts, frames, .. } = &self.directory;
        let same = |row: &FrameRow| contexts[row.context as usize] == *frame.context;
        frames.iter().any(|row| row.ordinal == frame.ordinal && same(row))
    }

    /// Length of the whole pack, unpadded, with one more frame.
    pub fn len_with(&self, frame: &PackFrame) -> u64 {
        let mut shape = self.shape();
        shape.contexts += u64::from(!self.directory.contexts.contains(frame.context));
        shape.seals += u64::from(!self.directory.seals.contains(frame.seal));
        shape.frames += 1;
        shape.chunks += frame.chunks.len() as u64;
        shape.bases += frame.bases.len() as u64;
        shape.pack_len(self.len + frame.stored.len() as u64)
    }

    fn shape(&self) -> Shape {
        Shape {
            contexts: self.directory.contexts.len() as u64,
            seals: self.directory.seals.len() as u64,
            frames: self.directory.frames.len() as u64,
            chunks: self.directory.chunks.len() as u64,
            bases: self.directory.bases.len() as u64,
        }
    }

    /// Directory, padding and trailer; then the pack is there under its name. A full one gets the
    /// pack size, the last one of a session Padmé's. `author`: whose frames these are.
    pub fn close(mut self, repo: &Repo, author: IdentityId, is_full: bool) -> Result<FinishedPack> {
        let end = self.len;
        let shape = self.shape();
        let needed = shape.pack_len(end);
        let limit = repo.file().pack_size;
        // A single frame may be larger than the pack size.
        let total = if is_full { limit.max(needed) } else { padme(needed).min(limit).max(needed) };
        self.pad(repo, total - needed)?;
        let context = Context {
            suite: repo.file().suite,
            recipient: Recipient::Index,
            epoch: self.epoch,
            repository: repo.id(),
            session: self.session,
            salt: repo.env().random(),
        };
        let secret = repo.index_key(self.epoch)?;
        let offset = self.len;
        let sealer = Sealer::new(&secret, &context, Label::PackDirectory);
        self.write(sealer.commit())?;
        let sealed = sealer.seal_stream(&self.directory.to_bytes());
        self.write(&sealed)?;
        let trailer = Trailer {
            directory_offset: offset,
            directory_len: self.len - offset,
            frames_end: end,
            frames: shape.frames as u32,
            chunks: shape.chunks as u32,
        };
        let sealer = Sealer::new(&secret, &context, Label::PackTrailer);
        let mut sealed = trailer.to_bytes().to_vec();
        sealer.seal_in_place(frame_nonce(0), &trailer_aad(&sealer, total), &mut sealed);
        self.write(&context.to_bytes())?;
        self.write(sealer.commit())?;
        self.write(&sealed)?;
        assert_eq!(self.len, total, "a pack has the length that was planned");
        let id = PackId(*self.hasher.finalize().as_bytes());
        let name = pack_name(&id);
        self.staged.commit(&name)?;
        let row = PackRow { id, len: total, author, class: self.class };
        Ok(FinishedPack { row, name, directory: self.directory })
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

/// How many rows a directory has.
struct Shape {
    contexts: u64,
    seals: u64,
    frames: u64,
    chunks: u64,
    bases: u64,
}

impl Shape {
    /// Length of the whole pack, unpadded, whose frames end at `end`.
    fn pack_len(&self, end: u64) -> u64 {
        let Self { contexts, seals, frames, chunks, bases } = *self;
        let directory = Directory::encoded_len(contexts, seals, frames, chunks, bases);
        end + COMMIT_LEN as u64 + sealed_stream_len(directory) + TRAILER_LEN as u64
    }
}
