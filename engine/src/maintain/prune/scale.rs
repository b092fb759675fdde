//! What a prune costs at sizes that no test suite can back up: a repository whose packs are sparse
//! files, half of them live, with real index runs and real references. Time and anonymous memory
//! are printed; run by `scripts/heavy.sh`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::env::Env;
use crate::format::codec::Codec;
use crate::format::id::{ChunkId, PackId};
use crate::format::index::{PackRow, RunBuilder};
use crate::format::pack::{ChunkRow, ContextRow, FrameRow, PackClass};
use crate::format::record::Kind;
use crate::format::seal::Recipient;
use crate::format::slot::{KeyFileSecret, Unlock};
use crate::format::snapshot::{Class, Clock, Counts, Directory, Snapshot};
use crate::format::tree::{ChunkRef, ListChild, RefsNode};
use crate::repo::packer::{Packer, pack_name};
use crate::repo::session::{Encoded, Session};
use crate::repo::{InitOptions, Repo, init};
use crate::store::LocalStore;
use crate::sys::clock::process_cpu;
use crate::watch::Tally;

use super::{PruneOptions, run};

const KEY: KeyFileSecret = KeyFileSecret([7; 32]);
const CHUNK_BYTES: u32 = 1 << 20;
const CHUNKS_PER_PACK: u64 = 63;
const PACK_BYTES: u64 = 64 << 20;
const CHUNKS_PER_RUN: u64 = 1 << 20;

fn chunk_id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn pack_id(n: u64) -> PackId {
    PackId(*blake3::keyed_hash(&[1; 32], &n.to_le_bytes()).as_bytes())
}

/// Stores a REFS node and gives its id.
fn put_node(repo: &Repo, session: &Session, packer: &Packer, node: &RefsNode) -> ChunkId {
    let plain = node.to_bytes();
    let id = repo.refid_key().id(&plain);
    let row = ChunkRow { id, offset: 0, len: plain.len() as u32 };
    let plain_len = plain.len() as u32;
    let (codec, bases) = (Codec::Stored, Vec::new());
    let encoded = Encoded { codec, bytes: plain, plain_len, chunks: vec![row], bases };
    let frame = session.seal(Recipient::Meta, encoded);
    packer.add(frame, &|pack| packer.complete(pack)).unwrap();
    id
}

