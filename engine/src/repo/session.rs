//! One run of a writer: its intent (`sessions/<id>`), its sealed secrets, and the keys that its frames are sealed with.
//! Secrets live in memory only; a session is never resumed, a later one adopts it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Named, Result};
use crate::format::codec::Codec;
use crate::format::id::SessionId;
use crate::format::keys::{SealInfo, seal_secret};
use crate::format::pack::{
    BaseRow, ChunkRow, ContextRow, SealRow, base_rows_bytes, chunk_rows_hash,
};
use crate::format::record::Kind;
use crate::format::seal::{
    Context, Label, Recipient, Sealer, Secret, frame_aad, frame_nonce, seal_body,
};
use crate::format::session::{SealedSecret, Seals, Session as Intent};
use crate::repo::Repo;

/// The three recipients of frames, in the order of `Keys::frames`.
pub const FRAME_RECIPIENTS: [Recipient; 3] = [Recipient::Data, Recipient::Tree, Recipient::Meta];

pub struct Session {
    pub id: SessionId,
    pub epoch: u32,
    pub(super) frames: [FrameKeys; 3],
    pub(super) meta: Secret,
    ordinal: AtomicU64,
}

/// What frames for one recipient are sealed with, and what a pack must carry so that they can be opened.
pub struct FrameKeys {
    pub context: ContextRow,
    pub seal: SealRow,
    sealer: Sealer,
}

/// A frame ready for a pack.
pub struct SealedFrame {
    pub recipient: Recipient,
    pub codec: Codec,
    pub ordinal: u64,
    pub plain_len: u32,
    /// Ciphertext with its tag.
    pub stored: Vec<u8>,
    pub chunks: Vec<ChunkRow>,
    pub bases: Vec<BaseRow>,
}

impl Session {
    /// Writes the intent and the sealed secrets. Must come before anything is looked up (DESIGN.md, 6.1).
    pub fn announce(&self, repo: &Repo, adopts: &[SessionId]) -> Result<()> {
        let session = self;
        let intent = Intent {
            session: session.id,
            epoch: session.epoch,
            time_ns: repo.env().now(),
            adopts: adopts.to_vec(),
        };
        repo.put_stated(Kind::Session, &format!("sessions/{}", session.id), &intent.to_cbor())?;
        let seals = Seals {
            session: session.id,
            secrets: session.frames.iter().map(FrameKeys::sealed_secret).collect(),
        };
        repo.put_stated(Kind::Seals, &format!("seals/{}", session.id), &seals.to_cbor())?;
        Ok(())
    }

    /// Draws its id and secrets; nothing is in the store yet.
    pub fn new(repo: &Repo) -> Result<Self> {
        let id = SessionId(repo.env().random());
        let epoch = repo.roster().epoch();
        let mut meta = None;
        let frames = FRAME_RECIPIENTS.map(|recipient| {
            let secret = Secret(repo.env().random());
            let info =
                SealInfo { repository: repo.id(), epoch: epoch.number, recipient, session: id };
            let public = match recipient {
                Recipient::Data => &epoch.data,
                Recipient::Tree => &epoch.tree,
                _ => &epoch.meta,
            };
            let sealed = seal_secret(public, &info, &secret, repo.env().random());
            let context = Context {
                suite: repo.file().suite,
                recipient,
                epoch: epoch.number,
                repository: repo.id(),
                session: id,
                salt: repo.env().random(),
            };
            let sealer = Sealer::new(&secret, &context, Label::Frame);
            let keys = sealed.map(|sealed| FrameKeys {
                context: ContextRow { context: context.to_bytes(), commit: *sealer.commit() },
                seal: SealRow {
                    recipient: recipient.code(),
                    epoch: epoch.number,
                    session: id,
                    sealed: sealed.try_into().expect("sealed secrets have one length"),
                },
                sealer,
            });
            if recipient == Recipient::Meta {
                meta = Some(secret);
            }
            keys
        });
        let [data, tree, refs] = frames;
        let roster = "roster";
        let frames = [data.named(roster)?, tree.named(roster)?, refs.named(roster)?];
        let meta = meta.expect("META is one of the recipients");
        Ok(Self { id, epoch: epoch.number, frames, meta, ordinal: AtomicU64::new(0) })
    }

    /// The sealed body of this session's snapshot.
    pub fn seal_snapshot(&self, repo: &Repo, body: &[u8]) -> Vec<u8> {
        let context = Context {
            suite: repo.file().suite,
            recipient: Recipient::Meta,
            epoch: self.epoch,
            repository: repo.id(),
            session: self.id,
            salt: repo.env().random(),
        };
        seal_body(&self.meta, &context, Kind::Snapshot, body)
    }

    pub fn keys(&self, recipient: Recipient) -> &FrameKeys {
        &self.frames[recipient as usize - 1]
    }

    /// Seals encoded bytes into a frame. The ordinal is taken first and never used again, whatever happens.
    pub fn seal(&self, recipient: Recipient, encoded: Encoded) -> SealedFrame {
        let Encoded { codec, mut bytes, plain_len, chunks, bases } = encoded;
        let ordinal = self.ordinal.fetch_add(1, Ordering::Relaxed);
        let sealer = &self.keys(recipient).sealer;
        let aad = aad(sealer, ordinal, codec as u8, plain_len, &chunks, &bases);
        sealer.seal_in_place(frame_nonce(ordinal), &aad, &mut bytes);
        SealedFrame { recipient, codec, ordinal, plain_len, stored: bytes, chunks, bases }
    }

    /// Opens a frame of this session again, into `buffer`: how a finished frame is proven.
    pub fn open<'b>(&self, frame: &SealedFrame, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let sealer = &self.keys(frame.recipient).sealer;
        let codec = frame.codec as u8;
        let aad = aad(sealer, frame.ordinal, codec, frame.plain_len, &frame.chunks, &frame.bases);
        buffer.clear();
        buffer.extend_from_slice(&frame.stored);
        let nonce = frame_nonce(frame.ordinal);
        sealer.open_in_place(nonce, &aad, buffer, "frame").map(|plain| &*plain).named("new frame")
    }
}

impl FrameKeys {
    fn sealed_secret(&self) -> SealedSecret {
        let recipient = Recipient::from_code(self.seal.recipient).expect("made by this session");
        SealedSecret { recipient, epoch: self.seal.epoch, sealed: self.seal.sealed.to_vec() }
    }
}

/// Encoded bytes on their way to being sealed.
pub struct Encoded {
    pub codec: Codec,
    pub bytes: Vec<u8>,
    pub plain_len: u32,
    pub chunks: Vec<ChunkRow>,
    pub bases: Vec<BaseRow>,
}

fn aad(
    sealer: &Sealer,
    ordinal: u64,
    codec: u8,
    plain_len: u32,
    chunks: &[ChunkRow],
    bases: &[BaseRow],
) -> Vec<u8> {
    let rows = chunk_rows_hash(chunks);
    frame_aad(sealer.context_hash(), ordinal, codec, plain_len, &rows, &base_rows_bytes(bases))
}
