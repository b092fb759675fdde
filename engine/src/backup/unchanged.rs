//! Unchanged? A file whose path, size, mtime, ctime and inode are those of the journal (or, where
//! the key can read it, of the parent snapshot: without the inode) is taken over without being
//! read. Each of its chunks is looked up all the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::backup::BackupOptions;
use crate::backup::bases::Bases;
use crate::backup::old::Old;
use crate::backup::read::time;
use crate::backup::walk::{DirNode, Roots};
use crate::backup::work::Work;
use crate::env::TimeNs;
use crate::error::Result;
use crate::format::id::SessionId;
use crate::format::seal::Recipient;
use crate::format::snapshot::Directory;
use crate::format::tree::{Entry, EntryKind, TimeSpec};
use crate::repo::Repo;
use crate::repo::fetch::Fetcher;
use crate::repo::journal::{Past, Recall, Record, Signature};
use crate::repo::lookup::Index;
use crate::repo::snapshots::SnapshotInfo;
use crate::repo::trees::{Node, Part, Piece, Trees};
use crate::sys::stat::Stat;

/// Files that changed within this time before the backup began are read again next time.
const UNSURE_NS: TimeNs = 2_000_000_000;

/// Parts of the parent's directories that are kept: this many, with this many bytes in all.
const PARTS_MAX: usize = 64;
pub const PARTS_BYTES_MAX: usize = 24 << 20;
/// What an entry of a part takes in memory beside its bytes in the TREE node.
const ENTRY_BYTES: usize = 512;

/// What is known of earlier backups of these paths.
pub struct Before<'r> {
    repo: &'r Repo,
    past: Option<Past>,
    parent: Option<SnapshotInfo>,
    /// Only without a journal: directories of the parent snapshot are read instead.
    fetcher: Option<Fetcher<'r>>,
    loaded: Mutex<Loaded>,
    /// What changed files can be told by.
    pub bases: Bases<'r>,
}

/// The newest last.
#[derive(Default)]
struct Loaded {
    parts: VecDeque<(Directory, Arc<Part>)>,
    bytes: usize,
}

impl Loaded {
    fn get(&self, dir: &Directory, name: &[u8]) -> Option<Arc<Part>> {
        let holds = |part: &Part| {
            &part.from[..] <= name && part.until.as_ref().is_none_or(|until| &until[..] > name)
        };
        let mut parts = self.parts.iter().rev();
        parts.find(|(of, part)| of == dir && holds(part)).map(|(_, part)| part.clone())
    }

    fn put(&mut self, dir: Directory, part: Arc<Part>) {
        let memory = |part: &Part| part.tree_bytes + part.nodes.len() * ENTRY_BYTES;
        self.bytes += memory(&part);
        self.parts.push_back((dir, part));
        while self.parts.len() > 1 && (self.parts.len() > PARTS_MAX || self.bytes > PARTS_BYTES_MAX)
        {
            let (_, oldest) = self.parts.pop_front().expect("more than one");
            self.bytes -= memory(&oldest);
        }
    }
}

/// What an entry was before.
pub enum Was {
    Absent,
    /// Changed, or not to be trusted.
    Other(Record),
    Same(Record),
}

impl<'r> Before<'r> {
    pub fn open(
        repo: &'r Repo,
        index: &'r Index,
        past: Option<Past>,
        roots: &Roots,
        options: &BackupOptions,
    ) -> Result<Self> {
        let past = past.filter(|past| !past.is_empty() && options.parent.is_none());
        let reads = repo.reads(Recipient::Meta) && repo.reads(Recipient::Tree);
        let parent = match &options.parent {
            Some(wanted) => Some(repo.find_snapshot(wanted)?),
            None if reads => latest_of(repo, roots, options)?,
            None => None,
        };
        let fetcher =
            (past.is_none() && parent.is_some() && reads).then(|| Fetcher::new(repo, index));
        let bases = Bases::open(repo, index, options)?;
        Ok(Self { repo, past, parent, fetcher, loaded: Mutex::default(), bases })
    }

    /// Nothing is known of any path.
    pub fn is_empty(&self) -> bool {
        self.past.is_none() && self.fetcher.is_none()
    }

    pub fn parent(&self) -> Option<SessionId> {
        self.parent.as_ref().map(|parent| parent.id)
    }

    /// The parent's root directory, if directories of the parent are to be compared with.
    pub fn root(&self) -> Option<Directory> {
        self.fetcher.as_ref()?;
        Some(self.parent.as_ref()?.snapshot.root)
    }

    pub fn child(&self, up: &DirNode, name: &[u8]) -> Result<Option<Directory>> {
        let Some(part) = self.load(up, name) else { return Ok(None) };
        Ok(entry_of(&part, name).and_then(|node| node.child))
    }

