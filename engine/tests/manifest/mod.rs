//! `expected.txt` of a frozen repository: what each entry of each snapshot must be, one line an
//! entry, tabs between. Shared by the test that reads with the engine and the reader that must not
//! know the engine; so it knows neither.
//!
//!     snapshot  path  kind  mode  size  mtime  blake3  target  link  xattrs
//!
//! Paths are relative to the source root, which is `.`. What an entry does not have is `-`. `link`
//! is the first path of the same file; bytes that are not plain ASCII stand as `%xx`.

use std::collections::BTreeMap;

pub const HEAD: &str =
    "# snapshot\tpath\tkind\tmode\tsize\tmtime\tblake3\ttarget\tlink\txattrs (name=value,)\n";

/// By number as in `docs/format.md`, 6.2.
const KINDS: [&str; 8] = ["", "file", "directory", "symlink", "fifo", "socket", "char", "block"];

/// By snapshot (from 1, oldest first) and path.
pub type Manifest = BTreeMap<(usize, Vec<u8>), Line>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// As in `docs/format.md`, 6.2.
    pub kind: u64,
    pub mode: u32,
    /// Files only, like `hash`.
    pub size: Option<u64>,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// BLAKE3 of the content.
    pub hash: Option<String>,
    pub target: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub fn to_text(manifest: &Manifest) -> String {
    let lines = manifest.iter().map(|((snapshot, path), line)| {
        let option = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".to_owned(), escaped);
        let mut xattrs = String::new();
        for (name, value) in &line.xattrs {
            xattrs += &format!("{}={},", escaped(name), escaped(value));
        }
        let cells = [
            snapshot.to_string(),
            escaped(path),
            KINDS[line.kind as usize].to_owned(),
            format!("{:04o}", line.mode),
            line.size.map_or("-".to_owned(), |size| size.to_string()),
            format!("{}.{:09}", line.mtime.0, line.mtime.1),
            line.hash.clone().unwrap_or("-".to_owned()),
            option(&line.target),
            option(&line.link),
            if xattrs.is_empty() { "-".to_owned() } else { xattrs },
        ];
        cells.join("\t") + "\n"
    });
    HEAD.to_owned() + &lines.collect::<String>()
}

fn escaped(bytes: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'=' | b',');
    let one = |&b: &u8| if plain(b) { (b as char).to_string() } else { format!("%{b:02x}") };
    // A lone dash means that there is nothing.
    if bytes == b"-" { "%2d".to_owned() } else { bytes.iter().map(one).collect() }
}

/// Panics at the first line that differs, is missing or is too many.
pub fn assert_equal(found: &Manifest, expected_text: &str, of: &str) {
    let found = to_text(found);
    let mut expected = expected_text.lines();
    for (n, line) in found.lines().enumerate() {
        assert_eq!(Some(line), expected.next(), "{of}: line {} of expected.txt", n + 1);
    }
    assert_eq!(None, expected.next(), "{of}: an entry that expected.txt names is not there");
}

/// Names each hard link after the first path of its file. `groups` says by path which file it is.
pub fn name_links<G: Ord>(manifest: &mut Manifest, groups: BTreeMap<(usize, Vec<u8>), G>) {
    let mut first = BTreeMap::new();
    for ((snapshot, path), group) in groups {
        let name = first.entry((snapshot, group)).or_insert_with(|| path.clone()).clone();
        manifest.get_mut(&(snapshot, path)).expect("it has a line").link = Some(name);
    }
}
