//! Looking into a repository without restoring: entries of a snapshot, one file's bytes, and what
//! is stored.

use std::collections::{HashMap, VecDeque};
use std::io::Write;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::format::codec::Codec;
use crate::format::id::{ChunkId, IdKey, PackId};
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::format::tree::TREE_DEPTH_MAX;
use crate::repo::fetch::Fetcher;
use crate::repo::lookup::Index;
use crate::repo::trees::{Found, Node, Piece, Trees};
use crate::repo::{Repo, SnapshotInfo};

pub use crate::format::tree::{Entry, EntryKind, TimeSpec};

/// Chunks of a dump that are fetched ahead, for each thread.
const AHEAD_PER_THREAD: usize = 2;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Calls `each` with the absolute path of an entry and the entry, whose content is left out. A
/// directory gives what is in it, in name order, then, with `recursive`, what is in its
/// subdirectories; anything else gives itself.
pub fn list(
    repo: &Repo,
    snapshot: &SnapshotInfo,
    path: &[u8],
    recursive: bool,
    each: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    let index = repo.index_for_browsing()?;
    let fetcher = Fetcher::new(repo, &index);
    let trees = Trees::new(repo, &fetcher);
    let (path, dir) = match find(&trees, snapshot, path)? {
        (path, Found::Top(dir)) => (path, Some(dir)),
        (path, Found::Entry(node)) if node.entry.kind == EntryKind::Directory => (path, node.child),
        (path, Found::Entry(node)) => return each(&path, &node.entry),
    };
    let mut levels: Vec<(Vec<u8>, Directory, usize)> = Vec::new();
    levels.extend(dir.map(|dir| (path, dir, 0)));
    while let Some((path, dir, depth)) = levels.pop() {
        if depth > TREE_DEPTH_MAX {
            let what = String::from_utf8_lossy(&path).into_owned();
            let cause = format!("directories are more than {TREE_DEPTH_MAX} deep");
            return Err(Error::Damaged { what, cause });
        }
        let from = levels.len();
        let prefix: &[u8] = if path == b"/" { b"" } else { &path };
        trees.each(&dir, &mut |node| {
            let path = [prefix, b"/", &node.entry.name].concat();
            each(&path, &node.entry)?;
            levels.extend(node.child.filter(|_| recursive).map(|child| (path, child, depth + 1)));
            Ok(())
        })?;
        levels[from..].reverse();
    }
    Ok(())
}

/// Writes the content of a file to `out`; the number of its bytes.
pub fn dump(repo: &Repo, snapshot: &SnapshotInfo, path: &[u8], out: &mut dyn Write) -> Result<u64> {
    if !repo.reads(Recipient::Data) {
        let needs = "the DATA key (restore or owner)";
        return Err(Error::Role { role: repo.role(), needs });
    }
    let index = repo.index_for_browsing()?;
    let fetcher = Fetcher::new(repo, &index);
    let trees = Trees::new(repo, &fetcher);
    let node = match find(&trees, snapshot, path)? {
        (_, Found::Entry(node)) if node.entry.kind == EntryKind::File => node,
        (path, _) => return Err(Error::NotAFile { path }),
    };
    let key = repo.id_key()?;
    let mut written = 0;
    let mut write = |bytes: &[u8]| {
        written += bytes.len() as u64;
        out.write_all(bytes).map_err(|source| Error::Output { source })
    };
    match repo.env().threads() {
        1 => trees.pieces(&node, &mut |piece| match piece {
            Piece::Chunk { id, len } => write(&whole(&fetcher, key, &id, len)?),
            Piece::Hole { len } => zeros(len, &mut write),
        })?,
        threads => dump_ahead(&trees, &fetcher, key, &node, threads, &mut write)?,
    }
    out.flush().map_err(|source| Error::Output { source })?;
    Ok(written)
}

/// A chunk to be fetched, and where to put it.
type Errand = (ChunkId, u32, Sender<Result<Vec<u8>>>);

/// Chunks are fetched by several threads and written in order.
fn dump_ahead(
    trees: &Trees,
    fetcher: &Fetcher,
    key: &IdKey,
    node: &Node,
    threads: usize,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let ahead = threads * AHEAD_PER_THREAD;
    let (errands_in, errands) = bounded::<Errand>(ahead);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let errands = errands.clone();
            scope.spawn(move || {
                for (id, len, done) in errands {
                    // Nobody waits for it any more only when the dump has failed.
                    let _ = done.send(whole(fetcher, key, &id, len));
                }
            });
        }
        drop(errands);
        // Dropped at the end, whatever it is: then the threads end.
        let errands_in = errands_in;
        let mut coming: VecDeque<Receiver<Result<Vec<u8>>>> = VecDeque::new();
        let take = |done: Receiver<Result<Vec<u8>>>| done.recv().expect("a thread answers");
        trees.pieces(node, &mut |piece| {
            if let Piece::Chunk { id, len } = piece {
                let (done_in, done) = bounded(1);
                errands_in.send((id, len, done_in)).expect("the threads wait for errands");
                coming.push_back(done);
            }
            let hole = matches!(piece, Piece::Hole { .. });
            while coming.len() > if hole { 0 } else { ahead } {
                write(&take(coming.pop_front().expect("not empty"))?)?;
            }
            if hole { zeros(piece.bytes(), write) } else { Ok(()) }
        })?;
        coming.into_iter().try_for_each(|done| write(&take(done)?))
    })
}

