//! What a check has found: damages, each with the snapshots and paths that it costs, and notices.
//! Every finding is told to the watch once, when it is met first; a suspected damage when it is
//! settled. Which damage costs which path, and which is none, is found out elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{DamageFound, PATHS_MAX};
use crate::error::{Error, Result};
use crate::format::id::{ChunkId, PackId, SessionId};
use crate::repo::damage::is_proof;
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

/// What is hit by a suspected damage. Where everything has another sound copy, it is healed.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Chunks whose copies in one pack are bad.
    Chunks(PackId, Vec<ChunkId>),
    /// A pack that cannot be used at all.
    Lost(PackId),
    /// A pack whose frames can be read, though what describes them cannot.
    Directory(PackId),
    /// A pack whose bytes do not match its name.
    Rot(PackId),
    /// An index run that cannot be read.
    Run,
}

struct Damage {
    object: String,
    what: String,
    /// Until it is settled.
    suspected: Option<Scope>,
    /// It was settled: nothing is lost by it.
    harmless: bool,
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
        let mut found = self.lock();
        let (index, is_new) = found.index(object, what);
        let was_suspected = found.damages[index].suspected.take().is_some();
        drop(found);
        if is_new || was_suspected {
            self.tell(ProblemKind::Damage, object, what);
        }
        index
    }

    /// A damage, unless it turns out that nothing is lost by it: `settle` says so, and tells.
    pub fn suspect(&self, object: &str, what: &str, scope: Scope) -> DamageIndex {
        let mut found = self.lock();
        let (index, is_new) = found.index(object, what);
        match (&mut found.damages[index].suspected, scope) {
            (known @ None, scope) if is_new => *known = Some(scope),
            (Some(Scope::Chunks(_, known)), Scope::Chunks(_, more)) => known.extend(more),
            _ => {}
        }
        index
    }

    /// What is still to be settled: where, what it hits, and whether a snapshot is known to need it.
    pub fn suspected(&self) -> Vec<(DamageIndex, Scope, bool)> {
        let found = self.lock();
        let suspected = |(index, damage): (DamageIndex, &Damage)| {
            Some((index, damage.suspected.clone()?, !damage.snapshots.is_empty()))
        };
        found.damages.iter().enumerate().filter_map(suspected).collect()
    }

    /// `harmless`: why nothing is lost.
    pub fn settle(&self, index: DamageIndex, harmless: Option<&str>) {
        let mut found = self.lock();
        let damage = &mut found.damages[index];
        damage.suspected = None;
        damage.harmless = harmless.is_some();
        let (object, what) = (damage.object.clone(), damage.what.clone());
        drop(found);
        match harmless {
            Some(why) => self.notice(&object, &format!("{what}; {why}")),
            None => self.tell(ProblemKind::Damage, &object, &what),
        }
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

    /// The same, but what the bytes prove is only suspected to be a damage.
    pub fn sort_suspect<T>(
        &self,
        object: &str,
        result: Result<T>,
        scope: impl FnOnce() -> Scope,
    ) -> Result<Result<T, Option<DamageIndex>>> {
        match result {
            Err(error) if is_proof(&error) => {
                Ok(Err(Some(self.suspect(object, &cause_of(object, &error), scope()))))
            }
            result => self.sort(object, result),
        }
    }

    /// The same for those who need to know only whether it went well.
    pub fn take<T>(&self, object: &str, result: Result<T>) -> Result<Option<T>> {
        Ok(self.sort(object, result)?.ok())
    }

    pub fn into_damages(self) -> Vec<DamageFound> {
        let found = self.found.into_inner().expect("no panic holds this lock");
        let damages = found.damages.into_iter().filter(|damage| !damage.harmless);
        let mut damages: Vec<DamageFound> = damages.map(Damage::told).collect();
        damages.sort_by(|a, b| (&a.object, &a.what).cmp(&(&b.object, &b.what)));
        damages
    }
}

impl Found {
    /// Of the damage with this object and text, and whether it is new.
    fn index(&mut self, object: &str, what: &str) -> (DamageIndex, bool) {
        let key = (object.to_owned(), what.to_owned());
        if let Some(index) = self.known.get(&key) {
            return (*index, false);
        }
        let index = self.damages.len();
        self.damages.push(Damage::new(&key));
        self.known.insert(key, index);
        (index, true)
    }
}

impl Damage {
    fn new((object, what): &(String, String)) -> Self {
        let (snapshots, paths) = (BTreeSet::new(), BTreeSet::new());
        let (object, what) = (object.clone(), what.clone());
        let (suspected, harmless) = (None, false);
        Self { object, what, suspected, harmless, snapshots, paths, more_paths: 0 }
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
