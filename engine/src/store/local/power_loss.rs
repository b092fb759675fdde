//! What of a local store survives a power loss, by the order of its system calls: whatever the store does in a test is
//! noted, and a model of a file system that keeps nothing unsynced says what would be left. For tests only.

use std::cell::RefCell;
use std::collections::HashSet;

use super::LocalStore;
use crate::store::{ObjectName, Put, Store};

/// A call that has succeeded, or may have. Temporaries go by their name in `tmp/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Wrote(String),
    SyncedContent(String),
    /// The temporary may now be found under the object's name.
    Named(String, String),
    SyncedFolder(String),
}

thread_local! {
    static NOTED: RefCell<Vec<Effect>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn note(effect: Effect) {
    NOTED.with_borrow_mut(|noted| noted.push(effect));
}

/// The worst file system: content, and each entry of a folder, is lost unless it was synced.
#[derive(Default)]
struct Disk {
    /// Temporaries with content that was written and not synced.
    unsynced: HashSet<String>,
    /// Paths whose entry in the folder above may be lost. A folder that is in nobody's way is one we never saw made:
    /// it may have been, by somebody who died before the sync.
    durable: HashSet<String>,
}

impl Disk {
    fn after(effects: &[Effect]) -> Self {
        let mut disk = Self::default();
        let mut paths = HashSet::new();
        for effect in effects {
            match effect {
                Effect::Wrote(temporary) => {
                    disk.unsynced.insert(temporary.clone());
                }
                Effect::SyncedContent(temporary) => {
                    disk.unsynced.remove(temporary);
                }
                Effect::Named(temporary, name) => {
                    let torn = disk.unsynced.contains(temporary);
                    assert!(!torn, "{name} is visible before its content is durable");
                    paths.extend(with_all_above(name));
                }
                // Makes every entry durable that is in the folder by now.
                Effect::SyncedFolder(folder) => {
                    let inside = paths.iter().filter(|path| above(path) == folder);
                    disk.durable.extend(inside.cloned());
                }
            }
        }
        disk
    }

    fn keeps(&self, name: &str) -> bool {
        with_all_above(name).all(|path| self.durable.contains(&path))
    }
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// `a/b/c`, `a/b`, `a`.
fn with_all_above(path: &str) -> impl Iterator<Item = String> {
    let up = |path: &String| Some(above(path).to_owned()).filter(|path| !path.is_empty());
    std::iter::successors(Some(path.to_owned()), up)
}

/// What is left of the disk after what `act` does on a fresh store, and on one whose folders somebody else has made and
/// not synced.
fn after(act: impl Fn(&LocalStore)) -> [Disk; 2] {
    [false, true].map(|others_folders| {
        let place = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&place.path().join("store")).unwrap();
        if others_folders {
            std::fs::create_dir_all(place.path().join("store/packs/aa")).unwrap();
        }
        NOTED.with_borrow_mut(Vec::clear);
        act(&store);
        Disk::after(&NOTED.take())
    })
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

#[test]
fn what_was_put_survives() {
    for disk in after(|store| {
        let put = store.put_if_absent(&name("packs/aa/x"), b"content").unwrap();
        assert_eq!(put, Put::Created);
    }) {
        assert!(disk.keeps("packs/aa/x"));
    }
}

#[test]
fn what_was_staged_survives_once_it_is_made_durable() {
    let stage = |store: &LocalStore, object: &str| {
        let mut staged = store.stage().unwrap();
        staged.write(b"first").unwrap();
        staged.write(b"second").unwrap();
        assert_eq!(staged.commit(&name(object)).unwrap(), Put::Created);
    };
    for disk in after(|store| stage(store, "packs/aa/x")) {
        // Nobody promised it, and this shows that the model loses something.
        assert!(!disk.keeps("packs/aa/x"));
    }
    for disk in after(|store| {
        stage(store, "packs/aa/x");
        stage(store, "packs/bb/y");
        stage(store, "packs/bb/z");
        store.make_durable(&mut [name("packs/aa/x"), name("packs/bb/y")].iter()).unwrap();
    }) {
        assert!(disk.keeps("packs/aa/x") && disk.keeps("packs/bb/y"));
    }
}

/// Another's object, or ours of which we heard nothing, was visible and not durable.
#[test]
fn what_existed_survives_once_it_is_made_durable() {
    let place = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&place.path().join("store")).unwrap();
    let object = name("snapshots/x");
    let mut staged = store.stage().unwrap();
    staged.write(b"theirs").unwrap();
    staged.commit(&object).unwrap();
    assert_eq!(store.put_if_absent(&object, b"ours").unwrap(), Put::Existed);
    store.make_durable(&mut std::iter::once(&object)).unwrap();
    assert!(Disk::after(&NOTED.take()).keeps("snapshots/x"));
}
