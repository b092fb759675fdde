//! Frozen repositories (`testdata/frozen/<version>`): what was written once must stay readable. Each
//! holds a repository (`repo/`), its key file and `expected.txt`. Here the engine reads them;
//! `reference_reader.rs` reads them without the engine.
//!
//! To make them again, after a change of the format and before the first release only:
//!
//!     cargo test -p strongroom-engine --test frozen -- --ignored regenerate
//!
//! It wants a file system with holes and user xattrs below `/tmp`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};
use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::repo::ChunkerSpec;
use strongroom::format::seal::Suite;
use strongroom::format::slot::{KeyFileSecret, Unlock};
use strongroom::format::snapshot::Directory;
use strongroom::repo::fetch::Fetcher;
use strongroom::repo::trees::{Node, Piece, Trees};
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::store::LocalStore;
use strongroom::watch::Tally;

mod manifest;

use manifest::{Line, Manifest};

/// Every version that was ever frozen, with what its repository is made with.
const VERSIONS: [(&str, Suite, ChunkerSpec); 2] = [
    ("v1-aes", Suite::Aes256Gcm, ChunkerSpec::WindowedMinimum { min: 2048, max: 6144 }),
    (
        "v1-chacha",
        Suite::ChaCha20Poly1305,
        ChunkerSpec::FastCdc { min: 8192, average: 16384, max: 131_072 },
    ),
];

/// 2026-03-01T12:00:00Z
const START_S: i64 = 1_772_366_400;
/// Fixed, because hard-link groups and root paths depend on it.
const SOURCE: &str = "/tmp/strongroom-frozen";

fn testdata(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(below)
}

fn version_folder(version: &str) -> PathBuf {
    testdata("frozen").join(version)
}

// ---- reading ---------------------------------------------------------------------------------

#[test]
fn every_frozen_version_is_covered() {
    let entries = fs::read_dir(testdata("frozen")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let found: BTreeSet<_> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(found, VERSIONS.map(|(version, ..)| version.to_owned()).into());
}

#[test]
fn engine_reads_every_frozen_version() {
    for (version, ..) in VERSIONS {
        let folder = version_folder(version);
        let key =
            KeyFileSecret::from_text(&fs::read_to_string(folder.join("key")).unwrap()).unwrap();
        let store = Arc::new(LocalStore::open(&folder.join("repo")).unwrap());
        let env = Env::system(1);
        let repo = Repo::open(store, Unlock::KeyFile(&key), None, &env).unwrap();
        let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
        manifest::assert_equal(&read_with_engine(&repo), &expected, version);
    }
}

fn read_with_engine(repo: &Repo) -> Manifest {
    let index = repo.index().unwrap();
    let fetcher = Fetcher::new(repo, &index);
    let trees = Trees::new(repo, &fetcher);
    let mut reading = Reading {
        repo,
        fetcher: &fetcher,
        trees: &trees,
        lines: BTreeMap::new(),
        groups: BTreeMap::new(),
    };
    for (n, info) in repo.snapshots().unwrap().iter().enumerate() {
        let [root] = &info.snapshot.roots[..] else { panic!("one source path") };
        let names = root.split(|&b| b == b'/').filter(|name| !name.is_empty());
        let mut at = info.snapshot.root;
        let mut node = None;
        for name in names {
            let found = trees.find(&at, name).unwrap().expect("the source path is there");
            at = found.child.unwrap();
            node = Some(found);
        }
        reading.entry(n + 1, b".", node.unwrap());
    }
    let Reading { mut lines, groups, .. } = reading;
    manifest::name_links(&mut lines, groups);
    lines
}

struct Reading<'a> {
    repo: &'a Repo,
    fetcher: &'a Fetcher<'a>,
    trees: &'a Trees<'a>,
    lines: Manifest,
    groups: BTreeMap<(usize, Vec<u8>), [u8; 16]>,
}

