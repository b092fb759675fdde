//! A whole repository whose objects were changed at will: flipped, cut, lengthened, deleted, swapped, copied over each other,
//! with and without their end hashes made good again, or forged by somebody who has the owner's keys. Opening, listing, checking and restoring it end, without a panic, and whatever
//! a restore claims to have restored is right.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::id::{SessionId, hash};
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::hold;
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::{MemoryStore, ObjectName, Store};
use strongroom::watch::{ProblemKind, Tally};

use super::forge::{Forger, snapshot};
use super::input::Input;
use super::scene::{FUTURE_NS, Manifest, folder, manifest, new_store, noise, open};

const CHANGES_MAX: usize = 6;
const PRUNE: PruneOptions = PruneOptions { dry_run: false, max_unused: 1.0, fence_after_ns: 0 };

/// Two live snapshots, one of them held, and what a forgotten and pruned one leaves.
pub struct Sound {
    pub objects: Vec<(ObjectName, Vec<u8>)>,
    /// The source's absolute path in the snapshots.
    root: PathBuf,
    manifests: BTreeMap<SessionId, Manifest>,
    pub forger: Forger,
}

pub fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let env = Env::seeded(1, FUTURE_NS);
        let (store, folder) = (new_store(&env), folder());
        let root = folder.path().canonicalize().unwrap().join("source");
        std::fs::create_dir_all(root.join("sub/empty")).unwrap();
        let mut manifests = BTreeMap::new();
        for round in 0..3 {
            std::fs::write(root.join("kept"), noise(1, 9000)).unwrap();
            std::fs::write(root.join("sub/changed"), noise(10 + round, 12_000)).unwrap();
            std::fs::write(root.join(format!("sub/{round}")), b"small").unwrap();
            let repo = open(Arc::new(store.clone()), None, &env).unwrap();
            let (paths, options) = ([root.clone()], BackupOptions::default());
            let watch = Tally::default();
            let report = backup::run(&repo, Source::Paths(&paths), &options, &watch).unwrap();
            manifests.insert(report.snapshot.unwrap(), manifest(&root));
        }
        let repo = open(Arc::new(store.clone()), None, &env).unwrap();
        let snapshots = repo.snapshots().unwrap();
        hold::add(&repo, &snapshots[1].id, "held").unwrap();
        let options = ForgetOptions { reason: "fuzz".to_owned(), ..ForgetOptions::default() };
        forget::run(&repo, &[snapshots[0].id], &options, &Tally::default()).unwrap();
        prune::run(&repo, &PRUNE, &Tally::default()).unwrap();
        let read = |name: ObjectName| {
            let bytes = store.get(&name, u64::MAX).unwrap();
            (name, bytes)
        };
        let objects: Vec<_> = store.names().into_iter().map(read).collect();
        let forger = Forger::new(&objects);
        Sound { objects, root, manifests, forger }
    })
}

pub fn run(bytes: &[u8]) {
    let sound = sound();
    let mut objects: BTreeMap<ObjectName, Vec<u8>> = sound.objects.iter().cloned().collect();
    let mut input = Input(bytes);
    let mut forged = BTreeSet::new();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() || objects.is_empty() {
            break;
        }
        change(&mut objects, &mut input, &sound.forger, &mut forged);
    }
    let store = MemoryStore::new();
    for (name, bytes) in &objects {
        store.put_if_absent(name, bytes).unwrap();
    }
    let env = Env::seeded(2, FUTURE_NS + 1_000_000_000_000);
    let _ = check::without_key(&store, &Tally::default());
    let Ok(repo) = open(Arc::new(store), None, &env) else { return };
    let report = check::run(&repo, &CheckOptions { read_data: true }, &Tally::default());
    let clean = report.is_ok_and(|report| report.damages.is_empty());
    for (id, wanted) in sound.manifests.iter().filter(|(id, _)| !forged.contains(*id)) {
        let Ok(info) = repo.find_snapshot(&id.to_string()) else { continue };
        assert_eq!(info.id, *id);
        restore_one(&repo, &info, sound, wanted, clean);
    }
    let _ = prune::run(&repo, &PruneOptions { dry_run: true, ..PRUNE }, &Tally::default());
}

