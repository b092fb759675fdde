//! What was written is found again: in any order, behind a torn end, the newest first.

use std::path::PathBuf;
use std::sync::Arc;

use crate::env::Env;
use crate::format::id::{ChunkId, SessionId};
use crate::format::tree::{Entry, EntryKind, TimeSpec};
use crate::repo::journal::{Journal, Past, Recall, Record, Signature, open};
use crate::repo::trees::Piece;
use crate::repo::{InitOptions, KeyFileSecret, Repo, Unlock, init};
use crate::store::MemoryStore;

const KEY: KeyFileSecret = KeyFileSecret([7; 32]);
const FILES: u64 = 3_000;

struct Bench {
    repo: Repo,
    cache: tempfile::TempDir,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let (env, cache) = (Env::system(threads), tempfile::tempdir().unwrap());
        let store = Arc::new(MemoryStore::new());
        init(store.clone(), Unlock::KeyFile(&KEY), &InitOptions::default(), &env).unwrap();
        let repo = Repo::open(store, Unlock::KeyFile(&KEY), Some(cache.path()), &env).unwrap();
        Self { repo, cache }
    }

    fn open(&self, session: u8) -> (Past, Journal) {
        open(&self.repo, &[b"/srv".to_vec()], &SessionId([session; 16])).unwrap().unwrap()
    }

    fn journals(&self) -> Vec<PathBuf> {
        let folder = self.repo.cache().unwrap();
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().contains("/journal-")).collect()
    }
}

fn path(n: u64) -> Vec<u8> {
    format!("/srv/site {}/subject-{n}.xml", n % 7).into_bytes()
}

/// `pieces`: how many the file has.
fn record(n: u64, pieces: u64) -> Record {
    let entry = Entry {
        name: format!("subject-{n}.xml").into_bytes(),
        kind: EntryKind::File,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        user: Some("data".to_owned()),
        group: None,
        mtime: TimeSpec { secs: n as i64, nanos: 5 },
        ctime: Some(TimeSpec { secs: n as i64, nanos: 6 }),
        btime: None,
        size: Some(10 * pieces),
        hard_link: None,
        xattrs: Vec::new(),
        target: None,
        flags: 0,
        content: Vec::new(),
        device: None,
        child: None,
    };
    let id = ChunkId(std::array::from_fn(|at| n.to_le_bytes()[at % 8]));
    let signature = Signature { dev: 1, ino: n, unsure: n.is_multiple_of(2) };
    let pieces = (0..pieces).map(|_| Piece::Chunk { id, len: 10 }).collect();
    Record { signature, entry, pieces }
}

fn append(journal: &Journal, files: impl Iterator<Item = u64>, pieces: u64) {
    for n in files {
        let mut of_file = record(n, pieces);
        journal.append(&path(n), &mut of_file);
        assert_eq!(of_file.entry, record(n, pieces).entry, "it is as it was");
    }
}

fn assert_found(past: &Past, n: u64, pieces: u64, recall: &mut Recall) {
    let found = past.find(&path(n), recall).unwrap_or_else(|| panic!("{n} is not found"));
    let wanted = record(n, pieces);
    assert_eq!((found.signature, found.entry), (wanted.signature, wanted.entry), "{n}");
    assert!(found.pieces == wanted.pieces, "{n}: {} pieces", found.pieces.len());
}

#[test]
fn a_path_is_found_wherever_the_last_one_was() {
    for threads in [1, 3] {
        let bench = Bench::new(threads);
        let (past, journal) = bench.open(1);
        assert!(past.is_empty());
        append(&journal, 0..FILES, 1);
        // Longer than blocks that are kept, and something behind it.
        append(&journal, FILES..FILES + 1, 40_000);
        append(&journal, FILES + 1..FILES + 9, 1);
        journal.commit().unwrap();
        let (past, _journal) = bench.open(2);
        let pieces = |n: u64| if n == FILES { 40_000 } else { 1 };
        let all = FILES + 9;
        for step in [1, 2, 37, 1_009] {
            let recall = &mut Recall::default();
            (0..all)
                .map(|n| n * step % all)
                .for_each(|n| assert_found(&past, n, pieces(n), recall));
            assert!(past.find(b"/srv/absent", recall).is_none());
            (0..all).rev().for_each(|n| assert_found(&past, n, pieces(n), recall));
        }
        drop(bench.cache);
    }
}

#[test]
fn what_lies_before_a_torn_block_is_found() {
    let bench = Bench::new(3);
    let (_, journal) = bench.open(1);
    append(&journal, 0..FILES, 1);
    journal.commit().unwrap();
    let [file] = &bench.journals()[..] else { panic!("one journal") };
    let bytes = std::fs::read(file).unwrap();
    for broken in [false, true] {
        // Cut off, or broken, at two thirds.
        let mut bytes = bytes.clone();
        let at = bytes.len() * 2 / 3;
        if broken {
            bytes[at] ^= 1
        } else {
            bytes.truncate(at)
        }
        std::fs::write(file, &bytes).unwrap();
        let (past, journal) = bench.open(2);
        let recall = &mut Recall::default();
        let found =
            (0..FILES).take_while(|&n| past.find(&path(n), recall).is_some()).count() as u64;
        assert!((FILES / 2..FILES * 2 / 3 + 1).contains(&found), "{found}");
        (0..found).for_each(|n| assert_found(&past, n, 1, recall));
        (found..FILES).for_each(|n| assert!(past.find(&path(n), recall).is_none(), "{n}"));
        journal.discard();
    }
}

#[test]
fn the_newest_record_counts() {
    let bench = Bench::new(2);
    let (_, journal) = bench.open(1);
    append(&journal, 0..FILES, 1);
    journal.commit().unwrap();
    // A session that died: every third file was done again, and is different now.
    let (_, died) = bench.open(2);
    append(&died, (0..FILES).step_by(3), 2);
    let pack = super::StoredPack {
        id: crate::format::id::PackId([3; 32]),
        len: 4_096,
        class: crate::format::pack::PackClass::Data,
        directory: [4; 32],
    };
    died.append_pack(&pack);
    drop(died);
    let (past, _journal) = bench.open(3);
    assert_eq!((&past.dead[..], &past.packs[..]), (&[SessionId([2; 16])][..], &[pack][..]));
    let recall = &mut Recall::default();
    for n in 0..FILES {
        assert_found(&past, n, if n % 3 == 0 { 2 } else { 1 }, recall);
    }
}
