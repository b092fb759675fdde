//! New chunks → frames: compressed (or not), sealed, and proven by opening, decoding and hashing
//! what came out, before anyone may rely on it. Large chunks have a frame of their own, small ones
//! share one.

use std::ops::Range;

use crate::backup::work::Worker;
use crate::error::{Error, Named, Result};
use crate::format::codec::Codec;
use crate::format::id::ChunkId;
use crate::format::pack::ChunkRow;
use crate::format::seal::Recipient;
use crate::repo::session::{Encoded, SealedFrame};

const BUNDLE_CHUNKS: usize = 16_384;

/// Small chunks on their way into one frame.
pub struct Bundle {
    recipient: Recipient,
    plain: Vec<u8>,
    rows: Vec<ChunkRow>,
}

impl Bundle {
    pub fn new(recipient: Recipient) -> Self {
        Self { recipient, plain: Vec::new(), rows: Vec::new() }
    }

    pub fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.plain.len();
        self.plain.extend_from_slice(bytes);
        start..self.plain.len()
    }

    /// The chunk that was just appended turned out to be known.
    pub fn take_back(&mut self, place: &Range<usize>) {
        assert_eq!(place.end, self.plain.len(), "only the last one can be taken back");
        self.plain.truncate(place.start);
    }

    /// `true`: the bundle is full.
    pub fn keep(&mut self, id: ChunkId, place: &Range<usize>, full_bytes: usize) -> bool {
        let row = ChunkRow { id, offset: place.start as u32, len: place.len() as u32 };
        self.rows.push(row);
        self.plain.len() >= full_bytes || self.rows.len() >= BUNDLE_CHUNKS
    }
}

impl Worker<'_> {
    pub fn bundle(&mut self, recipient: Recipient) -> &mut Bundle {
        &mut self.bundles[recipient as usize - 1]
    }

    pub fn bundle_bytes(&self, recipient: Recipient, place: &Range<usize>) -> &[u8] {
        &self.bundles[recipient as usize - 1].plain[place.clone()]
    }

    pub fn flush_bundle(&mut self, recipient: Recipient) -> Result<()> {
        let bundle = std::mem::replace(self.bundle(recipient), Bundle::new(recipient));
        if bundle.rows.is_empty() {
            return Ok(());
        }
        let frame = self.frame(bundle.recipient, bundle.rows, &bundle.plain);
        // Bundles are private from the first byte on: what does not come back right was damaged by us.
        self.prove(&frame)?;
        self.pack(frame)?;
        let mut plain = bundle.plain;
        plain.clear();
        self.bundle(recipient).plain = plain;
        Ok(())
    }

    /// Stores one chunk in a frame of its own. `false`: its bytes are not those of `id`, because the source changed.
    pub fn store_single(
        &mut self,
        recipient: Recipient,
        id: ChunkId,
        private: &[u8],
    ) -> Result<bool> {
        let row = ChunkRow { id, offset: 0, len: private.len() as u32 };
        if self.work.options.no_verify && self.work.id(recipient, private)? != id {
            return Ok(false);
        }
        let frame = self.frame(recipient, vec![row], private);
        match self.prove(&frame) {
            Ok(()) => {}
            Err(_) if self.work.id(recipient, private)? != id => return Ok(false),
            Err(error) => return Err(error),
        }
        self.pack(frame)?;
        Ok(true)
    }

    fn frame(&mut self, recipient: Recipient, chunks: Vec<ChunkRow>, plain: &[u8]) -> SealedFrame {
        let mut bytes = Vec::with_capacity(plain.len() / 2 + 64);
        let codec = self.encoder.encode_plain(plain, &mut bytes);
        let plain_len = plain.len() as u32;
        let encoded = Encoded { codec, bytes, plain_len, chunks, bases: Vec::new() };
        self.work.packer.session().seal(recipient, encoded)
    }

    /// Opens, decodes and hashes a finished frame.
    fn prove(&mut self, frame: &SealedFrame) -> Result<()> {
        if self.work.options.no_verify {
            return Ok(());
        }
        let session = self.work.packer.session();
        let encoded = session.open(frame, &mut self.opened)?;
        let plain = if frame.codec == Codec::Stored && encoded.len() == frame.plain_len as usize {
            encoded
        } else {
            let codec = frame.codec as u8;
            self.decoder
                .decode(codec, encoded, frame.plain_len, &[], &mut self.proof)
                .named("new frame")?;
            &self.proof[..]
        };
        for row in &frame.chunks {
            let chunk = &plain[row.offset as usize..][..row.len as usize];
            if self.work.id(frame.recipient, chunk)? != row.id {
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
