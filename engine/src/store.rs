//! Named, immutable bytes in and out: what a repository asks of the place it lives in.
//!
//! Deliberately absent: any knowledge of what the bytes mean, encryption, caching, retrying, and
//! replacing an object. `engine/tests/store_contract.rs` holds every store to the MUSTs below.

use std::fmt;
use std::io;
use std::time::Duration;

mod faulty;
mod local;
mod memory;

pub use faulty::{Fault, FaultyStore, LoggedOp, Op, Plan};
pub use local::{FsKind, LocalStore};
pub use memory::MemoryStore;

/// Longest [`ObjectName`] in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// First segment that no object may have: stores keep their temporaries there.
pub const TEMPORARY_FOLDER: &str = "tmp";

/// Immutable objects under names, shared by any number of writers, readers and pruners.
///
/// Every store MUST give read-after-write and list-after-write between all its clients, and
/// put-if-absent MUST be atomic: the whole protocol without locks rests on these three. A store
/// MUST NOT change an object once it is visible, and MUST NOT show one whose content is not durable:
/// others rely on what they see, and can only make its name durable. After an error from any writing
/// operation the object may or may not be there, or appear later; the caller finds out by asking
/// again.
///
/// No object's name is the folder of another object's name; callers see to that.
pub trait Store: Send + Sync + fmt::Debug {
    /// Stores a small object. Readers MUST see nothing or all of it. On `Ok(Created)` content and
    /// name MUST be durable. `Existed` MUST mean that an object of that name is there and that
    /// nothing changed; its content is durable, its name only after [`Store::make_durable`].
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError>;

    /// Starts an object whose name is known only at its end (a pack). It MUST stay invisible
    /// until it is committed; dropped uncommitted it MUST leave nothing, but for a temporary that
    /// is swept later if the process dies.
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError>;

    /// Reads a whole object, MUST refuse with `TooLarge` before reading if it is longer than
    /// `max_bytes`.
    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError>;

    /// Fills all of `buf` from `offset`, or MUST fail with `Truncated` if the object ends before.
    /// After an error the content of `buf` is unspecified.
    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Length in bytes, or `NotFound`.
    fn len(&self, name: &ObjectName) -> Result<u64, StoreError>;

    /// Reports every object below `folder` ("" is all), recursively, with its length in bytes,
    /// in byte order of the names. Temporaries and junk (names that are no [`ObjectName`]) MUST
    /// NOT be reported; objects that were there before the call and still are MUST be. A folder
    /// that does not exist is empty. `each` may use the store.
    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError>;

    /// Makes names durable that are already visible, whoever wrote them: visible is not yet
    /// durable. It need not notice that an object is absent.
    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError>;

    /// Deletes an object; absent MUST be `Ok`. Not durable: it may be back after a power loss.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Removes what writers that died left half-written and that nobody has written to for
    /// `older_than`; how much. A writer that lives all the same fails at its commit, nothing else.
    fn sweep(&self, _older_than: Duration) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// The place, for messages.
    fn describe(&self) -> String;
}

/// An object being written, see [`Store::stage`].
pub trait Staged: Send {
    /// Appends. After an error the stage MUST NOT be committed; drop it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes what was written so far durable, still without a name: what `commit` does first. For
    /// measuring; a store that has no such step does nothing.
    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes the object visible under `name`. On `Ok(Created)` the content MUST be durable; the
    /// name is durable only after [`Store::make_durable`].
    fn commit(self: Box<Self>, name: &ObjectName) -> Result<Put, StoreError>;
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    Created,
    Existed,
}

/// A valid name: segments of `[a-z0-9._-]` joined by `/`, none empty or starting with a dot, the
/// first not [`TEMPORARY_FOLDER`], at most [`NAME_BYTES_MAX`] bytes together.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(Box<str>);

