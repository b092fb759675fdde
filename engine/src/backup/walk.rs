//! The walk: depth first, entries in the bytewise order of their names, so that what is done can go
//! into its directory's leaves at once. It lists and hands out; to stat, read or compare is the
//! workers' affair.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backup::assemble::Assembly;
use crate::backup::work::Work;
use crate::backup::{Source, Task};
use crate::error::{Error, Result};
use crate::format::snapshot::Directory;
use crate::format::tree::Entry;
use crate::repo::journal::Record;
use crate::sys::dir::{Dir, Names};
use crate::sys::stat::{Kind, Stat, fstat};
use crate::watch::{Counter, Problem, ProblemKind, Watch};

/// Names in one task, few enough to spread the work.
const BATCH: usize = 32;
/// Names, and ends of directories, that a worker is handed at once, so that it is worth waking it.
const HANDED_OUT: usize = 48;
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_BEGINS: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What was asked to be backed up: the source paths, and the skeleton of directories that leads to them.
#[derive(Debug, Default)]
pub struct Roots {
    /// Absolute, without symlinks before their last component; as the snapshot names them.
    pub paths: Vec<Vec<u8>>,
    /// Source paths that are not there.
    pub missing: u64,
    skeleton: Skeleton,
}

#[derive(Debug, Default)]
struct Skeleton {
    /// A source path: everything below belongs to it.
    whole: bool,
    below: BTreeMap<Vec<u8>, Skeleton>,
}

/// A directory on its way into the snapshot. It completes when the walk has handed out all its
/// names and the last of its entries is done.
pub struct DirNode {
    pub path: Vec<u8>,
    /// `None`: it could not be opened, or is made up (standard input).
    pub dir: Option<Dir>,
    pub names: Names,
    /// The parent snapshot's version of this directory.
    pub before: Option<Directory>,
    pub up: Option<(Arc<DirNode>, usize)>,
    /// It could not be opened: its entry says so by having no content.
    pub unread: bool,
    /// Its own entry; `None` for `/`.
    pub entry: Mutex<Option<Entry>>,
    assembly: Mutex<Assembly>,
    pending: AtomicUsize,
}

/// A finished entry.
pub enum Done {
    Leaf(Record),
    Dir(Entry, Option<Directory>),
}

impl Skeleton {
    fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        self.below.keys().try_for_each(|name| names.push(name, None))?;
        Ok(names)
    }
}

impl Roots {
    pub fn of(source: &Source, watch: &dyn Watch) -> Result<Self> {
        match source {
            Source::Paths(paths) => Self::of_paths(paths, watch),
            Source::Stream { name, .. } => {
                let path = [b"/", *name].concat();
                Ok(Self { paths: vec![path], ..Self::default() })
            }
        }
    }

    /// A source path that is not there is reported; if none is there, that is an error.
    fn of_paths(paths: &[PathBuf], watch: &dyn Watch) -> Result<Self> {
        let mut roots = Self::default();
        let mut missing = None;
        for path in paths {
            match absolute(path).and_then(|full| full.symlink_metadata().map(|_| full)) {
                Ok(full) => roots.insert(&full),
                Err(source) => {
                    let (kind, cause) = (ProblemKind::Unread, source.to_string());
                    let name = path.as_os_str().as_bytes().to_vec();
                    watch.problem(Problem { kind, name, cause });
                    watch.add(Counter::Unread, 1);
                    roots.missing += 1;
                    missing = Some(Error::Source { path: path.clone(), source });
                }
            }
        }
        roots.paths.sort();
        roots.paths.dedup();
        match missing {
            Some(error) if roots.paths.is_empty() => Err(error),
            _ if roots.paths.is_empty() => {
                Err(Error::Setting { what: "no path to back up was given".to_owned() })
            }
            _ => Ok(roots),
        }
    }

