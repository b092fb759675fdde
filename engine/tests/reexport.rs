//! A study that is exported again, de-identified: other names, other headers of other lengths, the same pixels. Next to nothing of it is
//! new, and both come back bit for bit.

#[path = "support/dicom.rs"]
mod dicom;
mod support;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use strongroom::backup::{self, BackupOptions, Source};
use strongroom::env::Env;
use strongroom::format::slot::Unlock;
use strongroom::repo::{InitOptions, Repo, init};
use strongroom::restore::{self, RestoreOptions};
use strongroom::store::MemoryStore;
use strongroom::watch::Tally;

use dicom::{BIG, Dicom, EXPLICIT, IMPLICIT, Image, JPEG_2000};
use support::{KEY, back_up, memory_dir, noise, open, small_options};

/// Default chunks, which is what the sizes below are about.
fn store(env: &Env) -> MemoryStore {
    let options = InitOptions { chunker: InitOptions::default().chunker, ..small_options() };
    let options = InitOptions { pack_bytes: 8 << 20, ..options };
    let store = MemoryStore::new();
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, env).unwrap();
    store
}

/// What a study consists of: how its files are written, what they show, how often.
const STUDY: [(&str, Image, u64); 6] = [
    (EXPLICIT, Image::gray_16(320, 320), 6),
    (IMPLICIT, Image::gray_16(512, 512), 3),
    (EXPLICIT, Image { frames: 400, ..Image::gray_16(64, 64) }, 1),
    (EXPLICIT, Image::gray_16(1536, 1024), 1),
    (BIG, Image { frames: 5, ..Image::gray_16(512, 1000) }, 1),
    (IMPLICIT, Image { bits: 8, samples: 3, frames: 2, ..Image::gray_16(480, 640) }, 1),
];

/// The study behind headers of about this length, which differ from file to file; by file name.
fn study(header: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (kind, (syntax, image, count)) in STUDY.into_iter().enumerate() {
        for n in 0..count {
            let mut file = Dicom::new(syntax);
            file.filler(header + 3 * n as usize).image(image);
            file.pixels(&noise(100 * kind as u64 + n, image.bytes())).trailer(header % 64);
            files.insert(format!("{kind}-{n}.dcm"), file.bytes);
        }
    }
    let sizes = (0..90).map(|n| 20_000 + n * 997 % 7000).chain([400_000, 700_001, 300_000, 11]);
    let fragments: Vec<_> = sizes.map(|len| noise(len as u64, len)).collect();
    let mut file = Dicom::new(JPEG_2000);
    file.filler(header).fragments(header % 8 * 4, &fragments).trailer(10);
    files.insert("compressed.dcm".to_owned(), file.bytes);
    files
}

fn write(files: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn assert_restores(repo: &Repo, source: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let (target, watch) = (memory_dir(), Tally::default());
    let path = std::fs::canonicalize(source).unwrap();
    let (path, options) = (path.as_os_str().as_bytes(), RestoreOptions::default());
    let snapshot = repo.find_snapshot("latest").unwrap();
    restore::run(repo, &snapshot, Some(path), target.path(), &options, &watch).unwrap();
    assert_eq!(watch.problems(), []);
    for (name, bytes) in files {
        let restored = std::fs::read(target.path().join(name)).unwrap();
        assert!(restored == *bytes, "{name} came back differently");
    }
}

#[test]
fn a_study_exported_again_is_hardly_new() {
    let first = study(1500);
    let plain: usize = first.values().map(Vec::len).sum();
    // Shorter and longer headers, by odd lengths too.
    for (threads, headers) in [(1, &[700, 2777][..]), (3, &[1501])] {
        let env = Env::system(threads);
        let (store, source) = (store(&env), memory_dir());
        let repo = open(&store, None, &env);
        let folder = source.path().join("study");
        write(&first, &folder);
        let report = back_up(&repo, &folder);
        assert!(report.counts.bytes_new >= plain as u64, "{report:?}");
        assert_restores(&repo, &folder, &first);
        for &header in headers {
            let again = study(header);
            let folder = source.path().join(format!("anonymous/{header}"));
            write(&again, &folder);
            let repo = open(&store, None, &env);
            let report = back_up(&repo, &folder);
            let most = plain as u64 * 3 / 100;
            assert!(report.counts.bytes_new <= most, "{header}: {report:?}");
            assert!(report.bytes_stored <= most, "{header}: {report:?}");
            assert_restores(&repo, &folder, &again);
        }
    }
}

/// Small files, mapped ones and streams are cut alike.
#[test]
fn how_a_file_is_read_does_not_matter() {
    let env = Env::system(1);
    let (store, source) = (store(&env), memory_dir());
    let files = study(1500);
    write(&files, source.path());
    back_up(&open(&store, None, &env), source.path());
    for (name, bytes) in &files {
        let repo = open(&store, None, &env);
        let source = Source::Stream {
            name: b"stream.dcm",
            reader: &mut Cursor::new(bytes),
            finish: &mut || Ok(None),
        };
        let report =
            backup::run(&repo, source, &BackupOptions::default(), &Tally::default()).unwrap();
        // A tree, and no content.
        assert!(report.counts.bytes_new < 4000, "{name}: {report:?}");
    }
}

/// A file with holes is cut between them, by content alone.
#[test]
fn a_file_with_holes_comes_back() {
    let env = Env::system(1);
    let (store, source) = (store(&env), memory_dir());
    let mut file = Dicom::new(EXPLICIT);
    let image = Image { frames: 8, ..Image::gray_16(512, 512) };
    file.image(image)
        .pixels(&[&noise(5, 1 << 20)[..], &vec![0; 2 << 20], &noise(6, 1 << 20)].concat());
    let sparse = std::fs::File::create(source.path().join("sparse.dcm")).unwrap();
    for at in [0, file.len() - (1 << 20)] {
        let end = file.len().min(at + (1 << 20));
        std::os::unix::fs::FileExt::write_all_at(&sparse, &file.bytes[at..end], at as u64).unwrap();
    }
    sparse.set_len(file.len() as u64).unwrap();
    let repo = open(&store, None, &env);
    back_up(&repo, source.path());
    let wanted = std::fs::read(source.path().join("sparse.dcm")).unwrap();
    assert_restores(&repo, source.path(), &[("sparse.dcm".to_owned(), wanted)].into());
}
