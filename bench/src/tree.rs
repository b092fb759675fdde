//! Folders as the runner sees them: how much is in one, and whether two hold the same files with
//! the same bytes. Streams with small buffers, as the runner's own memory counts (see `child.rs`).
//! Metadata is the engine's test suite's business.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 64 << 10;

pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    /// Over relative paths, lengths and contents in sorted order.
    pub digest: blake3::Hash,
}

/// Reads everything below `folder`.
pub fn summary(folder: &Path) -> io::Result<Summary> {
    let mut hasher = blake3::Hasher::new();
    let (mut files, mut bytes) = (0, 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    for path in paths(folder)? {
        let relative = path.strip_prefix(folder).expect("listed below the folder");
        let mut file = File::open(&path)?;
        let len = file.metadata()?.len();
        hasher.update(relative.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(&len.to_le_bytes());
        (files, bytes) = (files + 1, bytes + len);
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
        }
    }
    Ok(Summary { files, bytes, digest: hasher.finalize() })
}

/// Sum of the lengths of all files below `folder`; what a repository costs.
pub fn size_bytes(folder: &Path) -> io::Result<u64> {
    paths(folder)?.iter().map(|path| Ok(fs::symlink_metadata(path)?.len())).sum()
}

/// All that is no folder below `folder`, sorted.
pub fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    Ok(out)
}
