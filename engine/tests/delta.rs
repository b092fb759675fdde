//! Changed files are stored as differences to what was there before: small, one step deep, and exactly what they were when they
//! come back; with bases from the repository, or, for a key that cannot read it, from the client's own cache.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;
use strongroom::backup::BackupOptions;
use strongroom::browse::{self, CodecStats};
use strongroom::env::Env;
use strongroom::format::slot::{KeyFileSecret, Role, Unlock};
use strongroom::maintain::check::{self, CheckOptions};
use strongroom::maintain::forget::{self, ForgetOptions};
use strongroom::maintain::keys;
use strongroom::maintain::prune::{self, PruneOptions};
use strongroom::repo::Repo;
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::MemoryStore;
use strongroom::watch::Tally;

use support::{FUTURE_NS, assert_same, back_up, back_up_with, new_store, noise, open, picture};

const WRITER: KeyFileSecret = KeyFileSecret([9; 32]);

/// Rows of a table; `seed` decides about all that is in them.
fn rows(seed: u64, count: usize) -> Vec<String> {
    let words = noise(seed, count * 8);
    let row = |(n, word): (usize, &[u8])| {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        let (result, day, by) = (word % 997, word / 997 % 28 + 1, word >> 40);
        format!("STR-01,{n:06},VISIT {},{result}.{},2026-11-{day:02},{by:06x}\n", n % 7, word % 10)
    };
    words.chunks_exact(8).enumerate().map(row).collect()
}

/// The table a night later: one row in `one_in` is another.
fn night(table: &mut [String], seed: u64, one_in: usize) {
    let new = rows(seed, table.len());
    for (row, new) in table.iter_mut().zip(new).step_by(one_in).skip(1) {
        *row = new;
    }
}

fn codec(repo: &Repo, name: &str) -> CodecStats {
    let stats = browse::stats(repo).unwrap().frames_by_codec;
    stats.into_iter().find(|codec| codec.codec == name).unwrap_or_default()
}

fn assert_restores(repo: &Repo, snapshot: &str, source: &Path, wanted: &support::Picture) {
    let target = tempfile::tempdir().unwrap();
    let info = repo.find_snapshot(snapshot).unwrap();
    let path = fs::canonicalize(source).unwrap();
    let path = path.to_str().unwrap().as_bytes();
    let (options, watch) = (RestoreOptions::default(), Tally::default());
    restore::run(repo, &info, Some(path), target.path(), &options, &watch).unwrap();
    assert_eq!(watch.problems(), []);
    let mut found = picture(target.path());
    found.insert(Vec::new(), wanted[&Vec::new()].clone());
    assert_same(wanted, &found);
}

fn assert_clean(repo: &Repo) {
    let options = CheckOptions { read_data: true };
    let report = check::run(repo, &options, &Tally::default()).unwrap();
    assert_eq!(report.damages, []);
}

/// Every base of every delta is stored in full: one step deep.
fn assert_one_step(repo: &Repo) {
    let index = repo.index().unwrap();
    let mut deltas = 0;
    for segment in index.segments() {
        let run = segment.run();
        for frame in run.frames().filter(|frame| frame.bases > 0) {
            deltas += 1;
            for base in run.bases(&frame).unwrap() {
                let full = index.copies(&base.id).iter().any(|copy| copy.place.frame.bases == 0);
                assert!(full, "base {} of a delta is none itself", base.id);
            }
        }
    }
    assert!(deltas > 0);
}

/// A repository with a writer that cannot read what it has stored.
fn with_writer(env: &Env) -> MemoryStore {
    let store = new_store(env);
    keys::add(&open(&store, None, env), Role::Backup, "edc", Unlock::KeyFile(&WRITER)).unwrap();
    store
}

fn open_writer(store: &MemoryStore, cache: &Path, env: &Env) -> Repo {
    Repo::open(Arc::new(store.clone()), Unlock::KeyFile(&WRITER), Some(cache), env).unwrap()
}

/// The files of the cache of bases.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let all = picture(cache);
    let kept = all.iter().filter(|(path, facts)| {
        facts.kind == "file" && path.windows(7).any(|part| part == b"/bases/")
    });
    kept.map(|(path, _)| cache.join(OsStr::from_bytes(path))).collect()
}

