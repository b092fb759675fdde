//! The damage matrix for packs: (flip, truncate, delete, swap, duplicate) × data, tree, refs and mixed packs × every part
//! of them. `check --read-data` finds every change; the snapshots that it calls affected are exactly those that do not
//! restore; all else comes back bit for bit.
//!
//! What a check of the structure does not find, and why that is right: content, padding and what is between them are
//! read with `--read-data` only.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

use strongroom::env::Env;
use strongroom::format::id::SessionId;
use strongroom::format::pack::{PackClass, PackHeader, TRAILER_LEN, Trailer};
use strongroom::format::seal::{Context, Label, Sealer, frame_nonce};
use strongroom::maintain::check::{self, CheckOptions, CheckReport};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::Tally;

use support::hand::{Hand, copy, name, names};
use support::{KEY, Picture, back_up, new_store, noise, open, picture};

fn env() -> Env {
    Env::system(2)
}

struct Original {
    store: MemoryStore,
    snapshots: BTreeMap<SessionId, (PathBuf, Picture)>,
}

/// A large snapshot with packs of each class, and a small one in a mixed pack.
fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let sources = tempfile::tempdir().unwrap();
        let store = new_store(&env());
        // With one thread the content of the mixed pack comes before its names.
        let owner = open(&store, None, &Env::system(1));
        let mut snapshots = BTreeMap::new();
        for (seed, files) in [(1, 5), (2, 0)] {
            let source = sources.path().canonicalize().unwrap().join(format!("{seed}"));
            std::fs::create_dir_all(source.join("study")).unwrap();
            for n in 0..files {
                let content = noise(seed * 100 + n, 900_000);
                std::fs::write(source.join(format!("study/{n}.bin")), content).unwrap();
            }
            std::fs::write(source.join("note.txt"), format!("{seed}\n")).unwrap();
            let id = back_up(&owner, &source).snapshot.unwrap();
            snapshots.insert(id, (source.clone(), picture(&source)));
        }
        Original { store, snapshots }
    })
}

fn packs_of(store: &MemoryStore, class: PackClass) -> Vec<ObjectName> {
    let bytes = |name: &ObjectName| store.get(name, u64::MAX).unwrap();
    let of_class = |name: &ObjectName| PackHeader::from_bytes(&bytes(name)).unwrap().class == class;
    names(store, "packs/").into_iter().filter(of_class).collect()
}

/// Where the parts of a pack lie.
fn trailer(store: &MemoryStore, pack: &ObjectName) -> Trailer {
    let hand = Hand::of(store, &open(store, None, &env()), &KEY);
    let pack = store.get(pack, u64::MAX).unwrap();
    let mut tail = pack[pack.len() - TRAILER_LEN..].to_vec();
    let context = Context::from_bytes(tail[..72].try_into().unwrap()).unwrap();
    let sealer = Sealer::new(&hand.bundle.keys.index[0].1, &context, Label::PackTrailer);
    let aad = [sealer.context_hash().as_slice(), &(pack.len() as u64).to_le_bytes()].concat();
    let plain = sealer.open_in_place(frame_nonce(0), &aad, &mut tail[104..], "trailer").unwrap();
    Trailer::from_bytes(plain, pack.len() as u64).unwrap()
}

/// Names of parts, a place in each, and whether a check without `read_data` finds it.
fn parts(
    store: &MemoryStore,
    pack: &ObjectName,
    class: PackClass,
) -> Vec<(&'static str, u64, bool)> {
    let trailer = trailer(store, pack);
    let len = store.len(pack).unwrap();
    let end = trailer.frames_end;
    // The walk reads names and references; of a mixed pack those come behind the content.
    let walked = matches!(class, PackClass::Tree | PackClass::Refs);
    let mut parts = vec![
        ("magic", 0, true),
        ("kind", 8, true),
        ("version", 9, true),
        ("zero", 12, true),
        ("session", 20, true),
        ("epoch", 33, true),
        ("class", 36, true),
        ("suite", 37, true),
        ("reserved", 50, true),
        ("first frame", 64, walked),
        ("first frame, inside", 70, walked),
        ("directory's commitment", trailer.directory_offset, true),
        ("directory", trailer.directory_offset + 40, true),
        ("directory's end", len - TRAILER_LEN as u64 - 1, true),
        ("trailer's context version", len - 168, true),
        ("trailer's context", len - 120, true),
        ("trailer's commitment", len - 90, true),
        ("trailer", len - 40, true),
        ("trailer's tag", len - 1, true),
    ];
    if trailer.directory_offset > end {
        parts.push(("padding", end, false));
        parts.push(("padding's end", trailer.directory_offset - 1, false));
    }
    parts
}

