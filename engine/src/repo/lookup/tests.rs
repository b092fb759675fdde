//! The index against a plain list of runs: whatever was added, has vanished, was merged in the store or in the cache,
//! whatever call failed on the way and whatever has become of the cached files, the answers are those of the list.

mod folder;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestRunner};

use super::{Claim, Index, Packs, Trusted};
use crate::format::id::{ChunkId, IdentityId, ObjectHash, PackId, hash};
use crate::format::index::{Location, PackRow, Run, RunBuilder};
use crate::format::pack::{BaseRow, ChunkRow, ContextRow, FrameRow, PackClass};
use crate::sys::fault::{Fault, with_plan};

const CHUNKS: u64 = 500;
const PACKS: u64 = 120;
const OURS: IdentityId = IdentityId([1; 16]);
const OTHER: IdentityId = IdentityId([2; 16]);

/// Some crowd at one slot of a table, some look alike in pack order, some are told apart by a single byte.
fn chunk_id(n: u64) -> ChunkId {
    let mut id = hash(&n.to_le_bytes());
    if n.is_multiple_of(7) {
        id[..5].copy_from_slice(&[9, 0xff, 0xff, 0xff, 0xff]);
    }
    if n.is_multiple_of(5) {
        id[28..].fill(0);
    }
    if n.is_multiple_of(35) {
        id[5..27].fill(1);
    }
    ChunkId(id)
}

fn pack_row(n: u64) -> PackRow {
    let author = if n.is_multiple_of(3) { OTHER } else { OURS };
    PackRow { id: PackId(hash(&[n as u8, 1])), len: 1 << 20, author, class: PackClass::Data }
}

/// Some packs are cut short in the store.
fn listed_len(n: u64) -> u64 {
    pack_row(n).len - u64::from(n.is_multiple_of(17))
}

/// Frames of one chunk, of several, and deltas: the same for the same pack.
fn push_pack(builder: &mut RunBuilder, n: u64) {
    let pack = builder.push_pack(pack_row(n));
    let context = builder.push_context(ContextRow { context: [0; 72], commit: [0; 32] });
    for frame in 0..6 {
        let seed = n * 7 + frame;
        let count = [1, 1, 1, 4, 1, 1][frame as usize];
        let rows: Vec<ChunkRow> = (0..count)
            .map(|at| {
                let id = chunk_id((seed * 13 + at * 3) % CHUNKS);
                ChunkRow { id, offset: at as u32 * 10, len: 10 }
            })
            .collect();
        let bases = match frame {
            5 => vec![BaseRow { id: chunk_id(seed % CHUNKS), start: 0, len: 10 }],
            _ => Vec::new(),
        };
        let row = FrameRow {
            offset: 64 + frame * 1000,
            ordinal: frame,
            stored: 900,
            plain: count as u32 * 10,
            chunks: count as u32,
            bases: bases.len() as u32,
            context,
            codec: if bases.is_empty() { 1 } else { 3 },
        };
        builder.push_frame(pack, context, &row, &rows, &bases);
    }
}

fn run_of(packs: &[u64]) -> (ObjectHash, Vec<u8>) {
    let mut builder = RunBuilder::new();
    packs.iter().for_each(|n| push_pack(&mut builder, *n));
    let payload = builder.finish();
    (ObjectHash(hash(&payload)), payload)
}

