//! New chunks → frames: compressed (or not), sealed, and proven by opening, decoding and hashing
//! what came out, before anyone may rely on it. Large chunks have a frame of their own, small ones
//! share one.

use std::ops::Range;

use crate::backup::bases::Base;
use crate::backup::identify::About;
use crate::backup::tools::Tools;
use crate::backup::work::Worker;
use crate::error::{Error, Named, Result};
use crate::format::codec::{Codec, Samples};
use crate::format::id::ChunkId;
use crate::format::pack::{ChunkRow, FRAME_BASES_MAX};
use crate::format::seal::{Recipient, TAG_LEN};
use crate::repo::session::{Encoded, SealedFrame};

const BUNDLE_CHUNKS: usize = 16_384;
/// Below this a base row takes about as much as a delta saves.
const DELTA_BYTES_MIN: usize = 512;

/// Bundles of one recipient that a worker has open at once.
pub const BUNDLES_MAX: usize = 6;

/// Bases of one bundle of deltas, in bytes: more than a bundle's worth of chunks has but for oddities.
pub const BUNDLE_BASE_BYTES_MAX: usize = 2 << 20;

/// What chunks of one bundle have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleClass {
    pub recipient: Recipient,
    pub samples: Option<Samples>,
    /// Each chunk has a base.
    pub deltas: bool,
}

/// Small chunks on their way into one frame.
pub struct Bundle {
    class: BundleClass,
    plain: Vec<u8>,
    rows: Vec<ChunkRow>,
    /// Of deltas: one base a chunk, in order.
    bases: Base,
}

impl Bundle {
    fn new(class: BundleClass, plain: Vec<u8>) -> Self {
        Self { class, plain, rows: Vec::new(), bases: Base::default() }
    }

    pub fn recipient(&self) -> Recipient {
        self.class.recipient
    }

    pub fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.plain.len();
        self.plain.extend_from_slice(bytes);
        start..self.plain.len()
    }

    pub fn bytes(&self, place: &Range<usize>) -> &[u8] {
        &self.plain[place.clone()]
    }

    /// The chunk that was just appended turned out to be known.
    pub fn take_back(&mut self, place: &Range<usize>) {
        assert_eq!(place.end, self.plain.len(), "only the last one can be taken back");
        self.plain.truncate(place.start);
    }

    pub fn keep(&mut self, id: ChunkId, place: &Range<usize>) {
        let row = ChunkRow { id, offset: place.start as u32, len: place.len() as u32 };
        self.rows.push(row);
    }

    fn has_room(&self, base: &Base) -> bool {
        self.rows.len() < FRAME_BASES_MAX as usize
            && self.bases.prefix.len() + base.prefix.len() <= BUNDLE_BASE_BYTES_MAX
    }

    pub fn is_full(&self, full_bytes: usize) -> bool {
        self.plain.len() >= full_bytes || self.rows.len() >= BUNDLE_CHUNKS
    }
}

