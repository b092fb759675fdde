//! Looking into a repository: listings, one file's bytes, and what is stored.

mod support;

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use strongroom::browse::{self, EntryKind};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::store::Store;

use support::{back_up, new_store, noise, open};

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/deep"), b"deep").unwrap();
    fs::write(root.join("a/file"), noise(1, 2 << 20)).unwrap();
    fs::write(root.join("twice"), noise(1, 2 << 20)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    symlink("a/file", root.join("link")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise(2, 100_000), 1 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
}

#[test]
fn listings_name_entries_by_their_absolute_paths() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path());
    let env = Env::system(2);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let info = repo.find_snapshot("latest").unwrap();
    let root = source.path().canonicalize().unwrap();
    let root = root.as_os_str().as_bytes();
    let listed = |below: &str, recursive| {
        let mut names = Vec::new();
        let path = [root, below.as_bytes()].concat();
        browse::list(&repo, &info, &path, recursive, &mut |path, entry| {
            assert!(path.ends_with(&entry.name));
            let below = path.strip_prefix(root).unwrap();
            names.push((String::from_utf8(below.to_vec()).unwrap(), entry.kind));
            Ok(())
        })
        .map(|()| names)
    };
    let names = |listed: Vec<(String, EntryKind)>| -> Vec<String> {
        listed.into_iter().map(|(name, _)| name).collect()
    };
    let flat = ["/a", "/empty", "/link", "/sparse", "/twice"];
    assert_eq!(names(listed("", false).unwrap()), flat);
    assert_eq!(names(listed("/", false).unwrap()), flat);
    let all = [&flat[..], &["/a/b", "/a/file", "/a/b/deep"]].concat();
    assert_eq!(names(listed("", true).unwrap()), all);
    assert_eq!(listed("/link", true).unwrap(), [("/link".to_owned(), EntryKind::Symlink)]);
    assert_eq!(listed("/a//file/", false).unwrap(), [("/a/file".to_owned(), EntryKind::File)]);
    for path in ["/none", "/link/x", "/a/file/x"] {
        assert!(matches!(listed(path, false), Err(Error::NoPath { .. })), "{path}");
    }
    let mut top = Vec::new();
    browse::list(&repo, &info, b"/", false, &mut |path, _| {
        top.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    assert!(root.starts_with(&top[0]) && top.len() == 1);
    let stopped = browse::list(&repo, &info, root, true, &mut |_, _| Err(Error::Interrupted));
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

/// Takes so many bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_dump_gives_the_bytes_in_order() {
    for threads in [1, 3] {
        let source = tempfile::tempdir().unwrap();
        fill(source.path());
        let env = Env::system(threads);
        let store = new_store(&env);
        let repo = open(&store, None, &env);
        back_up(&repo, source.path());
        let info = repo.find_snapshot("latest").unwrap();
        let root = source.path().canonicalize().unwrap();
        let dump = |name: &str, out: &mut dyn io::Write| {
            browse::dump(&repo, &info, root.join(name).as_os_str().as_bytes(), out)
        };
        for name in ["a/file", "twice", "empty", "sparse", "a/b/deep"] {
            let mut bytes = Vec::new();
            let written = dump(name, &mut bytes).unwrap();
            assert_eq!(written, bytes.len() as u64);
            assert!(bytes == fs::read(root.join(name)).unwrap(), "{name}");
        }
        for name in ["a", "link", ""] {
            assert!(matches!(dump(name, &mut io::sink()), Err(Error::NotAFile { .. })), "{name}");
        }
        assert!(matches!(dump("none", &mut io::sink()), Err(Error::NoPath { .. })));
        for room in [0, 1, 500_000] {
            let done = dump("a/file", &mut Full(room));
            assert!(matches!(done, Err(Error::Output { .. })), "{done:?}");
        }
        // A damaged chunk ends the dump with an error, wherever it is.
        for name in store.names().iter().filter(|name| name.as_str().starts_with("packs/")) {
            let middle = store.len(name).unwrap() as usize / 2;
            store.tamper(name, |bytes| bytes[middle] ^= 1);
        }
        assert!(dump("a/file", &mut io::sink()).is_err());
    }
}

#[test]
fn stats_count_each_chunk_once() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path());
    fs::write(source.path().join("text"), b"line of text\n".repeat(100_000)).unwrap();
    let env = Env::system(2);
    let store = new_store(&env);
    let repo = open(&store, None, &env);
    for n in 0..2 {
        fs::write(source.path().join("changing"), noise(90 + n, 300_000)).unwrap();
        back_up(&repo, source.path());
    }
    let stats = browse::stats(&repo).unwrap();
    assert_eq!((stats.snapshots, stats.index_runs), (2, 2), "{stats:?}");
    let files: u64 = 2 * ((2 << 21) + (3 << 20) + 4 + 1_300_000 + 300_000);
    assert_eq!(stats.snapshot_bytes, Some(files));
    let objects = stats.packs + stats.index_runs + stats.other_objects;
    assert_eq!(objects, store.names().len() as u64);
    let bytes: u64 = store.names().iter().map(|name| store.len(name).unwrap()).sum();
    assert_eq!(stats.pack_bytes + stats.index_bytes + stats.other_bytes, bytes);
    // Noise, and a little for text and trees.
    let noise = (2 << 20) + 100_000 + 600_000;
    assert!((noise..noise + 200_000).contains(&stats.chunk_bytes), "{stats:?}");
    let plain: u64 = stats.frames_by_codec.iter().map(|codec| codec.plain_bytes).sum();
    assert_eq!(plain, stats.chunk_bytes);
    let codecs: Vec<&str> = stats.frames_by_codec.iter().map(|codec| &*codec.codec).collect();
    assert!(codecs.contains(&"zstd") && codecs.contains(&"stored"), "{codecs:?}");
    // A run that says the same of the same packs counts once.
    assert_eq!(stats, browse::stats(&repo).unwrap());
}
