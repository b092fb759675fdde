//! The damage matrix: (flip, truncate, delete, swap, duplicate) × every kind of record × every part of it. `check` finds
//! what the table says; the snapshots that it calls affected are exactly those that do not restore, with every path
//! that is lost; everything else comes back bit for bit; nothing panics. Packs are in `damage_packs.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::format::control::{Attestation, Damage, DamagedFrame, Doomed, Proposal, Verdict};
use strongroom::format::id::{PackId, SessionId, hash};
use strongroom::format::record::Kind;
use strongroom::format::session::{Session, Tombstone};
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::check::{self, CheckOptions, CheckReport, DamageFound};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::{hold, keys};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::Tally;

use support::hand::{Hand, copy, name, names};
use support::{KEY, Picture, back_up, new_store, noise, open, picture};

const STRUCTURE: CheckOptions = CheckOptions { read_data: false };
const READ_DATA: CheckOptions = CheckOptions { read_data: true };
const AUDITOR: KeyFileSecret = KeyFileSecret([30; 32]);

fn env() -> Env {
    Env::system(2)
}

struct Original {
    store: MemoryStore,
    /// With the source of each and what is in it.
    snapshots: BTreeMap<SessionId, (PathBuf, Picture)>,
}

/// Three snapshots of two authors, one forgotten, one held; at least two objects of every kind.
fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let sources = tempfile::tempdir().unwrap();
        let store = new_store(&env());
        let owner = open(&store, None, &env());
        let machine = KeyFileSecret([31; 32]);
        keys::add(&owner, Role::Backup, "machine", Unlock::KeyFile(&machine)).unwrap();
        keys::add(&open(&store, None, &env()), Role::Auditor, "a", Unlock::KeyFile(&AUDITOR))
            .unwrap();
        let owner = open(&store, None, &env());
        let machine = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&machine), None, &env());
        let machine = machine.unwrap();
        let mut snapshots = BTreeMap::new();
        for (place, repo) in [&owner, &machine, &owner, &owner, &owner].into_iter().enumerate() {
            let source = sources.path().canonicalize().unwrap().join(format!("{place}"));
            write_tree(&source, place as u64);
            let id = back_up(repo, &source).snapshot.unwrap();
            snapshots.insert(id, (source.clone(), picture(&source)));
            if place >= 3 {
                let reason = ForgetOptions { reason: "test".into(), ..ForgetOptions::default() };
                forget::run(&owner, &[id], &reason, &Tally::default()).unwrap();
                snapshots.remove(&id);
            }
        }
        control_records(&store, &owner, *snapshots.keys().next().unwrap());
        Original { store, snapshots }
    })
}

fn write_tree(source: &Path, seed: u64) {
    std::fs::create_dir_all(source.join("study")).unwrap();
    std::fs::write(source.join("large.bin"), noise(seed, 90_000)).unwrap();
    for i in 0..3 {
        std::fs::write(source.join(format!("study/{i}.txt")), format!("{seed} {i}\n")).unwrap();
    }
}

/// Those that nothing here has a reason to write, or not twice.
fn control_records(store: &MemoryStore, owner: &Repo, held: SessionId) {
    let hand = Hand::of(store, owner, &KEY);
    for n in 0..2u8 {
        let reason = || "test".to_owned();
        let released = hold::add(owner, &held, "test").unwrap();
        hold::release(owner, &released, "test").unwrap();
        hold::add(owner, &held, "test").unwrap();
        let dead = SessionId([0xd0 + n; 16]);
        let session = Session { session: dead, epoch: 1, time_ns: 1, adopts: Vec::new() };
        hand.put(Kind::Session, &format!("sessions/{dead}"), &session.to_cbor());
        let tombstone = Tombstone { session: dead, time_ns: 2, reason: reason() };
        hand.put(Kind::Tombstone, &format!("snapshots/{dead}"), &tombstone.to_cbor());
        let pack = PackId([0xe0 + n; 32]);
        let frames = vec![DamagedFrame { pack, offset: 64, stored: 100 }];
        let damage = Damage { frames, time_ns: 3, found: reason() };
        let body = hand.sealed(Kind::Damage, &damage.to_cbor());
        hand.put_content(Kind::Damage, "damaged", &body);
        let attestation = Attestation { packs: vec![pack], time_ns: 4 };
        hand.put_content(Kind::Attestation, "attest", &attestation.to_cbor());
        let (doomed, generation) = (Doomed::default(), 1 + u32::from(n));
        let proposal =
            Proposal { generation, doomed: doomed.clone(), time_ns: 5, previous_verdict: None };
        let proposal =
            hand.put(Kind::Proposal, &format!("retired/{generation:08}"), &proposal.to_cbor());
        let proposal = hash(&store.get(&proposal, u64::MAX).unwrap());
        let verdict = Verdict { generation, doomed, time_ns: 6, proposal };
        hand.put(Kind::Verdict, &format!("retired/{generation:08}.verdict"), &verdict.to_cbor());
    }
}

