//! Damage, as a matrix of action × place: which of the three checks finds it, and that it names the object. A clean repository is
//! clean for every role, and a flipped bit anywhere is found.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::id::hash;
use strongroom::format::pack::{PackClass, PackHeader, TRAILER_LEN, Trailer};
use strongroom::format::record::{Kind, Record};
use strongroom::format::seal::{Context, Label, Sealer, frame_nonce};
use strongroom::format::slot::{Bundle, KeyFileSecret, Role, Slot, Unlock};
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::maintain::keys;
use strongroom::repo::Repo;
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::{Counter, ProblemKind, Tally};

use support::{KEY, back_up, new_store, noise, open};

const STRUCTURE: CheckOptions = CheckOptions { read_data: false };
const READ_DATA: CheckOptions = CheckOptions { read_data: true };

fn env() -> Env {
    Env::system(2)
}

/// Two snapshots: one large enough for packs of each class, one small that ends in a mixed pack.
fn original() -> &'static MemoryStore {
    static STORE: OnceLock<MemoryStore> = OnceLock::new();
    STORE.get_or_init(|| {
        let source = tempfile::tempdir().unwrap();
        write_tree(source.path());
        let store = new_store(&env());
        let repo = open(&store, None, &env());
        back_up(&repo, source.path());
        std::fs::write(source.path().join("late.bin"), noise(99, 50_000)).unwrap();
        back_up(&repo, source.path());
        store
    })
}

fn write_tree(root: &Path) {
    std::fs::create_dir_all(root.join("study/series")).unwrap();
    for i in 0..6 {
        std::fs::write(root.join(format!("study/series/{i}.bin")), noise(i, 1 << 20)).unwrap();
    }
    for i in 0..40 {
        std::fs::write(root.join(format!("study/small{i}.txt")), format!("file {i}\n")).unwrap();
    }
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names() {
        copy.put_if_absent(&name, &store.get(&name, u64::MAX).unwrap()).unwrap();
    }
    copy
}

fn names(store: &MemoryStore, folder: &str) -> Vec<ObjectName> {
    store.names().into_iter().filter(|name| name.as_str().starts_with(folder)).collect()
}

fn bytes(store: &MemoryStore, name: &ObjectName) -> Vec<u8> {
    store.get(name, u64::MAX).unwrap()
}

fn bundle(store: &MemoryStore, slot: &ObjectName, key: &KeyFileSecret, repo: &Repo) -> Bundle {
    let bytes = bytes(store, slot);
    let slot = Slot::from_cbor(Record::parse(&bytes, &[Kind::Slot]).unwrap().body).unwrap();
    slot.open(repo.id(), Unlock::KeyFile(key)).unwrap()
}

/// Where the parts of a pack lie.
fn trailer(store: &MemoryStore, pack: &ObjectName) -> Trailer {
    let repo = open(store, None, &env());
    let bundle = bundle(store, &names(store, "slots/")[0], &KEY, &repo);
    let pack = bytes(store, pack);
    let mut tail = pack[pack.len() - TRAILER_LEN..].to_vec();
    let context = Context::from_bytes(tail[..72].try_into().unwrap()).unwrap();
    let sealer = Sealer::new(&bundle.keys.index[0].1, &context, Label::PackTrailer);
    let aad = [sealer.context_hash().as_slice(), &(pack.len() as u64).to_le_bytes()].concat();
    let plain = sealer.open_in_place(frame_nonce(0), &aad, &mut tail[104..], "trailer").unwrap();
    Trailer::from_bytes(plain, pack.len() as u64).unwrap()
}

fn pack_of(store: &MemoryStore, class: PackClass) -> ObjectName {
    let of_class =
        |name: &ObjectName| PackHeader::from_bytes(&bytes(store, name)).unwrap().class == class;
    names(store, "packs/").into_iter().find(of_class).unwrap_or_else(|| panic!("no {class:?} pack"))
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// The byte at a share of the object, in thousandths.
    Flip(u64),
    FlipAt(u64),
    Truncate,
    Delete,
}

