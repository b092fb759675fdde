//! Numbers at places that a file names itself: every one may lie outside.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Little,
    Big,
}

#[derive(Clone, Copy)]
pub struct Bytes<'b> {
    pub all: &'b [u8],
    pub order: Order,
}

impl<'b> Bytes<'b> {
    pub fn little(all: &'b [u8]) -> Self {
        Self { all, order: Order::Little }
    }

    pub fn at<const N: usize>(&self, place: u64) -> Option<[u8; N]> {
        self.all.get(usize::try_from(place).ok()?..)?.first_chunk().copied()
    }

    /// `len` bytes from `place` on.
    pub fn run(&self, place: u64, len: u64) -> Option<&'b [u8]> {
        let end = usize::try_from(place.checked_add(len)?).ok()?;
        self.all.get(usize::try_from(place).ok()?..end)
    }

    pub fn u16(&self, place: u64) -> Option<u16> {
        let bytes = self.at(place)?;
        Some(match self.order {
            Order::Little => u16::from_le_bytes(bytes),
            Order::Big => u16::from_be_bytes(bytes),
        })
    }

    pub fn u32(&self, place: u64) -> Option<u32> {
        let bytes = self.at(place)?;
        Some(match self.order {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        })
    }

    pub fn u64(&self, place: u64) -> Option<u64> {
        let bytes = self.at(place)?;
        Some(match self.order {
            Order::Little => u64::from_le_bytes(bytes),
            Order::Big => u64::from_be_bytes(bytes),
        })
    }
}