fn put_runs(repo: &Repo, folder: &Path, chunks: u64) {
    let context = ContextRow { context: [0; 72], commit: [0; 32] };
    let mut builder = RunBuilder::new();
    for first in (0..chunks).step_by(CHUNKS_PER_PACK as usize) {
        let id = pack_id(first);
        let path = folder.join(pack_name(&id).as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().set_len(PACK_BYTES).unwrap();
        let author = repo.identity();
        let pack =
            builder.push_pack(PackRow { id, len: PACK_BYTES, author, class: PackClass::Data });
        let context = builder.push_context(context);
        for n in first..(first + CHUNKS_PER_PACK).min(chunks) {
            let frame = FrameRow {
                offset: 64 + (n - first) * u64::from(CHUNK_BYTES),
                ordinal: n,
                stored: CHUNK_BYTES,
                plain: CHUNK_BYTES,
                chunks: 1,
                bases: 0,
                context,
                codec: 0,
            };
            let row = ChunkRow { id: chunk_id(n), offset: 0, len: CHUNK_BYTES };
            builder.push_frame(pack, context, &frame, &[row], &[]);
        }
        if builder.len() as u64 >= CHUNKS_PER_RUN {
            repo.put_sealed_run(&std::mem::take(&mut builder).finish(), 1).unwrap();
        }
    }
    repo.put_sealed_run(&builder.finish(), 1).unwrap();
}

/// A snapshot of one file that has the chunks of every second pack.
fn put_snapshot(repo: &Repo, chunks: u64) {
    let session = Session::new(repo).unwrap();
    session.announce(repo, &[]).unwrap();
    let index = repo.index().unwrap();
    let packer = Packer::new(repo, &session, &index, false);
    let live = (0..chunks).filter(|n| (n / CHUNKS_PER_PACK).is_multiple_of(2));
    let rows: Vec<u64> = live.collect();
    let mut lists = Vec::new();
    for part in rows.chunks(8192) {
        let chunks: Vec<_> =
            part.iter().map(|n| ChunkRef { id: chunk_id(*n), len: CHUNK_BYTES }).collect();
        let bytes = chunks.len() as u64 * u64::from(CHUNK_BYTES);
        let count = chunks.len() as u64;
        let id = put_node(repo, &session, &packer, &RefsNode::List { chunks });
        lists.push(ListChild { id, chunks: count, bytes });
    }
    let mut tops = Vec::new();
    for part in lists.chunks(1024) {
        let node = RefsNode::ListInner { lists: part.to_vec() };
        tops.push(put_node(repo, &session, &packer, &node));
    }
    let leaf = RefsNode::Leaf { children: Vec::new(), chunks: Vec::new(), lists: tops };
    let refs = put_node(repo, &session, &packer, &leaf);
    packer.finish().unwrap();
    let snapshot = Snapshot {
        sequence: 1,
        previous: None,
        time_ns: 0,
        utc_offset_s: 0,
        zone: None,
        clock: Clock::Unknown,
        author: repo.identity(),
        host: String::new(),
        tool: String::new(),
        roots: Vec::new(),
        labels: Default::default(),
        tags: Vec::new(),
        class: Class::Archive,
        retain_until_ns: None,
        counts: Counts::default(),
        exit_code: None,
        // The names are not looked at: any live chunk will do.
        root: Directory { refs, tree: chunk_id(0) },
        parent: None,
        end_ns: 0,
    };
    let body = session.seal_snapshot(repo, &snapshot.to_cbor());
    let name = format!("snapshots/{}", session.id);
    repo.put_stated(Kind::Snapshot, &name, &body).unwrap();
}

/// KiB of anonymous memory now.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "minutes and gigabytes; scripts/heavy.sh runs it"]
fn half_of_many_chunks_is_freed() {
    let chunks: u64 =
        std::env::var("CHUNKS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (place, cache) = (folder.path().join("repository"), folder.path().join("cache"));
    let env = Env::system(2);
    let store = Arc::new(LocalStore::create(&place).unwrap());
    init(store.clone(), Unlock::KeyFile(&KEY), &InitOptions::default(), &env).unwrap();
    let repo = Repo::open(store, Unlock::KeyFile(&KEY), Some(&cache), &env).unwrap();
    put_runs(&repo, &place, chunks);
    put_snapshot(&repo, chunks);
    let (peak, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, stop) = (peak.clone(), done.clone());
    let sampler = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            seen.fetch_max(anonymous_kib(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let before = anonymous_kib();
    let (started, busy) = (Instant::now(), process_cpu());
    let options = PruneOptions { fence_after_ns: 0, ..PruneOptions::default() };
    let report = run(&repo, &options, &Tally::default()).unwrap();
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), (process_cpu() - busy).as_secs_f64());
    done.store(true, Ordering::Relaxed);
    sampler.join().unwrap();
    let half = chunks.div_ceil(CHUNKS_PER_PACK) / 2;
    assert_eq!((report.packs_deleted, report.packs_moved), (half, 0), "{report:?}");
    let peak = peak.load(Ordering::Relaxed);
    println!(
        "prune of {chunks} chunks in {} packs: {seconds:.1} s (CPU {cpu:.1}), anonymous memory at most {} MiB \
         (before: {} MiB), {} packs deleted, {} runs merged",
        report.packs,
        peak >> 10,
        before >> 10,
        report.packs_deleted,
        report.runs_merged
    );
    let again = run(&repo, &options, &Tally::default()).unwrap();
    assert_eq!(again.packs_deleted, 0, "{again:?}");
    println!("again, to merge what names deleted packs: {} runs merged", again.runs_merged);
}
