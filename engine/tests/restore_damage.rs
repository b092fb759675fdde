//! The way back from repositories that are damaged or hostile: what is lost is named, all else
//! comes back, and nothing is ever written outside of the target.

mod support;

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::codec::Codec;
use strongroom::format::id::ChunkId;
use strongroom::format::pack::ChunkRow;
use strongroom::format::seal::Recipient;
use strongroom::format::slot::Unlock;
use strongroom::format::snapshot::Directory;
use strongroom::format::tree::{
    Child, ChunkRef, Entry, EntryKind, RefsNode, Segment, TreeChild, TreeNode, leaf_from_encoded,
    put_entry,
};
use strongroom::repo::fetch::Fetcher;
use strongroom::repo::lookup::Copy;
use strongroom::repo::packer::{Packer, pack_name};
use strongroom::repo::session::{Encoded, Session};
use strongroom::repo::trees::{Found, Trees};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::restore::target::Target;
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::{Fault, FaultyStore, MemoryStore, Op, Store};
use strongroom::watch::{Problem, ProblemKind, Tally};

use support::{KEY, assert_same, back_up, new_store, noise, open, picture};

fn restore(repo: &Repo, info: &SnapshotInfo, target: &Path) -> (RestoreReport, Vec<Problem>) {
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    let report = restore::run(repo, info, None, target, &options, &watch).unwrap();
    (report, watch.problems())
}

/// Where the copies of the first chunk of a file are.
fn copies(repo: &Repo, path: &Path) -> Vec<Copy> {
    let index = repo.index().unwrap();
    let fetcher = Fetcher::new(repo, &index);
    let trees = Trees::new(repo, &fetcher);
    let root = repo.find_snapshot("latest").unwrap().snapshot.root;
    let path = path.canonicalize().unwrap();
    let found = trees.at(&root, path.as_os_str().as_bytes()).unwrap().unwrap().1;
    let Found::Entry(node) = found else { panic!("a file has an entry") };
    let mut first = None;
    trees
        .pieces(&node, &mut |piece| {
            first.get_or_insert(piece);
            Ok(())
        })
        .unwrap();
    index.copies(&first.unwrap().chunk().unwrap().id)
}

/// Flips a bit in the frame that holds this copy; a second time undoes it.
fn flip(store: &MemoryStore, copy: &Copy) {
    let at = copy.place.frame.offset as usize + 10;
    store.tamper(&pack_name(&copy.place.pack.id), |bytes| bytes[at] ^= 4);
}

#[test]
fn what_is_damaged_is_named_and_the_rest_comes_back() {
    for threads in [1, 3] {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..8 {
            fs::write(source.path().join(format!("{n}")), noise(n, 1 << 20)).unwrap();
        }
        fs::hard_link(source.path().join("3"), source.path().join("link")).unwrap();
        let env = Env::system(threads);
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        back_up(&repo, source.path());
        let copy = copies(&repo, &source.path().join("3")).remove(0);
        flip(&store, &copy);

        let info = repo.find_snapshot("latest").unwrap();
        let (report, problems) = restore(&repo, &info, target.path());
        let source = source.path().canonicalize().unwrap();
        let lands = target.path().join(source.strip_prefix("/").unwrap());
        let lost: Vec<&str> = problems
            .iter()
            .map(|problem| std::str::from_utf8(&problem.name).unwrap().rsplit('/').next().unwrap())
            .collect();
        assert!(lost.contains(&"3") && lost.contains(&"link") && lost.len() < 6, "{problems:?}");
        assert_eq!(report.failed, lost.len() as u64);
        assert_eq!(report.files_restored + report.failed, 9);
        let pack = pack_name(&copy.place.pack.id);
        for problem in &problems {
            assert_eq!(problem.kind, ProblemKind::NotRestored);
            let is_link = problem.name.ends_with(b"link");
            assert!(problem.cause.contains(pack.as_str()) || is_link, "{problem:?}");
        }
        for n in 0..8 {
            let (from, to) = (source.join(format!("{n}")), lands.join(format!("{n}")));
            let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
            if lost.contains(&&*format!("{n}")) {
                assert_ne!(time(&from), time(&to), "{n} must not pass for complete");
            } else {
                assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
            }
        }
        // Healed, the same command completes it.
        flip(&store, &copy);
        let (report, problems) = restore(&repo, &info, target.path());
        assert_eq!(problems, []);
        assert_eq!(report.files_repaired + 1, lost.len() as u64, "{report:?}");
        assert_same(&picture(&source), &picture(&lands));
        // What cannot be repaired must not keep the right time either.
        flip(&store, &copy);
        let path = lands.join("3");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::remove_file(lands.join("link")).unwrap();
        let bad = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&bad, b"rot", 0).unwrap();
        bad.set_modified(time).unwrap();
        let options = RestoreOptions { verify_existing: true, ..RestoreOptions::default() };
        let watch = Tally::default();
        let report = restore::run(&repo, &info, None, target.path(), &options, &watch).unwrap();
        assert_eq!(report.failed, 2, "{report:?}");
        assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    }
}