/// One kind of object: two of them, what a third may be called, and what is found.
struct Row {
    kind: &'static str,
    objects: [ObjectName; 2],
    other_name: String,
    /// Flipping any bit and cutting anywhere is always found. Is it found that it is gone?
    missed: bool,
    /// What is void under another name, or names only what others name too, harms nobody: a notice.
    duplicate_is_damage: bool,
}

fn rows(original: &Original) -> Vec<Row> {
    let store = &original.store;
    let [some_id, some_hash] = ["0f".repeat(16), "0f".repeat(32)];
    let [first, second] = [0, 1].map(|n| *original.snapshots.keys().nth(n).unwrap());
    let of = |folder: &str, id: SessionId| name(&format!("{folder}/{id}"));
    let two = |folder: &str, ending: &str| {
        let mut found = names(store, folder);
        found.retain(|name| match ending {
            "" => !name.as_str().contains('.'),
            ending => name.as_str().ends_with(ending),
        });
        [found[0].clone(), found[1].clone()]
    };
    let row = |kind, objects, other_name: String, missed| Row {
        kind,
        objects,
        other_name,
        missed,
        duplicate_is_damage: !matches!(kind, "roster" | "index run"),
    };
    let tombstones = [0xd0, 0xd1].map(|n| of("snapshots", SessionId([n; 16])));
    let sessions = ["sessions", "seals", "snapshots"].map(|f| [of(f, first), of(f, second)]);
    let [session, seals, snapshot] = sessions;
    let live = original.snapshots.keys().nth(2).unwrap();
    vec![
        row("roster", two("roster/", ""), "roster/00000009".into(), true),
        // The owner's own is in neither place: others open with it.
        row("slot", others_slots(original), format!("slots/{some_hash}"), false),
        row("session", session, format!("sessions/{some_id}"), false),
        row("seals", seals, format!("seals/{some_id}"), true),
        row("index run", needed_runs(original), format!("index/{some_hash}"), true),
        // What no later snapshot of its author cites is missed by the client that wrote it, by its cache.
        row("snapshot", snapshot, format!("snapshots/{some_id}"), false),
        row("tombstone", tombstones, format!("snapshots/{some_id}"), false),
        // A live snapshot does not vanish by a record of another.
        row("forgotten", two("forgotten/", ""), format!("forgotten/{live}"), false),
        row("hold", two("holds/", ""), format!("holds/{some_id}"), false),
        row("release", two("holds/", ".released"), format!("holds/{some_id}.released"), false),
        row("proposal", two("retired/", ""), "retired/00000007".into(), false),
        row("verdict", two("retired/", ".verdict"), "retired/00000007.verdict".into(), false),
        row("damage", two("damaged/", ""), format!("damaged/{some_hash}"), false),
        row("attestation", two("attest/", ""), format!("attest/{some_hash}"), false),
    ]
}

/// Those that live snapshots need.
fn needed_runs(original: &Original) -> [ObjectName; 2] {
    let is_needed = |run: &ObjectName| {
        let store = copy(&original.store);
        store.delete(run).unwrap();
        !check_with(&open(&store, None, &env()), &STRUCTURE).damages.is_empty()
    };
    let mut runs = names(&original.store, "index/").into_iter().filter(is_needed);
    [runs.next().unwrap(), runs.next().unwrap()]
}

fn others_slots(original: &Original) -> [ObjectName; 2] {
    let owner = open(&original.store, None, &env());
    let mut slots = names(&original.store, "slots/");
    slots.retain(|name| !name.as_str().ends_with(&owner.slot().to_string()));
    [slots[0].clone(), slots[1].clone()]
}

fn check_with(repo: &Repo, options: &CheckOptions) -> CheckReport {
    check::run(repo, options, &Tally::default()).unwrap()
}

fn affected(report: &CheckReport) -> BTreeSet<SessionId> {
    report.damages.iter().flat_map(|found| found.snapshots.iter().copied()).collect()
}

