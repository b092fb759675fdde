//! A store in memory, for tests: exact, fast, and its objects can be tampered with.
//!
//! Deliberately absent: durability, limits, and any fault of its own (see `FaultyStore`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ObjectName, Put, Staged, Store, StoreError, check_folder, check_range};

/// Clones share the same objects.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

type Objects = BTreeMap<ObjectName, Vec<u8>>;

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Damages an object behind everybody's back.
    ///
    /// # Panics
    /// If there is no such object.
    pub fn tamper(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.lock().get_mut(name).expect("only objects that exist are tampered with"));
    }

    /// All names in order.
    pub fn names(&self) -> Vec<ObjectName> {
        self.lock().keys().cloned().collect()
    }

    /// Every operation leaves the map whole, so a panic in `tamper` does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        name: &ObjectName,
        read: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.lock().get(name) {
            Some(bytes) => read(bytes),
            None => Err(StoreError::NotFound { name: name.to_string() }),
        }
    }

    fn insert(&self, name: &ObjectName, bytes: Vec<u8>) -> Put {
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Put::Existed;
        }
        objects.insert(name.clone(), bytes);
        Put::Created
    }
}

impl Store for MemoryStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        Ok(self.insert(name, bytes.to_vec()))
    }

    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        Ok(Box::new(MemoryStaged { store: self.clone(), bytes: Vec::new() }))
    }

    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        self.read(name, |bytes| {
            let len = bytes.len() as u64;
            if len > max_bytes {
                return Err(StoreError::TooLarge { name: name.to_string(), limit: max_bytes, len });
            }
            Ok(bytes.to_vec())
        })
    }

    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.read(name, |bytes| {
            check_range(name, offset, buf.len() as u64, bytes.len() as u64)?;
            let start = usize::try_from(offset).expect("within a slice");
            buf.copy_from_slice(&bytes[start..start + buf.len()]);
            Ok(())
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.read(name, |bytes| Ok(bytes.len() as u64))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        check_folder(folder)?;
        let below = |name: &ObjectName| {
            let rest = name.as_str().strip_prefix(folder);
            folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        // copied out first: `each` may use the store
        let found: Vec<_> = (self.lock().iter())
            .filter(|(name, _)| below(name))
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect();
        found.into_iter().for_each(|(name, len)| each(name, len));
        Ok(())
    }

    fn make_durable(
        &self,
        _names: &mut dyn Iterator<Item = &ObjectName>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.lock().remove(name);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct MemoryStaged {
    store: MemoryStore,
    bytes: Vec<u8>,
}

impl Staged for MemoryStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, name: &ObjectName) -> Result<Put, StoreError> {
        Ok(self.store.insert(name, self.bytes))
    }
}
