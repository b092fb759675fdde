//! Directories (`docs/format.md`, 6.2): a REFS node holds all ids, a TREE node all names; the pair
//! is one directory, or two trees of the same shape when it is huge. Where nodes end is `cuts`;
//! walking the trees is for others.

mod cuts;
mod decode;
mod encode;
mod refs;
mod strict;
#[cfg(test)]
mod tests;

use crate::error::FormatError;
use crate::format::id::ChunkId;
use crate::format::layout::{check, limit};

pub use crate::format::tree::cuts::{LIST_ABOVE_CHUNKS, ends_inner, ends_leaf, ends_list};
pub use crate::format::tree::encode::{LooseEntry, leaf_from_encoded, put_entry};
pub use crate::format::tree::refs::{Child, ChunkRef, ListChild, RefsNode};

pub const NODE_LEN_MAX: usize = 16 << 20;
pub const NAME_LEN_MAX: usize = 4_096;
pub const XATTRS_LEN_MAX: usize = 4 << 20;
pub const INNER_DEPTH_MAX: usize = 8;
pub const TREE_DEPTH_MAX: usize = 4_096;
/// `Entry::flags`: the file changed while it was read.
pub const CHANGED_WHILE_READ: u64 = 1;

const TREE: &str = "tree node";

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z; the nanoseconds count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpec {
    pub secs: i64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

/// Numbers are the format's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntryKind {
    #[default]
    File = 1,
    Directory = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    CharDevice = 6,
    BlockDevice = 7,
}

impl EntryKind {
    pub fn from_u64(kind: u64) -> Option<Self> {
        use EntryKind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
        [File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice]
            .into_iter()
            .find(|&k| k as u64 == kind)
    }

    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// One piece of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A run of the REFS node's chunks.
    Chunks {
        first: u32,
        chunks: u32,
        len: u64,
    },
    Hole {
        len: u64,
    },
    /// Output of a numbered encoder over the content of `parts`; `id` is the output's, under the ID
    /// key. No encoder is defined yet, so whoever would need the bytes fails with
    /// `FormatError::Unsupported`.
    Rebuilt {
        encoder: u64,
        len: u64,
        id: ChunkId,
        params: Vec<u8>,
        parts: Vec<Segment>,
    },
    /// A chunk list of the REFS node.
    List {
        list: u32,
        len: u64,
    },
}

impl Segment {
    /// Bytes of the file that it gives.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Chunks { len, .. }
            | Self::Hole { len }
            | Self::Rebuilt { len, .. }
            | Self::List { len, .. } => len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
    /// Permission bits, 07777 at most.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<String>,
    pub group: Option<String>,
    pub mtime: TimeSpec,
    pub ctime: Option<TimeSpec>,
    pub btime: Option<TimeSpec>,
    /// Bytes of a file; without it there is no content.
    pub size: Option<u64>,
    /// Entries of a snapshot with equal groups are one file.
    pub hard_link: Option<[u8; 16]>,
    /// Sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a symlink.
    pub target: Option<Vec<u8>>,
    pub flags: u64,
    /// Of a file.
    pub content: Vec<Segment>,
    /// Major and minor number.
    pub device: Option<(u32, u32)>,
    /// Of a directory: its place among the children of the REFS node; none if it could not be read.
    pub child: Option<u32>,
}

impl Entry {
    /// Everything about an entry that the format demands, but for its place among the others.
    pub fn check(&self) -> Result<(), FormatError> {
        let len = self.content.iter().try_fold(0u64, |sum, part| sum.checked_add(part.len()));
        self.check_with(len)
    }

    /// The same, with content of so many bytes that is kept elsewhere.
    fn check_with(&self, content_bytes: Option<u64>) -> Result<(), FormatError> {
        check_name(&self.name)?;
        check(TREE, self.mode <= 0o7777, "mode of an entry")?;
        let times = [Some(self.mtime), self.ctime, self.btime];
        let times = times.into_iter().flatten().all(|time| time.nanos < 1_000_000_000);
        check(TREE, times, "a time has 1,000,000,000 nanoseconds or more")?;
        if self.flags & !CHANGED_WHILE_READ != 0 {
            let feature = format!("entry flags {:#x}", self.flags);
            return Err(FormatError::Unsupported { object: TREE, feature });
        }
        let sorted = self.xattrs.array_windows().all(|[a, b]| a.0 < b.0);
        check(TREE, sorted, "extended attributes are not in order")?;
        let len: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        limit(TREE, len <= XATTRS_LEN_MAX, "extended attributes of an entry")?;
        self.check_kind(content_bytes)
    }

