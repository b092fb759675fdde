//! TREE nodes to CBOR, keys ascending, straight into one `Vec`.

use std::convert::Infallible;

use minicbor::Encoder;
use minicbor::encode::Error;

use crate::error::FormatError;
use crate::format::tree::{Entry, Segment, TimeSpec, TreeNode};

type Cbor<'a> = Encoder<&'a mut Vec<u8>>;
type Done = Result<(), Error<Infallible>>;

const VEC: &str = "a Vec takes any bytes";

pub(super) fn tree_node(node: &TreeNode) -> Vec<u8> {
    match node {
        TreeNode::Leaf { entries } => {
            let mut out = Vec::with_capacity(entries.len() * 96 + 16);
            leaf_head(entries.len(), &mut out);
            entries.iter().for_each(|entry| put_entry(entry, &mut out));
            out
        }
        TreeNode::Inner { children } => {
            let mut out = Vec::new();
            let mut cbor = Encoder::new(&mut out);
            let mut put = || -> Done {
                node_head(&mut cbor, 2, 3)?;
                cbor.array(children.len() as u64)?;
                for child in children {
                    cbor.array(2)?.bytes(&child.first_name)?.u64(child.entries)?;
                }
                Ok(())
            };
            put().expect(VEC);
            out
        }
    }
}

/// A leaf from entries that `put_entry` has encoded, so that a writer can grow it entry by entry
/// and knows its size. The node is at most 11 bytes longer than `encoded`. Checks nothing: the
/// entries must be in order.
pub fn leaf_from_encoded(entries: usize, encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + 16);
    leaf_head(entries, &mut out);
    out.extend_from_slice(encoded);
    out
}

fn leaf_head(entries: usize, out: &mut Vec<u8>) {
    let mut cbor = Encoder::new(out);
    node_head(&mut cbor, 1, 2).expect(VEC);
    cbor.array(entries as u64).expect(VEC);
}

/// Version, node kind, and the key of the third field.
fn node_head(cbor: &mut Cbor<'_>, kind: u8, key: u8) -> Done {
    cbor.map(3)?.u8(0)?.u8(1)?.u8(1)?.u8(kind)?.u8(key)?.ok()
}

/// An entry that is not in a leaf yet, encoded but for what points into that leaf's REFS node: so
/// that many can wait in little memory, and most of the work is done before their turn comes.
#[derive(Debug)]
pub struct LooseEntry(Box<[u8]>);

impl LooseEntry {
    /// `entry` comes without content, which has `content_bytes`, and without child.
    pub fn new(entry: &Entry, content_bytes: u64) -> Result<Self, FormatError> {
        assert!(entry.content.is_empty() && entry.child.is_none(), "they are put in later");
        entry.check_with(Some(content_bytes))?;
        let mut encoded = Vec::with_capacity(96 + entry.name.len());
        put_entry(entry, &mut encoded);
        Ok(Self(encoded.into()))
    }

    /// In bytes.
    pub fn extent(&self) -> usize {
        self.0.len()
    }

    /// Appends the entry, as `put_entry` does for one that has these.
    pub fn put(&self, content: &[Segment], child: Option<u32>, out: &mut Vec<u8>) {
        let head = out.len();
        out.extend_from_slice(&self.0);
        // Both fields are the last of the entries that may have them, and the count of fields is
        // below 24: the low bits of the first byte.
        out[head] += u8::from(!content.is_empty()) + u8::from(child.is_some());
        pointers(content, child, &mut Encoder::new(out)).expect(VEC);
    }
}

fn pointers(content: &[Segment], child: Option<u32>, cbor: &mut Cbor<'_>) -> Done {
    if !content.is_empty() {
        segments(cbor.u8(16)?, content)?;
    }
    if let Some(child) = child {
        cbor.u8(18)?.u32(child)?;
    }
    Ok(())
}

/// Appends an entry. It must pass `Entry::check`.
pub fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    fields(entry, &mut Encoder::new(out)).expect(VEC);
}

fn fields(entry: &Entry, cbor: &mut Cbor<'_>) -> Done {
    let optional = [
        entry.user.is_some(),
        entry.group.is_some(),
        entry.ctime.is_some(),
        entry.btime.is_some(),
        entry.size.is_some(),
        entry.hard_link.is_some(),
        !entry.xattrs.is_empty(),
        entry.target.is_some(),
        entry.flags != 0,
        !entry.content.is_empty(),
        entry.device.is_some(),
        entry.child.is_some(),
    ];
    cbor.map(6 + optional.iter().filter(|&&there| there).count() as u64)?;
    cbor.u8(1)?.bytes(&entry.name)?.u8(2)?.u8(entry.kind as u8)?.u8(3)?.u16(entry.mode)?;
    cbor.u8(4)?.u32(entry.uid)?.u8(5)?.u32(entry.gid)?;
    if let Some(user) = &entry.user {
        cbor.u8(6)?.str(user)?;
    }
    if let Some(group) = &entry.group {
        cbor.u8(7)?.str(group)?;
    }
    time(cbor, 8, Some(entry.mtime))?;
    time(cbor, 9, entry.ctime)?;
    time(cbor, 10, entry.btime)?;
    if let Some(size) = entry.size {
        cbor.u8(11)?.u64(size)?;
    }
    if let Some(hard_link) = &entry.hard_link {
        cbor.u8(12)?.bytes(hard_link)?;
    }
    if !entry.xattrs.is_empty() {
        cbor.u8(13)?.array(entry.xattrs.len() as u64)?;
        for (name, value) in &entry.xattrs {
            cbor.array(2)?.bytes(name)?.bytes(value)?;
        }
    }
    if let Some(target) = &entry.target {
        cbor.u8(14)?.bytes(target)?;
    }
    if entry.flags != 0 {
        cbor.u8(15)?.u64(entry.flags)?;
    }
    if !entry.content.is_empty() {
        segments(cbor.u8(16)?, &entry.content)?;
    }
    if let Some((major, minor)) = entry.device {
        cbor.u8(17)?.array(2)?.u32(major)?.u32(minor)?;
    }
    if let Some(child) = entry.child {
        cbor.u8(18)?.u32(child)?;
    }
    Ok(())
}

fn time(cbor: &mut Cbor<'_>, key: u8, time: Option<TimeSpec>) -> Done {
    match time {
        Some(time) => cbor.u8(key)?.array(2)?.i64(time.secs)?.u32(time.nanos)?.ok(),
        None => Ok(()),
    }
}

fn segments(cbor: &mut Cbor<'_>, content: &[Segment]) -> Done {
    cbor.array(content.len() as u64)?;
    for segment in content {
        match segment {
            Segment::Chunks { first, chunks, len } => {
                cbor.array(4)?.u8(0)?.u32(*first)?.u32(*chunks)?.u64(*len)?;
            }
            Segment::Hole { len } => {
                cbor.array(2)?.u8(1)?.u64(*len)?;
            }
            Segment::Rebuilt { encoder, len, id, params, parts } => {
                cbor.array(6)?.u8(2)?.u64(*encoder)?.u64(*len)?.bytes(&id.0)?.bytes(params)?;
                segments(cbor, parts)?;
            }
            Segment::List { list, len } => {
                cbor.array(3)?.u8(3)?.u32(*list)?.u64(*len)?;
            }
        }
    }
    Ok(())
}
