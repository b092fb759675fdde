//! A hostile store, and hostile writers who hold keys: forged, replayed and rolled back objects, compression bombs,
//! absurd lengths and depths. Each is an error or a finding, in bounded memory; nothing is hidden, and what a client has
//! seen does not vanish unnoticed.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::codec::Codec;
use strongroom::format::control::{Damage, DamagedFrame, Forgotten};
use strongroom::format::id::{ChunkId, IdentityId, SessionId, hash};
use strongroom::format::keys::SigningKey;
use strongroom::format::pack::ChunkRow;
use strongroom::format::record::{Kind, Record};
use strongroom::format::seal::Recipient;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::format::snapshot::Directory;
use strongroom::format::tree::{
    Child, ChunkRef, Entry, EntryKind, RefsNode, Segment, leaf_from_encoded, put_entry,
};
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::maintain::keys;
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::maintain::repair::{self, RepairOptions};
use strongroom::repo::packer::Packer;
use strongroom::repo::session::{Encoded, Session};
use strongroom::repo::{Repo, SnapshotInfo};
use strongroom::restore::{self, RestoreOptions, RestoreReport};
use strongroom::store::{MemoryStore, Store};
use strongroom::watch::{Problem, Tally};

use support::hand::{Hand, copy, name};
use support::{KEY, back_up, new_store, noise, open};

const READ_DATA: CheckOptions = CheckOptions { read_data: true };
/// What a hostile object may make us take, beyond what the test itself holds.
const PEAK_BYTES_MAX: u64 = 256 << 20;

fn env() -> Env {
    Env::system(2)
}

fn check_with(repo: &Repo) -> CheckReport {
    check::run(repo, &READ_DATA, &Tally::default()).unwrap()
}

fn restored(repo: &Repo, info: &SnapshotInfo, target: &Path) -> (RestoreReport, Vec<Problem>) {
    let watch = Tally::default();
    let options = RestoreOptions::default();
    (restore::run(repo, info, None, target, &options, &watch).unwrap(), watch.problems())
}

/// Highest resident set so far, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// One snapshot, its client's cache, and a machine that only adds.
struct Bench {
    store: MemoryStore,
    cache: tempfile::TempDir,
    source: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let (cache, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(source.path().join("file"), noise(1, 200_000)).unwrap();
        let bench = Self { store: new_store(&env()), cache, source };
        bench.back_up();
        bench
    }

    fn open(&self) -> Repo {
        open(&self.store, Some(self.cache.path()), &env())
    }

    fn back_up(&self) -> SessionId {
        back_up(&self.open(), self.source.path()).snapshot.unwrap()
    }

    fn machine(&self) -> (Repo, KeyFileSecret) {
        let key = KeyFileSecret([40; 32]);
        keys::add(&self.open(), Role::Backup, "machine", Unlock::KeyFile(&key)).unwrap();
        let repo = Repo::open(Arc::new(self.store.clone()), Unlock::KeyFile(&key), None, &env());
        (repo.unwrap(), key)
    }

