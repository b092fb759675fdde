//! CBOR to TREE nodes. `strict` has been over the bytes before, so only types, keys and counts are
//! looked at.

use minicbor::Decoder;
use minicbor::decode::Error;

use crate::error::FormatError;
use crate::format::id::ChunkId;
use crate::format::layout::check;
use crate::format::tree::{Entry, EntryKind, Segment, TREE, TimeSpec, TreeChild, TreeNode};

/// Unknown keys from here on are ignored.
const KEY_IGNORABLE: u64 = 128;
/// Entries make room as they come, so a short node cannot ask for much.
const RESERVED_MAX: u64 = 4_096;

/// minicbor over bytes that are known to be sound, with our errors.
pub(super) struct Reader<'b> {
    pub(super) object: &'static str,
    pub(super) cbor: Decoder<'b>,
}

impl<'b> Reader<'b> {
    pub(super) fn new(object: &'static str, bytes: &'b [u8]) -> Self {
        Self { object, cbor: Decoder::new(bytes) }
    }

    /// Hands every key to `field`, which reads its value or says that it does not know the key.
    pub(super) fn map(
        &mut self,
        mut field: impl FnMut(&mut Self, u64) -> Result<bool, FormatError>,
    ) -> Result<(), FormatError> {
        let count = self.cbor.map().or_else(|_| self.wrong_type())?;
        for _ in 0..count.unwrap_or(0) {
            let key = self.uint()?;
            if field(self, key)? {
                continue;
            }
            if key < KEY_IGNORABLE {
                return self.unsupported(format!("key {key}"));
            }
            self.cbor.skip().or_else(|_| self.wrong_type())?;
        }
        Ok(())
    }

    /// Calls `element` as often as the array is long; says how often that was.
    fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let count = self.array_len()?;
        (0..count).try_for_each(|_| element(self))
    }

    fn array_len(&mut self) -> Result<u64, FormatError> {
        let count = self.cbor.array().or_else(|_| self.wrong_type())?;
        Ok(count.unwrap_or(0))
    }

    fn array_of(&mut self, len: u64) -> Result<(), FormatError> {
        let found = self.array_len()?;
        check(self.object, found == len, "an array has another length")
    }

    /// Key 0 of every node.
    pub(super) fn version(&mut self) -> Result<(), FormatError> {
        match self.uint()? {
            1 => Ok(()),
            version => Err(FormatError::Newer { object: self.object, version }),
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64, FormatError> {
        self.cbor.u64().or_else(|_| self.wrong_type())
    }

    fn uint32(&mut self) -> Result<u32, FormatError> {
        let value = self.uint()?;
        let what = "a number does not fit 32 bits";
        value.try_into().map_err(|_| FormatError::Malformed { object: self.object, what })
    }

    pub(super) fn bytes(&mut self) -> Result<&'b [u8], FormatError> {
        self.cbor.bytes().or_else(|_| self.wrong_type())
    }

    fn array_bytes<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let what = "a byte string has another length";
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| FormatError::Malformed { object: self.object, what })
    }

    fn text(&mut self) -> Result<String, FormatError> {
        self.cbor.str().map(str::to_owned).or_else(|_| self.wrong_type())
    }

    fn time(&mut self) -> Result<TimeSpec, FormatError> {
        self.array_of(2)?;
        let secs = self.cbor.i64().or_else(|_: Error| self.wrong_type())?;
        Ok(TimeSpec { secs, nanos: self.uint32()? })
    }

    fn wrong_type<T>(&self) -> Result<T, FormatError> {
        Err(FormatError::Malformed { object: self.object, what: "a field has another type" })
    }

    pub(super) fn unsupported<T>(&self, feature: String) -> Result<T, FormatError> {
        Err(FormatError::Unsupported { object: self.object, feature })
    }
}

