//! A backup leaves the page cache as it found it: files that were not in it are not afterwards, files
//! that were still are.

mod support;

use std::fs::File;

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::sys::file::{CacheAdvice, advise, is_cached};
use strongroom::watch::Tally;

use support::{new_store, noise, open};

const MIB: usize = 1 << 20;

#[test]
fn cold_files_stay_cold_and_warm_ones_warm() {
    // Not on tmpfs, whose pages never leave; where the system cannot tell, there is nothing to see.
    let folder = tempfile::tempdir().expect("a folder");
    let sizes = [100_000, 3 * MIB, 9 * MIB];
    let mut files = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        for temperature in ["cold", "warm"] {
            let path = folder.path().join(format!("{temperature}-{number}"));
            std::fs::write(&path, noise(number as u64, size)).expect("written");
            let file = File::open(&path).expect("opened");
            file.sync_all().expect("synced");
            if temperature == "cold" {
                advise(&file, 0, 0, CacheAdvice::DontNeed);
            }
            files.push((path, file, size, temperature == "warm"));
        }
    }
    let pages = |size: usize| [0, size / 3, size / 2, size - 1].map(|at| at as u64);
    let cached = |file: &File, size| pages(size).map(|at| is_cached(file, at));
    // Asking may make the system read ahead, so that is done with files of its own.
    let probe = folder.path().join("probe");
    std::fs::write(&probe, noise(9, MIB)).expect("written");
    let probe = File::open(&probe).expect("opened");
    probe.sync_all().expect("synced");
    advise(&probe, 0, 0, CacheAdvice::DontNeed);
    if is_cached(&probe, 0) != Some(false) {
        return;
    }

    let env = Env::system(2);
    let repo = open(&new_store(&env), None, &env);
    let paths: Vec<_> = files.iter().map(|(path, ..)| path.clone()).collect();
    let report =
        backup::run(&repo, Source::Paths(&paths), &BackupOptions::default(), &Tally::default());
    assert_eq!(report.expect("backed up").counts.files, 6);
    for (path, file, size, warm) in &files {
        assert_eq!(cached(file, *size), [Some(*warm); 4], "{}", path.display());
    }
}
