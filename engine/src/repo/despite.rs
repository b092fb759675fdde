//! The index of a damaged repository. A run or record that cannot be read must not keep anybody from everything else:
//! what is wrong is told, and the rest is used. What that costs depends on the object:
//!
//! - an index run: its chunks are unknown. A reader may miss them; a writer stores them again; a pruner stops if
//!   anything that lives is missing, and else deletes a run that has rotted;
//! - `attest/`: its packs are not attested, so writers trust fewer of them;
//! - `damaged/`: its frames pass for sound. A reader notices; a writer may rely on a bad frame, until the check that is
//!   due anyway records it again. A pruner drops no surplus copy while one is unreadable (`Packs::unsure`);
//! - `retired/`: what is about to be deleted is unknown. For a reader that means nothing, for a writer that it must not
//!   go on: its error is not passed over.
//!
//! Only what the bytes prove is passed over; a store that fails is an error for everybody.

use crate::error::{Error, FormatError, Result};
use crate::format::id::ObjectHash;
use crate::repo::Repo;
use crate::repo::damage::is_proof;
use crate::repo::lookup::Index;
use crate::repo::opening::Proof;
use crate::watch::{Problem, ProblemKind, Watch};

/// How much is passed over; each also what those before it pass over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Despite {
    Nothing,
    /// Attestations, and records of damage.
    Records,
    Runs,
    /// What is about to be deleted, too.
    Retired,
}

/// What was passed over while the index was read.
#[derive(Debug)]
pub(crate) struct PassedOver {
    despite: Despite,
    found: Vec<(String, Error)>,
}

impl PassedOver {
    pub fn new(despite: Despite) -> Self {
        Self { despite, found: Vec::new() }
    }

    /// `None`: it is damaged, and that is passed over.
    pub fn take<T>(&mut self, of: Despite, name: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if self.despite >= of && is_proof(&error) => {
                self.found.push((name.to_owned(), error));
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Names and causes.
    pub fn told(self) -> Vec<(String, String)> {
        let cause = |error: Error| match error {
            Error::Format { source, .. } => source.to_string(),
            Error::Damaged { cause, .. } => cause,
            other => other.to_string(),
        };
        self.found.into_iter().map(|(name, error)| (name, cause(error))).collect()
    }

    fn tell(self, watch: &dyn Watch) {
        for (name, cause) in self.told() {
            let cause = format!("passed over: {cause}");
            watch.problem(Problem { kind: ProblemKind::Damage, name: name.into_bytes(), cause });
        }
    }
}

impl Repo {
    /// The index for a restore: whatever can be read of it.
    pub(crate) fn index_for_reading(&self, watch: &dyn Watch) -> Result<Index> {
        self.index_telling(Despite::Retired, watch)
    }

    /// The index for a listing or a dump: as for a restore, but there is nobody to be told. What is
    /// missing for it is an error in its place.
    pub(crate) fn index_for_browsing(&self) -> Result<Index> {
        self.index_despite(Despite::Retired, Proof::WhenUsed).map(|(index, _)| index)
    }

    /// The index for a backup: fewer known chunks cost space, nothing else.
    pub(crate) fn index_for_writing(&self, watch: &dyn Watch) -> Result<Index> {
        self.index_telling(Despite::Runs, watch)
    }

    /// The index for a prune, and the runs that have rotted: what they said is safe only if nothing that lives turns
    /// out to be missing without them.
    pub(crate) fn index_for_deleting(&self, watch: &dyn Watch) -> Result<(Index, Vec<ObjectHash>)> {
        let (index, passed_over) = self.index_despite(Despite::Runs, Proof::Now)?;
        let mut rotten = Vec::new();
        for (name, error) in &passed_over.found {
            let is_rot = matches!(error, Error::Format { source: FormatError::Rot { .. }, .. });
            let id = name.strip_prefix("index/").and_then(ObjectHash::from_hex);
            rotten.extend(id.filter(|_| is_rot));
        }
        passed_over.tell(watch);
        Ok((index, rotten))
    }

    fn index_telling(&self, despite: Despite, watch: &dyn Watch) -> Result<Index> {
        let (index, passed_over) = self.index_despite(despite, Proof::WhenUsed)?;
        passed_over.tell(watch);
        Ok(index)
    }
}
