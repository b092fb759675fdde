//! What live snapshots need: one bit beside each row of the index, so that 100 M chunks take 12
//! MiB. REFS nodes are followed from the roots, each once; names and content are not looked at, so
//! META and REFID are enough. What a verdict names counts as gone, even while it is there. Which
//! copy of a chunk is kept is decided by whoever deletes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Named, Result};
use crate::format::id::{ChunkId, PackId, SessionId};
use crate::format::index::Location;
use crate::format::snapshot::Directory;
use crate::format::tree::RefsNode;
use crate::repo::Repo;
use crate::repo::fetch::Fetcher;
use crate::repo::lookup::Index;
use crate::repo::parallel;
use crate::repo::segment::Segment;
use crate::watch::Watch;

/// A set of row numbers, filled from several threads.
#[derive(Debug)]
pub(crate) struct Bits(Vec<AtomicU64>);

impl Bits {
    pub fn new(rows: usize) -> Self {
        Self((0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// `true`: it was not in the set before.
    pub fn set(&self, row: u32) -> bool {
        let bit = 1 << (row % 64);
        self.0[row as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub fn has(&self, row: u32) -> bool {
        self.0[row as usize / 64].load(Ordering::Relaxed) & (1 << (row % 64)) != 0
    }
}

/// The index as a pruner sees it: copies in packs that are there, that no verdict names, and whose
/// frames nobody found damaged.
pub(crate) struct Places<'a> {
    pub index: &'a Index,
    pub segments: Vec<Arc<Segment>>,
    /// By segment and pack.
    usable: Vec<Vec<bool>>,
    /// Of each segment of the index, which it is here.
    numbers: Vec<Option<u32>>,
}

/// A copy of a chunk: the segment that says so, and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub segment: usize,
    pub place: Location,
}

impl At {
    /// Not a delta: it can be decoded alone.
    pub fn is_full(&self) -> bool {
        self.place.frame.bases == 0
    }

    pub fn pack(&self) -> PackId {
        self.place.pack.id
    }
}

impl<'a> Places<'a> {
    /// Every run must be whole. Ask `Index::stands` again before acting on what was found.
    pub fn new(index: &'a Index) -> Result<Self> {
        index.stands()?;
        let (doomed, runs) = (&index.packs().doomed, &index.packs().doomed_runs);
        let (mut segments, mut numbers) = (Vec::new(), Vec::new());
        for segment in index.segments() {
            let stays = segment.name.is_none_or(|name| !runs.contains(&name));
            numbers.push(stays.then_some(segments.len() as u32));
            segments.extend(stays.then_some(segment));
        }
        let usable = segments
            .iter()
            .map(|segment| {
                let packs = (0..).zip(segment.run().packs());
                packs.map(|(n, pack)| segment.sound(n) && !doomed.contains(&pack.id)).collect()
            })
            .collect();
        Ok(Self { index, segments, usable, numbers })
    }

    pub fn is_usable(&self, segment: usize, pack: u32) -> bool {
        self.usable[segment][pack as usize]
    }

    /// Every copy that can be relied on. One frame may be named by several runs.
    pub fn copies(&self, id: &ChunkId) -> Vec<At> {
        self.copies_that(id, false)
    }

    /// Those in frames that are recorded as damaged.
    pub fn damaged_copies(&self, id: &ChunkId) -> Vec<At> {
        if self.index.packs().damaged.is_empty() { Vec::new() } else { self.copies_that(id, true) }
    }

    fn copies_that(&self, id: &ChunkId, are_damaged: bool) -> Vec<At> {
        let damaged = &self.index.packs().damaged;
        let mut copies = Vec::new();
        for (segment, row) in self.rows(id) {
            let place = self.segments[segment].location(row);
            copies.extend(
                place
                    .filter(|place| {
                        self.is_usable(segment, place.frame.pack)
                            && damaged.contains(&(place.pack.id, place.frame.offset)) == are_damaged
                    })
                    .map(|place| At { segment, place }),
            );
        }
        copies
    }

    /// The rows of a chunk, usable or not, in the order of the index.
    fn rows(&self, id: &ChunkId) -> impl Iterator<Item = (usize, u32)> {
        let rows = self.index.rows(id).into_iter();
        rows.filter_map(|(number, row)| Some((self.numbers[number as usize]? as usize, row)))
    }

    /// Does no earlier row of the index have the same id? Each chunk has one such row.
    pub fn is_first(&self, segment: usize, row: u32, id: &ChunkId) -> bool {
        self.rows(id).next() == Some((segment, row))
    }
}

/// The rows of all chunks and nodes that live snapshots need.
pub(crate) struct Live {
    rows: Vec<Bits>,
    missing: Mutex<Vec<ChunkId>>,
}

impl Live {
    pub fn has(&self, segment: usize, row: u32) -> bool {
        self.rows[segment].has(row)
    }

    /// Marks every row of a chunk. `true`: it was not marked before.
    fn mark(&self, places: &Places, id: &ChunkId) -> bool {
        let (mut known, mut fresh) = (false, false);
        for (segment, row) in places.rows(id) {
            let unmarked = self.rows[segment].set(row);
            fresh |= !known && unmarked;
            known = true;
        }
        if fresh && places.copies(id).is_empty() || !known {
            self.missing.lock().expect("no panic holds this lock").push(*id);
        }
        fresh
    }
}

/// Follows everything below `roots`. A node or chunk that has no sound copy is an error: nobody may
/// delete on such ground.
pub(crate) fn mark(
    repo: &Repo,
    places: &Places,
    roots: &[(SessionId, Directory)],
    watch: &dyn Watch,
) -> Result<Live> {
    let fetcher = Fetcher::new(repo, places.index);
    let rows = places.segments.iter().map(|segment| Bits::new(segment.run().len() as usize));
    let live = Live { rows: rows.collect(), missing: Mutex::default() };
    let next: Mutex<Vec<ChunkId>> = Mutex::default();
    let push = |refs: &ChunkId| {
        if live.mark(places, refs) {
            next.lock().expect("no panic holds this lock").push(*refs);
        }
    };
    for (_, root) in roots {
        push(&root.refs);
        live.mark(places, &root.tree);
    }
    loop {
        none_missing(&live)?;
        let mut level = std::mem::take(&mut *next.lock().expect("no panic holds this lock"));
        if level.is_empty() {
            return Ok(live);
        }
        // Nodes that lie together are fetched together.
        level.sort_by_cached_key(|id| {
            places.copies(id).first().map(|at| (at.pack(), at.place.frame.offset))
        });
        parallel::each(
            repo.env().threads(),
            &level,
            || (),
            |(), id| {
                if watch.cancelled() {
                    return Err(Error::Interrupted);
                }
                let plain = fetcher.chunk(id, repo.refid_key())?;
                let node = RefsNode::from_bytes(&plain).named(&format!("references {id}"))?;
                each_below(&node, &mut |id, is_refs| {
                    if is_refs {
                        push(id);
                    } else {
                        live.mark(places, id);
                    }
                });
                Ok(())
            },
        )?;
    }
}

/// Every id in a node; `true`: it is a REFS node itself.
pub(crate) fn each_below(node: &RefsNode, each: &mut dyn FnMut(&ChunkId, bool)) {
    let mut dirs: &[_] = &[];
    let mut content: &[_] = &[];
    match node {
        RefsNode::Leaf { children, chunks, lists } => {
            (dirs, content) = (children, chunks);
            lists.iter().for_each(|list| each(list, true));
        }
        RefsNode::Inner { children } => dirs = children,
        RefsNode::List { chunks } => content = chunks,
        RefsNode::ListInner { lists } => lists.iter().for_each(|row| each(&row.id, true)),
    }
    for child in dirs {
        each(&child.refs, true);
        each(&child.tree, false);
    }
    content.iter().for_each(|chunk| each(&chunk.id, false));
}

fn none_missing(live: &Live) -> Result<()> {
    let missing = live.missing.lock().expect("no panic holds this lock");
    let Some(first) = missing.first() else { return Ok(()) };
    let cause = format!("{} chunks that live snapshots need have no sound copy", missing.len());
    Err(Error::Damaged { what: format!("chunk {first}"), cause })
}
