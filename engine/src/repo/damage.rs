//! Damage, remembered. Frames that do not open, decode or verify are recorded (`damaged/<hash>`): from then on writers
//! treat them as absent, so that the next backup of the good source stores their chunks again, and readers ask the
//! other copies first. Only what was read twice and was bad both times is recorded; a read that failed proves nothing.
//! Nothing is deleted here, and whether anything is lost is not decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::error::{Error, FormatError, Result};
use crate::format::codec::Decoder;
use crate::format::control::{Damage, DamagedFrame};
use crate::format::id::{ObjectHash, PackId, hash};
use crate::format::pack::ChunkRow;
use crate::format::record::Kind;
use crate::format::seal::{Context, Recipient};
use crate::repo::Repo;
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::Packs;
use crate::repo::records::object_name;
use crate::store::StoreError;

/// Suspects kept in one run, about 40 MiB; what is beyond is found by the next run.
const SUSPECTS_MAX: usize = 128 << 10;
/// Frames in one record: about 5 MiB.
const FRAMES_PER_RECORD: usize = 100_000;

/// Frames that looked damaged when an operation met them.
#[derive(Debug, Default)]
pub struct Suspects {
    found: Mutex<BTreeMap<(PackId, u64), Suspect>>,
}

#[derive(Debug)]
struct Suspect {
    frame: FrameAt,
    /// It opened, but this chunk of it was not what it should be.
    chunk: Option<ChunkRow>,
}

impl Suspects {
    pub fn add(&self, frame: &FrameAt, chunk: Option<ChunkRow>) {
        let mut found = self.found.lock().expect("no panic holds this lock");
        if found.len() < SUSPECTS_MAX {
            let suspect = || Suspect { frame: frame.clone(), chunk };
            found.entry((frame.pack.id, frame.row.offset)).or_insert_with(suspect);
        }
    }

    pub fn has(&self, pack: PackId, offset: u64) -> bool {
        self.found.lock().expect("no panic holds this lock").contains_key(&(pack, offset))
    }

    /// Packs with at least one.
    pub fn packs(&self) -> BTreeSet<PackId> {
        let found = self.found.lock().expect("no panic holds this lock");
        found.keys().map(|(pack, _)| *pack).collect()
    }

    fn take(&self) -> Vec<Suspect> {
        let mut found = self.found.lock().expect("no panic holds this lock");
        std::mem::take(&mut *found).into_values().collect()
    }
}

/// Do the bytes themselves prove it? A read that failed, a key that is missing or a newer format do not.
pub(crate) fn is_proof(error: &Error) -> bool {
    match error {
        Error::Format { source, .. } => {
            !matches!(source, FormatError::Newer { .. } | FormatError::Unsupported { .. })
        }
        Error::Damaged { .. } | Error::Store(StoreError::Truncated { .. }) => true,
        _ => false,
    }
}

impl Fetcher<'_> {
    /// Reads every suspect once more and records those that are bad again, with `more` that the caller has proven.
    /// How many frames were recorded now: those that were recorded before are not recorded twice.
    pub fn record_damage(&self, more: Vec<DamagedFrame>, how: &str) -> Result<u64> {
        let mut frames = more;
        let mut decoder = Decoder::new();
        for suspect in self.suspects().take() {
            if self.is_bad(&suspect, &mut decoder)? {
                frames.push(damaged_frame(&suspect.frame));
            }
        }
        self.repo().record_damage(self.index().packs(), frames, how)
    }

    fn is_bad(&self, suspect: &Suspect, decoder: &mut Decoder) -> Result<bool> {
        let Suspect { frame, chunk } = suspect;
        let plain = match self.frame(frame, decoder) {
            Ok(plain) => plain,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            // Was the frame itself found bad once more? A lost base or lost seals make it unreadable too, but are no
            // damage of its own.
            Err(_) => return Ok(self.suspects().has(frame.pack.id, frame.row.offset)),
        };
        let Some(chunk) = chunk else { return Ok(false) };
        let key = match Context::from_bytes(&frame.context.context).map(|context| context.recipient)
        {
            Ok(Recipient::Meta) => self.repo().refid_key(),
            _ => self.repo().id_key()?,
        };
        let start = chunk.offset as usize;
        let bytes = plain.get(start..start.saturating_add(chunk.len as usize));
        Ok(bytes.is_none_or(|bytes| key.id(bytes) != chunk.id))
    }
}

pub(crate) fn damaged_frame(frame: &FrameAt) -> DamagedFrame {
    DamagedFrame { pack: frame.pack.id, offset: frame.row.offset, stored: frame.row.stored }
}

impl Repo {
    /// Writes durable records of those frames that are in none yet. How many there were.
    pub(crate) fn record_damage(
        &self,
        known: &Packs,
        mut frames: Vec<DamagedFrame>,
        how: &str,
    ) -> Result<u64> {
        frames.retain(|frame| !known.damaged.contains(&(frame.pack, frame.offset)));
        frames.sort_unstable_by_key(|frame| (frame.pack, frame.offset));
        frames.dedup_by_key(|frame| (frame.pack, frame.offset));
        for part in frames.chunks(FRAMES_PER_RECORD) {
            let time_ns = self.env().now();
            let damage = Damage { frames: part.to_vec(), time_ns, found: how.to_owned() };
            let body = self.seal_record(Kind::Damage, &damage.to_cbor())?;
            let bytes = self.signed(Kind::Damage, &body, "damaged/");
            let name = object_name(&format!("damaged/{}", ObjectHash(hash(&bytes))))?;
            self.store().put_if_absent(&name, &bytes)?;
        }
        Ok(frames.len() as u64)
    }
}
