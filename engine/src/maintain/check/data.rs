//! A pack read whole: its bytes held to its name, every frame that the key can open opened and
//! decoded, every chunk proven by its id. Bounded: a thread holds one window of the pack and one
//! decoded frame.

use std::sync::Arc;

use super::Check;
use super::findings::{DamageIndex, Scope, cause_of};
use super::stream::{Buffer, PackStream};
use super::without_key::ROTTEN;
use crate::error::{Error, Named, Result};
use crate::format::codec::Decoder;
use crate::format::control::DamagedFrame;
use crate::format::id::{ChunkId, IdKey};
use crate::format::index::PackRow;
use crate::format::pack::ChunkRow;
use crate::format::seal::{Context, Recipient};
use crate::repo::damage::{damaged_frame, is_proof};
use crate::repo::fetch::{Fetcher, FrameAt};
use crate::repo::lookup::Copy;
use crate::repo::packer::pack_name;
use crate::repo::segment::Segment;

/// What a thread keeps from pack to pack.
#[derive(Default)]
pub struct Scratch {
    window: Buffer,
    plain: Vec<u8>,
    decoder: Decoder,
}

/// A frame to prove, with those of its chunks that the run knows.
pub struct Frame {
    at: FrameAt,
    chunks: Vec<ChunkRow>,
}

/// The frames of one pack in the order in which they lie, from the positions of its chunks in a run.
pub fn frames(segment: &Arc<Segment>, positions: impl Iterator<Item = u32>) -> Result<Vec<Frame>> {
    let place = |position| segment.location(position).ok_or_else(|| segment.cut_short());
    let mut places = positions.map(place).collect::<Result<Vec<_>>>()?;
    places
        .sort_unstable_by_key(|place| (place.frame.offset, place.frame_index, place.chunk.offset));
    let mut frames: Vec<Frame> = Vec::new();
    for part in places.chunk_by(|a, b| a.frame_index == b.frame_index) {
        let copy = Copy { place: part[0], segment: segment.clone() };
        let chunks = part.iter().map(|place| place.chunk).collect();
        frames.push(Frame { at: FrameAt::of(&copy), chunks });
    }
    Ok(frames)
}

impl Frame {
    pub fn place(&self) -> DamagedFrame {
        damaged_frame(&self.at)
    }

    /// Suspects the copies of these chunks.
    fn suspect(&self, check: &Check, what: &str, chunks: &[ChunkId], damaged: &mut Damaged) {
        let pack = self.at.pack.id;
        let scope = Scope::Chunks(pack, chunks.to_vec());
        let damage = check.findings.suspect(pack_name(&pack).as_str(), what, scope);
        damaged.extend(chunks.iter().map(|chunk| (*chunk, damage)));
    }

    fn ids(&self) -> Vec<ChunkId> {
        self.chunks.iter().map(|chunk| chunk.id).collect()
    }
}

/// Copies of chunks that are bad.
pub type Damaged = Vec<(ChunkId, DamageIndex)>;

/// Reads the pack; chunks that are not what they should be go to `damaged`. Does the pack match its name?
pub fn read_pack(
    check: &Check,
    fetcher: &Fetcher,
    pack: &PackRow,
    frames: &[Frame],
    (scratch, damaged): (&mut Scratch, &mut Damaged),
) -> Result<bool> {
    let name = pack_name(&pack.id);
    let name = name.as_str();
    let on_read = |bytes| {
        check.read(bytes);
        check.go_on()
    };
    let Scratch { window, plain, decoder } = scratch;
    let store = &**check.repo.store();
    let mut stream = PackStream::new(store, &pack.id, pack.len, window, &on_read);
    for frame in frames {
        let proven = prove(check, fetcher, frame, &mut stream, decoder, plain);
        judge(check, frame, proven, damaged)?;
    }
    let Some(hash) = check.findings.take(name, stream.finish())? else { return Ok(true) };
    if hash == pack.id.0 {
        return Ok(true);
    }
    check.findings.suspect(name, ROTTEN, Scope::Rot(pack.id));
    Ok(false)
}

/// Without reading the pack: frames of it that are recorded as damaged. They may be sound again, if it was the way to
/// them that was bad.
pub fn look_again(
    check: &Check,
    fetcher: &Fetcher,
    frames: &[Frame],
    damaged: &mut Damaged,
) -> Result<()> {
    let recorded = &fetcher.index().packs().damaged;
    let is_recorded = |frame: &&Frame| recorded.contains(&(frame.at.pack.id, frame.at.row.offset));
    let mut decoder = Decoder::new();
    for frame in frames.iter().filter(is_recorded) {
        if look(check, fetcher, frame, &mut decoder, damaged)? {
            let what = "a frame that is recorded as damaged can be read: nothing is lost by it";
            check.findings.notice(pack_name(&frame.at.pack.id).as_str(), what);
        }
    }
    Ok(())
}

/// Frames that there is a reason to doubt, one by one. What our role cannot open passes for bad.
pub fn look_at(
    check: &Check,
    fetcher: &Fetcher,
    frames: &[Frame],
    damaged: &mut Damaged,
) -> Result<()> {
    let mut decoder = Decoder::new();
    for frame in frames {
        look(check, fetcher, frame, &mut decoder, damaged)?;
    }
    Ok(())
}