    fn insert(&mut self, path: &Path) {
        self.paths.push(path.as_os_str().as_bytes().to_vec());
        let mut place = &mut self.skeleton;
        for component in path.components() {
            if let Component::Normal(name) = component {
                place = place.below.entry(name.as_bytes().to_vec()).or_default();
            }
        }
        place.whole = true;
    }
}

/// The parent resolved, the last component as it is: a symlink that is named is backed up as a symlink.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

impl DirNode {
    pub fn new(
        path: Vec<u8>,
        dir: Option<Dir>,
        names: Names,
        before: Option<Directory>,
        up: Option<(Arc<DirNode>, usize)>,
        entry: Option<Entry>,
    ) -> Arc<Self> {
        let assembly = Mutex::default();
        // One for each name, one for the walk.
        let pending = AtomicUsize::new(names.len() + 1);
        let (entry, unread) = (Mutex::new(entry), false);
        Arc::new(Self { path, dir, names, before, up, unread, entry, assembly, pending })
    }

    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let slash: &[u8] = if self.path.ends_with(b"/") { b"" } else { b"/" };
        [&self.path, slash, name].concat()
    }

    pub fn assembly(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().expect("no panic holds this lock")
    }

    /// `true`: that was the last thing this directory waited for.
    pub fn count_down(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

struct Level<'s> {
    node: Arc<DirNode>,
    /// Place of the first name that has not been handed out.
    next: usize,
    skeleton: Option<&'s Skeleton>,
}

impl Level<'_> {
    /// A run of names that are not directories: a batch at most, and empty before a directory and at
    /// the end.
    fn run(&mut self) -> Range<usize> {
        let (from, names) = (self.next, &self.node.names);
        let to = names.len().min(from + BATCH);
        self.next = (from..to).find(|&at| names.kind(at) == Some(Kind::Dir)).unwrap_or(to);
        from..self.next
    }
}

/// Tasks gather until they are worth waking a worker for.
struct Gathered<'s> {
    tasks: Vec<Task>,
    names: usize,
    submit: &'s mut dyn FnMut(Vec<Task>) -> Result<()>,
}

impl Gathered<'_> {
    fn add(&mut self, task: Task) -> Result<()> {
        self.names += match &task {
            Task::Entries { from, to, .. } => to - from,
            Task::Listed { .. } => 1,
        };
        self.tasks.push(task);
        if self.names >= HANDED_OUT { self.hand_out() } else { Ok(()) }
    }

    fn hand_out(&mut self) -> Result<()> {
        self.names = 0;
        (self.submit)(std::mem::take(&mut self.tasks))
    }
}

pub fn walk(
    work: &Work,
    roots: &Roots,
    submit: &mut dyn FnMut(Vec<Task>) -> Result<()>,
) -> Result<()> {
    let mut gathered = Gathered { tasks: Vec::new(), names: 0, submit };
    let skeleton = Some(&roots.skeleton);
    let dir = Dir::open(Path::new("/"))
        .map_err(|source| Error::Source { path: PathBuf::from("/"), source })?;
    let before = work.before.root();
    let top = list(work, b"/".to_vec(), Some(dir), before, None, None, skeleton);
    let mut stack = vec![top];
    let mut device = None;
    while let Some(level) = stack.last_mut() {
        if work.ahead.is_full() {
            // Nothing is kept back while the walk stands still.
            gathered.hand_out()?;
            work.wait_for_room();
        }
        work.go_on()?;
        let run = level.run();
        if !run.is_empty() {
            let dir = level.node.clone();
            gathered.add(Task::Entries { dir, from: run.start, to: run.end })?;
            continue;
        }
        if level.next == level.node.names.len() {
            let level = stack.pop().expect("just seen");
            gathered.add(Task::Listed { dir: level.node })?;
            continue;
        }
        let (node, place) = (level.node.clone(), level.next);
        level.next += 1;
        let below = level.skeleton.and_then(|skeleton| skeleton.below.get(&node.names[place]));
        // Inside of a source path there is no skeleton any more.
        let below = below.filter(|skeleton| !skeleton.whole);
        if level.skeleton.is_some_and(|skeleton| !skeleton.whole) && below.is_none() {
            device = None;
        }
        stack.push(enter(work, node, place, below, &mut device)?);
    }
    gathered.hand_out()
}

