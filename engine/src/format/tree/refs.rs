//! REFS nodes: the ids of a directory without any name, so that maintenance never sees one.

use minicbor::Encoder;

use crate::error::FormatError;
use crate::format::id::ChunkId;
use crate::format::layout::{array_at, check, limit, u32_at, u64_at};
use crate::format::pack::CHUNK_LEN_MAX;
use crate::format::tree::decode::Reader;
use crate::format::tree::{NODE_LEN_MAX, strict};

const REFS: &str = "refs node";
const CHILD: usize = 64;
const CHUNK: usize = 36;
const LIST: usize = 32;
const LIST_CHILD: usize = 48;

/// A directory, or a piece of a huge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    pub refs: ChunkId,
    pub tree: ChunkId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub id: ChunkId,
    /// Plain bytes, 1 to 16 Mi.
    pub len: u32,
}

/// A node of a chunk list, with what hangs below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChild {
    pub id: ChunkId,
    pub chunks: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefsNode {
    /// `lists` are ids of `List` or `ListInner` nodes.
    Leaf {
        children: Vec<Child>,
        chunks: Vec<ChunkRef>,
        lists: Vec<ChunkId>,
    },
    Inner {
        children: Vec<Child>,
    },
    List {
        chunks: Vec<ChunkRef>,
    },
    ListInner {
        lists: Vec<ListChild>,
    },
}

impl RefsNode {
    /// Panics if `check` would refuse it: that is the writer's bug.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let (kind, columns) = match self {
            Self::Leaf { children, chunks, lists } => {
                let lists = lists.iter().flat_map(|id| id.0).collect();
                let columns = [(2, child_rows(children)), (3, chunk_rows(chunks)), (4, lists)];
                (1, columns.into_iter().filter(|(_, rows)| !rows.is_empty()).collect())
            }
            Self::Inner { children } => (2, vec![(2, child_rows(children))]),
            Self::List { chunks } => (3, vec![(3, chunk_rows(chunks))]),
            Self::ListInner { lists } => (4, vec![(5, list_rows(lists))]),
        };
        encode(kind, &columns)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        limit(REFS, bytes.len() <= NODE_LEN_MAX, "longer than 16 MiB")?;
        strict::check_deterministic(REFS, bytes)?;
        let node = decode(bytes)?;
        node.check()?;
        Ok(node)
    }

    pub(super) fn check(&self) -> Result<(), FormatError> {
        match self {
            Self::Leaf { chunks, .. } | Self::List { chunks } => {
                check(REFS, chunks.iter().all(|chunk| chunk.len > 0), "a chunk is empty")?;
                let short = chunks.iter().all(|chunk| chunk.len <= CHUNK_LEN_MAX);
                limit(REFS, short, "length of a chunk")
            }
            Self::Inner { .. } => Ok(()),
            Self::ListInner { lists } => {
                let sum = |count: fn(&ListChild) -> u64| {
                    lists.iter().try_fold(0u64, |sum, list| sum.checked_add(count(list)))
                };
                let sums = sum(|list| list.chunks).and(sum(|list| list.bytes));
                check(REFS, sums.is_some(), "more bytes than 64 bits can count")
            }
        }
    }
}

fn child_rows(children: &[Child]) -> Vec<u8> {
    children.iter().flat_map(|child| [child.refs.0, child.tree.0]).flatten().collect()
}

fn chunk_rows(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(chunks.len() * CHUNK);
    for chunk in chunks {
        rows.extend_from_slice(&chunk.id.0);
        rows.extend_from_slice(&chunk.len.to_le_bytes());
    }
    rows
}

fn list_rows(lists: &[ListChild]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(lists.len() * LIST_CHILD);
    for list in lists {
        rows.extend_from_slice(&list.id.0);
        rows.extend_from_slice(&list.chunks.to_le_bytes());
        rows.extend_from_slice(&list.bytes.to_le_bytes());
    }
    rows
}

fn encode(kind: u8, columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let len: usize = columns.iter().map(|(_, rows)| rows.len() + 8).sum();
    let mut out = Vec::with_capacity(len + 8);
    let mut cbor = Encoder::new(&mut out);
    let mut put = || {
        cbor.map(2 + columns.len() as u64)?.u8(0)?.u8(1)?.u8(1)?.u8(kind)?;
        columns.iter().try_for_each(|(key, rows)| cbor.u8(*key)?.bytes(rows)?.ok())
    };
    put().expect("a Vec takes any bytes");
    out
}

fn decode(bytes: &[u8]) -> Result<RefsNode, FormatError> {
    let (mut versioned, mut kind) = (false, 0);
    let [mut children, mut chunks, mut lists, mut list_children] = [None; 4];
    Reader::new(REFS, bytes).map(|reader, key| {
        match (key, kind) {
            (0, _) => {
                reader.version()?;
                versioned = true;
            }
            (1, _) => {
                kind = reader.uint()?;
                if !(1..=4).contains(&kind) {
                    return reader.unsupported(format!("node kind {kind}"));
                }
            }
            (2, 1 | 2) => children = Some(reader.bytes()?),
            (3, 1 | 3) => chunks = Some(reader.bytes()?),
            (4, 1) => lists = Some(reader.bytes()?),
            (5, 4) => list_children = Some(reader.bytes()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    check(REFS, versioned, "it has no version")?;
    match (kind, children, chunks, list_children) {
        (1, ..) => Ok(RefsNode::Leaf {
            children: rows(children.unwrap_or(&[]), read_child)?,
            chunks: rows(chunks.unwrap_or(&[]), read_chunk)?,
            lists: rows(lists.unwrap_or(&[]), |row: &[u8; LIST]| ChunkId(*row))?,
        }),
        (2, Some(children), ..) => Ok(RefsNode::Inner { children: rows(children, read_child)? }),
        (3, _, Some(chunks), _) => Ok(RefsNode::List { chunks: rows(chunks, read_chunk)? }),
        (4, .., Some(lists)) => Ok(RefsNode::ListInner { lists: rows(lists, read_list_child)? }),
        _ => Err(FormatError::Malformed { object: REFS, what: "a field is missing" }),
    }
}

fn rows<const N: usize, T>(bytes: &[u8], read: fn(&[u8; N]) -> T) -> Result<Vec<T>, FormatError> {
    let (rows, rest) = bytes.as_chunks();
    check(REFS, rest.is_empty(), "a column ends inside a row")?;
    Ok(rows.iter().map(read).collect())
}

fn read_child(row: &[u8; CHILD]) -> Child {
    Child { refs: ChunkId(array_at(row, 0)), tree: ChunkId(array_at(row, 32)) }
}

fn read_chunk(row: &[u8; CHUNK]) -> ChunkRef {
    ChunkRef { id: ChunkId(array_at(row, 0)), len: u32_at(row, 32) }
}

fn read_list_child(row: &[u8; LIST_CHILD]) -> ListChild {
    ListChild { id: ChunkId(array_at(row, 0)), chunks: u64_at(row, 32), bytes: u64_at(row, 40) }
}