impl Reading<'_> {
    fn entry(&mut self, snapshot: usize, path: &[u8], node: Node) {
        let entry = &node.entry;
        let line = Line {
            kind: entry.kind as u64,
            mode: u32::from(entry.mode),
            size: entry.size,
            mtime: (entry.mtime.secs, entry.mtime.nanos),
            hash: entry.size.map(|size| self.content(&node, size)),
            target: entry.target.clone(),
            link: None,
            xattrs: entry.xattrs.clone(),
        };
        if let Some(group) = entry.hard_link {
            self.groups.insert((snapshot, path.to_vec()), group);
        }
        self.lines.insert((snapshot, path.to_vec()), line);
        if let Some(child) = &node.child {
            self.directory(snapshot, path, child);
        }
    }

    fn directory(&mut self, snapshot: usize, path: &[u8], directory: &Directory) {
        let mut nodes = Vec::new();
        let mut keep = |node| {
            nodes.push(node);
            Ok(())
        };
        self.trees.each(directory, &mut keep).unwrap();
        for node in nodes {
            self.entry(snapshot, &below(path, &node.entry.name), node);
        }
    }

    fn content(&self, node: &Node, size: u64) -> String {
        let mut hasher = blake3::Hasher::new();
        let id_key = self.repo.id_key().unwrap();
        let mut take = |piece| {
            match piece {
                Piece::Chunk { id, len } => {
                    let plain = self.fetcher.chunk(&id, id_key)?;
                    assert_eq!(plain.len(), len as usize);
                    hasher.update(&plain);
                }
                Piece::Hole { len } => {
                    hasher.update(&vec![0; len as usize]);
                }
            }
            Ok(())
        };
        self.trees.pieces(node, &mut take).unwrap();
        assert_eq!(hasher.count(), size);
        hasher.finalize().to_hex().to_string()
    }
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path == b"." { name.to_vec() } else { [path, b"/", name].concat() }
}

// ---- making ----------------------------------------------------------------------------------

#[test]
#[ignore = "writes testdata/frozen"]
fn regenerate() {
    for (n, (version, suite, chunker)) in VERSIONS.into_iter().enumerate() {
        freeze(&version_folder(version), suite, chunker, n as u64);
    }
}

fn freeze(folder: &Path, suite: Suite, chunker: ChunkerSpec, seed: u64) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
    fs::create_dir_all(folder).unwrap();
    let secret =
        *blake3::hash(format!("a test key: protects nothing {seed}").as_bytes()).as_bytes();
    let key = KeyFileSecret(secret);
    fs::write(folder.join("key"), key.to_text().as_str()).unwrap();
    let env = Env::seeded(seed, START_S * 1_000_000_000);
    let store = Arc::new(LocalStore::create(&folder.join("repo")).unwrap());
    let options =
        InitOptions { suite: Some(suite), chunker, pack_bytes: 1 << 20, ..InitOptions::default() };
    init(store.clone(), Unlock::KeyFile(&key), &options, &env).unwrap();
    // Made by this test and nobody else: fails if it is there.
    let source = Path::new(SOURCE);
    fs::create_dir(source).unwrap();
    let mut expected = Manifest::new();
    for (snapshot, make) in [(1, first_tree as fn(&Path)), (2, second_tree)] {
        make(source);
        let repo = Repo::open(store.clone(), Unlock::KeyFile(&key), None, &env).unwrap();
        let watch = Tally::default();
        let options = BackupOptions {
            host: Some("frozen".to_owned()),
            tags: vec!["frozen".to_owned()],
            labels: BTreeMap::from([("study".to_owned(), "FROZEN-1".to_owned())]),
            zone: Some(("Europe/Vienna".to_owned(), 3600)),
            ..BackupOptions::default()
        };
        backup::run(&repo, Source::Paths(&[source.to_owned()]), &options, &watch).unwrap();
        assert_eq!(watch.problems(), []);
        expected.extend(manifest_of(source, snapshot));
    }
    fs::remove_dir_all(source).unwrap();
    // Git keeps no empty folders: test what a checkout has.
    fs::remove_dir(folder.join("repo/tmp")).unwrap();
    fs::write(folder.join("expected.txt"), manifest::to_text(&expected)).unwrap();
}