fn damage(store: &MemoryStore, name: &ObjectName, action: Action) {
    let flip = |bytes: &mut Vec<u8>, at: u64| bytes[at as usize] ^= 0x10;
    match action {
        Action::Flip(share) => store.tamper(name, |bytes| {
            flip(bytes, (bytes.len() as u64 - 1) * share / 1000);
        }),
        Action::FlipAt(at) => store.tamper(name, |bytes| flip(bytes, at)),
        Action::Truncate => store.tamper(name, |bytes| bytes.truncate(bytes.len() * 2 / 3)),
        Action::Delete => store.delete(name).unwrap(),
    }
}

/// Does any damage name the object?
fn names_it(report: &CheckReport, object: &str) -> bool {
    report.damages.iter().any(|found| found.object == object || found.what.contains(object))
}

/// `wanted`: whether the checks without key, of structure, and with data are to find it.
fn check_case(place: &str, name: &ObjectName, action: Action, wanted: [bool; 3]) {
    let store = copy(original());
    let repo = open(&store, None, &env());
    damage(&store, name, action);
    let reports = [
        check::without_key(&store, &Tally::default()),
        check::run(&repo, &STRUCTURE, &Tally::default()),
        check::run(&repo, &READ_DATA, &Tally::default()),
    ];
    for (i, (report, wanted)) in reports.into_iter().zip(wanted).enumerate() {
        let which = format!("{place} {action:?}, check {i}");
        if name.as_str() == "repo.cbor" && matches!((action, i), (Action::Delete, 0)) {
            assert!(matches!(report, Err(Error::NoRepository { .. })), "{which}");
            continue;
        }
        let report = report.unwrap_or_else(|error| panic!("{which}: {error}"));
        assert_eq!(!report.damages.is_empty(), wanted, "{which}: {:?}", report.damages);
        assert!(!wanted || names_it(&report, name.as_str()), "{which}: {:?}", report.damages);
    }
}

#[test]
fn a_clean_repository_is_clean() {
    let store = original();
    let watch = Tally::default();
    let rot = check::without_key(store, &watch).unwrap();
    assert_eq!((rot.damages, rot.snapshots), (vec![], 2));
    let total: u64 = store.names().iter().map(|name| store.len(name).unwrap()).sum();
    assert_eq!((rot.bytes_read, watch.get(Counter::BytesRead)), (total, total));

    let repo = open(store, None, &env());
    for options in [STRUCTURE, READ_DATA] {
        let watch = Tally::default();
        let report = check::run(&repo, &options, &watch).unwrap();
        assert_eq!((&report.damages, watch.problems()), (&vec![], vec![]));
        assert_eq!((report.snapshots, report.index_runs), (2, rot.index_runs));
        assert_eq!(report.other_objects, rot.other_objects);
        assert_eq!(report.packs, watch.get(Counter::PacksDone));
        assert!(report.chunks > 300, "{}", report.chunks);
    }
    let one_thread = open(store, None, &Env::seeded(1, 0));
    assert_eq!(check::run(&one_thread, &READ_DATA, &Tally::default()).unwrap().damages, vec![]);
}

#[test]
fn clean_for_every_role() {
    let store = copy(original());
    let owner = open(&store, None, &env());
    for (i, role) in
        [Role::Backup, Role::Restore, Role::Auditor, Role::Admin].into_iter().enumerate()
    {
        let key = KeyFileSecret([100 + i as u8; 32]);
        keys::add(&owner, role, "someone", Unlock::KeyFile(&key)).unwrap();
        let repo =
            Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&key), None, &env()).unwrap();
        for options in [STRUCTURE, READ_DATA] {
            let watch = Tally::default();
            let report = check::run(&repo, &options, &watch).unwrap();
            assert_eq!(report.damages, vec![], "{role}");
            // What it cannot open is said, and only that.
            let silent = role == Role::Restore || (role != Role::Backup && !options.read_data);
            assert_eq!(watch.problems().is_empty(), silent, "{role}: {:?}", watch.problems());
            assert!(watch.problems().iter().all(|problem| problem.kind == ProblemKind::Notice));
        }
        let damaged = copy(&store);
        let repo =
            Repo::open(Arc::new(damaged.clone()), Unlock::KeyFile(&key), None, &env()).unwrap();
        let pack = pack_of(&damaged, PackClass::Data);
        damage(&damaged, &pack, Action::Delete);
        let report = check::run(&repo, &STRUCTURE, &Tally::default()).unwrap();
        let found = report.damages.iter().find(|found| found.object == pack.as_str()).unwrap();
        assert_eq!(found.snapshots.len(), if role == Role::Backup { 0 } else { 2 }, "{role}");
        assert_eq!(found.paths.is_empty(), role != Role::Restore, "{role}");
    }
}

