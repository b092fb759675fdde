//! What the clients were told, and so what must be true of the store: the oracle's memory.

use std::sync::Arc;

use strongroom::format::id::SessionId;

use super::sources::Tree;

/// One call of `backup::run`. Its snapshot is found again by its tag, `b<its place>`.
#[derive(Clone, Debug)]
pub struct Backup {
    pub tree: Arc<Tree>,
    /// `None`: it was never reported; it may be there all the same.
    pub committed: Option<SessionId>,
    /// Has anybody tried to forget it, and been told so?
    pub forget: Told,
    /// The same for a hold on it, and its release.
    pub hold: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    No,
    /// It was tried, and failed or was cut short: it may be, and may come to be.
    Perhaps,
    Yes,
}

#[derive(Debug, Default)]
pub struct Record {
    pub backups: Vec<Backup>,
}

impl Record {
    /// The tag of the next backup.
    pub fn begin(&mut self, tree: &Tree) -> String {
        let tree = Arc::new(tree.clone());
        let backup = Backup { tree, committed: None, forget: Told::No, hold: Told::No };
        self.backups.push(backup);
        format!("b{}", self.backups.len() - 1)
    }

    /// The backup with this tag.
    pub fn place(tags: &[String]) -> usize {
        let [tag] = tags else { panic!("every snapshot has one tag: {tags:?}") };
        tag.strip_prefix('b').and_then(|place| place.parse().ok()).expect("a tag of ours")
    }
}