    fn check_kind(&self, content_bytes: Option<u64>) -> Result<(), FormatError> {
        let kind = self.kind;
        let target = (kind == EntryKind::Symlink) == self.target.is_some();
        check(TREE, target, "symlinks have a target, and nothing else has")?;
        let device = kind.is_device() == self.device.is_some();
        check(TREE, device, "devices have a number, and nothing else has")?;
        let child = kind == EntryKind::Directory || self.child.is_none();
        check(TREE, child, "a child without a directory")?;
        let file = kind == EntryKind::File || (self.size.is_none() && self.content.is_empty());
        check(TREE, file, "content without a file")?;
        let adds_up = content_bytes == Some(self.size.unwrap_or(0));
        check(TREE, adds_up, "segments do not add up to the size")
    }
}

/// One path component as the source system had it: bytes, never normalised.
pub fn check_name(name: &[u8]) -> Result<(), FormatError> {
    limit(TREE, name.len() <= NAME_LEN_MAX, "length of a name")?;
    let plain = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|&b| b == b'/' || b == 0);
    check(TREE, plain, "a name is empty, '.', '..', or has '/' or NUL in it")
}

/// Child of an inner TREE node; its id stands at the same place in the REFS node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeChild {
    pub first_name: Vec<u8>,
    pub entries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeNode {
    Leaf { entries: Vec<Entry> },
    Inner { children: Vec<TreeChild> },
}

impl TreeNode {
    /// Panics if `check` would refuse it: that is the writer's bug.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        encode::tree_node(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        limit(TREE, bytes.len() <= NODE_LEN_MAX, "longer than 16 MiB")?;
        strict::check_deterministic(TREE, bytes)?;
        let node = decode::tree_node(bytes)?;
        node.check()?;
        Ok(node)
    }

    fn check(&self) -> Result<(), FormatError> {
        const ORDER: &str = "names are not strictly ascending";
        match self {
            Self::Leaf { entries } => {
                entries.iter().try_for_each(Entry::check)?;
                check(TREE, entries.array_windows().all(|[a, b]| a.name < b.name), ORDER)
            }
            Self::Inner { children } => {
                children.iter().try_for_each(|child| check_name(&child.first_name))?;
                let sorted = children.array_windows().all(|[a, b]| a.first_name < b.first_name);
                check(TREE, sorted, ORDER)
            }
        }
    }

    /// Whether every place that this node names exists in its REFS node, and the chunks there have
    /// the lengths that the segments claim. What a chunk list holds is not seen here.
    pub fn check_against(&self, refs: &RefsNode) -> Result<(), FormatError> {
        match (self, refs) {
            (Self::Leaf { entries }, RefsNode::Leaf { children, chunks, lists }) => {
                let places = Places::new(children.len(), chunks, lists.len());
                entries.iter().try_for_each(|entry| places.check(entry))
            }
            (Self::Inner { children: names }, RefsNode::Inner { children }) => {
                check(TREE, names.len() == children.len(), "its REFS node has other children")
            }
            _ => check(TREE, false, "its REFS node has another shape"),
        }
    }
}

struct Places {
    children: usize,
    lists: usize,
    /// Bytes before each chunk, and of all.
    starts: Vec<u64>,
}

impl Places {
    fn new(children: usize, chunks: &[ChunkRef], lists: usize) -> Self {
        let mut starts = Vec::with_capacity(chunks.len() + 1);
        starts.push(0);
        let sums = chunks.iter().scan(0, |sum, chunk| {
            *sum += u64::from(chunk.len);
            Some(*sum)
        });
        starts.extend(sums);
        Self { children, lists, starts }
    }

    fn check(&self, entry: &Entry) -> Result<(), FormatError> {
        let child = entry.child.is_none_or(|child| (child as usize) < self.children);
        check(TREE, child, "a directory has no such child")?;
        entry.content.iter().try_for_each(|segment| self.check_segment(segment))
    }

    fn check_segment(&self, segment: &Segment) -> Result<(), FormatError> {
        match *segment {
            Segment::Chunks { first, chunks, len } => {
                let start = self.starts.get(first as usize);
                let end = self.starts.get(first as usize + chunks as usize);
                let bytes = start.zip(end).map(|(start, end)| end - start);
                check(
                    TREE,
                    bytes == Some(len),
                    "a run of chunks is not there, or has another length",
                )
            }
            Segment::Hole { .. } => Ok(()),
            Segment::List { list, .. } => {
                check(TREE, (list as usize) < self.lists, "no such chunk list")
            }
            Segment::Rebuilt { ref parts, .. } => {
                parts.iter().try_for_each(|part| self.check_segment(part))
            }
        }
    }
}
