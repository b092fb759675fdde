//! A buffer to read files into that begins on a page, as pages of the page cache do. Where it lies
//! 16 bytes behind one, as large allocations of malloc do, the kernel's copy (`rep movsb`) takes
//! 3.5 times as long on AMD Zen 3 (`docs/performance.md`); elsewhere it costs nothing.

const PAGE_BYTES: usize = 4096;

#[derive(Debug, Default)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    /// Where the first page begins.
    lead: usize,
}

impl PageBuffer {
    /// Its first `len` bytes: as they were left, zeros where they are new.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < self.lead + len {
            let old = &self.bytes[self.lead..];
            let len = len.max(old.len() + old.len() / 2);
            let mut bytes = vec![0; len + PAGE_BYTES];
            let lead = (bytes.as_ptr() as usize).wrapping_neg() % PAGE_BYTES;
            bytes[lead..lead + old.len()].copy_from_slice(old);
            (self.bytes, self.lead) = (bytes, lead);
        }
        &mut self.bytes[self.lead..self.lead + len]
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_BYTES, PageBuffer};

    #[test]
    fn it_begins_on_a_page_and_keeps_what_is_in_it() {
        let mut buffer = PageBuffer::default();
        assert!(buffer.room(0).is_empty());
        let mut held: Vec<u8> = Vec::new();
        for len in [1, 4096, 4097, 3, 100_000, 1 << 20, 5] {
            let room = buffer.room(len);
            assert_eq!(room.len(), len);
            assert_eq!(room.as_ptr() as usize % PAGE_BYTES, 0, "{len} bytes");
            held.resize(held.len().max(len), 0);
            assert!(room == &held[..len], "{len} bytes");
            let last = len - 1;
            (room[0], room[last]) = (len as u8, 7);
            (held[0], held[last]) = (len as u8, 7);
        }
    }
}
