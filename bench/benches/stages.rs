//! Criterion benches of what stands between the kernels: the walk, packs, journal, trees, index,
//! restored files, and both ways through memory. Processor time of one thread, so no disk is waited for
//! (`strongroom benchmark` measures those). `cargo bench -p strongroom-bench --bench stages -- FILTER`
//! runs some of them; `--quick` behind the `--` takes half a minute instead of two.

mod measure;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::backup::{self, BackupOptions, Source};
use strongroom::benchmark::built_in_index;
use strongroom::env::Env;
use strongroom::format::codec::{Codec, Decoder};
use strongroom::format::id::{ChunkId, hash};
use strongroom::format::pack::{ChunkRow, PackClass};
use strongroom::format::seal::Recipient;
use strongroom::format::tree::{Entry, EntryKind, Segment, TimeSpec, TreeNode};
use strongroom::repo::fetch::{Fetcher, FrameAt};
use strongroom::repo::journal::{self, Record, Signature};
use strongroom::repo::pack_file::{OpenPack, PackFrame};
use strongroom::repo::session::{Encoded, SealedFrame, Session};
use strongroom::repo::trees::Piece;
use strongroom::repo::{InitOptions, KeyFileSecret, Repo, Unlock, init};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{LocalStore, MemoryStore, ObjectName, Put, Staged, Store, StoreError};
use strongroom::sys::dir::Dir;
use strongroom::sys::file::write_all_at;
use strongroom::sys::place::PlaceDir;
use strongroom::watch::Tally;

use measure::{ThreadTime, random};

const CHUNK: usize = 1 << 20;
const CHUNKS_PER_PACK: usize = 32;
const INDEX_CHUNKS: usize = 200_000;
const SMALL_FILES: usize = 500;

criterion_group! {
    name = stages;
    config = Criterion::default()
        .with_measurement(ThreadTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    targets = walking, packing, journaling, trees, looking_up, unpacking, writing, both_ways
}
criterion_main!(stages);

type Bench = Criterion<ThreadTime>;

fn repo(store: Arc<dyn Store>, cache: Option<&Path>) -> Repo {
    let (env, key) = (Env::system(1), KeyFileSecret([5; 32]));
    init(store.clone(), Unlock::KeyFile(&key), &InitOptions::default(), &env).expect("made");
    Repo::open(store, Unlock::KeyFile(&key), cache, &env).expect("opened")
}

fn sealed(repo: &Repo, session: &Session) -> Vec<SealedFrame> {
    let frame = |n: usize| {
        let bytes = random(n as u8, CHUNK);
        let id = repo.id_key().expect("an owner has it").id(&bytes);
        let chunks = vec![ChunkRow { id, offset: 0, len: CHUNK as u32 }];
        let (codec, plain_len) = (Codec::Stored, CHUNK as u32);
        session
            .seal(Recipient::Data, Encoded { codec, bytes, plain_len, chunks, bases: Vec::new() })
    };
    (0..CHUNKS_PER_PACK).map(frame).collect()
}

/// A folder of small files: its names, and what is told of each.
fn walking(c: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    let dir = Dir::open(&folder.path().join("small")).expect("it was made");
    let names = dir.names().expect("listed");
    let mut group = c.benchmark_group("walk");
    group.throughput(Throughput::Elements(SMALL_FILES as u64));
    group.bench_function("names", |b| b.iter(|| dir.names().expect("listed").len()));
    group.bench_function("stat", |b| {
        b.iter(|| names.iter().map(|name| dir.stat(name).expect("it is there").size).sum::<u64>());
    });
    group.finish();
}

/// Takes packs and keeps nothing of them: what is left is what the packer does.
#[derive(Debug)]
struct Nowhere(MemoryStore);

struct Gone;

impl Staged for Gone {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        black_box(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, _: &ObjectName) -> Result<Put, StoreError> {
        Ok(Put::Created)
    }
}

impl Store for Nowhere {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.0.put_if_absent(name, bytes)
    }

    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        Ok(Box::new(Gone))
    }

    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get(name, max_bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.0.get_range(name, offset, buf)
    }

    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.0.len(name)
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.0.list(folder, each)
    }

    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError> {
        self.0.make_durable(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name)
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
}

