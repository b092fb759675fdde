//! The cache folder, whatever killed, slow or hostile neighbours leave in it or do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use super::{CHUNKS, Index, PACKS, World, chunk_id, files, flip, pack_row, run_of, world_of_many};
use crate::format::id::ChunkId;
use crate::format::index::Run;
use crate::repo::checked::{Checked, Writing};
use crate::repo::live::Places;
use crate::repo::segment::Segment;
use crate::sys::fault::{Fault, with_plan};

#[test]
fn what_dead_writers_left_is_swept_and_what_is_being_written_is_not() {
    let world = world_of_many();
    let before = world.files();
    let place = |name: &str| world.folder.path().join(name);
    let dead = ["a.run.1-0x7f.new", "b.runs.2-0x7f.new", "c.tier.3-0x7f.new"].map(place);
    dead.iter().for_each(|path| std::fs::write(path, "half").unwrap());
    let mut writing = Writing::create(&place("alive.run")).unwrap();
    writing.write(b"half").unwrap();
    world.list(&[]).assert_same(&world.open(false).unwrap(), "beside them");
    assert!(dead.iter().all(|path| !path.exists()), "{:?}", world.files());
    assert_eq!(world.files().len(), before.len() + 1, "{:?}", world.files());
    writing.finish(b"", b"strongroom test1", false).expect("nobody took it away");
    assert!(place("alive.run").exists());
}

#[test]
fn a_range_is_proven_to_its_last_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (path, kind) = (folder.path().join("a.run"), b"strongroom test1");
    let data: Vec<u8> = (0..3 * 4096 + 100).map(|at| (at % 251) as u8).collect();
    let mut writing = Writing::create(&path).unwrap();
    writing.write(&data).unwrap();
    drop(writing.finish(b"", kind, false).unwrap());
    let whole = std::fs::read(&path).unwrap();
    for broken in [5, 4096, 2 * 4096 + 4095, 3 * 4096 + 99] {
        let mut bytes = whole.clone();
        bytes[broken] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let file = Checked::open(&path, kind).unwrap();
        for (start, end) in [(0, 1), (4095, 4097), (0, 8193), (4096, 12288), (1, data.len())] {
            let touched = (start / 4096..=(end - 1) / 4096).contains(&(broken / 4096));
            let found = file.get(start..end);
            assert_eq!(found, (!touched).then(|| &data[start..end]), "{broken} {start} {end}");
        }
        assert!(file.is_broken() && !path.exists() && file.get(0..data.len() + 1).is_none());
    }
}

/// Without a table one is made of the run: of what is broken none can be.
#[test]
fn a_broken_run_without_a_table_is_fetched_again() {
    let world = world_of_many();
    let is = |path: &Path, end: &str| path.extension().is_some_and(|found| found == end);
    let kept: Vec<_> = world.files().into_iter().filter(|path| !is(path, "tier")).collect();
    let kept: Vec<_> = kept.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let (whole, path) = kept.iter().max_by_key(|(whole, _)| whole.len()).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 5) {
        world.files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
        kept.iter().for_each(|(whole, path)| std::fs::write(path, whole).unwrap());
        flip(Some(path), at);
        world.list(&[]).assert_same(&world.open(false).unwrap(), &format!("bit at {at}"));
    }
}

/// Every night of many small clients: a few chunks a run.
#[test]
fn many_small_runs_are_few_files() {
    let mut world = World::new();
    let runs = 400;
    for n in 0..runs {
        world.add(vec![n % 100, 100 + n / 100]);
    }
    assert_eq!(world.runs.len() as u64, runs);
    let mut rows: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    for (_, payload) in world.runs.values() {
        Run::new(payload).unwrap().ids().iter().for_each(|id| *rows.entry(*id).or_default() += 1);
    }
    let assert_found = |index: &Index| {
        assert!(rows.iter().all(|(id, count)| index.rows(&ChunkId(*id)).len() == *count));
        assert!((CHUNKS..CHUNKS + 500).all(|n| index.rows(&chunk_id(n)).is_empty()));
    };
    assert_found(&world.open(false).unwrap());
    let kept = world.files();
    assert!(kept.len() < 16, "{kept:?}");
    let unwritten = |call| if call == "cache create" { Fault::Fail(28) } else { Fault::None };
    let index = with_plan(unwritten, || world.open(false)).expect("all is cached");
    assert_found(&index);
    assert_eq!(world.files(), kept, "nothing is written when nothing changed");
    let maps: BTreeSet<_> = index.segments().iter().map(|s| Arc::as_ptr(s.file())).collect();
    assert!(maps.len() < 16, "{} files are mapped", maps.len());
}

