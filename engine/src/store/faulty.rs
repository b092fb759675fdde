//! A store that fails on a plan, for tests: "each operation fails once", crash points, full disks.
//!
//! Deliberately absent: chance and time. The same plan over the same operations fails the same
//! way, so a test that found something replays it. What an operation does apply is still atomic:
//! torn objects are damage, which `MemoryStore::tamper` makes.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{ObjectName, Put, Staged, Store, StoreError};

/// Decides the fate of each operation from its number (from 0), its kind and its name.
pub type Plan = dyn Fn(u64, Op, &str) -> Fault + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Put,
    /// Start of a stage; its name is "", as is that of `StageWrite`.
    Stage,
    StageWrite,
    StageCommit,
    Get,
    GetRange,
    Len,
    /// Its name is the folder.
    List,
    Delete,
    /// Its name is all names, joined by spaces.
    MakeDurable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    None,
    /// Nothing happens but an I/O error.
    Fail,
    /// Nothing happens: no space left.
    Full,
    /// The operation is carried out, then an error is returned.
    AppliedButFailed,
    /// Half the bytes of a stage write or of a range arrive, then an error is returned; like
    /// `Fail` for all others, which are atomic.
    ShortWrite,
    /// This and every later operation fails without effect: the process or the store is gone.
    Kill,
}

/// One operation as it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOp {
    pub number: u64,
    pub op: Op,
    pub name: String,
    pub fault: Fault,
}

/// Clones share plan, count and log.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    plan: Box<Plan>,
    count: AtomicU64,
    killed: AtomicBool,
    log: Mutex<Vec<LoggedOp>>,
}

impl FaultyStore {
    pub fn new(
        inner: Arc<dyn Store>,
        plan: impl Fn(u64, Op, &str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            plan: Box::new(plan),
            count: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            log: Mutex::default(),
        };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Counts and logs, and lets everything pass.
    pub fn without_faults(inner: Arc<dyn Store>) -> Self {
        Self::new(inner, |_, _, _| Fault::None)
    }

    /// `fault` strikes operation `number`, once.
    pub fn failing_at(inner: Arc<dyn Store>, number: u64, fault: Fault) -> Self {
        Self::new(inner, move |n, _, _| if n == number { fault } else { Fault::None })
    }

    /// How many operations were met so far, failed ones included.
    pub fn ops(&self) -> u64 {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// All operations met so far, by number.
    pub fn log(&self) -> Vec<LoggedOp> {
        let log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = log.clone();
        log.sort_by_key(|logged| logged.number);
        log
    }
}

impl Shared {
    fn strike(&self, op: Op, name: &str) -> Fault {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let planned = (self.plan)(number, op, name);
        if planned == Fault::Kill {
            self.killed.store(true, Ordering::SeqCst);
        }
        let fault = if self.killed.load(Ordering::SeqCst) { Fault::Kill } else { planned };
        let logged = LoggedOp { number, op, name: name.into(), fault };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(logged);
        fault
    }

    /// Runs `apply`, or not, as the plan has it.
    fn run<T>(
        &self,
        op: Op,
        name: &str,
        apply: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.strike(op, name) {
            Fault::None => apply(),
            Fault::AppliedButFailed => apply().and_then(|_| Err(injected(op, name))),
            Fault::Full => Err(full(name)),
            Fault::Fail | Fault::ShortWrite | Fault::Kill => Err(injected(op, name)),
        }
    }

    /// The same for operations that can stop half way; `apply` takes how many bytes arrive.
    fn run_bytes(
        &self,
        op: Op,
        name: &str,
        len: usize,
        apply: impl FnOnce(usize) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.strike(op, name) {
            Fault::None => apply(len),
            Fault::AppliedButFailed => apply(len).and_then(|()| Err(injected(op, name))),
            Fault::ShortWrite => apply(len / 2).and_then(|()| Err(injected(op, name))),
            Fault::Full => Err(full(name)),
            Fault::Fail | Fault::Kill => Err(injected(op, name)),
        }
    }
}

impl Store for FaultyStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.shared.run(Op::Put, name.as_str(), || self.inner.put_if_absent(name, bytes))
    }

    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        let inner = self.shared.run(Op::Stage, "", || self.inner.stage())?;
        Ok(Box::new(FaultyStaged { inner, shared: Arc::clone(&self.shared) }))
    }

    fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        self.shared.run(Op::Get, name.as_str(), || self.inner.get(name, max_bytes))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.shared.run_bytes(Op::GetRange, name.as_str(), buf.len(), |arriving| {
            self.inner.get_range(name, offset, &mut buf[..arriving])
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64, StoreError> {
        self.shared.run(Op::Len, name.as_str(), || self.inner.len(name))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.shared.run(Op::List, folder, || self.inner.list(folder, each))
    }

    fn make_durable(&self, names: &mut dyn Iterator<Item = &ObjectName>) -> Result<(), StoreError> {
        let names: Vec<_> = names.cloned().collect();
        let joined = names.iter().map(ObjectName::as_str).collect::<Vec<_>>().join(" ");
        self.shared.run(Op::MakeDurable, &joined, || self.inner.make_durable(&mut names.iter()))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.shared.run(Op::Delete, name.as_str(), || self.inner.delete(name))
    }

    fn sweep(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.inner.sweep(older_than)
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.inner.describe())
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("inner", &self.inner)
            .field("ops", &self.ops())
            .finish_non_exhaustive()
    }
}

struct FaultyStaged {
    inner: Box<dyn Staged>,
    shared: Arc<Shared>,
}

impl Staged for FaultyStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.shared.run_bytes(Op::StageWrite, "", bytes.len(), |arriving| {
            self.inner.write(&bytes[..arriving])
        })
    }

    fn commit(self: Box<Self>, name: &ObjectName) -> Result<Put, StoreError> {
        let Self { inner, shared } = *self;
        shared.run(Op::StageCommit, name.as_str(), || inner.commit(name))
    }
}

fn injected(op: Op, name: &str) -> StoreError {
    let op = match op {
        Op::Put => "put",
        Op::Stage => "stage",
        Op::StageWrite => "write",
        Op::StageCommit => "commit",
        Op::Get => "get",
        Op::GetRange => "get a range of",
        Op::Len => "measure",
        Op::List => "list",
        Op::Delete => "delete",
        Op::MakeDurable => "make durable",
    };
    StoreError::Io { name: name.into(), op, source: io::Error::other("injected fault") }
}

fn full(name: &str) -> StoreError {
    StoreError::Full { name: name.into(), source: rustix::io::Errno::NOSPC.into() }
}