#[test]
fn every_copy_is_tried() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), noise(1, 300_000)).unwrap();
    let env = Env::system(2);
    let store = new_store(&env);
    back_up(&open(&store, None, &env), source.path());
    // A second writer that does not see what the first has stored.
    let runs: Vec<_> =
        store.names().into_iter().filter(|name| name.as_str().starts_with("index/")).collect();
    let hidden: Vec<_> =
        runs.iter().map(|name| (name, store.get(name, u64::MAX).unwrap())).collect();
    runs.iter().for_each(|name| store.delete(name).unwrap());
    let rescan = strongroom::backup::BackupOptions { rescan: true, ..Default::default() };
    support::back_up_with(&open(&store, None, &env), source.path(), &rescan);
    for (name, bytes) in hidden {
        store.put_if_absent(name, &bytes).unwrap();
    }
    let repo = open(&store, None, &env);
    let copies = copies(&repo, &source.path().join("file"));
    assert_eq!(copies.len(), 2);
    let info = repo.find_snapshot("latest").unwrap();
    for damaged in &copies {
        flip(&store, damaged);
        let target = tempfile::tempdir().unwrap();
        let (report, problems) = restore(&repo, &info, target.path());
        assert_eq!((report.failed, report.files_restored), (0, 1), "{problems:?}");
        flip(&store, damaged);
    }
}

#[test]
fn a_read_that_fails_is_no_silent_loss() {
    let source = tempfile::tempdir().unwrap();
    for n in 0..20 {
        fs::write(source.path().join(format!("{n}")), noise(n, 60_000 * n as usize)).unwrap();
    }
    let env = Env::system(1);
    let store = new_store(&env);
    let owner = open(&store, None, &env);
    back_up(&owner, source.path());
    let info = owner.find_snapshot("latest").unwrap();
    let wanted = picture(source.path());
    let path = source.path().canonicalize().unwrap();
    let mut reads = 0;
    for number in 0.. {
        let target = tempfile::tempdir().unwrap();
        let lands = target.path().join(path.strip_prefix("/").unwrap());
        let is_pack = |op, name: &str| op == Op::GetRange && name.starts_with("packs/");
        let count = std::sync::atomic::AtomicU64::new(0);
        let faulty = FaultyStore::new(Arc::new(store.clone()), move |_, op, name| {
            let strikes = is_pack(op, name)
                && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == number;
            if strikes { Fault::ShortWrite } else { Fault::None }
        });
        let repo = Repo::open(Arc::new(faulty.clone()), Unlock::KeyFile(&KEY), None, &env).unwrap();
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let done = restore::run(&repo, &info, None, target.path(), &options, &watch);
        let struck = faulty.log().iter().any(|logged| logged.fault != Fault::None);
        match done {
            Ok(report) if report.failed == 0 => assert_same(&wanted, &picture(&lands)),
            Ok(report) => assert!(struck && !watch.problems().is_empty(), "{report:?}"),
            Err(error) => assert!(struck, "{error}"),
        }
        let (report, _) = restore(&owner, &info, target.path());
        assert_eq!(report.failed, 0);
        assert_same(&wanted, &picture(&lands));
        if !struck {
            break;
        }
        reads += 1;
    }
    // Trees, references, and at least one range of data.
    assert!(reads > 3, "{reads}");
}

/// Stores nodes and chunks of a hostile writer, who has all keys.
struct Forger<'r> {
    repo: &'r Repo,
    session: Session,
    frames: Vec<(Recipient, ChunkId, Vec<u8>)>,
}

impl<'r> Forger<'r> {
    fn new(repo: &'r Repo) -> Self {
        let session = Session::new(repo).unwrap();
        session.announce(repo, &[]).unwrap();
        Self { repo, session, frames: Vec::new() }
    }