/// A pack of sealed frames with its directory, padding and name, into a store: one that keeps
/// nothing, and a folder.
fn packing(c: &mut Bench) {
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Bytes((CHUNKS_PER_PACK * CHUNK) as u64));
    let folder = tempfile::tempdir().expect("a folder");
    let local = LocalStore::create(&folder.path().join("store")).expect("a store");
    let stores: [(&str, Arc<dyn Store>); 2] =
        [("nowhere", Arc::new(Nowhere(MemoryStore::new()))), ("folder", Arc::new(local))];
    for (name, store) in stores {
        let repo = repo(store.clone(), None);
        let session = Session::new(&repo).expect("a session");
        let frames = sealed(&repo, &session);
        group.bench_function(name, |b| {
            b.iter(|| {
                let pack = pack_of(&repo, &session, &frames);
                store.delete(&pack).expect("it was there");
            });
        });
    }
    group.finish();
}

fn pack_of(repo: &Repo, session: &Session, frames: &[SealedFrame]) -> ObjectName {
    let mut pack =
        OpenPack::begin(repo, session.id, session.epoch, PackClass::Data).expect("begun");
    for frame in frames {
        pack.push(&PackFrame::of(frame, session)).expect("memory takes it");
    }
    pack.close(repo, repo.identity(), false).expect("closed").name
}

fn entry(n: usize) -> Entry {
    let time = TimeSpec { secs: 1_790_000_000 + n as i64, nanos: 1 };
    Entry {
        name: format!("subject-{n:05}.xml").into_bytes(),
        kind: EntryKind::File,
        mode: 0o644,
        user: Some("data".to_owned()),
        group: Some("data".to_owned()),
        mtime: time,
        ctime: Some(time),
        size: Some(8_000),
        content: vec![Segment::Chunks { first: n as u32, chunks: 1, len: 8_000 }],
        ..Entry::default()
    }
}

fn journaling(c: &mut Bench) {
    let cache = tempfile::tempdir().expect("a folder");
    let repo = repo(Arc::new(MemoryStore::new()), Some(cache.path()));
    let session = Session::new(&repo).expect("a session");
    let opened = journal::open(&repo, &[b"/srv".to_vec()], &session.id).expect("opened");
    let (_, journal) = opened.expect("there is a cache");
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(1));
    let (mut n, id) = (0, ChunkId([7; 32]));
    group.bench_function("append", |b| {
        b.iter(|| {
            n += 1;
            let mut entry = entry(n);
            entry.content = Vec::new();
            let signature = Signature { dev: 1, ino: n as u64, unsure: false };
            let pieces = vec![Piece::Chunk { id, len: 8_000 }];
            let mut record = Record { signature, entry, pieces };
            journal.append(format!("/srv/subject-{n}.xml").as_bytes(), &mut record);
        });
    });
    group.finish();
    journal.discard();
}

fn trees(c: &mut Bench) {
    let entries: Vec<Entry> = (0..1_000).map(entry).collect();
    let node = TreeNode::Leaf { entries };
    let bytes = node.to_bytes();
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("encode", |b| b.iter(|| black_box(&node).to_bytes().len()));
    group.bench_function("decode", |b| {
        b.iter(|| TreeNode::from_bytes(black_box(&bytes)).is_ok());
    });
    group.finish();
}

fn looking_up(c: &mut Bench) {
    let (index, ids) = built_in_index(INDEX_CHUNKS).expect("it is sound");
    let missing: Vec<ChunkId> = (0..ids.len()).map(|n| ChunkId(hash(&n.to_be_bytes()))).collect();
    let step = 7_919;
    let spread: Vec<ChunkId> = (0..ids.len()).map(|n| ids[n * step % ids.len()]).collect();
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for (name, ids) in [("hit-in-order", &ids), ("hit-anywhere", &spread), ("miss", &missing)] {
        let mut ids = ids.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| index.knows(ids.next().expect("it goes round")));
        });
    }
    // Rows into runs, runs into the index.
    let rows = INDEX_CHUNKS / 10;
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("runs", |b| b.iter(|| built_in_index(rows).expect("it is sound").1.len()));
    group.finish();
}

fn write_files(folder: &Path) -> u64 {
    std::fs::create_dir_all(folder.join("small")).expect("a folder");
    std::fs::write(folder.join("large"), random(9, 32 << 20)).expect("written");
    for n in 0..SMALL_FILES {
        let text = format!("subject {n}: nothing to report\n").repeat(50 + n % 200);
        std::fs::write(folder.join(format!("small/{n}")), text).expect("written");
    }
    32 << 20
}

