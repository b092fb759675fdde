//! What a dead session stored and no index run came to name: a writer killed between two runs leaves up to sixteen
//! packs like that. The next writer with the same journal writes a run for them, and then dedups against them like
//! against any others.
//!
//! That a pack is ours cannot be seen from the pack: whoever holds the INDEX key can write one with our session in it,
//! and chunk ids that are lies. So only what our own journal says is adopted. It was written after the store had said
//! that the content is durable; the name is made durable here, before the run. Nothing is read but directories.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::format::id::{PackId, hash};
use crate::format::index::PackRow;
use crate::repo::Repo;
use crate::repo::journal::StoredPack;
use crate::repo::lookup::Index;
use crate::repo::pack_file::FinishedPack;
use crate::repo::packer::{PACKS_PER_RUN, Packer, pack_name};

impl Packer<'_> {
    /// Comes after the session was announced and the index was read (DESIGN.md, 6.1): a pack counts only if that
    /// listing has it with its length, and nobody proposed to delete it. How many packs were adopted.
    pub fn adopt(&self, stored: &[StoredPack]) -> Result<usize> {
        let mut adopted = 0;
        let lost = without_run(self.index, stored);
        for some in lost.chunks(PACKS_PER_RUN) {
            let packs: Vec<_> = some.iter().filter_map(|pack| finished(self.repo, pack)).collect();
            adopted += packs.len();
            if !packs.is_empty() {
                self.write_run(packs)?;
            }
        }
        Ok(adopted)
    }
}

fn without_run<'p>(index: &Index, stored: &'p [StoredPack]) -> Vec<&'p StoredPack> {
    let there = |pack: &StoredPack| {
        let packs = index.packs();
        packs.listed.get(&pack.id) == Some(pack.len) && !packs.condemned.contains(&pack.id)
    };
    let mut lost: HashMap<PackId, &StoredPack> =
        stored.iter().filter(|pack| there(pack)).map(|pack| (pack.id, pack)).collect();
    if !lost.is_empty() {
        for segment in index.segments() {
            for named in segment.packs() {
                lost.remove(&named.id);
            }
        }
    }
    let mut seen = HashSet::new();
    stored.iter().filter(|pack| lost.contains_key(&pack.id) && seen.insert(pack.id)).collect()
}

/// `None`: its directory cannot be read, or is not the one that we wrote. Then it is garbage, and what is in it is
/// stored again.
fn finished(repo: &Repo, pack: &StoredPack) -> Option<FinishedPack> {
    let directory = repo.pack_directory(&pack.id, pack.len).ok()?;
    if hash(&directory.to_bytes()) != pack.directory {
        return None;
    }
    let row = PackRow { id: pack.id, len: pack.len, author: repo.identity(), class: pack.class };
    Some(FinishedPack { row, name: pack_name(&pack.id), directory })
}

#[cfg(test)]
mod tests;
