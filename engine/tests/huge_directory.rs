//! Directories of thousands: they are put together while their entries finish, in any order, and yet
//! are stored as if all of it had been at hand. The twin here has all of it at hand. And while one of
//! them takes long, no more than a limit of those behind it is done: the walk pauses.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use strongroom::backup::{self, BackupOptions, Source};

use strongroom::env::Env;
use strongroom::format::id::ChunkId;
use strongroom::format::snapshot::Directory;
use strongroom::format::tree::{
    Child, ChunkRef, Entry, LIST_ABOVE_CHUNKS, ListChild, RefsNode, Segment, TreeChild, TreeNode,
    ends_inner, ends_leaf, ends_list, put_entry,
};
use strongroom::repo::Repo;
use strongroom::repo::fetch::Fetcher;
use strongroom::repo::trees::{Found, Node, Piece, Trees};
use strongroom::watch::{Counter, Problem, Watch};

use support::{back_up, is_quiet, new_store, noise, open, small_options};

const FILES: usize = 6_000;

/// Thousands of small files with directories, links and two large files among them: one that takes
/// long while thousands behind it are done, one with more chunks than an entry may list.
fn sample(dir: &Path) {
    for n in 0..FILES {
        let name = dir.join(format!("{n:05}"));
        match n % 500 {
            100 => std::os::unix::fs::symlink("nowhere", name).unwrap(),
            200 => std::fs::hard_link(dir.join(format!("{:05}", n - 1)), name).unwrap(),
            300 => {
                std::fs::create_dir(&name).unwrap();
                for below in 0..n % 70 {
                    std::fs::write(name.join(below.to_string()), noise(n as u64, below)).unwrap();
                }
            }
            _ => std::fs::write(name, noise(n as u64, n % 90)).unwrap(),
        }
    }
    for name in at_the_bound() {
        std::fs::write(dir.join(name), b"").unwrap();
    }
    std::fs::write(dir.join("00003 large"), noise(1, 6 << 20)).unwrap();
    let mut listed = noise(2, 19 << 20);
    // A second run of chunks behind a hole.
    listed.resize(20 << 20, 0);
    listed.extend(noise(3, 20 << 20));
    std::fs::write(dir.join("03000 listed"), listed).unwrap();
    let file = std::fs::File::options().write(true).open(dir.join("03000 listed")).unwrap();
    strongroom::sys::file::punch_hole(&file, 19 << 20, 1 << 20).unwrap();
}

/// The first names of the directory: one fewer than a leaf must have, and the last of them one that
/// would end it.
fn at_the_bound() -> Vec<String> {
    let ends = |name: &str, entries| ends_leaf(name.as_bytes(), entries, 0, 0);
    let last = (0..).map(|n| format!("!b{n}")).find(|name| ends(name, 1_000)).unwrap();
    let least = (1..).find(|&entries| ends(&last, entries)).unwrap();
    let mut names: Vec<String> = (2..least).map(|n| format!("!a{n:04}")).collect();
    names.push(last);
    names
}

/// Builds a directory from all of its entries at once, and gives its ids without storing anything.
struct Twin<'r> {
    repo: &'r Repo,
}

/// A node with its first name and how many entries are below.
type Named = (Directory, Vec<u8>, u64);

impl Twin<'_> {
    fn refs_id(&self, node: &RefsNode) -> ChunkId {
        self.repo.refid_key().id(&node.to_bytes())
    }

    fn pair(&self, refs: &RefsNode, tree: &TreeNode) -> Directory {
        let tree = self.repo.id_key().unwrap().id(&tree.to_bytes());
        Directory { refs: self.refs_id(refs), tree }
    }

    fn directory(&self, all: Vec<(Node, Vec<Piece>)>) -> Directory {
        let mut nodes: Vec<Named> = Vec::new();
        let mut rest = all.into_iter().peekable();
        while rest.peek().is_some() || nodes.is_empty() {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            let (mut children, mut chunks, mut lists) = (Vec::new(), Vec::new(), Vec::new());
            for (node, pieces) in rest.by_ref() {
                let mut entry: Entry = node.entry;
                entry.child = node.child.map(|Directory { refs, tree }| {
                    children.push(Child { refs, tree });
                    children.len() as u32 - 1
                });
                entry.content = self.segments(&pieces, &mut chunks, &mut lists);
                let mut encoded = Vec::new();
                put_entry(&entry, &mut encoded);
                bytes += encoded.len();
                let name = entry.name.clone();
                entries.push(entry);
                if ends_leaf(&name, entries.len(), bytes, chunks.len()) {
                    break;
                }
            }
            let first = entries.first().map(|entry| entry.name.clone()).unwrap_or_default();
            let count = entries.len() as u64;
            let refs = RefsNode::Leaf { children, chunks, lists };
            nodes.push((self.pair(&refs, &TreeNode::Leaf { entries }), first, count));
        }
        while nodes.len() > 1 {
            let mut above = Vec::new();
            let mut rest = nodes.into_iter().peekable();
            while rest.peek().is_some() {
                let mut group: Vec<Named> = Vec::new();
                for node in rest.by_ref() {
                    group.push(node);
                    if ends_inner(&group[group.len() - 1].1, group.len()) {
                        break;
                    }
                }
                let ids = |node: &Named| Child { refs: node.0.refs, tree: node.0.tree };
                let refs = RefsNode::Inner { children: group.iter().map(ids).collect() };
                let named =
                    |node: &Named| TreeChild { first_name: node.1.clone(), entries: node.2 };
                let tree = TreeNode::Inner { children: group.iter().map(named).collect() };
                let entries = group.iter().map(|node| node.2).sum();
                above.push((self.pair(&refs, &tree), group[0].1.clone(), entries));
            }
            nodes = above;
        }
        nodes[0].0
    }

    fn segments(
        &self,
        pieces: &[Piece],
        chunks: &mut Vec<ChunkRef>,
        lists: &mut Vec<ChunkId>,
    ) -> Vec<Segment> {
        let mut segments = Vec::new();
        for run in pieces.chunk_by(|a, b| a.chunk().is_some() && b.chunk().is_some()) {
            let len = run.iter().map(Piece::bytes).sum();
            let run: Vec<ChunkRef> = run.iter().filter_map(Piece::chunk).collect();
            if run.is_empty() {
                segments.push(Segment::Hole { len });
            } else if pieces.len() <= LIST_ABOVE_CHUNKS {
                let (first, count) = (chunks.len() as u32, run.len() as u32);
                segments.push(Segment::Chunks { first, chunks: count, len });
                chunks.extend(run);
            } else {
                segments.push(Segment::List { list: lists.len() as u32, len });
                lists.push(self.list(&run));
            }
        }
        segments
    }

    fn list(&self, run: &[ChunkRef]) -> ChunkId {
        let mut rows = Vec::new();
        let mut rest = run.iter().copied().peekable();
        while rest.peek().is_some() {
            let mut chunks: Vec<ChunkRef> = Vec::new();
            for chunk in rest.by_ref() {
                chunks.push(chunk);
                if ends_list(&chunk.id, chunks.len()) {
                    break;
                }
            }
            let bytes = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
            let count = chunks.len() as u64;
            rows.push(ListChild {
                id: self.refs_id(&RefsNode::List { chunks }),
                chunks: count,
                bytes,
            });
        }
        // A few of 512 rows each: one inner node holds them.
        if let [only] = &rows[..] {
            return only.id;
        }
        self.refs_id(&RefsNode::ListInner { lists: rows })
    }
}