/// Every frame of a pack in memory: fetched, opened, decoded, verified.
fn unpacking(c: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(&folder.path().join("source"));
    let repo = repo(Arc::new(MemoryStore::new()), None);
    let paths = [folder.path().join("source/large")];
    let (options, watch) = (BackupOptions::default(), Tally::default());
    backup::run(&repo, Source::Paths(&paths), &options, &watch).expect("backed up");
    let index = repo.index().expect("read");
    let ids: Vec<ChunkId> = {
        let segments = index.segments();
        segments.iter().flat_map(|s| s.run().ids()).map(|id| ChunkId(*id)).collect()
    };
    let (fetcher, key) = (Fetcher::new(&repo, &index), repo.id_key().expect("an owner"));
    let mut decoder = Decoder::new();
    let mut group = c.benchmark_group("unpack");
    group.throughput(Throughput::Bytes(32 << 20));
    group.bench_function("one-pack", |b| {
        b.iter(|| {
            for id in &ids {
                let copy = index.copies(id).pop().expect("it is there");
                let plain = fetcher.frame(&FrameAt::of(&copy), &mut decoder).expect("sound");
                black_box(key.id(&plain));
            }
        });
    });
    group.finish();
}

/// Files as a restore writes them: a small one, and a large one chunk by chunk; both removed again.
fn writing(c: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = PlaceDir::open_root(folder.path(), false).expect("it is there");
    let chunk = random(3, CHUNK);
    let mut group = c.benchmark_group("write");
    group.throughput(Throughput::Elements(1));
    group.bench_function("small-file", |b| {
        b.iter(|| {
            let file = dir.create_file(b"small").expect("made");
            write_all_at(&file, 0, &chunk[..8_000]).expect("written");
            dir.remove(b"small").expect("removed")
        });
    });
    group.throughput(Throughput::Bytes((CHUNKS_PER_PACK * CHUNK) as u64));
    group.bench_function("large-file", |b| {
        b.iter(|| {
            let file = dir.create_file(b"large").expect("made");
            for n in 0..CHUNKS_PER_PACK {
                write_all_at(&file, (n * CHUNK) as u64, &chunk).expect("written");
            }
            dir.remove(b"large").expect("removed")
        });
    });
    group.finish();
}

/// One thread, everything in order: a large file and many small ones.
fn both_ways(c: &mut Bench) {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = write_files(&folder.path().join("source"));
    // Files that changed right before a backup are not believed unchanged in the next.
    std::thread::sleep(Duration::from_secs(3));
    let (options, watch) = (BackupOptions::default(), Tally::default());
    let mut group = c.benchmark_group("way");
    for (name, sub, work) in [
        ("large", "large", Throughput::Bytes(bytes)),
        ("small", "small", Throughput::Elements(SMALL_FILES as u64)),
    ] {
        let paths = [folder.path().join("source").join(sub)];
        let back_up = |repo: &Repo| backup::run(repo, Source::Paths(&paths), &options, &watch);
        group.throughput(work);
        group.bench_function(format!("in-{name}"), |b| {
            let nowhere = || Arc::new(Nowhere(MemoryStore::new()));
            b.iter(|| back_up(&repo(nowhere(), None)).expect("backed up"));
        });
        let cache = folder.path().join(format!("cache-{name}"));
        std::fs::create_dir(&cache).expect("a folder");
        let repo = repo(Arc::new(MemoryStore::new()), Some(&cache));
        back_up(&repo).expect("backed up");
        // Dry, so that the repository does not grow by a snapshot each time.
        let again = BackupOptions { dry_run: true, ..BackupOptions::default() };
        group.bench_function(format!("in-unchanged-{name}"), |b| {
            b.iter(|| {
                let same = backup::run(&repo, Source::Paths(&paths), &again, &watch);
                assert_eq!(same.expect("backed up").bytes_read, 0);
            });
        });
        let rescan = BackupOptions { rescan: true, ..again };
        group.bench_function(format!("in-known-{name}"), |b| {
            b.iter(|| backup::run(&repo, Source::Paths(&paths), &rescan, &watch).expect("known"));
        });
        let snapshot = repo.find_snapshot("latest").expect("there is one");
        let (target, options) = (folder.path().join("restored"), RestoreOptions::default());
        group.bench_function(format!("back-{name}"), |b| {
            let restore = || restore::run(&repo, &snapshot, None, &target, &options, &watch);
            let begin = || drop(std::fs::remove_dir_all(&target));
            b.iter_batched(begin, |()| restore().expect("restored"), BatchSize::PerIteration);
        });
    }
    group.finish();
}
