//! Whether bytes are one CBOR item in core deterministic encoding (RFC 8949, 4.2.1), before
//! anything is made of them.

use crate::error::FormatError;
use crate::format::layout::check;

const NESTING_MAX: usize = 16;

pub(super) fn check_deterministic(object: &'static str, bytes: &[u8]) -> Result<(), FormatError> {
    let mut walk = Walk { object, bytes, at: 0 };
    walk.item(0)?;
    check(object, walk.at == bytes.len(), "bytes after its end")
}

struct Walk<'a> {
    object: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn item(&mut self, depth: usize) -> Result<(), FormatError> {
        if depth > NESTING_MAX {
            return Err(FormatError::Limit { object: self.object, what: "nesting above 16" });
        }
        match self.head()? {
            (0 | 1, _) => Ok(()),
            (2, len) => self.take(len).map(|_| ()),
            (3, len) => {
                let utf8 = std::str::from_utf8(self.take(len)?).is_ok();
                self.check(utf8, "text is not UTF-8")
            }
            (4, count) => (0..count).try_for_each(|_| self.item(depth + 1)),
            (5, count) => self.map(count, depth),
            (6, _) => self.item(depth + 1),
            // 20–23: false, true, null, undefined. No object of ours has floats or other simple
            // values.
            (_, value) => self.check((20..=23).contains(&value), "a simple value or a float"),
        }
    }

    fn map(&mut self, count: u64, depth: usize) -> Result<(), FormatError> {
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let start = self.at;
            self.item(depth + 1)?;
            let key = &self.bytes[start..self.at];
            self.check(key > last, "map keys are not in order, or twice there")?;
            last = key;
            self.item(depth + 1)?;
        }
        Ok(())
    }

    /// Major type and argument.
    fn head(&mut self) -> Result<(u8, u64), FormatError> {
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 31);
        if short < 24 {
            return Ok((major, short.into()));
        }
        self.check(short < 28 && major != 7, "an indefinite or reserved length, or a float")?;
        let bytes = self.take(1 << (short - 24))?;
        let value = bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let least = [24, 1 << 8, 1 << 16, 1 << 32][usize::from(short - 24)];
        self.check(value >= least, "an integer is not in its shortest form")?;
        Ok((major, value))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).ok().filter(|&len| len <= rest.len());
        let len = len.ok_or(FormatError::Truncated { object: self.object })?;
        self.at += len;
        Ok(&rest[..len])
    }

    fn check(&self, ok: bool, what: &'static str) -> Result<(), FormatError> {
        check(self.object, ok, what)
    }
}