pub(super) fn tree_node(bytes: &[u8]) -> Result<TreeNode, FormatError> {
    let (mut versioned, mut kind, mut entries, mut children) = (false, 0, None, None);
    Reader::new(TREE, bytes).map(|reader, key| {
        match (key, kind) {
            (0, _) => {
                reader.version()?;
                versioned = true;
            }
            (1, _) => {
                kind = reader.uint()?;
                if !(1..=2).contains(&kind) {
                    return reader.unsupported(format!("node kind {kind}"));
                }
            }
            (2, 1) => {
                let count = reader.array_len()?;
                let mut list = Vec::with_capacity(count.min(RESERVED_MAX) as usize);
                for _ in 0..count {
                    list.push(entry(reader)?);
                }
                entries = Some(list);
            }
            (3, 2) => {
                let mut list = Vec::new();
                reader.array(|reader| {
                    reader.array_of(2)?;
                    let first_name = reader.bytes()?.to_vec();
                    list.push(TreeChild { first_name, entries: reader.uint()? });
                    Ok(())
                })?;
                children = Some(list);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    check(TREE, versioned, "it has no version")?;
    match (entries, children) {
        (Some(entries), None) => Ok(TreeNode::Leaf { entries }),
        (None, Some(children)) => Ok(TreeNode::Inner { children }),
        _ => Err(FormatError::Malformed { object: TREE, what: "a field is missing" }),
    }
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, FormatError> {
    const REQUIRED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8;
    let mut entry = Entry::default();
    let mut seen = 0u32;
    reader.map(|reader, key| {
        seen |= 1 << key.min(31);
        match key {
            1 => entry.name = reader.bytes()?.to_vec(),
            2 => {
                let kind = reader.uint()?;
                match EntryKind::from_u64(kind) {
                    Some(kind) => entry.kind = kind,
                    None => return reader.unsupported(format!("entry kind {kind}")),
                }
            }
            // What does not fit 16 bits fails `Entry::check`.
            3 => entry.mode = reader.uint()?.try_into().unwrap_or(u16::MAX),
            4 => entry.uid = reader.uint32()?,
            5 => entry.gid = reader.uint32()?,
            6 => entry.user = Some(reader.text()?),
            7 => entry.group = Some(reader.text()?),
            8 => entry.mtime = reader.time()?,
            9 => entry.ctime = Some(reader.time()?),
            10 => entry.btime = Some(reader.time()?),
            11 => entry.size = Some(reader.uint()?),
            12 => entry.hard_link = Some(reader.array_bytes()?),
            13 => reader.array(|reader| {
                reader.array_of(2)?;
                let name = reader.bytes()?.to_vec();
                entry.xattrs.push((name, reader.bytes()?.to_vec()));
                Ok(())
            })?,
            14 => entry.target = Some(reader.bytes()?.to_vec()),
            15 => entry.flags = reader.uint()?,
            16 => entry.content = segments(reader)?,
            17 => {
                reader.array_of(2)?;
                entry.device = Some((reader.uint32()?, reader.uint32()?));
            }
            18 => entry.child = Some(reader.uint32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    check(TREE, seen & REQUIRED == REQUIRED, "an entry lacks a field")?;
    Ok(entry)
}

/// Nests at most 16 deep: `strict` has seen to that.
fn segments(reader: &mut Reader<'_>) -> Result<Vec<Segment>, FormatError> {
    let mut list = Vec::new();
    reader.array(|reader| {
        list.push(segment(reader)?);
        Ok(())
    })?;
    Ok(list)
}

fn segment(reader: &mut Reader<'_>) -> Result<Segment, FormatError> {
    let len = reader.array_len()?;
    check(TREE, len > 0, "a segment is empty")?;
    let kind = reader.uint()?;
    let (segment, expected) = match kind {
        0 => {
            let (first, chunks) = (reader.uint32()?, reader.uint32()?);
            (Segment::Chunks { first, chunks, len: reader.uint()? }, 4)
        }
        1 => (Segment::Hole { len: reader.uint()? }, 2),
        2 => {
            let (encoder, len) = (reader.uint()?, reader.uint()?);
            let id = ChunkId(reader.array_bytes()?);
            let params = reader.bytes()?.to_vec();
            (Segment::Rebuilt { encoder, len, id, params, parts: segments(reader)? }, 6)
        }
        3 => (Segment::List { list: reader.uint32()?, len: reader.uint()? }, 3),
        _ => return reader.unsupported(format!("segment kind {kind}")),
    };
    check(TREE, len == expected, "a segment has another length")?;
    Ok(segment)
}