/// Opens and lists a subdirectory. One that cannot be opened or listed is in the
/// snapshot without content.
fn enter<'s>(
    work: &Work,
    up: Arc<DirNode>,
    place: usize,
    skeleton: Option<&'s Skeleton>,
    device: &mut Option<u64>,
) -> Result<Level<'s>> {
    let name = &up.names[place];
    let path = up.path_of(name);
    let parent = up.dir.as_ref().expect("its names were listed");
    work.current(&path);
    let opened = parent.open_dir(name).and_then(|dir| fstat(&dir).map(|stat| (dir, stat)));
    let (dir, stat) = match opened {
        Ok((dir, stat)) => (Some(dir), Some(stat)),
        Err(error) => {
            work.problem(ProblemKind::Unread, &path, error);
            (None, parent.stat(name).ok().filter(|stat| stat.kind == Kind::Dir))
        }
    };
    let entry = match (&stat, &dir) {
        (Some(stat), Some(dir)) => Some(work.entry(name, stat, work.xattrs(dir, &path))),
        (Some(stat), None) => Some(work.entry(name, stat, Vec::new())),
        (None, _) => None,
    };
    let dir = dir.filter(|_| stays(work, &stat, skeleton, device));
    let before = work.before.child(&up, name)?;
    Ok(list(work, path, dir, before, Some((up, place)), entry, skeleton))
}

/// `false`: a mount point that `--one-file-system` does not cross; it is recorded, empty.
fn stays(
    work: &Work,
    stat: &Option<Stat>,
    skeleton: Option<&Skeleton>,
    device: &mut Option<u64>,
) -> bool {
    let Some(stat) = stat else { return false };
    if !work.options.one_file_system || skeleton.is_some() {
        return true;
    }
    *device.get_or_insert(stat.dev) == stat.dev
}

fn list<'s>(
    work: &Work,
    path: Vec<u8>,
    dir: Option<Dir>,
    before: Option<Directory>,
    up: Option<(Arc<DirNode>, usize)>,
    entry: Option<Entry>,
    skeleton: Option<&'s Skeleton>,
) -> Level<'s> {
    let listed = match (&dir, skeleton.filter(|skeleton| !skeleton.whole)) {
        (None, _) => Ok(Names::default()),
        (Some(_), Some(skeleton)) => skeleton.names(),
        (Some(dir), None) => dir.names(),
    };
    let mut names = listed.unwrap_or_else(|error| {
        work.problem(ProblemKind::Unread, &path, error);
        Names::default()
    });
    let tag_only = work.options.exclude_caches && dir.as_ref().is_some_and(is_cache);
    let exclude = work.options.exclude.as_ref();
    let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
    names.retain(|name, kind| {
        if tag_only && name != CACHE_TAG {
            return false;
        }
        let told = || dir.as_ref()?.stat(name).ok().map(|stat| stat.kind);
        *kind = kind.or_else(told);
        let is_dir = *kind == Some(Kind::Dir);
        !exclude.is_some_and(|exclude| exclude(&[&path, slash, name].concat(), is_dir))
    });
    work.count_found(names.len());
    let node = DirNode::new(path, dir, names, before, up, entry);
    Level { node, next: 0, skeleton }
}

fn is_cache(dir: &Dir) -> bool {
    let mut begins = [0; CACHE_TAG_BEGINS.len()];
    let read = dir
        .open_file(CACHE_TAG)
        .and_then(|file| crate::sys::file::read_full_at(&file, 0, &mut begins));
    read.is_ok_and(|n| n == begins.len()) && begins == CACHE_TAG_BEGINS
}