#[test]
fn a_directory_that_is_put_together_on_the_way_is_stored_as_if_all_were_at_hand() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    let store = new_store(&Env::system(1));
    // Twenty take turns with the tools that chunks are stored with.
    for threads in [1, 2, 5, 20] {
        let env = Env::system(threads);
        let repo = open(&store, None, &env);
        let report = back_up(&repo, source.path());
        assert_eq!(report.counts.directories as usize, 1 + FILES / 500 + above(source.path()));
        let info = repo.find_snapshot(&report.snapshot.unwrap().to_string()).unwrap();
        let index = repo.index().unwrap();
        let fetcher = Fetcher::new(&repo, &index);
        let trees = Trees::new(&repo, &fetcher);
        let path = source.path().canonicalize().unwrap();
        let found = trees.at(&info.snapshot.root, path.as_os_str().as_encoded_bytes()).unwrap();
        let Some((_, Found::Entry(top))) = found else { panic!("the source is a directory") };
        let stored = top.child.unwrap();
        let mut all = Vec::new();
        let mut take = |node: Node| {
            let mut pieces = Vec::new();
            trees.pieces(&node, &mut |piece| {
                pieces.push(piece);
                Ok(())
            })?;
            all.push((node, pieces));
            Ok(())
        };
        trees.each(&stored, &mut take).unwrap();
        let entries = FILES + 2 + at_the_bound().len();
        assert_eq!(all.len(), entries, "with {threads} threads");
        assert!(all.iter().any(|(_, pieces)| pieces.len() > LIST_ABOVE_CHUNKS));
        assert_eq!(Twin { repo: &repo }.directory(all), stored, "with {threads} threads");
    }
}

/// Directories from `/` down to this one, which is not counted.
fn above(path: &Path) -> usize {
    path.canonicalize().unwrap().ancestors().count() - 1
}

/// Keeps whoever begins with the first file until the gate is opened, and counts what is done meanwhile.
#[derive(Default)]
struct Held {
    files: AtomicU64,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Held {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Watch for Held {
    fn add(&self, counter: Counter, n: u64) {
        if counter == Counter::FilesDone {
            self.files.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn current(&self, name: &[u8]) {
        if name.ends_with(b"/00000") {
            let open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(open, |open| !*open).unwrap());
        }
    }

    fn problem(&self, problem: Problem) {
        panic!("{problem:?}");
    }
}

#[test]
fn the_walk_pauses_while_too_much_waits_for_one_file() {
    const THREADS: u64 = 2;
    let source = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        std::fs::write(source.path().join(format!("{n:05}")), b"").unwrap();
    }
    // A quarter of a pack may wait, and what waits is at least so large; what has been handed out when
    // the walk notices is done, too: a queue of at most 80 names each, and as many for each thread.
    let waiting = small_options().pack_bytes / 4 / 160;
    let handed_out = (THREADS * 4 + THREADS + 1) * 80;
    assert!(waiting + handed_out < FILES as u64 / 2, "otherwise nothing is shown");
    let env = Env::system(THREADS as usize);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    let (held, paths) = (Held::default(), [source.path().to_owned()]);
    let options = BackupOptions::default();
    let report = std::thread::scope(|scope| {
        let run = || backup::run(&repo, Source::Paths(&paths), &options, &held);
        let backup = scope.spawn(run);
        // Until nothing moves any more, and something had moved.
        let (mut quiet, mut before) = (0, 0);
        while quiet < 3 {
            let done = held.files.load(Ordering::Relaxed);
            quiet = if is_quiet() && done == before && done > 500 { quiet + 1 } else { 0 };
            before = done;
            std::thread::yield_now();
        }
        held.open();
        let report = backup.join().unwrap().unwrap();
        assert!(before <= waiting + handed_out, "{before} were done while the first was not");
        report
    });
    assert_eq!(report.counts.files, FILES as u64);
}