const REAL: [&str; 8] = [
    "ae.xpt",
    "almost_rand.sas7bdat",
    "countries-day01.csv",
    "dm.json",
    "emri_small_jpeg_2k_lossless.dcm",
    "epi-00041.dcm",
    "epi-00042.dcm",
    "odm-metadata.xml",
];
const NOT_UTF8: &[u8] = b"Pr\xfcfung 1.txt";

fn first_tree(root: &Path) {
    for (n, name) in REAL.into_iter().enumerate() {
        write(root, &format!("study/{name}"), &fs::read(testdata("real").join(name)).unwrap(), n);
    }
    let made = |name: &str| root.join(name);
    write(root, "odd/empty", b"", 20);
    write(root, "odd/noise", &noise(1, 60_000), 21);
    // Long enough for chunk lists, and with 4 KiB chunks for inner ones; the chunks repeat.
    write(root, "odd/long", &noise(2, 24_000).repeat(40 << 20 >> 14), 22);
    let sparse = File::create(made("odd/sparse")).unwrap();
    sparse.write_all_at(&noise(3, 5_000), 200_000).unwrap();
    sparse.write_all_at(b"end of the data", 900_000).unwrap();
    sparse.set_len(1_000_000).unwrap();
    write(root, "odd/linked", b"three names, one file", 23);
    fs::hard_link(made("odd/linked"), made("odd/other name")).unwrap();
    fs::hard_link(made("odd/linked"), made("study/linked.txt")).unwrap();
    symlink("../study/ae.xpt", made("odd/symlink")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere\xff"), made("odd/dangling")).unwrap();
    mknodat(CWD, made("odd/fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    drop(UnixListener::bind(made("odd/socket")).unwrap());
    fs::write(made("odd").join(OsStr::from_bytes(NOT_UTF8)), "Latin-1").unwrap();
    write(root, "odd/\u{1f9ec} e\u{301}", b"composed as it was", 24);
    write(root, "a/b/c/d/e/f/g/h/deep", b"deep", 25);
    fs::create_dir(made("a/none here")).unwrap();
    write(root, "odd/tagged", b"with attributes", 26);
    let long = noise(4, 300);
    for (name, value) in
        [("user.study", &b"FROZEN-1"[..]), ("user.empty", b""), ("user.long", &long)]
    {
        lsetxattr(made("odd/tagged"), name, value, XattrFlags::CREATE).unwrap();
    }
    lsetxattr(made("a"), "user.dir", b"of a directory", XattrFlags::CREATE).unwrap();
    for name in names_for_two_leaves() {
        write(root, &format!("many/{name}"), name.as_bytes(), 27);
    }
    fs::set_permissions(made("odd/noise"), Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(made("a/b"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(made("study/dm.json"), Permissions::from_mode(0o400)).unwrap();
    settle_times(root, 0);
}

fn second_tree(root: &Path) {
    let made = |name: &str| root.join(name);
    let table = fs::read(testdata("real/countries-day07.csv")).unwrap();
    write(root, "study/countries-day01.csv", &table, 30);
    let mut long = noise(2, 24_000).repeat(40 << 20 >> 14);
    long.splice(20_000_000..20_000_003, noise(5, 9_000));
    write(root, "odd/long", &long, 31);
    let sparse = File::options().write(true).open(made("odd/sparse")).unwrap();
    sparse.write_all_at(b"in the hole", 600_000).unwrap();
    fs::remove_file(made("odd/dangling")).unwrap();
    fs::remove_file(made("odd/other name")).unwrap();
    fs::rename(made("odd/noise"), made("odd/renamed")).unwrap();
    fs::remove_dir_all(made("a/b/c/d")).unwrap();
    write(root, "a/b/new", b"new", 32);
    write(root, "many/0150 new", b"new", 33);
    fs::set_permissions(made("study/dm.json"), Permissions::from_mode(0o644)).unwrap();
    lsetxattr(made("odd/tagged"), "user.study", b"FROZEN-2", XattrFlags::REPLACE).unwrap();
    settle_times(root, 86_400);
}

/// 320 names, of which one from the 256th on ends a leaf (`docs/format.md`, 6.2, Cuts).
fn names_for_two_leaves() -> Vec<String> {
    let ends = |name: &String| {
        let hash = blake3::hash(name.as_bytes());
        u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]).is_multiple_of(1024)
    };
    let mut names: Vec<String> = (0..320).map(|n| format!("{n:04}")).collect();
    names[280] = (0..).map(|n| format!("0280 {n}")).find(ends).unwrap();
    names
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `n` only gives the file a time of its own.
fn write(root: &Path, name: &str, bytes: &[u8], n: usize) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(
        &path,
        Permissions::from_mode(if n.is_multiple_of(2) { 0o644 } else { 0o600 }),
    )
    .unwrap();
}

/// A time for each path, from before 1970 to after 2038; those of directories move `later`.
/// Directories last, as what is done in them touches them.
fn settle_times(root: &Path, later: i64) {
    for path in all_below(root).into_iter().rev() {
        let meta = path.symlink_metadata().unwrap();
        let hash = blake3::hash(&[path.as_os_str().as_bytes(), &meta.len().to_le_bytes()].concat());
        let draw = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        let changed = if meta.is_dir() { later } else { 0 };
        let mtime = Timespec {
            tv_sec: (draw % (1 << 32)) as i64 - (1 << 30) + changed,
            tv_nsec: (draw >> 32) as i64 % 1_000_000_000,
        };
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

// ---- the manifest of a source tree, without the engine ---------------------------------------

/// The root, then everything below it, each directory before what is in it.
fn all_below(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut at = 0;
    while at < paths.len() {
        if paths[at].symlink_metadata().unwrap().is_dir() {
            let entries = fs::read_dir(&paths[at]).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    paths
}

fn manifest_of(root: &Path, snapshot: usize) -> Manifest {
    let mut lines = Manifest::new();
    let mut groups = BTreeMap::new();
    for path in all_below(root) {
        let meta = path.symlink_metadata().unwrap();
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let name = if relative.is_empty() { b"." } else { relative }.to_vec();
        if meta.is_file() && meta.nlink() > 1 {
            groups.insert((snapshot, name.clone()), (meta.dev(), meta.ino()));
        }
        let hash = || blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string();
        let line = Line {
            kind: kind_of(&meta),
            mode: meta.mode() & 0o7777,
            size: meta.is_file().then_some(meta.len()),
            mtime: (meta.mtime(), meta.mtime_nsec() as u32),
            hash: meta.is_file().then(hash),
            target: fs::read_link(&path).ok().map(|target| target.as_os_str().as_bytes().to_vec()),
            link: None,
            xattrs: xattrs_of(&path),
        };
        lines.insert((snapshot, name), line);
    }
    manifest::name_links(&mut lines, groups);
    lines
}

fn kind_of(meta: &fs::Metadata) -> u64 {
    let kind = meta.file_type();
    let tests =
        [kind.is_file(), kind.is_dir(), kind.is_symlink(), kind.is_fifo(), kind.is_socket()];
    1 + tests.iter().position(|&is| is).expect("no devices here") as u64
}

fn xattrs_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = [0; 4096];
    let len = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|&b| b == 0).filter(|name| name.starts_with(b"user."));
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = [0; 4096];
            let len = lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    xattrs.sort();
    xattrs
}