fn is_named(report: &CheckReport, object: &str) -> bool {
    let about =
        |found: &DamageFound| found.object.starts_with(object) || found.what.contains(object);
    report.damages.iter().any(about)
}

/// Restores every snapshot that is there. Those that are not whole, with the paths that are told to be lost.
fn restore_all(original: &Original, repo: &Repo, which: &str) -> BTreeMap<SessionId, Vec<Vec<u8>>> {
    let mut lossy = BTreeMap::new();
    for (id, (source, wanted)) in &original.snapshots {
        let target = tempfile::tempdir().unwrap();
        let watch = Tally::default();
        let restored = repo.find_snapshot(&id.to_string()).and_then(|info| {
            let options = RestoreOptions::default();
            restore::run(repo, &info, None, target.path(), &options, &watch)
        });
        if matches!(restored, Err(Error::NoSnapshot { .. })) {
            continue;
        }
        if restored.is_ok_and(|report| report.failed == 0) {
            let lands = target.path().join(source.strip_prefix("/").unwrap());
            assert!(picture(&lands) == *wanted, "{which}: {id} restored other than it was");
        } else {
            let lost = watch.problems().into_iter().map(|problem| problem.name);
            lossy.insert(*id, lost.filter(|name| name.starts_with(b"/")).collect());
        }
    }
    lossy
}

/// `found`: is it a damage? `repo` was opened before, or is opened now.
fn examine(original: &Original, store: &MemoryStore, object: &str, found: bool, which: &str) {
    let repo = open(store, None, &env());
    // Every byte of a record has the same fate: one of them is looked at closely.
    let changed = which.contains("flipped at") || which.contains("cut to");
    if changed && !which.ends_with(" 16") {
        let report = check_with(&repo, &STRUCTURE);
        assert_eq!(is_named(&report, object), found, "{which}: {:?}", report.damages);
        return;
    }
    let lossy = restore_all(original, &repo, which);
    for options in [STRUCTURE, READ_DATA] {
        let report = check_with(&repo, &options);
        assert_eq!(is_named(&report, object), found, "{which}: {:?}", report.damages);
        let lost: BTreeSet<_> = lossy.keys().copied().collect();
        let told: BTreeSet<_> = affected(&report)
            .intersection(&original.snapshots.keys().copied().collect())
            .copied()
            .collect();
        assert_eq!(told, lost, "{which}: {:?}", report.damages);
        for path in lossy.values().flatten() {
            let covers = |found: &Vec<u8>| path.starts_with(found.as_slice());
            let mut paths = report.damages.iter().flat_map(|damage| &damage.paths);
            assert!(paths.any(covers), "{which}: {}", String::from_utf8_lossy(path));
        }
    }
    if !lossy.is_empty() {
        let unlock = Unlock::KeyFile(&AUDITOR);
        let auditor = Repo::open(Arc::new(store.clone()), unlock, None, &env()).unwrap();
        let report = check_with(&auditor, &STRUCTURE);
        let told = affected(&report);
        assert!(lossy.keys().all(|id| told.contains(id)), "{which}: {:?}", report.damages);
        assert!(report.damages.iter().all(|damage| damage.paths.is_empty()), "{which}");
    }
}

/// Places in a record: of its header, body, signature and end.
fn parts(store: &MemoryStore, name: &ObjectName) -> Vec<usize> {
    let len = store.len(name).unwrap() as usize;
    let mut parts = vec![0, 8, 9, 10, 12, 15, 16, 20, 90, 150, len / 2];
    parts.extend([160, 90, 60, 33, 1].map(|from_end| len.saturating_sub(from_end)));
    parts.retain(|at| *at < len);
    parts.sort_unstable();
    parts.dedup();
    parts
}