/// What the store has, and a client's cache.
struct World {
    folder: tempfile::TempDir,
    runs: BTreeMap<ObjectHash, (Vec<u64>, Vec<u8>)>,
    listed: BTreeSet<u64>,
    condemned: BTreeSet<u64>,
    damaged: BTreeSet<(PackId, u64)>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let damaged = BTreeSet::from([(pack_row(4).id, 64), (pack_row(5).id, 1064)]);
        let (runs, condemned) = Default::default();
        Self { folder, runs, listed: (0..PACKS).collect(), condemned, damaged }
    }

    fn add(&mut self, packs: Vec<u64>) -> (ObjectHash, Vec<u8>) {
        let (name, payload) = run_of(&packs);
        self.runs.insert(name, (packs, payload.clone()));
        (name, payload)
    }

    fn vanish(&mut self, pick: usize) -> Vec<u64> {
        let name = self.runs.keys().nth(pick % self.runs.len().max(1)).copied();
        name.and_then(|name| self.runs.remove(&name)).map_or(Vec::new(), |(packs, _)| packs)
    }

    fn packs(&self) -> Packs {
        let listed = self.listed.iter().map(|n| (pack_row(*n).id, listed_len(*n)));
        let condemned = self.condemned.iter().map(|n| pack_row(*n).id).collect();
        let damaged = self.damaged.clone();
        Packs { listed: listed.collect(), condemned, damaged, ..Packs::default() }
    }

    /// As `Repo::index` does it; what is not cached comes from the store. `None`: a call failed.
    fn open(&self, proof: bool) -> Option<Index> {
        let trusted = Trusted { everyone: false, attested: false, authors: HashSet::from([OURS]) };
        let mut index = Index::new(self.packs(), trusted, Some(self.folder.path().to_owned()));
        if proof {
            index.prove_cached(1).ok()?;
        }
        for (name, (_, payload)) in &self.runs {
            if !index.add_cached(name) {
                index.add(name, payload.clone()).ok()?;
            }
        }
        index.settle();
        Some(index)
    }

    fn files(&self) -> Vec<PathBuf> {
        files(self.folder.path())
    }

    /// Runs in the order of the listing, then those of the session.
    fn list(&self, own: &[(ObjectHash, Vec<u8>)]) -> Answers {
        let stored = self.runs.iter().map(|(name, (_, payload))| (*name, payload, false));
        let own = own.iter().map(|(name, payload)| (*name, payload, true));
        let runs = stored.chain(own);
        let runs = runs.map(|(name, payload, own)| (name, Run::new(payload).unwrap(), own));
        let judged = (0..PACKS).map(|n| {
            let pack = pack_row(n);
            let sound = self.listed.contains(&n) && listed_len(n) == pack.len;
            let free = !self.condemned.contains(&n);
            (pack.id, (sound, sound && free && pack.author == OURS))
        });
        let (runs, judged) = (runs.collect(), judged.collect());
        List { runs, judged, damaged: &self.damaged }.answers()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// The plain list.
struct List<'a> {
    runs: Vec<(ObjectHash, Run<'a>, bool)>,
    /// Sound, relied.
    judged: HashMap<PackId, (bool, bool)>,
    damaged: &'a BTreeSet<(PackId, u64)>,
}

/// Run, pack, frame's offset, chunk's offset, frame.
type Copied = (ObjectHash, PackId, u64, u32, u32);

fn copied(name: ObjectHash, place: &Location) -> Copied {
    (name, place.pack.id, place.frame.offset, place.chunk.offset, place.frame_index)
}

impl List<'_> {
    /// Number of the run, place, sound, relied.
    fn places(&self, id: &ChunkId) -> Vec<(usize, Location, bool, bool)> {
        let place = |(number, (_, run, own)): (usize, &(ObjectHash, Run, bool))| {
            let judged = run.find(id).map(move |place| {
                let (sound, relied) = self.judged[&place.pack.id];
                (number, place, sound || *own, relied || *own)
            });
            judged.collect::<Vec<_>>()
        };
        self.runs.iter().enumerate().flat_map(place).collect()
    }

    fn is_damaged(&self, place: &Location) -> bool {
        self.damaged.contains(&(place.pack.id, place.frame.offset))
    }

    fn knows(&self, id: &ChunkId) -> bool {
        let good = |id: &ChunkId| {
            let mut places = self.places(id);
            places.retain(|(_, place, _, relied)| *relied && !self.is_damaged(place));
            places
        };
        good(id).iter().any(|(number, place, ..)| {
            let mut bases = self.runs[*number].1.bases(&place.frame).unwrap();
            bases.all(|base| good(&base.id).iter().any(|(_, place, ..)| place.frame.bases == 0))
        })
    }

    fn copies(&self, id: &ChunkId) -> Vec<Copied> {
        let mut copies = self.places(id);
        copies.retain(|(_, _, sound, _)| *sound);
        copies.sort_by_key(|(_, place, _, relied)| (self.is_damaged(place), !relied));
        copies.iter().map(|(number, place, ..)| copied(self.runs[*number].0, place)).collect()
    }

    /// In pack order, which hints are for, and beyond what is there.
    fn answers(&self) -> Answers {
        let places = self.runs.iter().flat_map(|(_, run, _)| {
            (0..run.len()).filter_map(|row| run.location(row)).collect::<Vec<_>>()
        });
        let mut places: Vec<Location> = places.collect();
        places.sort_by_key(|place| (place.pack.id, place.frame.offset, place.chunk.offset));
        let stored = places.iter().map(|place| place.chunk.id);
        let ids = stored.chain((0..CHUNKS + 50).map(chunk_id));
        let mut known = HashMap::new();
        let answer = |id: ChunkId| {
            let answer = known.entry(id).or_insert_with(|| Answer {
                id,
                knows: self.knows(&id),
                copies: self.copies(&id),
                rows: self.places(&id).len(),
            });
            answer.clone()
        };
        Answers { runs: self.runs.len(), answers: ids.map(answer).collect() }
    }
}

