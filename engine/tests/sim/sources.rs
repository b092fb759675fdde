//! What is backed up: small trees of files made of pieces from a common pool, so that chunks are shared between files,
//! clients and backups, die, and come back. Kept in memory as pictures; written to disk only where directories are
//! backed up rather than streams.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use super::rng::Rng;
use crate::support::noise;

/// Files by name, and the pieces that each is made of: `k + PIECES * variant`.
pub type Tree = BTreeMap<String, Vec<usize>>;
/// Files by name, and their content.
pub type Picture = BTreeMap<String, Vec<u8>>;

const PIECES: usize = 16;
/// Of a piece, besides the plain one: a few bytes differ, so it is stored as a delta of another.
const VARIANTS: usize = 200;
/// The only file of a stream.
pub const STREAM: &str = "stream";
const FILES: [&str; 4] = ["a", "b", "c", "d"];

/// Some below the smallest chunk, which share frames, most of one or two chunks.
fn pieces() -> &'static [Vec<u8>] {
    static POOL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    POOL.get_or_init(|| {
        let len = |k: usize| if k < 2 { 1_500 } else { 7_000 + k * 1_000 };
        (0..PIECES).map(|k| noise(k as u64, len(k))).collect()
    })
}

fn piece(number: usize) -> Vec<u8> {
    let (k, variant) = (number % PIECES, number / PIECES);
    let mut bytes = pieces()[k].clone();
    let len = bytes.len();
    (0..4).for_each(|n| bytes[variant * 7919 * (n + 1) % len] ^= variant as u8);
    bytes
}

pub fn picture(tree: &Tree) -> Picture {
    let content = |of: &Vec<usize>| {
        let parts: Vec<Vec<u8>> = of.iter().map(|&number| piece(number)).collect();
        parts.concat()
    };
    tree.iter().map(|(name, of)| (name.clone(), content(of))).collect()
}

fn some_pieces(rng: &mut Rng) -> Vec<usize> {
    (0..1 + rng.below(4)).map(|_| rng.below(PIECES)).collect()
}

/// A first tree: one file for a stream.
pub fn draw(rng: &mut Rng, stream: bool) -> Tree {
    let names: &[&str] = if stream { &[STREAM] } else { &FILES[..2] };
    names.iter().map(|name| ((*name).to_owned(), some_pieces(rng))).collect()
}

/// Changes a little of it.
pub fn edit(tree: &mut Tree, rng: &mut Rng, stream: bool) {
    let name = if stream { STREAM } else { *rng.pick(&FILES) }.to_owned();
    let Some(of) = tree.get_mut(&name) else {
        tree.insert(name, some_pieces(rng));
        return;
    };
    match rng.below(6) {
        0 if !stream => drop(tree.remove(&name)),
        1 => *of = some_pieces(rng),
        2 if of.len() > 1 => drop(of.remove(rng.below(of.len()))),
        3 | 4 => {
            let at = rng.below(of.len());
            of[at] = of[at] % PIECES + PIECES * (1 + rng.below(VARIANTS));
        }
        _ => {
            let at = rng.below(of.len());
            of[at] = rng.below(PIECES);
        }
    }
}

/// Makes the folder what the tree says. A changed file is a new file with a time that none had before: the clock of the
/// file system is too coarse for edits a millisecond apart.
pub fn materialise(folder: &Path, was: &Tree, tree: &Tree, times: &mut u64) {
    fs::create_dir_all(folder).unwrap();
    for name in was.keys().filter(|name| tree.get(*name) != was.get(*name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let whole = picture(tree);
    for name in tree.keys().filter(|name| tree.get(*name) != was.get(*name)) {
        fs::write(folder.join(name), &whole[name]).unwrap();
        *times += 1;
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + *times);
        File::options().write(true).open(folder.join(name)).unwrap().set_modified(time).unwrap();
    }
}

/// The files in a folder, read back.
pub fn read_back(folder: &Path) -> Picture {
    let mut found = Picture::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        found.insert(name, fs::read(entry.path()).unwrap());
    }
    found
}