    fn store(&mut self, recipient: Recipient, bytes: &[u8]) -> ChunkId {
        let id = match recipient {
            Recipient::Meta => self.repo.refid_key().id(bytes),
            _ => self.repo.id_key().unwrap().id(bytes),
        };
        self.store_as(recipient, id, bytes);
        id
    }

    fn store_as(&mut self, recipient: Recipient, id: ChunkId, bytes: &[u8]) {
        self.frames.push((recipient, id, bytes.to_vec()));
    }

    fn dir(&mut self, refs: &RefsNode, tree: &[u8]) -> Directory {
        let refs = self.store(Recipient::Meta, &refs.to_bytes());
        Directory { refs, tree: self.store(Recipient::Tree, tree) }
    }

    /// A leaf of these entries, whatever is wrong with them.
    fn leaf(
        &mut self,
        children: &[Directory],
        chunks: Vec<ChunkRef>,
        entries: &[Entry],
    ) -> Directory {
        let child = |dir: &Directory| Child { refs: dir.refs, tree: dir.tree };
        let children = children.iter().map(child).collect();
        let mut encoded = Vec::new();
        entries.iter().for_each(|entry| put_entry(entry, &mut encoded));
        let tree = leaf_from_encoded(entries.len(), &encoded);
        self.dir(&RefsNode::Leaf { children, chunks, lists: Vec::new() }, &tree)
    }

    fn finish(self, info: &SnapshotInfo, root: Directory) -> SnapshotInfo {
        let index = self.repo.index().unwrap();
        let packer = Packer::new(self.repo, &self.session, &index, false);
        for (recipient, id, bytes) in &self.frames {
            let len = bytes.len() as u32;
            let chunks = vec![ChunkRow { id: *id, offset: 0, len }];
            let (codec, bytes) = (Codec::Stored, bytes.clone());
            let encoded = Encoded { codec, bytes, plain_len: len, chunks, bases: Vec::new() };
            let frame = self.session.seal(*recipient, encoded);
            packer.add(frame, &|pack| packer.complete(pack)).unwrap();
        }
        packer.finish().unwrap();
        let mut info = info.clone();
        info.snapshot.root = root;
        info
    }
}

fn entry(name: &[u8], kind: EntryKind) -> Entry {
    Entry { name: name.to_vec(), kind, mode: 0o755, ..Entry::default() }
}

fn symlink(name: &[u8], to: &Path) -> Entry {
    let target = Some(to.as_os_str().as_bytes().to_vec());
    Entry { target, ..entry(name, EntryKind::Symlink) }
}

fn file(name: &[u8], len: u64) -> Entry {
    let content = vec![Segment::Chunks { first: 0, chunks: 1, len }];
    Entry { size: Some(len), content, ..entry(name, EntryKind::File) }
}

/// Restores what `forge` makes into a folder with neighbours; nothing but that folder may change.
fn hostile(
    forge: impl Fn(&mut Forger, &Path) -> Directory,
) -> (RestoreReport, Vec<Problem>, tempfile::TempDir) {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("x"), b"x").unwrap();
    let env = Env::system(2);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let info = repo.find_snapshot("latest").unwrap();

    let around = tempfile::tempdir().unwrap();
    let outside = around.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut forger = Forger::new(&repo);
    let root = forge(&mut forger, &outside);
    let info = forger.finish(&info, root);
    let before = (picture(&outside), fs::read_dir(around.path()).unwrap().count());
    let (report, problems) = restore(&repo, &info, &around.path().join("target"));
    assert_eq!(before, (picture(&outside), fs::read_dir(around.path()).unwrap().count() - 1));
    (report, problems, around)
}

#[test]
fn no_name_leads_out_of_the_target() {
    for name in [&b".."[..], b"a/b", b"../outside/x", b"/outside/x", b".", b"", b"a\0b"] {
        let (report, problems, _) = hostile(|forger, _| {
            let chunk = forger.store(Recipient::Data, b"owned");
            let chunks = vec![ChunkRef { id: chunk, len: 5 }];
            forger.leaf(&[], chunks, &[file(name, 5)])
        });
        assert_eq!((report.failed, report.files_restored), (1, 0), "{name:?}: {report:?}");
        assert!(problems[0].cause.contains("a name is"), "{problems:?}");
        let (report, _, _) = hostile(|forger, _| {
            let child = forger.leaf(&[], Vec::new(), &[entry(b"made", EntryKind::Fifo)]);
            let dir = Entry { child: Some(0), ..entry(name, EntryKind::Directory) };
            forger.leaf(&[child], Vec::new(), &[dir])
        });
        assert_eq!((report.failed, report.dirs, report.others), (1, 0, 0), "{report:?}");
        // What the format refuses, the target refuses again.
        let target = tempfile::tempdir().unwrap();
        let place = Target::open(target.path(), false).unwrap();
        let dir = place.below(&place.top(b"/".to_vec()), &entry(name, EntryKind::Directory));
        assert!(place.make(&dir, false).is_err(), "{name:?}");
    }
}

