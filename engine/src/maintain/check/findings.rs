//! What a check has found: damages, each with the snapshots and paths that it costs, and notices.
//! Every finding is told to the watch once, when it is met first. Which damage costs which path is
//! found out elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{DamageFound, PATHS_MAX};
use crate::error::{Error, Result};
use crate::format::id::SessionId;
use crate::watch::{Problem, ProblemKind, Watch};

/// A damage, by its place in `Findings`.
pub type DamageIndex = usize;

pub struct Findings<'w> {
    watch: &'w dyn Watch,
    found: Mutex<Found>,
    newer_rosters: AtomicBool,
}

#[derive(Default)]
struct Found {
    damages: Vec<Damage>,
    known: HashMap<(String, String), DamageIndex>,
    notices: HashSet<(String, String)>,
}

struct Damage {
    object: String,
    what: String,
    snapshots: BTreeSet<SessionId>,
    paths: BTreeSet<Vec<u8>>,
    more_paths: u64,
}

impl<'w> Findings<'w> {
    pub fn new(watch: &'w dyn Watch) -> Self {
        Self { watch, found: Mutex::default(), newer_rosters: AtomicBool::new(false) }
    }

    /// There are valid rosters that this key had not seen when it opened the repository.
    pub fn expect_newer_rosters(&self) {
        self.newer_rosters.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("no panic holds this lock")
    }

    /// The same object and text again is the same damage.
    pub fn damage(&self, object: &str, what: &str) -> DamageIndex {
        let key = (object.to_owned(), what.to_owned());
        let mut found = self.lock();
        if let Some(index) = found.known.get(&key) {
            return *index;
        }
        let index = found.damages.len();
        found.damages.push(Damage::new(&key));
        found.known.insert(key, index);
        drop(found);
        self.tell(ProblemKind::Damage, object, what);
        index
    }

    pub fn notice(&self, object: &str, what: &str) {
        if self.lock().notices.insert((object.to_owned(), what.to_owned())) {
            self.tell(ProblemKind::Notice, object, what);
        }
    }

    fn tell(&self, kind: ProblemKind, object: &str, what: &str) {
        let (name, cause) = (object.as_bytes().to_vec(), what.to_owned());
        self.watch.problem(Problem { kind, name, cause });
    }

    /// A damage costs this snapshot something: the path, if it is known.
    pub fn costs(&self, index: DamageIndex, snapshot: &SessionId, path: Option<&[u8]>) {
        let damage = &mut self.lock().damages[index];
        damage.snapshots.insert(*snapshot);
        let Some(path) = path else { return };
        if damage.paths.len() < PATHS_MAX {
            damage.paths.insert(path.to_vec());
        } else if !damage.paths.contains(path) {
            damage.more_paths += 1;
        }
    }

    /// Takes the error of one object as its damage, or, if only the key is missing, as a notice.
    /// What concerns the whole run stays an error.
    pub fn sort<T>(
        &self,
        object: &str,
        result: Result<T>,
    ) -> Result<Result<T, Option<DamageIndex>>> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(error @ (Error::Interrupted | Error::Cache { .. })) => Err(error),
            Err(error @ Error::Role { .. }) => {
                self.notice(object, &format!("not checked: {error}"));
                Ok(Err(None))
            }
            Err(error @ Error::Rollback { .. }) if self.newer_rosters.load(Ordering::Relaxed) => {
                self.notice(object, &format!("not checked, it is newer than this run: {error}"));
                Ok(Err(None))
            }
            Err(error) => Ok(Err(Some(self.damage(object, &cause_of(object, &error))))),
        }
    }

    /// The same for those who need to know only whether it went well.
    pub fn take<T>(&self, object: &str, result: Result<T>) -> Result<Option<T>> {
        Ok(self.sort(object, result)?.ok())
    }

    pub fn into_damages(self) -> Vec<DamageFound> {
        let found = self.found.into_inner().expect("no panic holds this lock");
        let mut damages: Vec<DamageFound> = found.damages.into_iter().map(Damage::told).collect();
        damages.sort_by(|a, b| (&a.object, &a.what).cmp(&(&b.object, &b.what)));
        damages
    }
}

impl Damage {
    fn new((object, what): &(String, String)) -> Self {
        let (snapshots, paths) = (BTreeSet::new(), BTreeSet::new());
        let (object, what) = (object.clone(), what.clone());
        Self { object, what, snapshots, paths, more_paths: 0 }
    }

    fn told(mut self) -> DamageFound {
        if self.more_paths > 0 {
            self.what.push_str(&format!(" ({} more paths)", self.more_paths));
        }
        DamageFound {
            object: self.object,
            what: self.what,
            snapshots: self.snapshots.into_iter().collect(),
            paths: self.paths.into_iter().collect(),
        }
    }
}

/// The error's text, without repeating the object's name in front.
pub fn cause_of(object: &str, error: &Error) -> String {
    match error {
        Error::Format { name, source } if name == object => source.to_string(),
        Error::Damaged { what, cause } if what == object => cause.clone(),
        Error::Store(store) => {
            let source = std::error::Error::source(store);
            source.map_or_else(|| store.to_string(), |source| format!("{store}: {source}"))
        }
        other => other.to_string(),
    }
}
