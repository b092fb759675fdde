//! Files are truncated under their maps; a SIGBUS of someone else still kills.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;

use super::{GuardedMap, MAPS_MAX, SLOTS};
use crate::sys::host::page_size;

const PAGES: usize = 16;

fn filled(bytes: usize) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.write_all_at(&vec![7; bytes], 0)?;
    Ok(file)
}

#[test]
fn maps_any_range() -> io::Result<()> {
    let bytes: Vec<u8> = (0..3 * page_size()).map(|at| (at % 251) as u8).collect();
    let file = tempfile::tempfile()?;
    file.write_all_at(&bytes, 0)?;
    let page = page_size();
    for (offset, len) in [(0, 0), (5, 0), (0, 1), (1, page), (page, page), (page - 1, 2 * page)] {
        let map = GuardedMap::map(&file, offset as u64, len)?;
        assert!(*map == bytes[offset..offset + len], "{offset} + {len}");
        assert!(!map.faulted());
    }
    assert!(GuardedMap::map(&file, 1, usize::MAX).is_err());
    Ok(())
}

#[test]
fn truncation_is_survived_and_told() -> io::Result<()> {
    let (page, kept) = (page_size(), page_size() * 5 + 100);
    let file = filled(PAGES * page)?;
    let map = GuardedMap::map(&file, 10, PAGES * page - 10)?;
    let untouched = GuardedMap::map(&file, 0, 5 * page)?;
    assert!(map.iter().all(|byte| *byte == 7));
    file.set_len(kept as u64)?;
    assert!(!map.faulted(), "nothing was read yet");
    let intact = map.iter().take_while(|byte| **byte == 7).count();
    assert_eq!(intact, kept - 10);
    assert!(map[intact..].iter().all(|byte| *byte == 0));
    assert!(map.faulted());
    assert!(untouched.iter().all(|byte| *byte == 7));
    assert!(!untouched.faulted());
    Ok(())
}

#[test]
fn beyond_the_end_from_the_start() -> io::Result<()> {
    let file = filled(10)?;
    let map = GuardedMap::map(&file, 0, 3 * page_size())?;
    assert!(!map.faulted(), "populating does not fault");
    assert_eq!(map[2 * page_size()], 0);
    assert!(map.faulted());
    Ok(())
}

/// Threads read maps of one shrinking file while others come and go in the same slots.
#[test]
fn threads_fault_at_once() -> io::Result<()> {
    let page = page_size();
    let file = filled(PAGES * page)?;
    let shared = GuardedMap::map(&file, 0, PAGES * page)?;
    file.set_len(page as u64)?;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_eq!(shared.iter().filter(|byte| **byte == 7).count(), page);
                assert!(shared.faulted());
                for _ in 0..500 {
                    let own = GuardedMap::map(&file, 0, 3 * page).expect("maps");
                    assert!(!own.faulted(), "a slot keeps nothing of its last map");
                    assert_eq!(own[2 * page], 0);
                    assert!(own.faulted());
                }
            });
        }
    });
    Ok(())
}

/// In a process of its own, as the table is everyone's.
#[test]
fn a_full_table_is_an_error() {
    let (status, _) = in_child("full_table");
    assert!(status.success(), "{status}");
}

#[test]
fn other_faults_still_kill() {
    for (child, lived) in [("foreign_fault", "mapped"), ("sent_signal", "guarded")] {
        let (status, said) = in_child(child);
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{child}: {status} {said}");
        assert!(said.contains(lived), "{child} came as far as the fault: {said}");
    }
}

fn in_child(test: &str) -> (std::process::ExitStatus, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    let name = format!("sys::map::tests::{test}");
    command.args(["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.stderr(Stdio::null()).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "no such test: {said}");
    (output.status, said)
}

#[test]
#[ignore = "run by a_full_table_is_an_error"]
fn full_table() -> io::Result<()> {
    let file = filled(1)?;
    let maps: Vec<_> = (0..MAPS_MAX).map(|_| GuardedMap::map(&file, 0, 1)).collect();
    assert!(maps.iter().all(Result::is_ok));
    let refused = GuardedMap::map(&file, 0, 1).expect_err("table is full");
    assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
    drop(maps);
    assert!(GuardedMap::map(&file, 0, 1).is_ok());
    Ok(())
}

#[test]
#[ignore = "run by other_faults_still_kill, kills its process"]
fn foreign_fault() -> io::Result<()> {
    let file = filled(1)?;
    let guarded = GuardedMap::map(&file, 0, 1)?;
    // SAFETY: as safe as file maps get; the file is ours.
    let foreign = unsafe { memmap2::MmapOptions::new().len(3 * page_size()).map(&file) }?;
    println!("mapped {}", guarded.len());
    println!("lived {}", foreign[2 * page_size()]);
    Ok(())
}

#[test]
#[ignore = "run by other_faults_still_kill, kills its process"]
fn sent_signal() -> io::Result<()> {
    let file = filled(1)?;
    let guarded = GuardedMap::map(&file, 0, 1)?;
    println!("guarded {}", guarded.len());
    // the standard library's handler, to whom ours hands the first, swallows it and steps down
    for _ in 0..2 {
        // SAFETY: takes and returns integers.
        unsafe { libc::raise(libc::SIGBUS) };
    }
    Ok(())
}

#[test]
fn a_torn_slot_matches_nothing() {
    let slot = super::Slot::new();
    slot.end.store(30, super::SeqCst);
    slot.start.store(10, super::SeqCst);
    assert_eq!(slot.range_around(10), Some((10, 30)));
    assert_eq!(slot.range_around(9), None);
    assert_eq!(slot.range_around(30), None);
    slot.turn.store(1, super::SeqCst);
    assert_eq!(slot.range_around(10), None);
    slot.turn.store(2, super::SeqCst);
    slot.release();
    assert_eq!(slot.range_around(10), None);
    assert_eq!(SLOTS.len(), MAPS_MAX);
}