#[derive(Clone)]
struct Answer {
    id: ChunkId,
    knows: bool,
    copies: Vec<Copied>,
    rows: usize,
}

struct Answers {
    runs: usize,
    answers: Vec<Answer>,
}

impl Answers {
    /// Right in everything.
    fn assert_same(&self, index: &Index, context: &str) {
        assert_eq!(index.len(), self.runs, "{context}");
        for Answer { id, knows, copies, rows } in &self.answers {
            assert_eq!(index.knows(id), *knows, "{context}: {id}");
            assert_eq!(&found(index, id), copies, "{context}: {id}");
            assert_eq!(index.rows(id).len(), *rows, "{context}: {id}");
        }
    }

    /// Nothing is believed that is not so.
    fn assert_not_fooled(&self, index: &Index, context: &str) {
        for Answer { id, knows, copies, .. } in &self.answers {
            assert!(!index.knows(id) || *knows, "{context}: {id}");
            assert!(found(index, id).iter().all(|copy| copies.contains(copy)), "{context}: {id}");
        }
    }
}

fn found(index: &Index, id: &ChunkId) -> Vec<Copied> {
    let copies = index.copies(id);
    copies.iter().map(|copy| copied(copy.segment.name.unwrap(), &copy.place)).collect()
}

#[test]
fn answers_are_those_of_a_plain_list() {
    let steps = vec((0u8..12, any::<u32>()), 1..40);
    let mut runner =
        TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&steps, |steps| {
            live(&steps);
            Ok(())
        })
        .unwrap();
}

fn live(steps: &[(u8, u32)]) {
    let mut world = World::new();
    let mut next = 0;
    let mut take = |count: u32| {
        let packs = (next..next + u64::from(count)).map(|n| n % PACKS).collect::<Vec<_>>();
        next += u64::from(count);
        packs
    };
    for (number, (action, n)) in steps.iter().enumerate() {
        let context = format!("step {number} of {steps:?}");
        match action {
            // Another writer's runs.
            0..=2 => (0..n % 4).for_each(|_| drop(world.add(take(1 + n % 5)))),
            3 => drop(world.vanish(*n as usize)),
            // A prune merges.
            4 => {
                let packs: BTreeSet<u64> =
                    (0..3).flat_map(|at| world.vanish(*n as usize + at)).collect();
                if !packs.is_empty() {
                    world.add(packs.into_iter().collect());
                }
            }
            5 => drop(world.listed.remove(&(u64::from(*n) % PACKS))),
            6 => drop(world.condemned.insert(u64::from(*n) % PACKS)),
            // A cached file is gone, or not what it was.
            7 => drop(world.files().get(*n as usize % 5).map(std::fs::remove_file)),
            8 => {
                let files = world.files();
                flip(files.get(*n as usize % files.len().max(1)), *n as usize / 7);
                if n % 2 == 0
                    && let Some(index) = world.open(false)
                {
                    world.list(&[]).assert_not_fooled(&index, &context);
                }
            }
            // One call fails, and with it maybe the opening, or all from there on.
            9 | 10 => {
                let (mut calls, at, forever) = (0, n % 60, action % 2 == 0);
                let plan = move |_: &'static str| {
                    calls += 1;
                    let hit = if forever { calls > at } else { calls == at };
                    if hit { Fault::Fail(5) } else { Fault::None }
                };
                if let Some(index) = with_plan(plan, || world.open(true)) {
                    world.list(&[]).assert_not_fooled(&index, &context);
                }
            }
            // A session that writes while another one opens.
            _ => {
                let Some(index) = world.open(true) else { panic!("{context}") };
                let mut own = Vec::new();
                for _ in 0..n % 7 {
                    let run = run_of(&take(1 + n % 4));
                    if world.runs.contains_key(&run.0) || own.contains(&run) {
                        continue;
                    }
                    let id = ChunkId(*Run::new(&run.1).unwrap().ids().first().unwrap());
                    let known = index.knows(&id);
                    assert_eq!(index.claim(&id) == Claim::Known, known, "{context}");
                    assert_eq!(index.claim(&id), Claim::Known, "{context}");
                    index.add_own(&run.0, run.1.clone()).unwrap();
                    assert!(n % 3 != 0 || world.open(false).is_some(), "{context}");
                    own.push(run);
                }
                world.list(&own).assert_same(&index, &context);
                for (name, payload) in own {
                    let run = Run::new(&payload).unwrap();
                    let packs = (0..PACKS).filter(|n| run.packs().any(|p| p.id == pack_row(*n).id));
                    let packs = packs.collect();
                    world.runs.insert(name, (packs, payload));
                }
            }
        }
        if number % 5 == 4 {
            let index = world.open(true).expect("nothing fails");
            world.list(&[]).assert_same(&index, &context);
        }
    }
    drop(world.open(false));
    let index = world.open(true).expect("nothing fails");
    world.list(&[]).assert_same(&index, "in the end");
    // What is there is used: nothing is fetched again.
    let unfetched = with_plan(
        |call| if call == "cache create" { Fault::Fail(28) } else { Fault::None },
        || world.open(false),
    );
    world.list(&[]).assert_same(&unfetched.expect("all is cached"), "from the cache alone");
    drop(index);
}