impl Worker<'_> {
    /// The open bundle of a class, or a new one; `give_back` must follow.
    pub fn take_bundle(&mut self, class: BundleClass) -> Bundle {
        let tools = self.tools();
        match tools.bundles.iter().position(|bundle| bundle.class == class) {
            Some(place) => tools.bundles.remove(place),
            None => Bundle::new(class, tools.spare.pop().unwrap_or_default()),
        }
    }

    /// Bundles are kept in the order of their last use; one too many is stored as it is.
    pub fn give_back(&mut self, bundle: Bundle) -> Result<()> {
        let tools = self.tools();
        if bundle.rows.is_empty() {
            tools.spare.push(bundle.plain);
            return Ok(());
        }
        tools.bundles.push(bundle);
        if tools.bundles.len() > BUNDLES_MAX {
            let mut oldest = tools.bundles.remove(0);
            self.flush_bundle(&mut oldest)?;
            self.give_back(oldest)?;
        }
        Ok(())
    }

    pub fn flush_bundles(&mut self) -> Result<()> {
        let mut bundles = std::mem::take(&mut self.tools().bundles);
        // Content before names, names before references.
        bundles.sort_by_key(|bundle| bundle.class.recipient as u8);
        bundles.iter_mut().try_for_each(|bundle| self.flush_bundle(bundle))
    }

    /// Stores what is in the bundle, which is empty afterwards.
    pub fn flush_bundle(&mut self, bundle: &mut Bundle) -> Result<()> {
        let rows = std::mem::take(&mut bundle.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let BundleClass { recipient, samples, .. } = bundle.class;
        let base = std::mem::take(&mut bundle.bases);
        let frame = match self.delta(recipient, &rows, &bundle.plain, base) {
            Some(frame) => frame,
            None => {
                let frame = self.frame(recipient, rows, &bundle.plain, samples);
                // Bundles are private from the first byte on: what does not come back right was
                // damaged by us.
                self.prove(&frame, &[])?;
                frame
            }
        };
        bundle.plain.clear();
        self.pack(frame)
    }

    /// What a chunk may be told as a delta of.
    pub fn base(&self, bytes: &[u8], about: About) -> Option<Base> {
        let (old, at) = about.old.filter(|_| bytes.len() >= DELTA_BYTES_MIN)?;
        self.work.before.bases.find(old, at, bytes)
    }

    pub fn keep_delta(
        &mut self,
        recipient: Recipient,
        id: ChunkId,
        bytes: &[u8],
        base: Base,
    ) -> Result<()> {
        // One row each, so that a frame has no more than it may, and the base of one chunk is found
        // again.
        let base = base.longest();
        let mut bundle = self.take_bundle(BundleClass { recipient, samples: None, deltas: true });
        if !bundle.has_room(&base) {
            self.flush_bundle(&mut bundle)?;
        }
        let place = bundle.append(bytes);
        bundle.keep(id, &place);
        bundle.bases.add(base);
        if bundle.is_full(self.work.bundle_bytes) {
            self.flush_bundle(&mut bundle)?;
        }
        self.give_back(bundle)
    }

    /// Stores one chunk in a frame of its own. `false`: its bytes are not those of `id`, because the source changed.
    pub fn store_single(
        &mut self,
        recipient: Recipient,
        id: ChunkId,
        private: &[u8],
        about: About,
    ) -> Result<bool> {
        let row = ChunkRow { id, offset: 0, len: private.len() as u32 };
        // A proof would tell; without one the copy is compared with what was hashed.
        let unsure = self.work.options.no_verify && !about.private;
        if unsure && self.work.id(recipient, private)? != id {
            return Ok(false);
        }
        let base = self.base(private, about).unwrap_or_default();
        if let Some(frame) = self.delta(recipient, &[row], private, base) {
            return self.pack(frame).map(|()| true);
        }
        let frame = self.frame(recipient, vec![row], private, about.samples);
        match self.prove(&frame, &[]) {
            Ok(()) => {}
            Err(_) if self.work.id(recipient, private)? != id => return Ok(false),
            Err(error) => return Err(error),
        }
        self.pack(frame)?;
        Ok(true)
    }

    fn frame(
        &mut self,
        recipient: Recipient,
        chunks: Vec<ChunkRow>,
        plain: &[u8],
        samples: Option<Samples>,
    ) -> SealedFrame {
        let Tools { encoder, encoded, .. } = self.tools();
        let (codec, bytes) = encoder.encode(plain, samples, encoded);
        let bytes = exact(bytes);
        let plain_len = plain.len() as u32;
        let encoded = Encoded { codec, bytes, plain_len, chunks, bases: Vec::new() };
        if recipient == Recipient::Data {
            self.work.before.bases.keep(&encoded, samples);
        }
        self.work.packer.session().seal(recipient, encoded)
    }

    /// The chunks as a delta, proven, if there is a base and it pays. A delta that does not come
    /// back right is no error: it is stored in full.
    fn delta(
        &mut self,
        recipient: Recipient,
        chunks: &[ChunkRow],
        plain: &[u8],
        base: Base,
    ) -> Option<SealedFrame> {
        let Base { rows: bases, prefix, worth } = base;
        if bases.is_empty() {
            return None;
        }
        let Tools { encoder, encoded, .. } = self.tools();
        encoder.encode_delta(&prefix, plain, encoded);
        if !worth.pays(encoded.len(), bases.len()) {
            return None;
        }
        let bytes = exact(encoded);
        let (codec, plain_len, chunks) = (Codec::Delta, plain.len() as u32, chunks.to_vec());
        let encoded = Encoded { codec, bytes, plain_len, chunks, bases };
        let frame = self.work.packer.session().seal(recipient, encoded);
        self.prove(&frame, &[&prefix]).is_ok().then_some(frame)
    }

    /// Opens, decodes and hashes a finished frame.
    fn prove(&mut self, frame: &SealedFrame, bases: &[&[u8]]) -> Result<()> {
        let work = self.work;
        if work.options.no_verify {
            return Ok(());
        }
        let Tools { encoder, decoder, encoded, proof, .. } = self.tools();
        let opened = work.packer.session().open(frame, encoded)?;
        decoder.swap_room(encoder);
        let (codec, plain_len) = (frame.codec as u8, frame.plain_len);
        let decoded = decoder.decode_in_place(codec, opened, plain_len, bases, proof);
        decoder.swap_room(encoder);
        let plain = decoded.named("new frame")?;
        for row in &frame.chunks {
            let chunk = &plain[row.offset as usize..][..row.len as usize];
            if work.id(frame.recipient, chunk)? != row.id {
                let cause = "a frame did not decode to what went into it; the memory or CPU of this \
                             machine may be faulty";
                return Err(Error::Damaged {
                    what: format!("new chunk {}", row.id),
                    cause: cause.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn pack(&mut self, frame: SealedFrame) -> Result<()> {
        self.work.packer.add(frame, &|pack| self.hand_over(pack))
    }
}

/// A frame may wait for its pack for long, so it takes no more room than it needs: with its tag.
fn exact(encoded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded.len() + TAG_LEN);
    bytes.extend_from_slice(encoded);
    bytes
}
