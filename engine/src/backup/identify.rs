//! Chunk → id → known? What is known costs a hash and a look-up; what is new is copied, because the source may change
//! underneath, and goes on to be encoded.

use std::ops::Range;

use crate::backup::encode::{Bundle, BundleClass};
use crate::backup::old::Old;
use crate::backup::work::{Work, Worker};
use crate::error::Result;
use crate::format::codec::Samples;
use crate::format::id::ChunkId;
use crate::format::seal::Recipient;
use crate::repo::lookup::Claim;
use crate::watch::Counter;

/// What is known of a chunk beside its bytes, to store it in less space.
#[derive(Clone, Copy, Default)]
pub struct About<'a> {
    pub samples: Option<Samples>,
    /// The file's last version, and the chunk's offset in the file.
    pub old: Option<(&'a Old, u64)>,
    /// Nobody else can change the bytes: they need not be copied first.
    pub private: bool,
}

impl Worker<'_> {
    /// Makes sure that a chunk is stored, and gives its id. `bytes` may be a map whose file
    /// changes: the id is that of bytes that were really stored.
    pub fn store(&mut self, recipient: Recipient, bytes: &[u8], about: About) -> Result<ChunkId> {
        if bytes.len() < self.work.bundle_below_bytes {
            return self.with_tools(|worker| worker.store_small(recipient, bytes, about));
        }
        let id = self.work.id(recipient, bytes)?;
        if self.work.index.claim(&id) == Claim::Known {
            self.work.count(Counter::ChunksKnown, 1);
            return Ok(id);
        }
        self.with_tools(|worker| worker.store_new(recipient, id, bytes, about))
    }

    /// A claimed chunk, copied first unless nobody else can change it.
    fn store_new(
        &mut self,
        recipient: Recipient,
        claimed: ChunkId,
        bytes: &[u8],
        about: About,
    ) -> Result<ChunkId> {
        if about.private {
            return self.store_private(recipient, claimed, bytes, about);
        }
        let mut private = std::mem::take(&mut self.tools().private);
        private.clear();
        private.extend_from_slice(bytes);
        let stored = self.store_private(recipient, claimed, &private, about);
        self.tools().private = private;
        stored
    }

    /// A claimed chunk in private bytes; if the source changed between hashing and copying, the copy's own id counts.
    fn store_private(
        &mut self,
        recipient: Recipient,
        claimed: ChunkId,
        private: &[u8],
        about: About,
    ) -> Result<ChunkId> {
        if self.store_single(recipient, claimed, private, about)? {
            self.count_new(private.len());
            return Ok(claimed);
        }
        self.work.index.release(&claimed);
        let id = self.work.id(recipient, private)?;
        if self.work.index.claim(&id) == Claim::Known {
            self.work.count(Counter::ChunksKnown, 1);
            return Ok(id);
        }
        let stored = self.store_single(recipient, id, private, about)?;
        assert!(stored, "a private copy does not change");
        self.count_new(private.len());
        Ok(id)
    }

    /// Small chunks are copied first, into the bundle, and hashed there.
    fn store_small(&mut self, recipient: Recipient, bytes: &[u8], about: About) -> Result<ChunkId> {
        let class = BundleClass { recipient, samples: about.samples, deltas: false };
        let mut bundle = self.take_bundle(class);
        let place = bundle.append(bytes);
        let id = self.work.id(recipient, bundle.bytes(&place));
        let new = id.as_ref().is_ok_and(|id| self.work.index.claim(id) == Claim::New);
        let stored = match id {
            Ok(id) if new => {
                self.count_new(bytes.len());
                self.keep(&mut bundle, id, &place, about).map(|()| id)
            }
            known => {
                self.work.count(Counter::ChunksKnown, 1);
                bundle.take_back(&place);
                known
            }
        };
        self.give_back(bundle)?;
        stored
    }

    /// A new small chunk goes into a bundle of deltas if it resembles what was there before.
    fn keep(
        &mut self,
        bundle: &mut Bundle,
        id: ChunkId,
        place: &Range<usize>,
        about: About,
    ) -> Result<()> {
        if let Some(base) = self.base(bundle.bytes(place), about) {
            let delta = bundle.bytes(place).to_vec();
            bundle.take_back(place);
            return self.keep_delta(bundle.recipient(), id, &delta, base);
        }
        bundle.keep(id, place);
        if bundle.is_full(self.work.bundle_bytes) { self.flush_bundle(bundle) } else { Ok(()) }
    }

    fn count_new(&self, len: usize) {
        self.work.count(Counter::ChunksNew, 1);
        self.work.count(Counter::BytesNew, len as u64);
    }
}

impl Work<'_> {
    pub fn id(&self, recipient: Recipient, bytes: &[u8]) -> Result<ChunkId> {
        Ok(match recipient {
            Recipient::Meta => self.repo.refid_key().id(bytes),
            _ => self.repo.id_key()?.id(bytes),
        })
    }
}
