//! What the clients were told, and so what must be true of the store: the oracle's memory.

use std::sync::Arc;

use strongroom::format::id::{HoldId, SessionId};

use super::sources::Tree;

/// One call of `backup::run`. Its snapshot is found again by its tag, `b<its place>`.
#[derive(Clone, Debug)]
pub struct Backup {
    pub tree: Arc<Tree>,
    /// `None`: it was never reported; it may be there all the same.
    pub committed: Option<SessionId>,
    pub forget: Told,
}

/// What has become of something that was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Attempts under way, or that ended without an answer: it may be, and may come to be.
    pub perhaps: usize,
    pub done: bool,
}

impl Told {
    pub fn never(self) -> bool {
        self.perhaps == 0 && !self.done
    }
}

#[derive(Clone, Debug)]
pub struct Hold {
    /// The backup whose snapshot it holds.
    pub place: usize,
    /// `None`: nobody was told that it stands.
    pub id: Option<HoldId>,
    pub released: Told,
}

#[derive(Clone, Debug, Default)]
pub struct Record {
    pub backups: Vec<Backup>,
    pub holds: Vec<Hold>,
}

impl Record {
    /// The tag of the next backup.
    pub fn begin(&mut self, tree: &Tree) -> String {
        let tree = Arc::new(tree.clone());
        self.backups.push(Backup { tree, committed: None, forget: Told::default() });
        format!("b{}", self.backups.len() - 1)
    }

    /// The backup with this tag.
    pub fn place(tags: &[String]) -> usize {
        let [tag] = tags else { panic!("every snapshot has one tag: {tags:?}") };
        tag.strip_prefix('b').and_then(|place| place.parse().ok()).expect("a tag of ours")
    }

    /// A hold stands on it that nobody has tried to release.
    pub fn is_held(&self, place: usize) -> bool {
        let mut holds = self.holds.iter().filter(|hold| hold.place == place);
        holds.any(|hold| hold.id.is_some() && hold.released.never())
    }

    /// Its snapshot was committed, and must be there.
    pub fn is_promised(&self, place: usize) -> bool {
        let backup = &self.backups[place];
        backup.committed.is_some() && (backup.forget.never() || self.is_held(place))
    }

    /// It was forgotten, and nobody ever tried to hold it.
    pub fn is_gone(&self, place: usize) -> bool {
        self.backups[place].forget.done && self.holds.iter().all(|hold| hold.place != place)
    }
}
