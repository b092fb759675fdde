//! What is wanted, sorted by where it lies, read in large ranges; then each frame opened and
//! decoded, each chunk verified by its id, and written wherever it is needed. What one copy does
//! not give is asked of the others.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::id::ChunkId;
use crate::repo::fetch::{FrameAt, GRID_BYTES};
use crate::repo::lookup::Copy;
use crate::repo::packer::pack_name;
use crate::restore::work::{Work, Worker};
use crate::restore::write::FilePlan;

/// Frames are read together up to so many bytes.
const READ_BYTES_MAX: u64 = 8 << 20;
/// And up to so many plain bytes: a night of deltas is a few MiB, and work for all threads.
const READ_PLAIN_MAX: u64 = 4 << 20;
/// A gap below this is read along: cheaper than another request.
const GAP_BYTES_MAX: u64 = 256 << 10;

/// A chunk that a file waits for, and its offset there.
pub struct Want {
    pub file: Arc<FilePlan>,
    pub at: u64,
    pub id: ChunkId,
    pub len: u32,
}

/// One request to the store, and what is made of it.
pub struct Read {
    start: u64,
    end: u64,
    /// Bytes of its frames when they are decoded.
    plain: u64,
    frames: Vec<FrameRead>,
}

struct FrameRead {
    frame: FrameAt,
    /// In the order of their places in the frame.
    chunks: Vec<Wanted>,
}

struct Wanted {
    want: Want,
    offset: u32,
}

/// Turns wants into reads, in the order of packs and offsets. A chunk that is nowhere fails its
/// file.
pub fn reads(
    work: &Work,
    wants: Vec<Want>,
    each: &mut dyn FnMut(Read) -> Result<()>,
) -> Result<()> {
    let mut found: Vec<(Copy, Want)> = Vec::with_capacity(wants.len());
    for want in wants {
        match work.fetcher.index().copies(&want.id).into_iter().next() {
            Some(copy) => found.push((copy, want)),
            None => work.elsewhere(&[Wanted { want, offset: 0 }])?,
        }
    }
    found.sort_by_cached_key(|(copy, _)| {
        (copy.place.pack.id, copy.place.frame.offset, copy.place.chunk.offset)
    });
    let mut reads: Vec<Read> = Vec::new();
    for (copy, want) in found {
        let wanted = Wanted { want, offset: copy.place.chunk.offset };
        let last = reads.last_mut().and_then(|read| read.frames.last_mut());
        if let Some(last) = last.filter(|last| last.is(&copy)) {
            last.chunks.push(wanted);
            continue;
        }
        let (start, end) = grid_range(&copy);
        let frame = FrameRead { frame: FrameAt::of(&copy), chunks: vec![wanted] };
        match reads.last_mut() {
            Some(read) if read.takes(&copy, start, end) => {
                read.end = read.end.max(end);
                read.plain += u64::from(frame.frame.row.plain);
                read.frames.push(frame);
            }
            _ => {
                let plain = frame.frame.row.plain.into();
                reads.push(Read { start, end, plain, frames: vec![frame] });
            }
        }
    }
    in_turns(reads, work.repo.env().threads(), each)
}

/// Hands out the reads of several parts in turns, each part in order: workers that write to
/// different files do not wait for each other's.
fn in_turns(
    reads: Vec<Read>,
    parts: usize,
    each: &mut dyn FnMut(Read) -> Result<()>,
) -> Result<()> {
    let part = reads.len().div_ceil(parts).max(1);
    let mut reads: Vec<Option<Read>> = reads.into_iter().map(Some).collect();
    for turn in 0..part {
        for at in (turn..reads.len()).step_by(part) {
            reads[at].take().map_or(Ok(()), &mut *each)?;
        }
    }
    Ok(())
}

/// Where a frame's bytes are, widened to the grid.
fn grid_range(copy: &Copy) -> (u64, u64) {
    let frame = &copy.place.frame;
    let end = (frame.offset + u64::from(frame.stored)).next_multiple_of(GRID_BYTES);
    (frame.offset / GRID_BYTES * GRID_BYTES, end.min(copy.place.pack.len))
}

impl FrameRead {
    fn is(&self, copy: &Copy) -> bool {
        self.frame.pack.id == copy.place.pack.id && self.frame.row.offset == copy.place.frame.offset
    }
}

impl Read {
    fn takes(&self, copy: &Copy, start: u64, end: u64) -> bool {
        self.frames[0].frame.pack.id == copy.place.pack.id
            && start < self.end + GAP_BYTES_MAX
            && end - self.start <= READ_BYTES_MAX
            && self.plain + u64::from(copy.place.frame.plain) <= READ_PLAIN_MAX
    }
}

impl Worker<'_> {
    pub fn read(&mut self, read: Read) -> Result<()> {
        let len = (read.end - read.start) as usize;
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.room(len);
        let name = pack_name(&read.frames[0].frame.pack.id);
        let arrived = self.work.repo.store().get_range(&name, read.start, bytes);
        for frame in read.frames {
            let from = (frame.frame.row.offset - read.start) as usize;
            let stored = &mut bytes[from..from + frame.frame.row.stored as usize];
            let stored = arrived.is_ok().then_some(stored);
            self.frame(frame, stored)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// `stored`: its bytes, if they could be read.
    fn frame(&mut self, read: FrameRead, stored: Option<&mut [u8]>) -> Result<()> {
        self.work.go_on()?;
        let opened = stored.map(|stored| {
            self.work.fetcher.open(&read.frame, stored, &mut self.decoder, &mut self.plain)
        });
        let plain = match opened {
            Some(Ok(plain)) => plain,
            Some(Err(error @ Error::Role { .. })) => return Err(error),
            // Nothing is there; every chunk is asked of its other copies.
            Some(Err(_)) | None => &[],
        };
        for same in read.chunks.chunk_by(|a, b| a.want.id == b.want.id) {
            let first = &same[0];
            let start = first.offset as usize;
            let bytes = plain.get(start..start.saturating_add(first.want.len as usize));
            match bytes.filter(|bytes| self.work.key.id(bytes) == first.want.id) {
                Some(bytes) => self.work.deliver(same, bytes)?,
                None => self.work.elsewhere(same)?,
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    fn deliver(&self, same: &[Wanted], bytes: &[u8]) -> Result<()> {
        for Wanted { want, .. } in same {
            if want.len as usize == bytes.len() {
                self.write(&want.file, want.at, bytes)?;
            } else {
                let cause = format!("chunk {} has another length than stated", want.id);
                want.file.fail(cause);
                self.done(&want.file)?;
            }
        }
        Ok(())
    }

    /// Tries every copy of a chunk; without one, the files that need it are lost.
    fn elsewhere(&self, same: &[Wanted]) -> Result<()> {
        match self.fetcher.chunk(&same[0].want.id, self.key) {
            Ok(bytes) => self.deliver(same, &bytes),
            Err(error @ (Error::Role { .. } | Error::Interrupted)) => Err(error),
            Err(error) => same.iter().try_for_each(|Wanted { want, .. }| {
                want.file.fail(&error);
                self.done(&want.file)
            }),
        }
    }
}
