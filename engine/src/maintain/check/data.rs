//! A pack read whole: its bytes held to its name, every frame that the key can open opened and
//! decoded, every chunk proven by its id. Bounded: a thread holds one window of the pack and one
//! decoded frame.

use std::sync::Arc;

use super::Check;
use super::findings::{DamageIndex, cause_of};
use super::stream::{Buffer, PackStream};
use super::without_key::ROTTEN;
use crate::error::{Error, Named, Result};
use crate::format::codec::Decoder;
use crate::format::id::{ChunkId, IdKey};
use crate::format::index::PackRow;
use crate::format::pack::ChunkRow;
use crate::format::seal::{Context, Recipient};
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
pub fn frames(segment: &Arc<Segment>, positions: impl Iterator<Item = u32>) -> Vec<Frame> {
    let run = segment.run();
    let place = |position| run.location(position).expect("validated with its run");
    let mut places: Vec<_> = positions.map(place).collect();
    places
        .sort_unstable_by_key(|place| (place.frame.offset, place.frame_index, place.chunk.offset));
    let mut frames: Vec<Frame> = Vec::new();
    for part in places.chunk_by(|a, b| a.frame_index == b.frame_index) {
        let copy = Copy { place: part[0], segment: segment.clone() };
        let chunks = part.iter().map(|place| place.chunk).collect();
        frames.push(Frame { at: FrameAt::of(&copy), chunks });
    }
    frames
}

/// Reads the pack; chunks that are not what they should be go to `damaged`.
pub fn read_pack(
    check: &Check,
    fetcher: &Fetcher,
    pack: &PackRow,
    frames: &[Frame],
    scratch: &mut Scratch,
    damaged: &mut Vec<(ChunkId, DamageIndex)>,
) -> Result<()> {
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
        let bad = match check
            .findings
            .sort(name, proven.map_err(|error| at_frame(frame, name, &error)))?
        {
            Ok(bad) => bad,
            // A notice has been given.
            Err(None) => continue,
            Err(Some(damage)) => {
                damaged.extend(frame.chunks.iter().map(|chunk| (chunk.id, damage)));
                continue;
            }
        };
        for chunk in bad {
            let offset = frame.at.row.offset;
            let what = format!("frame at {offset}: its bytes are not those of chunk {chunk}");
            damaged.push((chunk, check.findings.damage(name, &what)));
        }
    }
    let Some(hash) = check.findings.take(name, stream.finish())? else { return Ok(()) };
    if hash != pack.id.0 {
        check.findings.damage(name, ROTTEN);
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
    let Some(key) = key_of(check, frame, name.as_str())? else { return Ok(Vec::new()) };
    let row = &frame.at.row;
    let end = row.offset + u64::from(row.stored);
    let stored = stream.range(row.offset, end)?.ok_or_else(|| Error::Damaged {
        what: name.to_string(),
        cause: "it overlaps another frame, or ends behind the pack".to_owned(),
    })?;
    fetcher.open(&frame.at, stored, decoder, plain)?;
    let proven = |chunk: &&ChunkRow| {
        let start = chunk.offset as usize;
        let bytes = plain.get(start..start + chunk.len as usize);
        bytes.is_some_and(|bytes| key.id(bytes) == chunk.id)
    };
    Ok(frame.chunks.iter().filter(|chunk| !proven(chunk)).map(|chunk| chunk.id).collect())
}

/// The key of the chunk ids in this frame. `None`: our role opens no such frames, so it is held to
/// the pack's hash only.
fn key_of<'a>(check: &Check<'a>, frame: &Frame, name: &str) -> Result<Option<&'a IdKey>> {
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
        other => cause_of(pack, other),
    };
    let count = frame.chunks.len();
    let cause = format!("frame at {offset}: {cause} ({count} chunks)");
    Error::Damaged { what: pack.to_owned(), cause }
}