/// Restores every snapshot; those that are not whole.
fn restore_all(original: &Original, repo: &Repo, which: &str) -> BTreeSet<SessionId> {
    let mut lossy = BTreeSet::new();
    for (id, (source, wanted)) in &original.snapshots {
        let target = tempfile::tempdir().unwrap();
        let info = repo.find_snapshot(&id.to_string()).unwrap();
        let (options, watch) = (RestoreOptions::default(), Tally::default());
        let done = restore::run(repo, &info, None, target.path(), &options, &watch);
        let lands = target.path().join(source.strip_prefix("/").unwrap());
        if done.is_ok_and(|report| report.failed == 0) {
            assert!(picture(&lands) == *wanted, "{which}: {id} restored other than it was");
        } else {
            lossy.insert(*id);
            // What did come back under the right size and time is right.
            let found = if lands.exists() { picture(&lands) } else { Picture::new() };
            for (path, facts) in &found {
                let right = wanted.get(path).is_some_and(|wanted| {
                    wanted.mtime != facts.mtime || wanted.content == facts.content
                });
                assert!(right, "{which}: {path:?}");
            }
        }
    }
    lossy
}

fn affected(report: &CheckReport) -> BTreeSet<SessionId> {
    report.damages.iter().flat_map(|found| found.snapshots.iter().copied()).collect()
}

/// `found`: by a check without and with `read_data`. Whatever is lost is told by the latter.
fn examine(store: &MemoryStore, object: &ObjectName, found: [bool; 2], which: &str) {
    let original = original();
    let repo = open(store, None, &env());
    for (read_data, found) in [false, true].into_iter().zip(found) {
        let report = check::run(&repo, &CheckOptions { read_data }, &Tally::default()).unwrap();
        let named = report.damages.iter().any(|damage| {
            damage.object == object.as_str() || damage.what.contains(object.as_str())
        });
        assert_eq!(named, found, "{which}, {read_data}: {:?}", report.damages);
        if read_data {
            let lossy = restore_all(original, &repo, which);
            assert_eq!(affected(&report), lossy, "{which}: {:?}", report.damages);
        }
    }
}

fn class_matrix(class: PackClass) {
    let original = original();
    let packs = packs_of(&original.store, class);
    let pack = &packs[0];
    for (part, at, found) in parts(&original.store, pack, class) {
        let store = copy(&original.store);
        store.tamper(pack, |bytes| bytes[at as usize] ^= 0x10);
        examine(&store, pack, [found, true], &format!("{class:?} pack, {part}"));
    }
    let len = original.store.len(pack).unwrap() as usize;
    for keep in [0, 63, 64, 200, len / 2, len - 168, len - 1] {
        let store = copy(&original.store);
        store.tamper(pack, |bytes| bytes.truncate(keep));
        examine(&store, pack, [true; 2], &format!("{class:?} pack cut to {keep}"));
    }
    let store = copy(&original.store);
    store.tamper(pack, |bytes| bytes.extend_from_slice(&[0; 100]));
    examine(&store, pack, [true; 2], &format!("{class:?} pack longer"));
    let store = copy(&original.store);
    store.delete(pack).unwrap();
    examine(&store, pack, [true; 2], &format!("{class:?} pack deleted"));
    // Full packs have one length: only what they hold tells them apart.
    let others = names(&original.store, "packs/");
    let other = packs.get(1).or_else(|| others.iter().find(|name| *name != pack)).unwrap();
    let store = copy(&original.store);
    let [a, b] = [pack, other].map(|name| store.get(name, u64::MAX).unwrap());
    store.tamper(pack, |bytes| *bytes = b);
    store.tamper(other, |bytes| *bytes = a);
    examine(&store, pack, [true; 2], &format!("{class:?} packs swapped"));
    let store = copy(&original.store);
    let duplicate = name(&format!("packs/0f/{}", "0f".repeat(32)));
    store.put_if_absent(&duplicate, &store.get(pack, u64::MAX).unwrap()).unwrap();
    // No run names it: its hash is looked at with the data.
    examine(&store, &duplicate, [false, true], &format!("{class:?} pack duplicated"));
}

#[test]
fn data_packs() {
    class_matrix(PackClass::Data);
}

#[test]
fn tree_packs() {
    class_matrix(PackClass::Tree);
}

#[test]
fn refs_packs() {
    class_matrix(PackClass::Refs);
}

#[test]
fn mixed_packs() {
    class_matrix(PackClass::Mixed);
}