/// More than are opened: left by processes that were killed before they put them together.
#[test]
fn more_files_than_maps() {
    let mut world = World::new();
    for n in 0..60 {
        let (name, payload) = world.add(vec![n, n + 1]);
        let path = world.folder.path().join(format!("{name}.run"));
        Segment::cache(&path, &name, &payload).unwrap();
    }
    for _ in 0..3 {
        world.list(&[]).assert_same(&world.open(true).unwrap(), "some are fetched again");
    }
    assert!(world.files().len() < 16, "{:?}", world.files());
}

/// Bytes that were proven once are gone when they are read again.
#[test]
fn a_file_cut_short_after_it_was_proven_fools_nobody() {
    let world = world_of_many();
    let list = world.list(&[]);
    let kept: Vec<_> =
        world.files().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let mut refused = 0;
    for (whole, path) in &kept {
        for len in (0..whole.len() as u64).step_by(3 * 4096) {
            let index = world.open(true).unwrap();
            list.assert_same(&index, "before");
            assert!(Places::new(&index).is_ok());
            OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
            let context = format!("{} cut to {len} of {}", path.display(), whole.len());
            list.assert_not_fooled(&index, &context);
            // Beyond the last slot of a table there is nothing that anybody reads again.
            match Places::new(&index) {
                Ok(_) => list.assert_same(&index, &context),
                Err(_) => refused += 1,
            }
            kept.iter().for_each(|(whole, path)| std::fs::write(path, whole).unwrap());
        }
    }
    assert!(refused > kept.len(), "{refused}");
}

/// Ids are there, where they lie is gone: that reads as the first frame of the first pack, which may be relied on.
#[test]
fn a_frame_that_is_gone_is_no_frame_of_the_first_pack() {
    let mut world = World::new();
    world.damaged.clear();
    let theirs = (3..40).map(|n| n * 3);
    let with = |ours: &u64| [*ours].into_iter().chain(theirs.clone()).collect::<Vec<_>>();
    let is_first = |ours: &u64| {
        let (_, payload) = run_of(&with(ours));
        Run::new(&payload).unwrap().pack(0).unwrap().id == pack_row(*ours).id
    };
    let ours = (0..PACKS).filter(|n| n % 3 != 0 && n % 17 != 0).find(is_first).unwrap();
    let (name, payload) = world.add(with(&ours));
    let path = world.folder.path().join(format!("{name}.run"));
    for pages in 0..payload.len() as u64 / 4096 {
        let index = world.open(true).unwrap();
        world.list(&[]).assert_same(&index, "before");
        let whole = std::fs::read(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(pages * 4096).unwrap();
        world.list(&[]).assert_not_fooled(&index, &format!("cut to {pages} pages"));
        std::fs::write(&path, whole).unwrap();
    }
}

/// The file that could not be put together with others is not tried for ever.
#[test]
fn what_is_broken_is_not_in_the_way() {
    let world = World::new();
    let index = world.open(false).unwrap();
    let mut own = Vec::new();
    for n in 0..40 {
        own.push(run_of(&[n, n + 40]));
        let (name, payload) = own.last().unwrap();
        index.add_own(name, payload.clone()).unwrap();
        if n == 0 {
            let path = files(world.folder.path()).remove(0);
            File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    }
    let files = world.files();
    assert!(files.len() < 12, "{files:?}");
}
