//! The packs in the store's listing, with their stored lengths: a sorted column, 40 bytes a pack, because a hash table
//! of the packs of 100 TB would be a quarter of what a backup may have.

use crate::format::id::PackId;

/// Packs that have the same first bits, about.
const BUCKET: usize = 8;

#[derive(Debug, Clone, Default)]
pub struct PackList {
    rows: Vec<(PackId, u64)>,
    /// Where the packs begin whose ids have these first bits: a search among all of them would touch twenty lines
    /// that no cache has, and opening the index of 100 TB makes 1.6 M searches.
    starts: Vec<u32>,
    bits: u32,
}

impl FromIterator<(PackId, u64)> for PackList {
    fn from_iter<T: IntoIterator<Item = (PackId, u64)>>(packs: T) -> Self {
        let mut rows: Vec<_> = packs.into_iter().collect();
        rows.sort_unstable();
        rows.dedup_by_key(|(id, _)| *id);
        rows.shrink_to_fit();
        let bits = (rows.len() / BUCKET).max(1).ilog2();
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (at, (id, _)) in (0..).zip(&rows) {
            starts.resize((bucket(id, bits) + 1).max(starts.len()), at);
        }
        starts.resize((1 << bits) + 1, rows.len() as u32);
        Self { rows, starts, bits }
    }
}

fn bucket(id: &PackId, bits: u32) -> usize {
    let first = u32::from_be_bytes(id.0[..4].try_into().expect("four bytes"));
    (u64::from(first) >> (32 - bits)) as usize
}

impl PackList {
    /// The length of a pack in bytes.
    pub fn get(&self, id: &PackId) -> Option<u64> {
        let bucket = bucket(id, self.bits);
        let [start, end] = self.starts.get(bucket..bucket + 2)?.try_into().expect("two");
        let rows = &self.rows[start as usize..end as usize];
        rows.binary_search_by(|(found, _)| found.cmp(id)).ok().map(|at| rows[at].1)
    }

    pub fn contains(&self, id: &PackId) -> bool {
        self.get(id).is_some()
    }

    /// In ascending order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&PackId, u64)> {
        self.rows.iter().map(|(id, len)| (id, *len))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::PackList;
    use crate::format::id::PackId;

    #[test]
    fn every_pack_is_found_and_no_other() {
        for count in [0u64, 1, 2, 9, 1000] {
            let id = |n: u64| PackId(*blake3::hash(&n.to_le_bytes()).as_bytes());
            let even = PackId([0; 32]);
            let crowded = (0..20).map(|n| (PackId([7; 32].map(|b: u8| b + n)), u64::from(n)));
            let list: PackList = (0..count).map(|n| (id(n), n)).chain(crowded.clone()).collect();
            assert_eq!(list.len() as u64, count + 20);
            assert!((0..count).all(|n| list.get(&id(n)) == Some(n)));
            assert!(crowded.into_iter().all(|(id, n)| list.get(&id) == Some(n)));
            assert!((count..2000).all(|n| !list.contains(&id(n))) && !list.contains(&even));
            assert!(!list.contains(&PackId([255; 32])));
        }
    }
}