impl ObjectName {
    pub fn new(name: &str) -> Result<Self, StoreError> {
        let valid = name.len() <= NAME_BYTES_MAX
            && name.split('/').all(is_segment)
            && name.split('/').next() != Some(TEMPORARY_FOLDER);
        if valid { Ok(Self(name.into())) } else { Err(StoreError::BadName { name: name.into() }) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All before the last `/`; "" if there is none.
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The last segment.
    pub fn last(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, last)| last)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a store can answer but the thing asked for. `name` is an object's name, or that of the
/// folder or temporary in hand. Causes are in `source()`, not in the texts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{name} is not in the store")]
    NotFound { name: String },
    #[error("{name} has {len} bytes, more than the {limit} expected at most")]
    TooLarge { name: String, limit: u64, len: u64 },
    #[error("{name} is truncated: {wanted} bytes wanted at offset {offset}, but it has {len}")]
    Truncated { name: String, offset: u64, wanted: u64, len: u64 },
    #[error("{name:?} cannot be the name of an object")]
    BadName { name: String },
    #[error("{name} is not a plain file in plain folders; links and devices are not followed")]
    NotRegular { name: String },
    #[error("cannot {op} {name}")]
    Io { name: String, op: &'static str, source: io::Error },
    #[error("no space left in the store, or quota exceeded, for {name}")]
    Full { name: String, source: io::Error },
    #[error("cannot {op} {name}: the store is read-only")]
    ReadOnly { name: String, op: &'static str, source: io::Error },
    #[error("cannot {op} {name}: permission denied")]
    Permission { name: String, op: &'static str, source: io::Error },
    #[error("there is no repository folder at {place}")]
    NoStore { place: String },
    #[error("{place} cannot hold a repository: {reason}")]
    NotSuitable { place: String, reason: String },
}

impl StoreError {
    /// Sorts an I/O error by what can be done about it. `NotFound` is left to the caller, who
    /// knows whether it was the object that was missing.
    pub fn from_io(name: &str, op: &'static str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { name, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { name, op, source },
            io::ErrorKind::PermissionDenied => Self::Permission { name, op, source },
            _ => Self::Io { name, op, source },
        }
    }
}

/// Tries on a real object what [`Store`] demands. What cannot be seen from one client, such as the
/// attribute caches of network file systems, is not found here. `name` must be unused.
pub fn probe(store: &dyn Store, name: &ObjectName) -> Result<(), StoreError> {
    let result = probe_promises(store, name);
    let deleted = store.delete(name);
    result?;
    deleted?;
    let unsuitable = |reason| Err(not_suitable(store, reason));
    match store.len(name) {
        Err(StoreError::NotFound { .. }) => {}
        Ok(_) => return unsuitable("a deleted object is still there"),
        Err(error) => return Err(error),
    }
    if is_listed(store, name)? {
        return unsuitable("a deleted object is still listed");
    }
    Ok(())
}

fn probe_promises(store: &dyn Store, name: &ObjectName) -> Result<(), StoreError> {
    const FIRST: &[u8] = b"strongroom probe";
    const SECOND: &[u8] = b"must not replace the first";
    let unsuitable = |reason| Err(not_suitable(store, reason));
    if store.put_if_absent(name, FIRST)? != Put::Created {
        return unsuitable("it reports an object as existing that was never put");
    }
    if store.put_if_absent(name, SECOND)? != Put::Existed {
        return unsuitable("put-if-absent does not notice an object that is there");
    }
    if store.get(name, SECOND.len() as u64)? != FIRST {
        return unsuitable("an object reads back other than it was put");
    }
    if !is_listed(store, name)? {
        return unsuitable("an object that was just put is not listed");
    }
    Ok(())
}

fn is_listed(store: &dyn Store, name: &ObjectName) -> Result<bool, StoreError> {
    let mut found = false;
    store.list(name.folder(), &mut |listed, _| found |= listed == *name)?;
    Ok(found)
}

fn not_suitable(store: &dyn Store, reason: &str) -> StoreError {
    StoreError::NotSuitable { place: store.describe(), reason: reason.into() }
}

fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(allowed)
}

/// A folder to list obeys the same rules as a name, and may be "".
fn check_folder(folder: &str) -> Result<(), StoreError> {
    if folder.is_empty() { Ok(()) } else { ObjectName::new(folder).map(drop) }
}

/// What of an object of `len` bytes `get_range` is to read: `Truncated` unless all is there.
fn check_range(name: &ObjectName, offset: u64, wanted: u64, len: u64) -> Result<(), StoreError> {
    match offset.checked_add(wanted) {
        Some(end) if end <= len => Ok(()),
        _ => Err(StoreError::Truncated { name: name.to_string(), offset, wanted, len }),
    }
}