#[test]
fn a_symlink_and_then_a_directory_of_that_name_lead_nowhere() {
    let below =
        |forger: &mut Forger| forger.leaf(&[], Vec::new(), &[entry(b"made", EntryKind::Fifo)]);
    let dir = |name: &[u8]| Entry { child: Some(0), ..entry(name, EntryKind::Directory) };
    // In one node.
    let (report, problems, _) = hostile(|forger, outside| {
        let child = below(forger);
        forger.leaf(&[child], Vec::new(), &[symlink(b"xx", outside), dir(b"xx")])
    });
    assert_eq!(report.failed, 1);
    assert!(problems[0].cause.contains("ascending"), "{problems:?}");
    // In two nodes, each of which is sound.
    let (report, problems, _) = hostile(|forger, outside| {
        let child = below(forger);
        let first = forger.leaf(&[], Vec::new(), &[symlink(b"xx", outside)]);
        let second = forger.leaf(&[child], Vec::new(), &[dir(b"xx")]);
        let children = [first, second].map(|dir| Child { refs: dir.refs, tree: dir.tree });
        let names = [b"xx", b"xy"];
        let names = names.map(|name| TreeChild { first_name: name.to_vec(), entries: 1 });
        let tree = TreeNode::Inner { children: names.to_vec() }.to_bytes();
        forger.dir(&RefsNode::Inner { children: children.to_vec() }, &tree)
    });
    assert_eq!((report.failed, report.others), (1, 1), "{report:?}");
    assert!(problems[0].cause.contains("not in order"), "{problems:?}");
}

#[test]
fn a_lost_directory_does_not_take_its_neighbours_with_it() {
    let (report, problems, around) = hostile(|forger, _| {
        let chunk = forger.store(Recipient::Data, b"kept");
        let nowhere = Directory { refs: ChunkId([1; 32]), tree: ChunkId([2; 32]) };
        let lost = Entry { child: Some(0), ..entry(b"lost", EntryKind::Directory) };
        let (chunks, kept) = (vec![ChunkRef { id: chunk, len: 4 }], file(b"kept", 4));
        forger.leaf(&[nowhere], chunks, &[kept, lost])
    });
    assert_eq!((report.failed, report.files_restored, report.dirs), (1, 1, 1), "{report:?}");
    assert_eq!(problems[0].name, b"/lost");
    assert_eq!(fs::read(around.path().join("target/kept")).unwrap(), b"kept");
}

#[test]
fn chunks_that_are_not_as_stated_lose_their_file_only() {
    // Length and id of a chunk as REFS has them.
    let cases = [(3, None), (5, None), (4, Some(ChunkId([9; 32]))), (4, Some(ChunkId([8; 32])))];
    for (len, id) in cases {
        let (report, problems, around) = hostile(|forger, _| {
            let id = id.unwrap_or_else(|| forger.store(Recipient::Data, b"good"));
            // A writer that says of its bytes that they are another chunk.
            forger.store_as(Recipient::Data, ChunkId([8; 32]), b"evil");
            let chunks = vec![ChunkRef { id, len }];
            forger.leaf(&[], chunks, &[file(b"bad", len.into()), entry(b"fifo", EntryKind::Fifo)])
        });
        assert_eq!((report.failed, report.others), (1, 1), "{report:?}");
        assert_eq!(problems[0].name, b"/bad");
        assert!(!around.path().join("target/bad").exists(), "nothing unproven is written");
    }
}

#[test]
fn a_snapshot_whose_root_is_gone_is_an_error_or_a_report() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("x"), b"x").unwrap();
    let env = Env::system(1);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let mut info = repo.find_snapshot("latest").unwrap();
    info.snapshot.root.tree = ChunkId([3; 32]);
    let target = tempfile::tempdir().unwrap();
    let (report, problems) = restore(&repo, &info, target.path());
    assert_eq!((report.failed, &problems[0].name[..]), (1, &b"/"[..]));
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    let done = restore::run(&repo, &info, Some(b"/tmp"), target.path(), &options, &watch);
    assert!(matches!(done, Err(Error::Damaged { .. })), "{done:?}");
}
