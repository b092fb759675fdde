//! Read-only file maps that survive the file being truncated, or its disk failing, underneath.
//!
//! Touching a mapped page that the file no longer backs raises SIGBUS. A process-wide handler looks
//! the address up in a fixed table of live maps, puts a page of zeros there, marks the map as
//! faulted and lets the instruction run again. Any other SIGBUS goes to the handler that was there
//! before. The bytes are advice until [`GuardedMap::faulted`] was asked after the last read; a
//! truncation inside the last page raises nothing (the rest of that page reads as zeros), so compare
//! the file's stat as well. A system call that is handed faulting bytes fails with `EFAULT` instead.
//!
//! Does not decide what is mapped or how large windows are.
#![expect(unsafe_code, reason = "maps, and the signal handler that guards them")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::ops::Deref;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize, compiler_fence};
use std::sync::{Once, OnceLock};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::fault;
use super::host::page_size;

/// Most maps that live at a time; one more is an error and the caller reads instead.
pub const MAPS_MAX: usize = 4096;

/// Windows up to this size are faulted in by one call; larger maps page by page.
const POPULATE_BYTES_MAX: usize = 64 << 20;

/// A range of a file in memory.
#[derive(Debug)]
pub struct GuardedMap {
    /// Where the mapping begins, on a page; dangling if empty.
    base: NonNull<c_void>,
    mapped_bytes: usize,
    /// Bytes before the requested range, which need not begin on a page.
    lead_bytes: usize,
    slot: Option<&'static Slot>,
}

// SAFETY: the memory is read-only and owned by this value; the slot is atomics only.
unsafe impl Send for GuardedMap {}
// SAFETY: as above; no method writes.
unsafe impl Sync for GuardedMap {}

impl GuardedMap {
    /// Maps `offset..offset + len`, any alignment. `QuotaExceeded` if [`MAPS_MAX`] maps live.
    pub fn map(file: &File, offset: u64, len: usize) -> io::Result<GuardedMap> {
        let map = Self::map_only(file, offset, len)?;
        map.advise(match map.mapped_bytes {
            0..=POPULATE_BYTES_MAX => Advice::LinuxPopulateRead,
            _ => Advice::Sequential,
        });
        Ok(map)
    }

    /// As `map`, for what will be read here and there, for long: nothing is read ahead, but what is touched comes in
    /// huge pages where the file system can (ext4, XFS, Btrfs), as most such reads miss the TLB too.
    pub fn map_untouched(file: &File, offset: u64, len: usize) -> io::Result<GuardedMap> {
        let map = Self::map_only(file, offset, len)?;
        map.advise(Advice::LinuxHugepage);
        Ok(map)
    }

    fn map_only(file: &File, offset: u64, len: usize) -> io::Result<GuardedMap> {
        let torn = fault::pass_bytes("map", len)? < len;
        let lead_bytes = (offset % page_size() as u64) as usize;
        let mapped_bytes = len.checked_add(lead_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        if len == 0 {
            let base = NonNull::dangling();
            return Ok(GuardedMap { base, mapped_bytes: 0, lead_bytes: 0, slot: None });
        }
        install_handler();
        let start = offset - lead_bytes as u64;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe {
            mmap(null_mut(), mapped_bytes, ProtFlags::READ, MapFlags::PRIVATE, file, start)
        }?;
        let base = NonNull::new(base).expect("the kernel maps nothing at null");
        let mut map = GuardedMap { base, mapped_bytes, lead_bytes, slot: None };
        map.slot = Slot::claim(base.as_ptr() as usize, mapped_bytes);
        if map.slot.is_none() {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many live file maps"));
        }
        if torn && let Some(slot) = map.slot {
            slot.faulted.store(true, SeqCst);
        }
        Ok(map)
    }

    /// Whether any byte read so far was made up, because the file no longer had it.
    pub fn faulted(&self) -> bool {
        // the compiler must not move earlier reads of the map behind the load
        compiler_fence(SeqCst);
        self.slot.is_some_and(|slot| slot.faulted.load(SeqCst))
    }

    /// Best effort: pages that would fault are left to the handler.
    fn advise(&self, advice: Advice) {
        // SAFETY: exactly our mapping; none of the advice given here changes what it holds.
        let _ = unsafe { madvise(self.base.as_ptr(), self.mapped_bytes, advice) };
    }
}

impl Deref for GuardedMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole = NonNull::slice_from_raw_parts(self.base.cast(), self.mapped_bytes);
        // SAFETY: mapped readable until drop (for no bytes, dangling is right); the handler keeps
        // every page backed. Another process may change the bytes, as in every file map: no one
        // here holds them to any invariant, and what matters is copied and hashed again.
        let bytes: &[u8] = unsafe { whole.as_ref() };
        &bytes[self.lead_bytes..]
    }
}