fn whole(fetcher: &Fetcher, key: &IdKey, id: &ChunkId, len: u32) -> Result<Vec<u8>> {
    let bytes = fetcher.chunk(id, key)?;
    if bytes.len() == len as usize {
        return Ok(bytes);
    }
    let cause = "it has another length than stated".to_owned();
    Err(Error::Damaged { what: format!("chunk {id}"), cause })
}

fn zeros(mut len: u64, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while len > 0 {
        let step = len.min(ZEROS.len() as u64);
        write(&ZEROS[..step as usize])?;
        len -= step;
    }
    Ok(())
}

fn find(trees: &Trees, snapshot: &SnapshotInfo, path: &[u8]) -> Result<(Vec<u8>, Found)> {
    trees
        .at(&snapshot.snapshot.root, path)?
        .ok_or_else(|| Error::NoPath { snapshot: snapshot.id.to_string(), path: path.to_vec() })
}

/// What is stored. Bytes are bytes, everything else is pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub snapshots: u64,
    pub packs: u64,
    pub pack_bytes: u64,
    pub index_runs: u64,
    pub index_bytes: u64,
    pub other_objects: u64,
    pub other_bytes: u64,
    /// Each counted once, however often it is stored.
    pub chunks: u64,
    /// Their plain bytes.
    pub chunk_bytes: u64,
    /// Most plain bytes first.
    pub frames_by_codec: Vec<CodecStats>,
    /// Bytes of all files of all snapshots; `None`: this key does not read snapshots.
    pub snapshot_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodecStats {
    pub codec: String,
    pub frames: u64,
    pub plain_bytes: u64,
    /// With the seal's tag of each frame. Bases of deltas count where they are stored.
    pub stored_bytes: u64,
}

impl CodecStats {
    /// Against plain bytes: what zstd alone would have saved is in that of numeric and delta, too,
    /// and nobody knows how much without compressing again. Negative where tags cost more.
    pub fn saved_bytes(&self) -> i64 {
        self.plain_bytes as i64 - self.stored_bytes as i64
    }
}

pub fn stats(repo: &Repo) -> Result<Stats> {
    let mut stats = Stats::default();
    repo.store().list("", &mut |name, len| {
        let (objects, bytes) = match name.as_str().split('/').next() {
            Some("packs") => (&mut stats.packs, &mut stats.pack_bytes),
            Some("index") => (&mut stats.index_runs, &mut stats.index_bytes),
            _ => (&mut stats.other_objects, &mut stats.other_bytes),
        };
        *objects += 1;
        *bytes += len;
    })?;
    if repo.reads(Recipient::Meta) {
        let snapshots = repo.snapshots()?;
        stats.snapshots = snapshots.len() as u64;
        stats.snapshot_bytes = Some(snapshots.iter().map(|info| info.snapshot.counts.bytes).sum());
    } else {
        stats.snapshots = repo.live_snapshot_ids()?.len() as u64;
    }
    count_chunks(&repo.index()?, &mut stats);
    Ok(stats)
}

/// Frames and chunks of packs that are there. Several runs may describe one pack: the first counts.
fn count_chunks(index: &Index, stats: &mut Stats) {
    let segments = index.segments();
    let mut described: HashMap<PackId, usize> = HashMap::new();
    let mut codecs: HashMap<u8, CodecStats> = HashMap::new();
    for (number, segment) in segments.iter().enumerate() {
        let run = segment.run();
        for pack in run.packs() {
            described.entry(pack.id).or_insert(number);
        }
        let counts = |place: u32| {
            let pack = run.pack(place).filter(|_| segment.sound(place));
            pack.is_some_and(|pack| described.get(&pack.id) == Some(&number))
        };
        for frame in run.frames().filter(|frame| counts(frame.pack)) {
            let codec = codecs.entry(frame.codec).or_default();
            codec.frames += 1;
            codec.plain_bytes += u64::from(frame.plain);
            codec.stored_bytes += u64::from(frame.stored);
        }
        let mut last = None;
        for id in run.ids().iter().map(|id| ChunkId(*id)) {
            if last == Some(id) {
                continue;
            }
            last = Some(id);
            // Counted in the first run that has a sound copy.
            let copy = |(number, row): (u32, u32)| {
                let segment = &segments[number as usize];
                let place = segment.location(row)?;
                segment.sound(place.frame.pack).then_some((number as usize, place.chunk.len))
            };
            let first = index.rows(&id).into_iter().find_map(copy);
            if let Some((_, len)) = first.filter(|(first, _)| *first == number) {
                stats.chunks += 1;
                stats.chunk_bytes += u64::from(len);
            }
        }
    }
    stats.frames_by_codec = codecs
        .into_iter()
        .map(|(code, stats)| CodecStats { codec: codec_name(code), ..stats })
        .collect();
    stats.frames_by_codec.sort_by_key(|codec| std::cmp::Reverse(codec.plain_bytes));
}

fn codec_name(code: u8) -> String {
    match Codec::from_u8(code) {
        Ok(Codec::Stored) => "stored".to_owned(),
        Ok(Codec::Zstd) => "zstd".to_owned(),
        Ok(Codec::Numeric) => "numeric".to_owned(),
        Ok(Codec::Delta) => "delta".to_owned(),
        Err(_) => format!("codec {code}"),
    }
}