fn restore_one(
    repo: &Repo,
    info: &strongroom::repo::SnapshotInfo,
    sound: &Sound,
    wanted: &Manifest,
    clean: bool,
) {
    let (target, watch) = (folder(), Tally::default());
    let root = sound.root.as_os_str().as_bytes();
    let options = RestoreOptions::default();
    let report = restore::run(repo, info, Some(root), target.path(), &options, &watch);
    let found = manifest(target.path());
    let lost: Vec<PathBuf> = watch
        .problems()
        .into_iter()
        .filter(|problem| problem.kind == ProblemKind::NotRestored)
        .map(|problem| {
            let path = std::ffi::OsStr::from_bytes(&problem.name).to_owned();
            PathBuf::from(path).strip_prefix(&sound.root).map(PathBuf::from).unwrap_or_default()
        })
        .collect();
    // A check that found nothing promises that everything restores.
    assert!(!clean || (report.is_ok() && lost.is_empty()), "{report:?} {lost:?}");
    if report.is_err() {
        return;
    }
    for (path, content) in wanted {
        if !lost.iter().any(|lost| path.starts_with(lost)) {
            assert!(found.get(path) == Some(content), "{}", path.display());
        }
    }
    assert!(found.keys().all(|path| wanted.contains_key(path)), "{found:?}");
}

fn change(
    objects: &mut BTreeMap<ObjectName, Vec<u8>>,
    input: &mut Input,
    forger: &Forger,
    forged: &mut BTreeSet<SessionId>,
) {
    let name = |objects: &BTreeMap<ObjectName, Vec<u8>>, place: usize| {
        objects.keys().nth(place).expect("below their number").clone()
    };
    let one = name(objects, input.below(objects.len()));
    let how = input.byte();
    match how % 8 {
        0 => drop(objects.remove(&one)),
        1 | 2 => {
            let two = name(objects, input.below(objects.len()));
            let other = objects[&two].clone();
            let first = objects.insert(one.clone(), other).expect("it is there");
            if how % 8 == 1 {
                objects.insert(two, first);
            }
        }
        3 | 4 | 5 => {
            let bytes = &objects[&one];
            let done = forger.forge(&one, bytes, |body| change_bytes(body, input));
            let Some((name, bytes)) = done else { return };
            // What an owner says in a snapshot of his own is his affair; it only must not do harm.
            forged.extend(snapshot(&one));
            objects.remove(&one);
            objects.insert(name, bytes);
        }
        _ => {
            let bytes = objects.get_mut(&one).expect("it is there");
            change_bytes(bytes, input);
            // Whoever changes a store on purpose makes its hashes fit.
            if how >= 128 && bytes.len() > 32 {
                let end = bytes.len() - 32;
                let sum = hash(&bytes[..end]);
                bytes[end..].copy_from_slice(&sum);
            }
        }
    }
}

pub fn change_bytes(bytes: &mut Vec<u8>, input: &mut Input) {
    let len = bytes.len().max(1);
    match input.byte() % 7 {
        0 | 1 => flip(bytes, input.below(len), input.byte()),
        // Near the front and the end are headers, counts and trailers.
        2 => flip(bytes, input.below(128), input.byte()),
        3 => flip(bytes, len.saturating_sub(1 + input.below(256)), input.byte()),
        4 => bytes.truncate(input.below(len)),
        5 => bytes.extend(noise(1, input.below(70_000))),
        _ => {
            let (from, count) = (input.below(len), input.below(64));
            let piece: Vec<u8> = (0..count).map(|_| input.byte()).collect();
            let end = (from + count).min(bytes.len());
            if from <= end {
                bytes.splice(from..end, piece);
            }
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, mask: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask.max(1);
    }
}