#[test]
fn records() {
    let store = original();
    let snapshots = names(store, "snapshots/");
    let all = [true; 3];
    let keyed = [false, true, true];
    let unseen = [false; 3];
    let cases = [
        ("repo.cbor", keyed),
        // Others' slots, and sessions that are closed, may be deleted: nobody misses them.
        ("slots/", unseen),
        ("roster/", keyed),
        ("sessions/", unseen),
        ("seals/", keyed),
        ("index/", keyed),
    ];
    for (folder, deleted) in cases {
        let name = &names(store, folder)[0];
        for share in [0, 10, 500, 990, 1000] {
            check_case(folder, name, Action::Flip(share), all);
        }
        check_case(folder, name, Action::Truncate, all);
        if folder == "index/" {
            continue;
        }
        check_case(folder, name, Action::Delete, deleted);
    }
    for name in &snapshots {
        check_case("snapshot", name, Action::Flip(500), all);
        check_case("snapshot", name, Action::Truncate, all);
    }
}

#[test]
fn packs() {
    let store = original();
    let all = [true; 3];
    let rot_only = [true, false, true];
    let classes = [PackClass::Data, PackClass::Tree, PackClass::Refs, PackClass::Mixed];
    for class in classes {
        let name = &pack_of(store, class);
        let place = &format!("{class:?} pack");
        let parts = trailer(store, name);
        let len = store.len(name).unwrap();
        for at in [0, 8, 9, 12, 20, 33, 36, 37, 50] {
            check_case(place, name, Action::FlipAt(at), all);
        }
        // Names and references are read by the walk, content only with `read_data`.
        let walked = class != PackClass::Data;
        check_case(
            place,
            name,
            Action::FlipAt(64 + 3),
            if walked && class != PackClass::Mixed { all } else { rot_only },
        );
        if parts.directory_offset > parts.frames_end {
            check_case(place, name, Action::FlipAt(parts.frames_end), rot_only);
            check_case(place, name, Action::FlipAt(parts.directory_offset - 1), rot_only);
        }
        for at in [parts.directory_offset, parts.directory_offset + 40, len - 169, len - 168] {
            check_case(place, name, Action::FlipAt(at), all);
        }
        for at in [len - 100, len - 20, len - 1] {
            check_case(place, name, Action::FlipAt(at), all);
        }
        check_case(place, name, Action::Truncate, all);
        check_case(place, name, Action::Delete, [false, true, true]);
    }
}

#[test]
fn a_lost_index_run_is_told_by_its_packs() {
    let store = copy(original());
    let repo = open(&store, None, &env());
    for run in names(&store, "index/") {
        store.delete(&run).unwrap();
    }
    let watch = Tally::default();
    let report = check::run(&repo, &STRUCTURE, &watch).unwrap();
    // The roots are found in the first place that has no run: their packs.
    assert!(!report.damages.is_empty());
    assert!(report.damages.iter().all(|found| found.object.starts_with("packs/")));
    assert_eq!(
        report.damages.iter().flat_map(|found| &found.snapshots).collect::<BTreeSet<_>>().len(),
        2
    );
    let notices =
        watch.problems().into_iter().filter(|problem| problem.kind == ProblemKind::Notice);
    assert_eq!(notices.count() as u64, report.packs);
}

#[test]
fn what_is_cached_of_a_rotten_run_stays() {
    let (store, cache) = (copy(original()), tempfile::tempdir().unwrap());
    let repo = open(&store, Some(cache.path()), &env());
    repo.index().unwrap();
    let runs = names(&store, "index/");
    damage(&store, &runs[0], Action::Flip(500));
    assert!(!check::run(&repo, &STRUCTURE, &Tally::default()).unwrap().damages.is_empty());
    assert!(open(&store, None, &env()).index().is_err(), "the store has it no more");
    assert_eq!(repo.index().unwrap().len(), runs.len());
}

#[test]
fn a_snapshot_that_vanished() {
    let store = copy(original());
    let repo = open(&store, None, &env());
    let [first, last] = [0, 1].map(|i| repo.snapshots().unwrap()[i].id);
    store.delete(&ObjectName::new(&format!("snapshots/{first}")).unwrap()).unwrap();
    let report = check::run(&repo, &STRUCTURE, &Tally::default()).unwrap();
    assert!(names_it(&report, &format!("snapshots/{last}")), "{:?}", report.damages);
}

