//! The objects of a store and what of them would survive a power loss: exactly what the `Store` trait promises, and
//! nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::store::ObjectName;

use super::rng::Rng;

#[derive(Clone, Debug)]
struct Object {
    bytes: Arc<[u8]>,
    /// Its name survives; the content of whatever is visible does.
    durable: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Objects {
    there: BTreeMap<ObjectName, Object>,
    /// Deleted, and back after the next power loss, or not.
    deleted: BTreeMap<ObjectName, Object>,
}

/// What of a put is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    All,
    /// The name is only visible.
    Content,
}

/// How likely, in 10,000, what is not durable is lost, and what was deleted is back.
#[derive(Clone, Copy, Debug)]
pub struct Chances {
    lost: u32,
    back: u32,
}

pub const SOME: Chances = Chances { lost: 7_000, back: 5_000 };
pub const ALL: Chances = Chances { lost: 10_000, back: 10_000 };

impl Objects {
    pub fn get(&self, name: &ObjectName) -> Option<&Arc<[u8]>> {
        self.there.get(name).map(|object| &object.bytes)
    }

    /// `false`: there is one of that name, and it stays what it is.
    pub fn put(&mut self, name: &ObjectName, bytes: Arc<[u8]>, sure: Sure) -> bool {
        if self.there.contains_key(name) {
            return false;
        }
        self.there.insert(name.clone(), Object { bytes, durable: sure == Sure::All });
        true
    }

    pub fn delete(&mut self, name: &ObjectName) {
        if let Some(object) = self.there.remove(name) {
            self.deleted.insert(name.clone(), object);
        }
    }

    /// Behind everybody's back; `None` takes it away.
    pub fn replace(&mut self, name: &ObjectName, bytes: Option<Arc<[u8]>>) {
        match bytes {
            Some(bytes) => drop(self.there.insert(name.clone(), Object { bytes, durable: true })),
            None => drop(self.there.remove(name)),
        }
    }

    pub fn make_durable(&mut self, name: &ObjectName) {
        if let Some(object) = self.there.get_mut(name) {
            object.durable = true;
        }
    }

    /// The next `count` names below `folder` after `last`, with their lengths.
    pub fn after(
        &self,
        folder: &str,
        last: Option<&ObjectName>,
        count: usize,
    ) -> Vec<(ObjectName, u64)> {
        let below = |name: &ObjectName| {
            let rest = name.as_str().strip_prefix(folder);
            folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        self.there
            .iter()
            .filter(|(name, _)| below(name) && last.is_none_or(|last| *name > last))
            .take(count)
            .map(|(name, object)| (name.clone(), object.bytes.len() as u64))
            .collect()
    }

    /// What was not durable is there or gone, each object by itself; deleted ones are gone for good or back.
    /// The lost and the returned, for the trace.
    pub fn lose_power(
        &mut self,
        rng: &mut Rng,
        chances: Chances,
    ) -> (Vec<ObjectName>, Vec<ObjectName>) {
        let (mut lost, mut back) = (Vec::new(), Vec::new());
        for (name, object) in &mut self.there {
            if !object.durable && rng.chance(chances.lost) {
                lost.push(name.clone());
            }
            object.durable = true;
        }
        lost.iter().for_each(|name| drop(self.there.remove(name)));
        for (name, object) in std::mem::take(&mut self.deleted) {
            // What never was durable may have gone before its deletion.
            let may_be_back = object.durable || rng.chance(5_000);
            if may_be_back && rng.chance(chances.back) && !self.there.contains_key(&name) {
                self.there.insert(name.clone(), Object { durable: true, ..object });
                back.push(name);
            }
        }
        (lost, back)
    }

    pub fn all(&self) -> impl Iterator<Item = (&ObjectName, &Arc<[u8]>)> {
        self.there.iter().map(|(name, object)| (name, &object.bytes))
    }
}
