//! One function for many items, on as many threads as asked for. With one thread it runs inline, in order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Calls `work` for each item; `scratch` makes what one thread keeps from item to item. Stops early at the first error.
pub fn each<T: Sync, S>(
    threads: usize,
    items: &[T],
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<()> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        let mut scratch = scratch();
        return items.iter().try_for_each(|item| work(&mut scratch, item));
    }
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::default();
    let work_off = || {
        let mut scratch = scratch();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(&mut scratch, item) {
                next.store(items.len(), Ordering::Relaxed);
                failure.lock().expect("no panic holds this lock").get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work_off);
        }
    });
    failure.into_inner().expect("no panic holds this lock").map_or(Ok(()), Err)
}
