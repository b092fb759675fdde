//! A pack read from front to back in large pieces: each byte is fetched and hashed once, and a
//! window of them is kept until the frames in it are dealt with. It does not know what a frame is.

use crate::error::Result;
use crate::format::id::PackId;
use crate::repo::packer::pack_name;
use crate::store::{ObjectName, Store};
use crate::sys::buffer::PageBuffer;

/// One read. A window is one of these and the rest of a frame.
const PIECE_BYTES: u64 = 4 << 20;

/// The buffer that a thread keeps from pack to pack.
pub type Buffer = PageBuffer;

pub struct PackStream<'a> {
    store: &'a dyn Store,
    name: ObjectName,
    len: u64,
    hasher: blake3::Hasher,
    buffer: &'a mut Buffer,
    /// Where the window begins in the pack, and how much of `buffer` it fills.
    start: u64,
    filled: usize,
    on_read: &'a (dyn Fn(u64) -> Result<()> + Sync),
}

impl<'a> PackStream<'a> {
    /// `on_read` hears of every piece, and may end the reading.
    pub fn new(
        store: &'a dyn Store,
        pack: &PackId,
        len: u64,
        buffer: &'a mut Buffer,
        on_read: &'a (dyn Fn(u64) -> Result<()> + Sync),
    ) -> Self {
        let (name, hasher) = (pack_name(pack), blake3::Hasher::new());
        Self { store, name, len, hasher, buffer, start: 0, filled: 0, on_read }
    }

    /// The bytes `from..to` of the pack. `None`: they are not all there, or the window has moved on.
    pub fn range(&mut self, from: u64, to: u64) -> Result<Option<&mut [u8]>> {
        if from < self.start || to > self.len || from > to {
            return Ok(None);
        }
        if to > self.end() {
            self.drop_before(from);
        }
        while self.end() < to {
            self.read_piece()?;
        }
        let (from, to) = ((from - self.start) as usize, (to - self.start) as usize);
        Ok(Some(&mut self.buffer.room(to)[from..]))
    }

    /// Reads what is left, and gives the hash of the whole pack.
    pub fn finish(mut self) -> Result<[u8; 32]> {
        while self.end() < self.len {
            self.start = self.end();
            self.filled = 0;
            self.read_piece()?;
        }
        Ok(*self.hasher.finalize().as_bytes())
    }

    fn end(&self) -> u64 {
        self.start + self.filled as u64
    }

    fn drop_before(&mut self, from: u64) {
        let gone = (from.min(self.end()) - self.start) as usize;
        self.buffer.room(self.filled).copy_within(gone.., 0);
        self.start += gone as u64;
        self.filled -= gone;
    }

    fn read_piece(&mut self) -> Result<()> {
        let at = self.end();
        let piece = PIECE_BYTES.min(self.len - at) as usize;
        let to = self.filled + piece;
        let fresh = &mut self.buffer.room(to)[self.filled..];
        self.store.get_range(&self.name, at, fresh)?;
        self.hasher.update(fresh);
        self.filled = to;
        (self.on_read)(piece as u64)
    }
}
