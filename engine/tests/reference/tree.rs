//! Section 6.2: REFS and TREE nodes.

use ciborium::Value;

use super::cbor::{self, Map};
use super::{Cursor, Id, Result, Short, need};

const NODE_LEN_MAX: usize = 16 << 20;
const NAME_LEN_MAX: usize = 4096;
const XATTRS_LEN_MAX: usize = 4 << 20;

pub enum Refs {
    Leaf { children: Vec<(Id, Id)>, chunks: Vec<(Id, u32)>, lists: Vec<Id> },
    Inner { children: Vec<(Id, Id)> },
    List { chunks: Vec<(Id, u32)> },
    ListInner { lists: Vec<(Id, u64, u64)> },
}

pub enum Tree {
    Leaf {
        entries: Vec<Entry>,
    },
    /// First name, entries.
    Inner {
        children: Vec<(Vec<u8>, u64)>,
    },
}

pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u64,
    pub mode: u64,
    pub mtime: (i64, u64),
    pub size: Option<u64>,
    pub hard_link: Option<Short>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub target: Option<Vec<u8>>,
    pub content: Vec<Segment>,
    pub child: Option<u64>,
}

pub enum Segment {
    Chunks { first: u64, chunks: u64, len: u64 },
    Hole { len: u64 },
    List { list: u64, len: u64 },
}

impl Segment {
    fn len(&self) -> u64 {
        match *self {
            Self::Chunks { len, .. } | Self::Hole { len } | Self::List { len, .. } => len,
        }
    }
}

/// The rows of a column.
fn rows<T>(
    column: Option<Vec<u8>>,
    len: usize,
    read: fn(&mut Cursor<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let Some(column) = column else { return Ok(Vec::new()) };
    need(!column.is_empty() && column.len().is_multiple_of(len), "length of a column")?;
    column.chunks(len).map(|row| read(&mut Cursor(row))).collect()
}

pub fn refs(bytes: &[u8]) -> Result<Refs> {
    need(bytes.len() <= NODE_LEN_MAX, "length of a node")?;
    let mut map = Map::parse("REFS node", bytes)?;
    need(map.uint(0)? == 1, "version of a REFS node")?;
    let shape = map.uint(1)?;
    let mut column = |key| map.maybe(key, cbor::bytes);
    let mut pairs = || rows(column(2)?, 64, |row| Ok((row.array()?, row.array()?)));
    let node = match shape {
        1 => Refs::Leaf {
            children: pairs()?,
            chunks: rows(column(3)?, 36, |row| Ok((row.array()?, row.u32()?)))?,
            lists: rows(column(4)?, 32, |row| row.array())?,
        },
        2 => Refs::Inner { children: pairs()? },
        3 => Refs::List { chunks: rows(column(3)?, 36, |row| Ok((row.array()?, row.u32()?)))? },
        4 => Refs::ListInner {
            lists: rows(column(5)?, 48, |row| Ok((row.array()?, row.u64()?, row.u64()?)))?,
        },
        other => return Err(format!("unknown shape {other} of a REFS node")),
    };
    map.finish()?;
    Ok(node)
}

pub fn tree(bytes: &[u8]) -> Result<Tree> {
    need(bytes.len() <= NODE_LEN_MAX, "length of a node")?;
    let mut map = Map::parse("TREE node", bytes)?;
    need(map.uint(0)? == 1, "version of a TREE node")?;
    let ascending = |names: Vec<&[u8]>| need(names.is_sorted_by(|a, b| a < b), "names ascend");
    let node = match map.uint(1)? {
        1 => {
            let entries = map.list(2)?.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
            ascending(entries.iter().map(|entry| &entry.name[..]).collect())?;
            Tree::Leaf { entries }
        }
        2 => {
            let children = map.list(3)?.into_iter().map(|child| {
                let [name, entries] = cbor::tuple(child)?;
                Ok((cbor::bytes(name)?, cbor::uint(entries)?))
            });
            let children = children.collect::<Result<Vec<_>>>()?;
            ascending(children.iter().map(|(name, _)| &name[..]).collect())?;
            Tree::Inner { children }
        }
        other => return Err(format!("unknown shape {other} of a TREE node")),
    };
    map.finish()?;
    Ok(node)
}

fn entry(value: Value) -> Result<Entry> {
    let mut map = Map::new("entry", value)?;
    let name = cbor::bytes(map.take(1)?)?;
    need(!matches!(&name[..], b"" | b"." | b"..") && name.len() <= NAME_LEN_MAX, "name")?;
    need(!name.iter().any(|b| matches!(b, b'/' | 0)), "name with a slash or NUL")?;
    let (kind, mode) = (map.uint(2)?, map.uint(3)?);
    need((1..=7).contains(&kind) && mode <= 0o7777, "kind and mode")?;
    small(map.take(4)?)?;
    small(map.take(5)?)?;
    map.maybe(6, cbor::text)?;
    map.maybe(7, cbor::text)?;
    let mtime = time(map.take(8)?)?;
    map.maybe(9, time)?;
    map.maybe(10, time)?;
    let size = map.maybe(11, cbor::uint)?;
    let hard_link = map.maybe(12, cbor::array)?;
    let xattrs = map.maybe(13, xattrs)?.unwrap_or_default();
    let target = map.maybe(14, cbor::bytes)?;
    need(map.maybe(15, cbor::uint)?.is_none_or(|flags| flags == 1), "flags of an entry")?;
    let segments = |value| cbor::list(value)?.into_iter().map(segment).collect::<Result<Vec<_>>>();
    let content = map.maybe(16, segments)?;
    need(content.as_ref().is_none_or(|content| !content.is_empty()), "empty content is left out")?;
    let content = content.unwrap_or_default();
    let device = map.maybe(17, device)?;
    let child = map.maybe(18, small)?;
    map.finish()?;
    need(size.is_none() || kind == 1, "only files have a size")?;
    need(child.is_none() || kind == 2, "a child without a directory")?;
    need(target.is_some() == (kind == 3), "symlinks have a target, and nothing else has")?;
    need(device.is_some() == (kind >= 6), "devices have numbers, and nothing else has")?;
    let sum = content.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len()));
    need(sum == Some(size.unwrap_or(0)), "segments add up to the size")?;
    Ok(Entry { name, kind, mode, mtime, size, hard_link, xattrs, target, content, child })
}