#[test]
fn the_last_snapshot_vanished() {
    let (cache, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = new_store(&env());
    let repo = open(&store, Some(cache.path()), &env());
    back_up(&repo, source.path());
    let report = || check::run(&repo, &STRUCTURE, &Tally::default()).unwrap();
    assert_eq!(report().damages, vec![]);
    store.delete(&names(&store, "snapshots/")[0]).unwrap();
    // Its client remembers.
    let report = report();
    // By the chain of its own snapshots, and by name: it has seen it live.
    let objects: Vec<&str> = report.damages.iter().map(|found| found.object.as_str()).collect();
    let [chain, name] = objects[..] else { panic!("{:?}", report.damages) };
    assert!(chain == "snapshots" && name.starts_with("snapshots/"), "{:?}", report.damages);
}

#[test]
fn damage_names_snapshots_and_paths() {
    let store = copy(original());
    let repo = open(&store, None, &env());
    let pack = pack_of(&store, PackClass::Data);
    damage(&store, &pack, Action::FlipAt(64 + 5));
    let report = check::run(&repo, &READ_DATA, &Tally::default()).unwrap();
    let frames: Vec<_> =
        report.damages.iter().filter(|found| found.what.contains("frame at 64")).collect();
    let [found] = frames[..] else { panic!("{:?}", report.damages) };
    assert_eq!((found.object.as_str(), found.snapshots.len()), (pack.as_str(), 2));
    let [path] = &found.paths[..] else { panic!("{:?}", found.paths) };
    let path = String::from_utf8(path.clone()).unwrap();
    assert!(path.contains("/study/"), "{path}");

    // Trees: the directory itself is named; what hangs below it still is found.
    let store = copy(original());
    let repo = open(&store, None, &env());
    store.delete(&pack_of(&store, PackClass::Tree)).unwrap();
    let report = check::run(&repo, &STRUCTURE, &Tally::default()).unwrap();
    assert_eq!(report.damages.len(), 1, "{:?}", report.damages);
    assert!(!report.damages[0].paths.is_empty());
}

#[test]
fn everything_lost_at_once() {
    let store = copy(original());
    let repo = open(&store, None, &env());
    for name in store.names() {
        damage(&store, &name, Action::Flip(500));
    }
    let objects: BTreeSet<String> = store.names().iter().map(|name| name.to_string()).collect();
    let rot = check::without_key(&store, &Tally::default()).unwrap();
    assert_eq!(
        rot.damages.iter().map(|found| found.object.clone()).collect::<BTreeSet<_>>(),
        objects
    );
    let report = check::run(&repo, &READ_DATA, &Tally::default()).unwrap();
    let found: BTreeSet<_> = report.damages.iter().map(|found| found.object.clone()).collect();
    assert!(found.is_superset(&objects), "{:?}", objects.difference(&found).collect::<Vec<_>>());
    for name in store.names() {
        store.delete(&name).unwrap();
    }
    assert!(matches!(
        check::without_key(&store, &Tally::default()),
        Err(Error::NoRepository { .. })
    ));
    assert!(!check::run(&repo, &READ_DATA, &Tally::default()).unwrap().damages.is_empty());
}

/// One bit of every object, at a place drawn by hash.
#[test]
fn a_flipped_bit_anywhere() {
    let original = original();
    let repo_store = copy(original);
    let repo = open(&repo_store, None, &env());
    for (i, name) in repo_store.names().iter().enumerate() {
        let draw = hash(&(i as u64).to_le_bytes());
        let at = u32::from_le_bytes(draw[..4].try_into().unwrap());
        let flip = |bytes: &mut Vec<u8>| {
            let at = at as usize % bytes.len();
            bytes[at] ^= 1 << (draw[4] % 8);
        };
        repo_store.tamper(name, flip);
        let rot = check::without_key(&repo_store, &Tally::default()).unwrap();
        let data = check::run(&repo, &READ_DATA, &Tally::default()).unwrap();
        assert!(names_it(&rot, name.as_str()) && names_it(&data, name.as_str()), "{name} at {at}");
        repo_store.tamper(name, flip);
    }
}

/// What others add while a check runs is no damage.
#[test]
fn newer_than_the_check() {
    let store = copy(original());
    let old = open(&store, None, &env());
    let key = KeyFileSecret([120; 32]);
    keys::add(&old, Role::Backup, "machine", Unlock::KeyFile(&key)).unwrap();
    let unlock = Unlock::KeyFile(&key);
    let new = Repo::open(Arc::new(store.clone()), unlock, None, &env()).unwrap();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("new"), noise(5, 100_000)).unwrap();
    back_up(&new, source.path());
    for options in [STRUCTURE, READ_DATA] {
        let watch = Tally::default();
        let report = check::run(&old, &options, &watch).unwrap();
        assert_eq!(report.damages, vec![]);
        assert!(watch.problems().iter().all(|problem| problem.kind == ProblemKind::Notice));
        assert!(!watch.problems().is_empty());
    }
    let report = check::run(&open(&store, None, &env()), &READ_DATA, &Tally::default()).unwrap();
    assert_eq!((report.damages, report.snapshots), (vec![], 3));
}

