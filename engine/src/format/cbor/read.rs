//! Reading: accepts the one deterministic form of every item and nothing else.

use super::{DEPTH_MAX, Extra, FREE_KEYS};
use crate::error::FormatError;

type Result<T> = std::result::Result<T, FormatError>;

/// Reads items one after the other; `object` is named in errors.
pub struct Decoder<'a> {
    rest: &'a [u8],
    depth: u8,
    object: &'static str,
}

/// Reads exactly one item: nothing may follow it.
pub fn decode<'a, T>(
    bytes: &'a [u8],
    object: &'static str,
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T>,
) -> Result<T> {
    let mut decoder = Decoder::new(bytes, object);
    let value = read(&mut decoder)?;
    decoder.end()?;
    Ok(value)
}

/// Reads exactly one map.
pub fn decode_map<'a, T>(
    bytes: &'a [u8],
    object: &'static str,
    read: impl FnOnce(&mut Map<'_, 'a>) -> Result<T>,
) -> Result<T> {
    decode(bytes, object, |decoder| decoder.map(read))
}

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8], object: &'static str) -> Self {
        Decoder { rest: bytes, depth: 0, object }
    }

    pub fn object(&self) -> &'static str {
        self.object
    }

    pub fn malformed(&self, what: &'static str) -> FormatError {
        FormatError::Malformed { object: self.object, what }
    }

    pub fn limit(&self, what: &'static str) -> FormatError {
        FormatError::Limit { object: self.object, what }
    }

    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes follow its end")) }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let taken = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (taken, rest) = taken.ok_or(FormatError::Truncated { object: self.object })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Major type and argument, in the shortest form.
    #[inline]
    fn head(&mut self) -> Result<(u8, u64)> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        if info < 24 {
            return Ok((major, u64::from(info)));
        }
        let (width, least) = match info {
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return Err(self.malformed("CBOR of indefinite length or a reserved form")),
        };
        let argument = self.take(width)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        if argument < least {
            return Err(self.malformed("CBOR not in its shortest form"));
        }
        Ok((major, argument))
    }

    #[inline]
    fn expect(&mut self, major: u8) -> Result<u64> {
        let (found, argument) = self.head()?;
        if found == major { Ok(argument) } else { Err(self.malformed("a value of another type")) }
    }

    /// The head of an array or map; every item takes a byte at least, so the input bounds the count.
    fn count(&mut self, major: u8) -> Result<u64> {
        let count = self.expect(major)?;
        let items = if major == MAP { count.checked_mul(2) } else { Some(count) };
        if items.is_none_or(|items| items > self.rest.len() as u64) {
            return Err(FormatError::Truncated { object: self.object });
        }
        Ok(count)
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH_MAX {
            return Err(self.limit("nesting depth"));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    pub fn uint(&mut self) -> Result<u64> {
        self.expect(UINT)
    }

    /// An unsigned integer that fits `T` (`u8`, `u16`, `u32`, `usize`).
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T> {
        let value = self.uint()?;
        T::try_from(value).map_err(|_| self.malformed("an integer out of range"))
    }

    pub fn int(&mut self) -> Result<i64> {
        let (major, argument) = self.head()?;
        let value = i64::try_from(argument).map_err(|_| self.malformed("an integer out of range"));
        match major {
            UINT => value,
            NEGATIVE => Ok(-1 - value?),
            _ => Err(self.malformed("a value of another type")),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.expect(BYTES)?;
        self.take(len)
    }

    /// A byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| self.malformed("a byte string of another length"))
    }

    pub fn text(&mut self) -> Result<&'a str> {
        let len = self.expect(TEXT)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8"))
    }

    pub fn string(&mut self) -> Result<String> {
        self.text().map(str::to_owned)
    }

    /// Calls `read` once for every item of an array.
    pub fn each(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let count = self.count(ARRAY)?;
        self.nested(|d| (0..count).try_for_each(|_| read(d)))
    }

    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        self.each(|d| {
            items.push(read(d)?);
            Ok(())
        })?;
        Ok(items)
    }

    /// An array of any length, read by the caller, who must take exactly the items it is told.
    pub fn array<T>(&mut self, read: impl FnOnce(&mut Self, u64) -> Result<T>) -> Result<T> {
        let count = self.count(ARRAY)?;
        self.nested(|d| read(d, count))
    }

    /// An array of exactly `len` items, read by the caller.
    pub fn tuple<T>(&mut self, len: u64, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.count(ARRAY)? != len {
            return Err(self.malformed("an array of another length"));
        }
        self.nested(read)
    }

    /// A map with integer keys. Keys that `read` leaves are refused below 128 and dropped from 128 on.
    pub fn map<T>(&mut self, read: impl FnOnce(&mut Map<'_, 'a>) -> Result<T>) -> Result<T> {
        let left = self.count(MAP)?;
        self.nested(|decoder| {
            let mut map = Map { decoder, left, last: None, next: None };
            let value = read(&mut map)?;
            map.finish()?;
            Ok(value)
        })
    }

    /// A map from text to text.
    pub fn text_map(&mut self) -> Result<Vec<(&'a str, &'a str)>> {
        let count = self.count(MAP)?;
        self.nested(|d| {
            let mut entries: Vec<(&str, &str)> = Vec::new();
            for _ in 0..count {
                let (key, value) = (d.text()?, d.text()?);
                if entries.last().is_some_and(|(last, _)| (last.len(), *last) >= (key.len(), key)) {
                    return Err(d.malformed("map keys unsorted or repeated"));
                }
                entries.push((key, value));
            }
            Ok(entries)
        })
    }

    /// Passes over one item, which must be well-formed and deterministic too, and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8]> {
        let start = self.rest;
        let (major, argument) = self.head()?;
        match major {
            UINT | NEGATIVE => {}
            BYTES => drop(self.take(argument)?),
            SIMPLE if (20..=22).contains(&argument) => {}
            TEXT | ARRAY | MAP => {
                self.rest = start;
                match major {
                    TEXT => drop(self.text()?),
                    ARRAY => self.each(|d| d.skip().map(drop))?,
                    _ => self.skip_map()?,
                }
            }
            _ => return Err(self.malformed("a CBOR tag, float or simple value")),
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    fn skip_map(&mut self) -> Result<()> {
        let count = self.count(MAP)?;
        self.nested(|d| {
            let mut last: &[u8] = &[];
            for _ in 0..count {
                let key = d.skip()?;
                if key <= last {
                    return Err(d.malformed("map keys unsorted or repeated"));
                }
                last = key;
                d.skip()?;
            }
            Ok(())
        })
    }
}