#[test]
fn records() {
    let original = original();
    let mut cases = 0;
    for Row { kind, objects: [object, other], other_name, missed, duplicate_is_damage } in
        rows(original)
    {
        let mut case = |what: &str, found: bool, damaged: &str, change: &dyn Fn(&MemoryStore)| {
            let store = copy(&original.store);
            change(&store);
            examine(original, &store, damaged, found, &format!("{kind}, {what}"));
            cases += 1;
        };
        if kind != "roster" {
            for at in parts(&original.store, &object) {
                let flip = |store: &MemoryStore| store.tamper(&object, |bytes| bytes[at] ^= 1);
                case(&format!("flipped at {at}"), true, object.as_str(), &flip);
            }
            for keep in [0, 9, 16, 40, usize::MAX] {
                let cut = |store: &MemoryStore| {
                    store.tamper(&object, |bytes| bytes.truncate(keep.min(bytes.len() - 1)));
                };
                case(&format!("cut to {keep}"), true, object.as_str(), &cut);
            }
            let delete = |store: &MemoryStore| store.delete(&object).unwrap();
            // A lost run is told by the packs that it named.
            let told_by = if kind == "index run" { "packs/" } else { object.as_str() };
            case("deleted", missed, told_by, &delete);
            let swap = |store: &MemoryStore| swap(store, &object, &other);
            case("swapped", true, object.as_str(), &swap);
        }
        let duplicate = |store: &MemoryStore| {
            let bytes = store.get(&object, u64::MAX).unwrap();
            store.put_if_absent(&name(&other_name), &bytes).unwrap();
        };
        case("duplicated", duplicate_is_damage, &other_name, &duplicate);
    }
    assert!(cases > 250, "{cases}");
}

fn swap(store: &MemoryStore, one: &ObjectName, other: &ObjectName) {
    let [a, b] = [one, other].map(|name| store.get(name, u64::MAX).unwrap());
    store.tamper(one, |bytes| *bytes = b);
    store.tamper(other, |bytes| *bytes = a);
}

/// What opening needs: a client that opened before still restores everything, and says what is wrong.
#[test]
fn what_opening_needs() {
    let original = original();
    let other = new_store(&env());
    let slot = format!("slots/{}", open(&original.store, None, &env()).slot());
    for object in ["repo.cbor", "roster/00000001", &slot] {
        let object = name(object);
        let foreign = names(&other, object.as_str().split('/').next().unwrap())[0].clone();
        let foreign = other.get(&foreign, u64::MAX).unwrap();
        let places = parts(&original.store, &object);
        let flips = places.into_iter().map(|at| (format!("flipped at {at}"), Some(at)));
        let others = ["cut", "deleted", "another repository's"].map(|what| (what.to_owned(), None));
        for (what, flip) in flips.chain(others) {
            let which = format!("{object}, {what}");
            let store = copy(&original.store);
            let repo = open(&store, None, &env());
            match (what.as_str(), flip) {
                (_, Some(at)) => store.tamper(&object, |bytes| bytes[at] ^= 1),
                ("cut", _) => store.tamper(&object, |bytes| bytes.truncate(bytes.len() / 2)),
                ("deleted", _) => store.delete(&object).unwrap(),
                _ => store.tamper(&object, |bytes| bytes.clone_from(&foreign)),
            }
            let opened = Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&KEY), None, &env());
            assert!(opened.is_err(), "{which}");
            if flip.is_none_or(|at| at == 16) {
                assert_eq!(restore_all(original, &repo, &which), BTreeMap::new(), "{which}");
            }
            for options in [STRUCTURE, READ_DATA] {
                let report = check_with(&repo, &options);
                // Whoever deletes a slot may do so.
                let found = what != "deleted" || object.folder() != "slots";
                assert_eq!(is_named(&report, object.as_str()), found, "{which}: {report:?}");
            }
        }
    }
}

/// A writer goes on where it is safe, and says what it passed over.
#[test]
fn what_a_backup_does() {
    let original = original();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("new"), noise(77, 30_000)).unwrap();
    for Row { kind, objects: [object, _], .. } in rows(original) {
        if matches!(kind, "roster" | "slot") {
            continue;
        }
        let store = copy(&original.store);
        let at = store.len(&object).unwrap() as usize / 2;
        store.tamper(&object, |bytes| bytes[at] ^= 1);
        let repo = open(&store, None, &env());
        let watch = Tally::default();
        let paths = [source.path().to_owned()];
        let paths = strongroom::backup::Source::Paths(&paths);
        let done = strongroom::backup::run(&repo, paths, &Default::default(), &watch);
        // What is about to be deleted must be known to whoever relies on packs.
        let stops = matches!(kind, "verdict" | "proposal");
        assert_eq!(done.is_err(), stops, "{kind}: {done:?}");
        let told = watch.problems().iter().any(|p| object.as_str().as_bytes() == p.name);
        let passes_over = matches!(kind, "index run" | "damage" | "attestation");
        assert_eq!(told, passes_over, "{kind}: {:?}", watch.problems());
    }
}