/// Who may not write leaves nothing that counts, signed as it may be.
#[test]
fn records_of_readers_do_not_count() {
    let store = copy(original());
    let owner = open(&store, None, &env());
    let key = KeyFileSecret([121; 32]);
    keys::add(&owner, Role::Restore, "reader", Unlock::KeyFile(&key)).unwrap();
    let owner = open(&store, None, &env());
    let reader = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&key), None, &env()).unwrap();
    let slot = ObjectName::new(&format!("slots/{}", reader.slot())).unwrap();
    let bundle = bundle(&store, &slot, &key, &reader);
    for (folder, kind) in [("sessions", Kind::Session), ("snapshots", Kind::Snapshot)] {
        let model = &names(&store, &format!("{folder}/"))[0];
        let model = bytes(&store, model);
        let body = Record::parse(&model, &[kind]).unwrap().body;
        let name = format!("{folder}/{}", "0c".repeat(16));
        let signer = (bundle.identity, reader.roster().number, &bundle.signing_key());
        let forged = Record::build(kind, body, &name, &[signer], reader.id());
        store.put_if_absent(&ObjectName::new(&name).unwrap(), &forged).unwrap();
        let report = check::run(&owner, &STRUCTURE, &Tally::default()).unwrap();
        let found = report.damages.iter().find(|found| found.object == name).unwrap();
        assert!(found.what.contains("role"), "{}", found.what);
    }
}

#[test]
fn what_opening_says() {
    for folder in ["repo.cbor", "slots/", "roster/"] {
        for action in [Action::Flip(300), Action::Truncate] {
            let store = copy(original());
            damage(&store, &names(&store, folder)[0], action);
            let opened = Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), None, &env());
            let error = opened.unwrap_err().to_string();
            assert!(error.contains(folder), "{folder}: {error}");
        }
    }
    let store = copy(original());
    store.delete(&names(&store, "repo.cbor")[0]).unwrap();
    let opened = Repo::open(Arc::new(store), Unlock::KeyFile(&KEY), None, &env());
    assert!(matches!(opened, Err(Error::NoRepository { .. })));
}

/// By hand: how fast packs are read, on one thread.
#[test]
#[ignore = "measures"]
fn speed() {
    let source = tempfile::tempdir().unwrap();
    for i in 0..16 {
        std::fs::write(source.path().join(format!("{i}")), noise(i, 64 << 20)).unwrap();
    }
    let store = MemoryStore::new();
    let options = strongroom::repo::InitOptions::default();
    strongroom::repo::init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, &env())
        .unwrap();
    back_up(&open(&store, None, &env()), source.path());
    let repo = open(&store, None, &Env::system(1));
    for _ in 0..3 {
        let rot = check::without_key(&store, &Tally::default()).unwrap();
        let rate = rot.bytes_read as f64 / rot.seconds / (1u64 << 30) as f64;
        println!("{rate:.2} GiB/s without a key, on all cores");
        let report = check::run(&repo, &READ_DATA, &Tally::default()).unwrap();
        let rate = report.bytes_read as f64 / report.seconds / (1u64 << 30) as f64;
        println!(
            "{rate:.2} GiB/s of {} bytes, {} damages",
            report.bytes_read,
            report.damages.len()
        );
    }
}