/// A map that is being read, its keys in ascending order.
pub struct Map<'d, 'a> {
    decoder: &'d mut Decoder<'a>,
    left: u64,
    last: Option<u64>,
    /// A key that was read, but not its value.
    next: Option<u64>,
}

impl<'a> Map<'_, 'a> {
    pub fn malformed(&self, what: &'static str) -> FormatError {
        self.decoder.malformed(what)
    }

    pub fn limit(&self, what: &'static str) -> FormatError {
        self.decoder.limit(what)
    }

    pub fn object(&self) -> &'static str {
        self.decoder.object
    }

    fn peek(&mut self) -> Result<Option<u64>> {
        if self.next.is_none() && self.left > 0 {
            let key = self.decoder.uint()?;
            if self.last.is_some_and(|last| key <= last) {
                return Err(self.malformed("map keys unsorted or repeated"));
            }
            (self.next, self.last) = (Some(key), Some(key));
            self.left -= 1;
        }
        Ok(self.next)
    }

    /// The value of a key that may be absent. Ask for keys in ascending order.
    #[inline]
    pub fn opt<T>(
        &mut self,
        key: u64,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self.peek()? {
            Some(found) if found == key => {
                self.next = None;
                read(self.decoder).map(Some)
            }
            Some(found) if found < key => Err(self.unknown(found)),
            _ => Ok(None),
        }
    }

    /// The value of a key that must be there.
    #[inline]
    pub fn req<T>(
        &mut self,
        key: u64,
        read: impl FnOnce(&mut Decoder<'a>) -> Result<T>,
    ) -> Result<T> {
        self.opt(key, read)?.ok_or_else(|| self.malformed("a required key is missing"))
    }

    /// A list of equally long byte strings.
    pub fn fixed_list<const N: usize, T>(
        &mut self,
        key: u64,
        wrap: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        self.req(key, |d| d.list(|d| d.fixed().map(&wrap)))
    }

    /// The unknown keys from 128 on, for whoever may rewrite the object. Ask last.
    pub fn extra(&mut self) -> Result<Extra> {
        let mut extra = Extra::new();
        while let Some(key) = self.peek()? {
            if key < FREE_KEYS {
                return Err(self.unknown(key));
            }
            self.next = None;
            extra.push((key, self.decoder.skip()?.to_vec()));
        }
        Ok(extra)
    }

    fn finish(&mut self) -> Result<()> {
        while let Some(key) = self.peek()? {
            if key < FREE_KEYS {
                return Err(self.unknown(key));
            }
            self.next = None;
            self.decoder.skip()?;
        }
        Ok(())
    }

    fn unknown(&self, key: u64) -> FormatError {
        FormatError::Unsupported { object: self.decoder.object, feature: format!("key {key}") }
    }
}
