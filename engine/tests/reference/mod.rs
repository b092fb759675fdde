//! The pieces of the reference reader: `docs/format.md` section by section, by other crates than the
//! engine's where there are others, written to be compared with the page and not to be fast.
//! Whatever the page forbids is an error.

pub mod bodies;
pub mod cbor;
pub mod keys;
pub mod pack;
pub mod record;
pub mod run;
pub mod seal;
pub mod tree;

/// What is wrong.
pub type Result<T> = std::result::Result<T, String>;

pub type Id = [u8; 32];
pub type Short = [u8; 16];

pub fn h(bytes: &[u8]) -> Id {
    *blake3::hash(bytes).as_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn from_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    need(text.len() == 2 * N, "the number of hex digits")?;
    need(text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "hex digits")?;
    let pairs = (0..N).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("digits"));
    Ok(fixed(pairs.collect()).expect("N pairs"))
}

pub fn fixed<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N]> {
    let len = bytes.len();
    bytes.try_into().map_err(|_| format!("{len} bytes instead of {N}"))
}

pub fn need(is_so: bool, what: &str) -> Result<()> {
    if is_so { Ok(()) } else { Err(format!("wrong: {what}")) }
}

/// padme(L), section 1.
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let e = u64::from(len.ilog2());
    let s = u64::from(e.ilog2()) + 1;
    let mask = (1 << (e - s)) - 1;
    (len + mask) & !mask
}

/// Takes bytes from the front.
pub struct Cursor<'b>(pub &'b [u8]);

impl<'b> Cursor<'b> {
    pub fn take(&mut self, len: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        fixed(self.take(N)?.to_vec())
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn zero(&mut self, len: usize) -> Result<()> {
        need(self.take(len)?.iter().all(|&b| b == 0), "bytes that must be zero")
    }

    pub fn end(self) -> Result<()> {
        need(self.0.is_empty(), "nothing may follow")
    }
}