fn flip(path: Option<&PathBuf>, at: usize) {
    let Some(path) = path else { return };
    let mut bytes = std::fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1 << (at % 8);
    std::fs::write(path, bytes).unwrap();
}

/// Runs enough that there are tables and bundles in files.
fn world_of_many() -> World {
    let mut world = World::new();
    for n in 0..24 {
        world.add((n * 4..n * 4 + 4).collect());
        world.open(false).unwrap();
    }
    world
}

/// Every byte of every kind of file, flipped: proven at opening, or when it is used.
#[test]
fn no_flipped_byte_is_believed() {
    let world = world_of_many();
    let (list, files) = (world.list(&[]), world.files());
    let kinds: BTreeSet<_> = files.iter().filter_map(|path| path.extension()).collect();
    assert_eq!(kinds.len(), 3, "{files:?}");
    for path in files {
        let (whole, name) = (std::fs::read(&path).unwrap(), path.display());
        let kept: Vec<(PathBuf, Vec<u8>)> = world
            .files()
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        for at in (0..whole.len()).step_by(whole.len() / 20 + 1).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes.truncate(if at % 3 == 0 { at } else { bytes.len() });
            std::fs::write(&path, &bytes).unwrap();
            let context = format!("{name} at {at}, {} bytes", bytes.len());
            list.assert_not_fooled(&world.open(false).unwrap(), &context);
            std::fs::write(&path, &bytes).unwrap();
            list.assert_same(&world.open(true).unwrap(), &context);
            kept.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        }
    }
}

/// A table that cannot be believed does not hide what its runs say.
#[test]
fn a_broken_table_hides_nothing() {
    let world = world_of_many();
    let is_tier = |path: &PathBuf| path.extension().is_some_and(|end| end == "tier");
    let tier = world.files().into_iter().find(is_tier).unwrap();
    let index = world.open(false).unwrap();
    drop(index);
    flip(Some(&tier), 100);
    let index = world.open(false).unwrap();
    world.list(&[]).assert_same(&index, "one bit of it is wrong");
    assert!(!tier.exists(), "it is deleted");
    let index = world.open(false).unwrap();
    world.list(&[]).assert_same(&index, "made again");
}

#[test]
fn without_a_cache_all_is_in_memory() {
    let world = world_of_many();
    let trusted = Trusted { everyone: false, attested: false, authors: HashSet::from([OURS]) };
    let index = Index::new(world.packs(), trusted, None);
    for (name, (_, payload)) in &world.runs {
        assert!(!index.add_cached(name));
        index.add(name, payload.clone()).unwrap();
    }
    index.settle();
    world.list(&[]).assert_same(&index, "held");
}
