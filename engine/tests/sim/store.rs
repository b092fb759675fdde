//! A store whose every call is a step of the simulated world. It keeps the MUSTs of the `Store` trait and uses every
//! liberty that it leaves: lists that others run into, errors after which the thing may or may not be done, names that
//! are visible and not yet durable, and letters that arrive late.

use std::fmt;
use std::io;
use std::sync::Arc;

use strongroom::store::{ObjectName, Put, Staged, Store, StoreError};

use super::faults::{Call, Fault};
use super::objects::Sure;
use super::world::World;

#[derive(Clone)]
pub struct SimStore {
    pub world: Arc<World>,
    /// Who calls.
    pub client: usize,
}

impl SimStore {
    /// A put, of a small object or of a finished stage: they differ in what is durable afterwards.
    fn put(
        &self,
        call: Call,
        name: &ObjectName,
        bytes: Arc<[u8]>,
        sure: Sure,
    ) -> Result<Put, StoreError> {
        let (mut state, fault) = self.world.call(self.client, call, name.as_str());
        match fault {
            Some(Fault::Fail) => return Err(failed(name.as_str(), "put")),
            Some(Fault::Full) => return Err(full(name.as_str())),
            Some(Fault::Late) => {
                state.post(name, Some(bytes));
                return Err(failed(name.as_str(), "put"));
            }
            Some(Fault::AppliedButFailed) => {
                state.objects.put(name, bytes, Sure::Content);
                return Err(failed(name.as_str(), "put"));
            }
            Some(Fault::Echo) => {
                state.objects.put(name, bytes, Sure::Content);
                return Ok(Put::Existed);
            }
            Some(Fault::Twice) => state.post(name, Some(bytes.clone())),
            _ => {}
        }
        let created = state.objects.put(name, bytes, sure);
        if !created {
            state.note(self.client, || "  existed".to_owned());
        }
        Ok(if created { Put::Created } else { Put::Existed })
    }

    fn read<T>(
        &self,
        call: Call,
        name: &ObjectName,
        read: impl FnOnce(&Arc<[u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut state, fault) = self.world.call(self.client, call, name.as_str());
        if fault.is_some() {
            return Err(failed(name.as_str(), "read"));
        }
        let Some(bytes) = state.objects.get(name).cloned() else {
            state.note(self.client, || "  not found".to_owned());
            return Err(StoreError::NotFound { name: name.to_string() });
        };
        drop(state);
        read(&bytes)
    }
}

impl Store for SimStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put(Call::Put, name, bytes.into(), Sure::All)
    }

    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        match self.world.call(self.client, Call::Stage, "").1 {
            Some(Fault::Full) => Err(full("tmp")),
            Some(_) => Err(failed("tmp", "stage")),
            None => Ok(Box::new(SimStaged { store: self.clone(), bytes: Vec::new() })),
        }
    }

    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        self.read(Call::Get, name, |bytes| {
            let len = bytes.len() as u64;
            if len > max_bytes {
                return Err(StoreError::TooLarge { name: name.to_string(), limit: max_bytes, len });
            }
            Ok(bytes.to_vec())
        })
    }

    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.read(Call::GetRange, name, |bytes| {
            let (wanted, len) = (buf.len() as u64, bytes.len() as u64);
            if offset + wanted > len {
                let name = name.to_string();
                return Err(StoreError::Truncated { name, offset, wanted, len });
            }
            buf.copy_from_slice(&bytes[offset as usize..][..buf.len()]);
            Ok(())
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.read(Call::Len, name, |bytes| Ok(bytes.len() as u64))
    }

    /// A few names at a time; others have their turn in between.
    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        let mut last: Option<ObjectName> = None;
        let mut call = Call::List;
        loop {
            let (mut state, fault) = self.world.call(self.client, call, folder);
            if fault.is_some() {
                return Err(failed(folder, "list"));
            }
            let count = *state.rng.pick(&[1, 3, 10, 100]);
            let found = state.objects.after(folder, last.as_ref(), count);
            drop(state);
            let ended = found.len() < count;
            last = found.last().map(|(name, _)| name.clone()).or(last);
            found.into_iter().for_each(|(name, len)| each(name, len));
            if ended {
                return Ok(());
            }
            call = Call::ListMore;
        }
    }

    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError> {
        let names: Vec<&ObjectName> = names.collect();
        let told = names.first().map_or("", |name| name.folder());
        let (mut state, fault) = self.world.call(self.client, Call::MakeDurable, told);
        let upto = match fault {
            Some(Fault::Fail) => state.rng.below(names.len() + 1),
            _ => names.len(),
        };
        names[..upto].iter().for_each(|name| state.objects.make_durable(name));
        if fault.is_some() { Err(failed(told, "make durable")) } else { Ok(()) }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let (mut state, fault) = self.world.call(self.client, Call::Delete, name.as_str());
        match fault {
            Some(Fault::Fail) => return Err(failed(name.as_str(), "delete")),
            Some(Fault::Late) => {
                state.post(name, None);
                return Err(failed(name.as_str(), "delete"));
            }
            Some(Fault::Twice) => state.post(name, None),
            _ => {}
        }
        state.objects.delete(name);
        match fault {
            Some(Fault::AppliedButFailed) => Err(failed(name.as_str(), "delete")),
            _ => Ok(()),
        }
    }

    fn describe(&self) -> String {
        "a simulated store".to_owned()
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore of client {}", self.client)
    }
}

struct SimStaged {
    store: SimStore,
    bytes: Vec<u8>,
}

impl Staged for SimStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.store.world.call(self.store.client, Call::StageWrite, "").1 {
            Some(Fault::Full) => return Err(full("tmp")),
            Some(_) => return Err(failed("tmp", "write")),
            None => {}
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, name: &ObjectName) -> Result<Put, StoreError> {
        self.store.put(Call::Commit, name, self.bytes.into(), Sure::Content)
    }
}

fn failed(name: &str, op: &'static str) -> StoreError {
    let source = io::Error::other("simulated fault");
    StoreError::Io { name: name.to_owned(), op, source }
}

fn full(name: &str) -> StoreError {
    let source = io::Error::from(io::ErrorKind::StorageFull);
    StoreError::Full { name: name.to_owned(), source }
}