impl Drop for GuardedMap {
    fn drop(&mut self) {
        // before the address range can be anyone else's
        if let Some(slot) = self.slot {
            slot.release();
        }
        if self.mapped_bytes > 0 {
            // SAFETY: exactly the mapping made in `map`, and no borrow of it outlives `self`.
            let unmapped = unsafe { munmap(self.base.as_ptr(), self.mapped_bytes) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// One live map in the handler's table. The handler may run in one thread while others claim and
/// release slots, hence a sequence lock: `turn` is odd while `start` and `end` change, and a reader
/// that saw it move ignores the slot. That is safe, because the map whose page faults is borrowed
/// by the faulting instruction, so its slot stands still.
#[derive(Debug)]
struct Slot {
    turn: AtomicUsize,
    /// Zero if free.
    start: AtomicUsize,
    end: AtomicUsize,
    faulted: AtomicBool,
}

static SLOTS: [Slot; MAPS_MAX] = [const { Slot::new() }; MAPS_MAX];

impl Slot {
    const fn new() -> Slot {
        Slot {
            turn: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            faulted: AtomicBool::new(false),
        }
    }

    fn claim(start: usize, bytes: usize) -> Option<&'static Slot> {
        SLOTS.iter().find(|slot| {
            let turn = slot.turn.load(SeqCst);
            let free = turn.is_multiple_of(2) && slot.start.load(SeqCst) == 0;
            if !free || slot.turn.compare_exchange(turn, turn + 1, SeqCst, SeqCst).is_err() {
                return false;
            }
            slot.faulted.store(false, SeqCst);
            slot.end.store(start + bytes, SeqCst);
            slot.start.store(start, SeqCst);
            slot.turn.store(turn + 2, SeqCst);
            true
        })
    }

    fn release(&self) {
        self.turn.fetch_add(1, SeqCst);
        self.start.store(0, SeqCst);
        self.turn.fetch_add(1, SeqCst);
    }

    /// In the handler: the range, if it stood still and holds `address`.
    fn range_around(&self, address: usize) -> Option<(usize, usize)> {
        let turn = self.turn.load(SeqCst);
        let (start, end) = (self.start.load(SeqCst), self.end.load(SeqCst));
        let still = turn.is_multiple_of(2) && turn == self.turn.load(SeqCst);
        (still && start != 0 && (start..end).contains(&address)).then_some((start, end))
    }
}

/// The action before ours; written before our handler can run.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        PAGE_BYTES.store(page_size(), SeqCst);
        // SAFETY: a C struct of integers, an integer set and a nullable function: zeros are valid.
        let mut previous: libc::sigaction = unsafe { zeroed() };
        // SAFETY: asks only; `previous` is valid for writing.
        let asked = unsafe { libc::sigaction(libc::SIGBUS, null(), &mut previous) };
        let _ = PREVIOUS.set(previous);
        // SAFETY: as above; a zeroed mask blocks nothing further.
        let mut ours: libc::sigaction = unsafe { zeroed() };
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        ours.sa_sigaction = handler as usize;
        // on the thread's own stack, which has room; the alternate one is sized for a bare frame
        ours.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `ours` is complete and its handler async-signal-safe (see there).
        let set = unsafe { libc::sigaction(libc::SIGBUS, &ours, null_mut()) };
        assert!(asked == 0 && set == 0, "SIGBUS is a signal that can be handled");
    });
}

/// Async-signal-safe: reads atomics and makes `mmap`, `sigaction` and `raise` calls, nothing else;
/// `errno` changes only on the way into a crash.
extern "C" fn on_sigbus(signal: i32, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid record.
    let info = unsafe { &*info };
    // Only faults of the running instruction: signals sent by processes carry no address, and an
    // early warning of broken memory (BUS_MCEERR_AO) may name a map that another thread is dropping.
    let own = matches!(info.si_code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
    if own {
        // SAFETY: these codes come with an address.
        let address = unsafe { info.si_addr() } as usize;
        if SLOTS.iter().any(|slot| heal(slot, address)) {
            return;
        }
    }
    // The instruction faults again under the previous action; a signal that was sent is sent again.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: an action that the kernel gave us.
        unsafe { libc::sigaction(signal, previous, null_mut()) };
    }
    if !own {
        // SAFETY: async-signal-safe; delivered when this handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// In the handler: backs the page at `address` with zeros if it is in the slot's map.
fn heal(slot: &Slot, address: usize) -> bool {
    let Some((start, end)) = slot.range_around(address) else { return false };
    slot.faulted.store(true, SeqCst);
    let page_bytes = PAGE_BYTES.load(SeqCst);
    let page = address - address % page_bytes;
    // If the process has no room for one more mapping, replacing this one as a whole needs none.
    put_zeros(page, page_bytes) || put_zeros(start, end - start)
}

fn put_zeros(start: usize, bytes: usize) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: whole pages inside a live guarded map, which the faulting instruction keeps borrowed;
    // they stay readable throughout, and drop unmaps them with the rest.
    unsafe { mmap_anonymous(start as *mut c_void, bytes, ProtFlags::READ, flags) }.is_ok()
}

#[cfg(test)]
mod tests;