/// Is it sound?
fn look(
    check: &Check,
    fetcher: &Fetcher,
    frame: &Frame,
    decoder: &mut Decoder,
    damaged: &mut Damaged,
) -> Result<bool> {
    check.go_on()?;
    let (pack, offset) = (pack_name(&frame.at.pack.id), frame.at.row.offset);
    let proven = key_of(check, fetcher, frame, pack.as_str()).and_then(|key| {
        let Some(key) = key else {
            let cause = "it is not where its index run says, as far as can be seen".to_owned();
            return Err(Error::Damaged { what: format!("{pack} frame at {offset}"), cause });
        };
        let plain = fetcher.frame(&frame.at, decoder)?;
        let bad = frame.not_theirs(&plain, key);
        suspect_all(fetcher, frame, &bad);
        Ok(bad)
    });
    let is_sound = proven.as_ref().is_ok_and(Vec::is_empty);
    judge(check, frame, proven, damaged)?;
    Ok(is_sound)
}

fn suspect_all(fetcher: &Fetcher, frame: &Frame, bad: &[ChunkId]) {
    for chunk in frame.chunks.iter().filter(|chunk| bad.contains(&chunk.id)) {
        fetcher.suspects().add(&frame.at, Some(*chunk));
    }
}

/// What the proof of a frame means for its chunks.
fn judge(
    check: &Check,
    frame: &Frame,
    proven: Result<Vec<ChunkId>>,
    damaged: &mut Damaged,
) -> Result<()> {
    let name = pack_name(&frame.at.pack.id);
    let name = name.as_str();
    let is_proven = proven.as_ref().is_err_and(is_proof);
    match proven.map_err(|error| at_frame(frame, name, &error)) {
        Ok(bad) => {
            for chunk in bad {
                let offset = frame.at.row.offset;
                let what = format!("frame at {offset}: its bytes are not those of chunk {chunk}");
                frame.suspect(check, &what, &[chunk], damaged);
            }
        }
        Err(error) if is_proven => {
            frame.suspect(check, &cause_of(name, &error), &frame.ids(), damaged);
        }
        // A notice has been given, or it is a damage whose extent is not known.
        Err(error) => {
            if let Err(Some(damage)) = check.findings.sort::<()>(name, Err(error))? {
                damaged.extend(frame.chunks.iter().map(|chunk| (chunk.id, damage)));
            }
        }
    }
    Ok(())
}

/// Chunks whose bytes are not theirs; an error if the frame does not open or decode.
fn prove(
    check: &Check,
    fetcher: &Fetcher,
    frame: &Frame,
    stream: &mut PackStream,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
) -> Result<Vec<ChunkId>> {
    let name = pack_name(&frame.at.pack.id);
    let Some(key) = key_of(check, fetcher, frame, name.as_str())? else { return Ok(Vec::new()) };
    let row = &frame.at.row;
    let end = row.offset + u64::from(row.stored);
    let stored = stream.range(row.offset, end)?.ok_or_else(|| Error::Damaged {
        what: name.to_string(),
        cause: "it overlaps another frame, or ends behind the pack".to_owned(),
    })?;
    let opened = fetcher.open(&frame.at, stored, decoder, plain)?;
    let bad = frame.not_theirs(opened, key);
    suspect_all(fetcher, frame, &bad);
    Ok(bad)
}

impl Frame {
    /// Chunks whose bytes are not those of their ids.
    fn not_theirs(&self, plain: &[u8], key: &IdKey) -> Vec<ChunkId> {
        let proven = |chunk: &&ChunkRow| {
            let start = chunk.offset as usize;
            let bytes = plain.get(start..start + chunk.len as usize);
            bytes.is_some_and(|bytes| key.id(bytes) == chunk.id)
        };
        self.chunks.iter().filter(|chunk| !proven(chunk)).map(|chunk| chunk.id).collect()
    }
}

/// The key of the chunk ids in this frame. `None`: our role opens no such frames, so it is held to
/// the pack's hash only.
fn key_of<'a>(
    check: &Check<'a>,
    fetcher: &Fetcher,
    frame: &Frame,
    name: &str,
) -> Result<Option<&'a IdKey>> {
    let recipient = Context::from_bytes(&frame.at.context.context).named(name)?.recipient;
    let key = match recipient {
        _ if !check.repo.reads(recipient) => None,
        Recipient::Meta => Some(check.repo.refid_key()),
        Recipient::Data | Recipient::Tree => check.repo.id_key().ok(),
        Recipient::Index => {
            let cause = "a frame is sealed to INDEX".to_owned();
            return Err(Error::Damaged { what: name.to_owned(), cause });
        }
    };
    if key.is_none() {
        let place = (frame.at.pack.id, frame.at.row.offset);
        if fetcher.index().packs().damaged.contains(&place) {
            let cause = "it is recorded as damaged".to_owned();
            return Err(Error::Damaged { what: format!("{name} frame at {}", place.1), cause });
        }
        let what =
            format!("role {} cannot open all frames: held to their hash only", check.repo.role());
        check.findings.notice("packs", &what);
    }
    Ok(key)
}

/// Says which frame it was; what is not about the frame stays as it is.
fn at_frame(frame: &Frame, pack: &str, error: &Error) -> Error {
    let offset = frame.at.row.offset;
    let named = format!("{pack} frame at {offset}");
    let cause = match error {
        Error::Interrupted => return Error::Interrupted,
        Error::Role { role, needs } => return Error::Role { role: *role, needs },
        // One failing read is one damage, however many frames it costs.
        Error::Store(_) => {
            return Error::Damaged { what: pack.to_owned(), cause: cause_of(pack, error) };
        }
        Error::Format { name, source } if *name == named => source.to_string(),
        Error::Damaged { what, cause } if *what == named => cause.clone(),
        other => cause_of(pack, other),
    };
    let count = frame.chunks.len();
    let cause = format!("frame at {offset}: {cause} ({count} chunks)");
    Error::Damaged { what: pack.to_owned(), cause }
}
