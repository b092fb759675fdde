//! What of an existing file is as the snapshot has it: each chunk's bytes are read at its offset
//! and hashed, holes must read as zeros. It says what differs; fetching that is for others.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::format::id::IdKey;
use crate::repo::trees::Piece;
use crate::restore::fetch::Want;
use crate::restore::target::DirPlan;
use crate::restore::work::{Sum, Work, Worker};
use crate::restore::write::FilePlan;
use crate::sys::buffer::PageBuffer;
use crate::sys::file::{data_ranges, is_zero_run, read_full_at};
use crate::sys::stat::Stat;

/// Pieces in one task: enough to make opening the file cheap, few enough to spread the work.
pub const PIECES_MAX: usize = 64;
/// Read at a time where a hole should be.
const ZEROS_BYTES: u64 = 1 << 20;

/// Pieces of an existing file, with their offsets. The file waits for each of them.
pub struct Compare {
    pub file: Arc<FilePlan>,
    pub pieces: Vec<(u64, Piece)>,
}

/// A file that is there, opened for reading.
pub struct Existing {
    file: File,
    stat: Stat,
    /// Where it has data, once somebody asked.
    data: Option<Vec<Range<u64>>>,
}

impl Existing {
    pub fn open(work: &Work, dir: &DirPlan, name: &[u8]) -> io::Result<Self> {
        let (file, stat) = work.target.place(dir)?.open_file(name)?;
        Ok(Self { file, stat, data: None })
    }

    /// Is this piece there? What cannot be read is not.
    pub fn holds(&mut self, key: &IdKey, at: u64, piece: &Piece, buffer: &mut PageBuffer) -> bool {
        match piece {
            Piece::Chunk { id, len } => {
                let room = buffer.room(*len as usize);
                let read = read_full_at(&self.file, at, room);
                read.is_ok_and(|read| read == room.len()) && key.id(room) == *id
            }
            Piece::Hole { len } => self.is_zero(at, *len, buffer).unwrap_or(false),
        }
    }

    /// What lies beyond the end of the file will be a hole when it gets its length.
    fn is_zero(&mut self, at: u64, len: u64, buffer: &mut PageBuffer) -> io::Result<bool> {
        let end = at.saturating_add(len).min(self.stat.size);
        if self.data.is_none() {
            let sparse = self.stat.blocks * 512 < self.stat.size;
            let whole = || std::iter::once(0..self.stat.size).collect();
            let data = if sparse { data_ranges(&self.file, self.stat.size)? } else { whole() };
            self.data = Some(data);
        }
        let data = self.data.as_deref().unwrap_or_default();
        let first = data.partition_point(|range| range.end <= at);
        for range in data[first..].iter().take_while(|range| range.start < end) {
            let (mut position, end) = (range.start.max(at), range.end.min(end));
            while position < end {
                let step = (end - position).min(ZEROS_BYTES) as usize;
                let room = buffer.room(step);
                let read = read_full_at(&self.file, position, room)?;
                if !is_zero_run(&room[..read]) {
                    return Ok(false);
                }
                position += step as u64;
            }
        }
        Ok(true)
    }
}

impl Worker<'_> {
    /// The chunks that differ, for which the file goes on waiting. Holes are put right at once.
    pub fn compare(&mut self, compare: Compare) -> Result<Vec<Want>> {
        let Compare { file, pieces } = compare;
        let work = self.work;
        let mut existing = match Existing::open(work, &file.dir, &file.name) {
            Ok(existing) => existing,
            Err(error) => {
                file.fail(work.of_entry(&file.dir, &file.name, error)?);
                pieces.iter().try_for_each(|_| work.done(&file))?;
                return Ok(Vec::new());
            }
        };
        let mut differing = Vec::new();
        for (at, piece) in pieces {
            if existing.holds(work.key, at, &piece, &mut self.buffer) {
                work.bytes(Sum::BytesInPlace, piece.bytes());
                work.done(&file)?;
                continue;
            }
            match piece {
                Piece::Chunk { id, len } => {
                    differing.push(Want { file: file.clone(), at, id, len })
                }
                Piece::Hole { len } => work.punch(&file, at, len)?,
            }
        }
        Ok(differing)
    }
}