    /// Puts the objects of an older state in place of all that is there.
    fn roll_back(&self, to: &MemoryStore) {
        for name in self.store.names() {
            self.store.delete(&name).unwrap();
        }
        for name in to.names() {
            self.store.put_if_absent(&name, &to.get(&name, u64::MAX).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_client_notices_an_older_set_of_snapshots() {
    let bench = Bench::new();
    let old = copy(&bench.store);
    std::fs::write(bench.source.path().join("more"), noise(2, 100_000)).unwrap();
    let newest = bench.back_up();
    // Another client of the same key, which has seen the newest live, and wrote none of them.
    let reader = tempfile::tempdir().unwrap();
    let open_reader = || open(&bench.store, Some(reader.path()), &env());
    assert_eq!(open_reader().vanished_snapshots().unwrap().len(), 0);
    bench.roll_back(&old);
    let repo = open_reader();
    let found = check_with(&repo);
    assert!(found.damages.iter().any(|d| d.object == format!("snapshots/{newest}")), "{found:?}");
    let pruned = prune::run(&repo, &PruneOptions::default(), &Tally::default());
    assert!(matches!(pruned, Err(Error::Rollback { .. })), "{pruned:?}");
    let target = tempfile::tempdir().unwrap();
    let info = repo.find_snapshot("latest").unwrap();
    let (report, problems) = restored(&repo, &info, target.path());
    assert_eq!(report.failed, 0);
    let tells = |problem: &Problem| problem.name == format!("snapshots/{newest}").into_bytes();
    assert!(problems.iter().any(tells), "{problems:?}");
    let vanished = repo.vanished_snapshots().unwrap();
    assert!(vanished.len() == 1 && vanished[0].0 == newest, "it is told again and again");
    // Who has seen nothing newer has nothing to compare with.
    assert_eq!(check_with(&open(&bench.store, None, &env())).damages, []);
    // A cache that is broken says nothing, and stops nobody.
    for file in walk(reader.path()).iter().filter(|path| path.ends_with("seen")) {
        std::fs::write(file, b"rot").unwrap();
    }
    assert_eq!(open_reader().vanished_snapshots().unwrap().len(), 0);
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_client_notices_an_older_roster() {
    let bench = Bench::new();
    let old = copy(&bench.store);
    bench.machine();
    assert_eq!(bench.open().roster().number, 2);
    bench.roll_back(&old);
    let open = |cache: Option<&Path>| {
        Repo::open(Arc::new(bench.store.clone()), Unlock::KeyFile(&KEY), cache, &env())
    };
    assert!(matches!(open(Some(bench.cache.path())), Err(Error::Rollback { .. })));
    open(None).unwrap();
    // A snapshot that cites a roster which is not there, as one that was replayed does.
    let bench = Bench::new();
    let old = copy(&bench.store);
    let (machine, _) = bench.machine();
    back_up(&machine, bench.source.path());
    bench.store.delete(&name("roster/00000002")).unwrap();
    drop(old);
    let repo = open_plain(&bench.store);
    let listed = repo.snapshots_despite();
    assert!(matches!(listed, Err(Error::Rollback { .. })), "{listed:?}");
}

fn open_plain(store: &MemoryStore) -> Repo {
    open(store, None, &env())
}

#[test]
fn who_may_not_forget_hides_nothing() {
    let bench = Bench::new();
    let owner = bench.open();
    let info = owner.find_snapshot("latest").unwrap();
    let (machine, key) = bench.machine();
    let forgotten = Forgotten {
        snapshot: info.id,
        time_ns: 1,
        reason: "forged".to_owned(),
        policy: None,
        stored_hash: info.hash,
    };
    let stated = format!("forgotten/{}", info.id);
    let by_machine = Hand::of(&bench.store, &machine, &key);
    let body = by_machine.sealed(Kind::Forgotten, &forgotten.to_cbor());
    let unsigned = Record::build(Kind::Forgotten, &body, &stated, &[], machine.id());
    let stranger = SigningKey::from_seed(&[1; 32]);
    let repository = machine.id();
    let owners = |key| {
        Record::build(Kind::Forgotten, &body, &stated, &[(owner.identity(), 1, key)], repository)
    };
    let of_another = by_machine.record(Kind::Forgotten, "forgotten/x", &body);
    let forgeries = [
        by_machine.record(Kind::Forgotten, &stated, &body),
        unsigned,
        owners(&stranger),
        of_another,
        Record::build(
            Kind::Forgotten,
            &body,
            &stated,
            &[(IdentityId::ROOT, 1, &stranger)],
            repository,
        ),
        b"no record at all".to_vec(),
        Vec::new(),
    ];
    for (n, forged) in forgeries.iter().enumerate() {
        let store = copy(&bench.store);
        store.put_if_absent(&name(&stated), forged).unwrap();
        let repo = open(&store, None, &env());
        assert_eq!(repo.snapshots().unwrap().len(), 1, "{n}");
        assert_eq!(repo.find_snapshot("latest").unwrap().id, info.id, "{n}");
        let report = check_with(&repo);
        assert!(report.damages.iter().any(|d| d.object == stated), "{n}: {:?}", report.damages);
        let _ = prune::run(&repo, &PruneOptions::default(), &Tally::default());
        let target = tempfile::tempdir().unwrap();
        assert_eq!(restored(&repo, &info, target.path()).0.failed, 0, "{n}");
    }
}

/// A stolen backup key says that good frames are damaged, and has false copies at hand: the good ones stay.
#[test]
fn a_false_record_of_damage_costs_no_data() {
    let bench = Bench::new();
    let owner = bench.open();
    let info = owner.find_snapshot("latest").unwrap();
    let (machine, key) = bench.machine();
    // The machine stores false bytes under the ids of the owner's chunks.
    let index = owner.index().unwrap();
    let segment = index.segments().remove(0);
    let run = segment.run();
    let session = Session::new(&machine).unwrap();
    session.announce(&machine, &[]).unwrap();
    let empty = machine.index().unwrap();
    let packer = Packer::new(&machine, &session, &empty, false);
    let mut frames = Vec::new();
    for position in 0..run.len() {
        let place = run.location(position).unwrap();
        let (pack, frame) = (place.pack.id, place.frame);
        frames.push(DamagedFrame { pack, offset: frame.offset, stored: frame.stored });
        let bytes = vec![0x66; place.chunk.len as usize];
        let recipient =
            Recipient::from_code(run.context(frame.context).unwrap().context[2]).unwrap();
        let chunks = vec![ChunkRow { offset: 0, ..place.chunk }];
        let (codec, plain_len) = (Codec::Stored, place.chunk.len);
        let encoded = Encoded { codec, bytes, plain_len, chunks, bases: Vec::new() };
        packer.add(session.seal(recipient, encoded), &|pack| packer.complete(pack)).unwrap();
    }
    packer.finish().unwrap();
    let hand = Hand::of(&bench.store, &machine, &key);
    let damage = Damage { frames, time_ns: 1, found: "false".to_owned() };
    let body = hand.sealed(Kind::Damage, &damage.to_cbor());
    hand.put_content(Kind::Damage, "damaged", &body);

    let now = PruneOptions { fence_after_ns: 0, max_unused: 0.0, ..PruneOptions::default() };
    let repo = bench.open();
    for _ in 0..3 {
        let _ = prune::run(&repo, &now, &Tally::default());
    }
    let target = tempfile::tempdir().unwrap();
    let (report, problems) = restored(&bench.open(), &info, target.path());
    assert_eq!(report.failed, 0, "{problems:?}");
}

/// Objects that claim absurd sizes, sealed and signed as they should be.
#[test]
fn absurd_claims() {
    let bench = Bench::new();
    let repo = bench.open();
    let before = peak_bytes();
    let claim = |count: u32| count.to_le_bytes();
    let mut run = vec![0; 64];
    for at in [0, 4, 8, 12, 16, 20] {
        run[at..at + 4].copy_from_slice(&claim(u32::MAX));
    }
    run[24] = 16;
    // { 1: [2^32 - 1 entries …
    let list = [&[0xa3, 0x01, 0x9a][..], &[0xff; 4]].concat();
    // { 1: 7, 2: [2^64 - 1 entries …
    let longer = [&[0xa6, 0x01, 0x07, 0x02, 0x9b][..], &[0xff; 8]].concat();
    let nested = vec![0x81; 100_000];
    let cases: [(Kind, &str, Vec<u8>); 6] = [
        (Kind::IndexRun, "index", run),
        (Kind::Damage, "damaged", list.clone()),
        (Kind::Attestation, "attest", list),
        (Kind::Proposal, "retired/00000001", longer.clone()),
        (Kind::Verdict, "retired/00000001.verdict", longer),
        (Kind::Hold, "holds/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", nested),
    ];
    for (kind, place, payload) in cases {
        let store = copy(&bench.store);
        let hand = Hand::of(&store, &repo, &KEY);
        let is_sealed = matches!(kind, Kind::IndexRun | Kind::Damage | Kind::Hold);
        let body = if is_sealed { hand.sealed(kind, &payload) } else { payload };
        let object = match kind.stated() {
            true => hand.put(kind, place, &body),
            false => hand.put_content(kind, place, &body),
        };
        let repo = open(&store, None, &env());
        let report = check_with(&repo);
        let about = |found: &check::DamageFound| found.object == object.as_str();
        // A run without which nothing is missing is a notice.
        let found = report.damages.iter().any(about) || kind == Kind::IndexRun;
        assert!(found, "{kind:?}: {:?}", report.damages);
        let info = repo.find_snapshot("latest").unwrap();
        let target = tempfile::tempdir().unwrap();
        assert_eq!(restored(&repo, &info, target.path()).0.failed, 0, "{kind:?}");
    }
    assert!(peak_bytes() - before < PEAK_BYTES_MAX, "{} MiB", (peak_bytes() - before) >> 20);
}

/// Stores nodes and chunks of a writer who has all keys and no scruples.
struct Forger<'r> {
    store: MemoryStore,
    repo: &'r Repo,
    session: Session,
    frames: Vec<(Recipient, Encoded)>,
    bundles: BTreeMap<u8, (Vec<u8>, Vec<ChunkRow>)>,
}

impl<'r> Forger<'r> {
    fn new(store: &MemoryStore, repo: &'r Repo) -> Self {
        let session = Session::new(repo).unwrap();
        session.announce(repo, &[]).unwrap();
        let (frames, bundles) = Default::default();
        Self { store: store.clone(), repo, session, frames, bundles }
    }

    fn store(&mut self, recipient: Recipient, plain: &[u8]) -> ChunkId {
        let id = match recipient {
            Recipient::Meta => self.repo.refid_key().id(plain),
            _ => self.repo.id_key().unwrap().id(plain),
        };
        // Many in one frame, as small ones are.
        let (bytes, chunks) = self.bundles.entry(recipient as u8).or_default();
        let (offset, len) = (bytes.len() as u32, plain.len() as u32);
        chunks.push(ChunkRow { id, offset, len });
        bytes.extend_from_slice(plain);
        id
    }

    fn leaf(&mut self, children: &[Directory], chunks: Vec<ChunkRef>, entry: &Entry) -> Directory {
        let child = |dir: &Directory| Child { refs: dir.refs, tree: dir.tree };
        let children = children.iter().map(child).collect();
        let mut encoded = Vec::new();
        put_entry(entry, &mut encoded);
        let tree = leaf_from_encoded(1, &encoded);
        let refs = RefsNode::Leaf { children, chunks, lists: Vec::new() };
        let refs = self.store(Recipient::Meta, &refs.to_bytes());
        Directory { refs, tree: self.store(Recipient::Tree, &tree) }
    }

    /// Commits a snapshot with this root.
    fn commit(mut self, like: &SnapshotInfo, root: Directory) -> SessionId {
        for (recipient, (bytes, chunks)) in std::mem::take(&mut self.bundles) {
            let recipient = Recipient::from_code(recipient).unwrap();
            let (codec, plain_len) = (Codec::Stored, bytes.len() as u32);
            self.frames
                .push((recipient, Encoded { codec, bytes, plain_len, chunks, bases: vec![] }));
        }
        let index = self.repo.index().unwrap();
        let packer = Packer::new(self.repo, &self.session, &index, false);
        for (recipient, encoded) in self.frames {
            let frame = self.session.seal(recipient, encoded);
            packer.add(frame, &|pack| packer.complete(pack)).unwrap();
        }
        packer.finish().unwrap();
        let mut snapshot = like.snapshot.clone();
        snapshot.sequence += 1;
        (snapshot.previous, snapshot.root) = (Some(like.hash), root);
        snapshot.author = self.repo.identity();
        let body = self.session.seal_snapshot(self.repo, &snapshot.to_cbor());
        let stated = format!("snapshots/{}", self.session.id);
        let hand = Hand::of(&self.store, self.repo, &KEY);
        let bytes = hand.record(Kind::Snapshot, &stated, &body);
        self.repo.store().put_if_absent(&name(&stated), &bytes).unwrap();
        self.session.id
    }
}

fn file(name: &[u8], len: u64) -> Entry {
    let content = vec![Segment::Chunks { first: 0, chunks: 1, len }];
    let name = name.to_vec();
    Entry { name, kind: EntryKind::File, mode: 0o644, size: Some(len), content, ..Entry::default() }
}

/// A frame of a few KiB that inflates to a gigabyte; one that says so, and one that does not.
#[test]
fn compression_bombs() {
    let bench = Bench::new();
    let repo = bench.open();
    let like = repo.find_snapshot("latest").unwrap();
    let bomb = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..1 << 10 {
            std::io::Write::write_all(&mut encoder, &[0; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    };
    assert!(bomb.len() < 1 << 20);
    let before = peak_bytes();
    for plain_len in [1_000, 16 << 20] {
        let mut forger = Forger::new(&bench.store, &repo);
        let id = ChunkId(hash(&[plain_len as u8]));
        let chunks = vec![ChunkRow { id, offset: 0, len: plain_len }];
        let encoded =
            Encoded { codec: Codec::Zstd, bytes: bomb.clone(), plain_len, chunks, bases: vec![] };
        forger.frames.push((Recipient::Data, encoded));
        let chunks = vec![ChunkRef { id, len: plain_len }];
        let root = forger.leaf(&[], chunks, &file(b"bomb", plain_len.into()));
        let forged = forger.commit(&like, root);
        let info = repo.find_snapshot(&forged.to_string()).unwrap();
        let target = tempfile::tempdir().unwrap();
        let (report, _) = restored(&repo, &info, target.path());
        assert_eq!((report.failed, report.files_restored), (1, 0));
        let report = check_with(&repo);
        assert!(report.damages.iter().any(|d| d.snapshots.contains(&forged)), "{report:?}");
    }
    assert!(peak_bytes() - before < PEAK_BYTES_MAX, "{} MiB", (peak_bytes() - before) >> 20);
}

/// Directories nested deeper than any path can be: `depth` of them.
fn bottomless(depth: usize) -> (Bench, SessionId) {
    let bench = Bench::new();
    let repo = bench.open();
    let like = repo.find_snapshot("latest").unwrap();
    let mut forger = Forger::new(&bench.store, &repo);
    let chunk = forger.store(Recipient::Data, b"bottom");
    let mut dir = forger.leaf(&[], vec![ChunkRef { id: chunk, len: 6 }], &file(b"f", 6));
    for _ in 0..depth {
        let kind = EntryKind::Directory;
        let name = b"d".to_vec();
        let entry = Entry { name, kind, mode: 0o755, child: Some(0), ..Entry::default() };
        dir = forger.leaf(&[dir], Vec::new(), &entry);
    }
    let forged = forger.commit(&like, dir);
    (bench, forged)
}

#[test]
fn a_tree_that_is_deep() {
    let (bench, forged) = bottomless(300);
    let repo = bench.open();
    assert_eq!(check_with(&repo).damages, []);
    let dry = RepairOptions { dry_run: true, ..RepairOptions::default() };
    assert_eq!(repair::run(&repo, &dry, &Tally::default()).unwrap().snapshots.len(), 0);
    let info = repo.find_snapshot(&forged.to_string()).unwrap();
    let target = tempfile::tempdir().unwrap();
    assert_eq!(restored(&repo, &info, target.path()).0.failed, 0);
}

/// By hand: in a debug build it takes minutes.
#[test]
#[ignore = "slow"]
fn a_bottomless_tree() {
    let before = peak_bytes();
    let (bench, forged) = bottomless(4_100);
    let repo = bench.open();
    let info = repo.find_snapshot(&forged.to_string()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let watch = Tally::default();
    let options = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    let report = restore::run(&repo, &info, None, target.path(), &options, &watch).unwrap();
    assert_eq!(report.failed, 1, "{report:?}");
    assert!(watch.problems().iter().any(|p| p.cause.contains("deep")), "{report:?}");
    check_with(&repo);
    let dry = RepairOptions { dry_run: true, ..RepairOptions::default() };
    let report = repair::run(&repo, &dry, &Tally::default()).unwrap();
    assert_eq!(report.snapshots.len(), 1, "what is below the limit is dropped, by name");
    assert!(peak_bytes() - before < PEAK_BYTES_MAX, "{} MiB", (peak_bytes() - before) >> 20);
}