    /// The part of a directory of the parent that may have this name. One that cannot be read
    /// compares as empty: its files are read.
    fn load(&self, dir: &DirNode, name: &[u8]) -> Option<Arc<Part>> {
        let (fetcher, ids) = (self.fetcher.as_ref()?, dir.before?);
        let loaded = self.loaded.lock().expect("no panic holds this lock").get(&ids, name);
        if loaded.is_some() {
            return loaded;
        }
        let part = Arc::new(Trees::new(self.repo, fetcher).part(&ids, name).unwrap_or_default());
        self.loaded.lock().expect("no panic holds this lock").put(ids, part.clone());
        Some(part)
    }

    /// What was known of an entry, however it is now.
    pub fn record(&self, dir: &DirNode, name: &[u8], path: &[u8]) -> Result<Option<Record>> {
        Ok(self.find(dir, name, path, &mut Recall::default())?.map(|(record, _)| record))
    }

    fn find(
        &self,
        dir: &DirNode,
        name: &[u8],
        path: &[u8],
        recall: &mut Recall,
    ) -> Result<Option<(Record, bool)>> {
        if let Some(past) = &self.past {
            return Ok(past.find(path, recall).map(|record| (record, true)));
        }
        let Some(part) = self.load(dir, name) else { return Ok(None) };
        let node = entry_of(&part, name).filter(|node| node.entry.kind == EntryKind::File);
        let Some(node) = node else { return Ok(None) };
        let fetcher = self.fetcher.as_ref().expect("directories were loaded through it");
        let mut pieces: Vec<Piece> = Vec::new();
        let read = Trees::new(self.repo, fetcher).pieces(node, &mut |piece| {
            pieces.push(piece);
            Ok(())
        });
        let begun = self.parent.as_ref().map_or(i64::MIN, |parent| parent.snapshot.time_ns);
        let unsure = read.is_err() || node.entry.flags != 0 || changed_lately(&node.entry, begun);
        let signature = Signature { dev: 0, ino: 0, unsure };
        Ok(Some((Record { signature, entry: node.entry.clone(), pieces }, false)))
    }
}

fn entry_of<'p>(part: &'p Part, name: &[u8]) -> Option<&'p Node> {
    let found = part.nodes.binary_search_by(|node| node.entry.name[..].cmp(name));
    found.ok().map(|place| &part.nodes[place])
}

/// The newest snapshot of this author and host with the same paths.
fn latest_of(repo: &Repo, roots: &Roots, options: &BackupOptions) -> Result<Option<SnapshotInfo>> {
    let host = options.host.clone().or_else(crate::sys::host::host_name);
    // A damaged one is no parent, and no reason not to back up.
    let (mut all, _) = repo.snapshots_despite()?;
    all.retain(|info| {
        info.snapshot.author == repo.identity()
            && Some(&info.snapshot.host) == host.as_ref()
            && info.snapshot.roots == roots.paths
    });
    Ok(all.pop())
}

impl Work<'_> {
    pub fn was(
        &self,
        dir: &DirNode,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        recall: &mut Recall,
    ) -> Result<Was> {
        let Some((record, by_journal)) = self.before.find(dir, name, path, recall)? else {
            return Ok(Was::Absent);
        };
        let entry = &record.entry;
        let signature = &record.signature;
        let same = !self.options.rescan
            && !signature.unsure
            && entry.size == Some(stat.size)
            && entry.mtime == time(stat.mtime)
            && (self.options.ignore_ctime || entry.ctime == Some(time(stat.ctime)))
            && (self.options.ignore_inode
                || !by_journal
                || (signature.dev, signature.ino) == (stat.dev, stat.ino))
            && self.stored(&record);
        Ok(if same { Was::Same(record) } else { Was::Other(record) })
    }

    /// A changed file's last version, if its chunks can serve as bases.
    pub fn old(&self, was: Option<&Record>) -> Option<Old> {
        self.before.bases.old(&was?.pieces)
    }

    fn stored(&self, record: &Record) -> bool {
        record.pieces.iter().all(|piece| match piece {
            Piece::Chunk { id, .. } => self.index.knows_or_claimed(id),
            Piece::Hole { .. } => true,
        })
    }

    /// Next time it is read, even if it looks unchanged.
    pub fn unsure(&self, entry: &Entry) -> bool {
        changed_lately(entry, self.started)
    }
}

/// Changed so shortly before the backup began, or after, that it may have changed again in the same tick of its file
/// system's clock.
fn changed_lately(entry: &Entry, begun: TimeNs) -> bool {
    let lately = |time: &TimeSpec| {
        let at = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        at > i128::from(begun) - i128::from(UNSURE_NS)
    };
    lately(&entry.mtime) || entry.ctime.as_ref().is_some_and(lately)
}
