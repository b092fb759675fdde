//! The packs in the store's listing, with their stored lengths: a sorted column, 40 bytes a pack, because a hash table
//! of the packs of 100 TB would be a quarter of what a backup may have.

use crate::format::id::PackId;

#[derive(Debug, Clone, Default)]
pub struct PackList(Vec<(PackId, u64)>);

impl FromIterator<(PackId, u64)> for PackList {
    fn from_iter<T: IntoIterator<Item = (PackId, u64)>>(packs: T) -> Self {
        let mut packs: Vec<_> = packs.into_iter().collect();
        packs.sort_unstable();
        packs.dedup_by_key(|(id, _)| *id);
        packs.shrink_to_fit();
        Self(packs)
    }
}

impl PackList {
    /// The length of a pack in bytes.
    pub fn get(&self, id: &PackId) -> Option<u64> {
        let rows = &self.0;
        // Ids are hashes: one stands near where its first bits say.
        let first = u64::from_be_bytes(id.0[..8].try_into().expect("eight bytes"));
        let guess = ((u128::from(first) * rows.len() as u128) >> 64) as usize;
        let below = |at: usize| rows[at].0 < *id;
        let (mut low, mut high, mut step) = (guess, guess, 8);
        while low > 0 && !below(low - 1) {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 8;
        while high < rows.len() && below(high) {
            high = (high + step).min(rows.len());
            step *= 2;
        }
        let at = low + rows[low..high].partition_point(|(found, _)| found < id);
        rows.get(at).filter(|(found, _)| found == id).map(|(_, len)| *len)
    }

    pub fn contains(&self, id: &PackId) -> bool {
        self.get(id).is_some()
    }

    /// In ascending order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&PackId, u64)> {
        self.0.iter().map(|(id, len)| (id, *len))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