fn time(value: Value) -> Result<(i64, u64)> {
    let [seconds, nanoseconds] = cbor::tuple(value)?;
    let (seconds, nanoseconds) = (cbor::int(seconds)?, cbor::uint(nanoseconds)?);
    need(nanoseconds < 1_000_000_000, "nanoseconds")?;
    Ok((seconds, nanoseconds))
}

/// An unsigned integer of 32 bits.
fn small(value: Value) -> Result<u64> {
    let number = cbor::uint(value)?;
    need(u32::try_from(number).is_ok(), "a number of 32 bits")?;
    Ok(number)
}

fn device(value: Value) -> Result<()> {
    cbor::tuple::<2>(value)?.into_iter().try_for_each(|number| small(number).map(drop))
}

fn xattrs(value: Value) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let pairs = cbor::list(value)?.into_iter().map(|pair| {
        let [name, value] = cbor::tuple(pair)?;
        Ok((cbor::bytes(name)?, cbor::bytes(value)?))
    });
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    need(!pairs.is_empty(), "empty extended attributes are left out")?;
    need(pairs.is_sorted_by(|a, b| a.0 < b.0), "extended attributes are sorted")?;
    let len: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    need(len <= XATTRS_LEN_MAX, "length of extended attributes")?;
    Ok(pairs)
}

fn segment(value: Value) -> Result<Segment> {
    let mut values = cbor::list(value)?.into_iter();
    let mut next = || values.next().ok_or("a segment is cut short".to_owned());
    let segment = match cbor::uint(next()?)? {
        0 => Segment::Chunks {
            first: small(next()?)?,
            chunks: small(next()?)?,
            len: cbor::uint(next()?)?,
        },
        1 => Segment::Hole { len: cbor::uint(next()?)? },
        2 => return Err(format!("encoder {} is needed", cbor::uint(next()?)?)),
        3 => Segment::List { list: small(next()?)?, len: cbor::uint(next()?)? },
        kind => return Err(format!("segment kind {kind} is needed")),
    };
    need(values.next().is_none(), "length of a segment")?;
    Ok(segment)
}