#[test]
fn a_nightly_table_costs_what_changed() {
    let env = Env::seeded(1, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut table = rows(1, 40_000);
    let mut wanted = Vec::new();
    let mut stored = Vec::new();
    for n in 0..4 {
        fs::write(source.path().join("LB.csv"), table.concat()).unwrap();
        wanted.push(picture(source.path()));
        let report = back_up(&open(&store, None, &env), source.path());
        stored.push((report.snapshot.unwrap(), report.counts.bytes_stored));
        night(&mut table, 100 + n, 100);
        table.extend(rows(200 + n, 80));
    }
    let plain = table.concat().len() as u64;
    // With chunks of 16 KiB most of a night is the index: a row for each chunk, however small.
    for (_, night) in &stored[1..] {
        assert!(night * 14 < plain, "{night} of {plain}");
    }
    let repo = open(&store, None, &env);
    let (full, deltas) = (codec(&repo, "zstd"), codec(&repo, "delta"));
    assert!(deltas.plain_bytes * 10 > plain * 3 * 9, "{deltas:?} of {plain}");
    assert!(deltas.stored_bytes * 80 < deltas.plain_bytes, "{deltas:?}");
    assert!(full.plain_bytes * 10 < plain * 11, "{full:?} of {plain}");
    assert_one_step(&repo);
    for ((snapshot, _), wanted) in stored.iter().zip(&wanted) {
        assert_restores(&repo, &snapshot.to_string(), source.path(), wanted);
    }
    assert_clean(&repo);
}

/// Rows that all differ a little, and a few more here and there: nothing of it is stored already,
/// and the further on, the more it has moved.
#[test]
fn what_moves_further_and_further_is_found() {
    let env = Env::seeded(9, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut table = rows(1, 20_000);
    let path = source.path().join("LB.csv");
    fs::write(&path, table.concat()).unwrap();
    back_up(&open(&store, None, &env), source.path());
    for at in (0..20_000).step_by(200).rev() {
        table.splice(at..at + 1, rows(at as u64 + 2, 25));
    }
    let plain = table.concat().len() as u64;
    fs::write(&path, table.concat()).unwrap();
    let wanted = picture(source.path());
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let deltas = codec(&repo, "delta");
    assert!(deltas.plain_bytes * 10 > plain * 9, "{deltas:?} of {plain}");
    assert_restores(&repo, "latest", source.path(), &wanted);
}

/// A file that begins with what nobody has seen, and goes on as it was: it is not given up.
#[test]
fn after_much_that_is_unlike_one_chunk_in_eight_is_asked() {
    let env = Env::seeded(10, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let path = source.path().join("mixed.bin");
    let mut bytes = [noise(1, 600_000), rows(1, 20_000).concat().into_bytes()].concat();
    fs::write(&path, &bytes).unwrap();
    back_up(&open(&store, None, &env), source.path());
    bytes[..600_000].copy_from_slice(&noise(2, 600_000));
    (600_000..bytes.len()).step_by(5_000).for_each(|at| bytes[at] ^= 1);
    fs::write(&path, &bytes).unwrap();
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let deltas = codec(&repo, "delta");
    assert!(deltas.plain_bytes > 600_000, "{deltas:?}");
}

#[test]
fn many_small_files_share_a_frame_of_deltas() {
    let env = Env::seeded(2, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut files: Vec<Vec<String>> = (0..150).map(|n| rows(n, 60)).collect();
    let mut stored = Vec::new();
    for n in 0..3 {
        for (name, file) in files.iter().enumerate() {
            fs::write(source.path().join(format!("{name:03}.csv")), file.concat()).unwrap();
        }
        let wanted = picture(source.path());
        let repo = open(&store, None, &env);
        let report = back_up(&repo, source.path());
        assert_restores(&repo, "latest", source.path(), &wanted);
        stored.push(report.bytes_stored);
        files.iter_mut().for_each(|file| night(file, 300 + n, 20));
    }
    let repo = open(&store, None, &env);
    let deltas = codec(&repo, "delta");
    assert!((3..20).contains(&deltas.frames), "{deltas:?}");
    // Names, times and index rows of 150 files are a good part of it.
    assert!(stored[1] * 2 < stored[0] && stored[2] * 2 < stored[0], "{stored:?}");
    assert_one_step(&repo);
    assert_clean(&repo);
}

#[test]
fn a_small_chunk_has_one_base_even_if_two_resemble_it() {
    let env = Env::seeded(8, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let write = |cut: bool| {
        for n in 0..250 {
            let mut bytes = rows(n, 450).concat().into_bytes();
            if cut {
                // A short end, which begins where an old chunk began: the one before resembles it, too.
                bytes.truncate(14_000);
                bytes[13_000] ^= 1;
            }
            fs::write(source.path().join(n.to_string()), bytes).unwrap();
        }
    };
    write(false);
    back_up(&open(&store, None, &env), source.path());
    write(true);
    let wanted = picture(source.path());
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    assert_restores(&repo, "latest", source.path(), &wanted);
    let index = repo.index().unwrap();
    let (mut deltas, mut chunks) = (0, 0);
    for segment in index.segments() {
        let run = segment.run();
        for (number, offsets) in run.shared_deltas() {
            let bases = run.bases(&run.frame(number).unwrap()).unwrap().len();
            assert_eq!(offsets.len(), bases);
            (deltas, chunks) = (deltas + 1, chunks + bases);
        }
    }
    assert!(deltas >= 2 && chunks > 64, "{deltas} frames of {chunks} chunks");
    assert_clean(&repo);
}

#[test]
fn content_that_drifts_is_stored_in_full_again() {
    let env = Env::seeded(3, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut table = rows(1, 2_000);
    let mut full = BTreeSet::new();
    for n in 0..30 {
        fs::write(source.path().join("drifts.csv"), table.concat()).unwrap();
        let repo = open(&store, None, &env);
        back_up(&repo, source.path());
        full.insert(codec(&repo, "zstd").plain_bytes / 20_000);
        // Other rows each night.
        let seed = 500 + n;
        let new = rows(seed, 2_000);
        (0..60).for_each(|k| {
            let at = (k * 31 + n as usize * 7) % table.len();
            table[at] = new[at].clone();
        });
    }
    let repo = open(&store, None, &env);
    assert!(full.len() > 2, "never again in full: {full:?}");
    assert!(codec(&repo, "delta").frames > 30);
    assert_one_step(&repo);
    assert_clean(&repo);
}

#[test]
fn bases_outlive_the_snapshots_they_came_with() {
    let env = Env::seeded(4, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut table = rows(1, 10_000);
    let mut snapshots = Vec::new();
    for n in 0..3 {
        fs::write(source.path().join("LB.csv"), table.concat()).unwrap();
        snapshots.push(back_up(&open(&store, None, &env), source.path()).snapshot.unwrap());
        night(&mut table, 600 + n, 50);
    }
    let wanted = picture(source.path());
    let repo = open(&store, None, &env);
    forget::run(&repo, &snapshots[..2], &ForgetOptions::default(), &Tally::default()).unwrap();
    for _ in 0..4 {
        let options = PruneOptions { max_unused: 0.0, ..PruneOptions::default() };
        prune::run(&open(&store, None, &env), &options, &Tally::default()).unwrap();
    }
    let repo = open(&store, None, &env);
    assert_eq!(repo.snapshots().unwrap().len(), 1);
    assert_one_step(&repo);
    assert_restores(&repo, "latest", source.path(), &wanted);
    assert_clean(&repo);
}

#[test]
fn a_key_that_cannot_read_takes_bases_from_its_cache() {
    let env = Env::seeded(5, FUTURE_NS);
    let store = with_writer(&env);
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut table = rows(1, 20_000);
    let mut back_up = |cache: &Path, bytes: u64, seed: u64| {
        night(&mut table, seed, 100);
        fs::write(source.path().join("LB.csv"), table.concat()).unwrap();
        let options = BackupOptions { base_cache_bytes: bytes, ..BackupOptions::default() };
        let (report, problems) =
            back_up_with(&open_writer(&store, cache, &env), source.path(), &options);
        assert_eq!(problems, []);
        report.counts.bytes_stored
    };
    let first = back_up(cache.path(), 0, 700);
    let without = back_up(cache.path(), 0, 701);
    assert!(without * 2 > first, "nothing to tell it by: {without} of {first}");
    back_up(cache.path(), 8 << 20, 702);
    let with = back_up(cache.path(), 8 << 20, 703);
    assert!(with * 5 < first, "{with} of {first}");

    // What is kept is of no use to another, and within its limit.
    let (mut bytes, needle) = (0, b"STR-01,");
    for path in kept(cache.path()) {
        let content = fs::read(path).unwrap();
        assert!(!content.windows(needle.len()).any(|window| window == needle));
        bytes += content.len();
    }
    assert!((100_000..8 << 20).contains(&bytes), "{bytes}");

    // A byte of it rots, and all of it is lost: it costs space, nothing else.
    for path in kept(cache.path()) {
        let mut content = fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&path, content).unwrap();
    }
    back_up(cache.path(), 8 << 20, 704);
    kept(cache.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    let again = back_up(cache.path(), 8 << 20, 705);
    assert!(again * 2 > first, "{again} of {first}");
    let wanted = picture(source.path());
    let owner = open(&store, None, &env);
    assert_restores(&owner, "latest", source.path(), &wanted);
    assert_one_step(&owner);
    assert_clean(&owner);
}

#[test]
fn the_cache_of_bases_keeps_to_its_limit() {
    let env = Env::seeded(6, FUTURE_NS);
    let store = with_writer(&env);
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = BackupOptions { base_cache_bytes: 1 << 20, ..BackupOptions::default() };
    for n in 0..3 {
        for name in 0..4 {
            let table = rows(n * 10 + name, 30_000).concat();
            fs::write(source.path().join(format!("{name}.csv")), table).unwrap();
        }
        back_up_with(&open_writer(&store, cache.path(), &env), source.path(), &options);
        let files = kept(cache.path());
        let lens: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().len()).collect();
        let sum: u64 = lens.iter().sum();
        assert!(lens.len() > 4 && sum <= 1 << 20, "night {n}: {lens:?}");
        assert!(sum > 1 << 19, "night {n}: {lens:?}");
    }
}

#[test]
fn a_damaged_base_is_no_base() {
    let env = Env::seeded(7, FUTURE_NS);
    let (source, store) = (tempfile::tempdir().unwrap(), new_store(&env));
    let mut table = rows(1, 4_000);
    fs::write(source.path().join("LB.csv"), table.concat()).unwrap();
    back_up(&open(&store, None, &env), source.path());
    let packs = support::hand::names(&store, "packs/");
    for name in packs {
        store.tamper(&name, |bytes| bytes[5_000] ^= 1);
    }
    night(&mut table, 800, 100);
    fs::write(source.path().join("LB.csv"), table.concat()).unwrap();
    let wanted = picture(source.path());
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    assert_restores(&open(&store, None, &env), "latest", source.path(), &wanted);
}

#[derive(Debug, Clone)]
enum Edit {
    Rows { seed: u64, one_in: usize },
    Insert { at: usize, seed: u64, rows: usize },
    Delete { at: usize, rows: usize },
    Move { from: usize, to: usize, rows: usize },
    Append { seed: u64, rows: usize },
    Replace { seed: u64, rows: usize },
    Flip { at: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let (at, seed, few) = (any::<usize>, any::<u64>, || 1usize..200);
    prop_oneof![
        4 => (seed(), 2usize..300).prop_map(|(seed, one_in)| Edit::Rows { seed, one_in }),
        2 => (at(), seed(), few()).prop_map(|(at, seed, rows)| Edit::Insert { at, seed, rows }),
        2 => (at(), few()).prop_map(|(at, rows)| Edit::Delete { at, rows }),
        1 => (at(), at(), few()).prop_map(|(from, to, rows)| Edit::Move { from, to, rows }),
        1 => (seed(), few()).prop_map(|(seed, rows)| Edit::Append { seed, rows }),
        1 => (seed(), 0usize..3000).prop_map(|(seed, rows)| Edit::Replace { seed, rows }),
        1 => at().prop_map(|at| Edit::Flip { at }),
    ]
}

fn apply(table: &mut Vec<String>, edit: &Edit) {
    let len = table.len();
    let place = |at: usize| at % (len + 1);
    match *edit {
        Edit::Rows { seed, one_in } => night(table, seed, one_in),
        Edit::Insert { at, seed, rows: count } => {
            drop(table.splice(place(at)..place(at), rows(seed, count)));
        }
        Edit::Delete { at, rows } => drop(table.drain(place(at)..len.min(place(at) + rows))),
        Edit::Move { from, to, rows } => {
            let moved: Vec<String> =
                table.drain(place(from)..len.min(place(from) + rows)).collect();
            let to = to % (table.len() + 1);
            drop(table.splice(to..to, moved));
        }
        Edit::Append { seed, rows: count } => table.extend(rows(seed, count)),
        Edit::Replace { seed, rows: count } => *table = rows(seed, count),
        Edit::Flip { at } if len > 0 => {
            let row = &mut table[at % len];
            *row = row.chars().rev().collect();
        }
        Edit::Flip { .. } => {}
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_edits_come_back_identical(
        seed in any::<u64>(),
        sizes in prop::collection::vec(0usize..3000, 1..6),
        nights in prop::collection::vec(prop::collection::vec((any::<usize>(), edit()), 1..5), 1..5),
        threads in 1usize..4,
        by_writer in any::<bool>(),
    ) {
        let env = Env::system(threads);
        let store = with_writer(&env);
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut tables: Vec<Vec<String>> =
            sizes.iter().enumerate().map(|(n, &len)| rows(seed ^ n as u64, len)).collect();
        let mut pictures = Vec::new();
        for edits in std::iter::once(&Vec::new()).chain(&nights) {
            for (which, edit) in edits {
                let which = which % tables.len();
                apply(&mut tables[which], edit);
            }
            for (name, table) in tables.iter().enumerate() {
                fs::write(source.path().join(name.to_string()), table.concat()).unwrap();
            }
            let repo = if by_writer {
                open_writer(&store, cache.path(), &env)
            } else {
                open(&store, None, &env)
            };
            let options = BackupOptions { base_cache_bytes: 2 << 20, ..BackupOptions::default() };
            let (report, problems) = back_up_with(&repo, source.path(), &options);
            assert_eq!(problems, []);
            pictures.push((report.snapshot.unwrap().to_string(), picture(source.path())));
        }
        let repo = open(&store, None, &env);
        for (snapshot, wanted) in &pictures {
            assert_restores(&repo, snapshot, source.path(), wanted);
        }
        assert_clean(&repo);
    }
}
