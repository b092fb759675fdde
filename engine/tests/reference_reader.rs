//! A second reader, written from `docs/format.md` alone: it imports nothing of the engine, and its
//! ciphers, KDF, signatures and CBOR are other crates' (only HPKE, zstd and BLAKE3 are the same). It
//! reads each frozen repository completely and compares with `expected.txt`. If it and the engine
//! disagree, one of them is not what the page says. Neither fast nor lenient.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod manifest;
mod reference;

use manifest::{Line, Manifest};
use reference::bodies::{self, Snapshot};
use reference::keys::{ADMIN, Bundle, RepoFile, Roster, key_file, rosters};
use reference::pack::{self, ChunkRow, Frame, Pack, SealRow};
use reference::record::{self, Record};
use reference::run::{self, Run, RunFrame};
use reference::seal::{Context, Opener, Recipient, frame_label, object_label};
use reference::tree::{self, Entry, Refs, Segment, Tree};
use reference::{Cursor, Id, Result, Short, from_hex, h, hex, need};

const DEPTH_MAX: usize = 4096;
const INNER_DEPTH_MAX: usize = 8;

type Objects = BTreeMap<String, Vec<u8>>;

#[test]
fn frozen_repositories_are_what_the_page_says() {
    let mut seen = BTreeSet::new();
    for folder in frozen_folders() {
        let objects = objects(&folder.join("repo"));
        let key = fs::read_to_string(folder.join("key")).unwrap();
        let (found, features) = read(&objects, &key).unwrap();
        let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
        manifest::assert_equal(&found, &expected, &folder.display().to_string());
        seen.extend(features);
    }
    // Otherwise this test proves less than it seems to.
    let hoped = ["codec 0", "codec 1", "hole", "inner node", "list", "list, inner", "mixed pack"];
    assert_eq!(seen, hoped.into_iter().map(str::to_owned).collect());
}

/// One bit anywhere is enough, whatever the object: also where whoever flipped it made the hash and
/// the name fit again.
#[test]
fn a_flipped_bit_in_any_object_is_found() {
    for folder in frozen_folders() {
        let objects = objects(&folder.join("repo"));
        let key = fs::read_to_string(folder.join("key")).unwrap();
        assert_eq!(Reader::open(&objects, &key).err(), None);
        for name in objects.keys() {
            for (place, fitting) in
                [0, 1, 2, 3, 4].into_iter().flat_map(|p| [(p, false), (p, true)])
            {
                let mut damaged = objects.clone();
                let mut bytes = damaged.remove(name).unwrap();
                let at = (bytes.len() - 33) * place / 4;
                bytes[at] ^= 0x10;
                let name = if fitting { fit(name, &mut bytes) } else { name.clone() };
                damaged.insert(name.clone(), bytes);
                assert!(Reader::open(&damaged, &key).is_err(), "{name}: byte {at}, {fitting}");
            }
        }
    }
}

/// Makes the end hash fit, or gives the content name that fits.
fn fit(name: &str, bytes: &mut [u8]) -> String {
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    if last.len() == 64 {
        let hash = hex(&h(bytes));
        let folder =
            if folder.starts_with("packs/") { &format!("packs/{}", &hash[..2]) } else { folder };
        return format!("{folder}/{hash}");
    }
    let end = bytes.len() - 32;
    let hash = h(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash);
    name.to_owned()
}

fn frozen_folders() -> Vec<PathBuf> {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen");
    let entries = fs::read_dir(frozen).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty());
    folders
}

fn objects(repo: &Path) -> Objects {
    let mut objects = Objects::new();
    let mut folders = vec![repo.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(repo).unwrap().to_str().unwrap().to_owned();
                objects.insert(name, fs::read(path).unwrap());
            }
        }
    }
    objects
}

fn read(objects: &Objects, key: &str) -> Result<(Manifest, BTreeSet<String>)> {
    let reader = Reader::open(objects, key)?;
    let manifest = reader.manifest()?;
    Ok((manifest, reader.seen.into_inner()))
}

// ---- a repository ----------------------------------------------------------------------------

struct Reader<'o> {
    objects: &'o Objects,
    records: BTreeMap<&'o str, Record<'o>>,
    file: RepoFile,
    bundle: Bundle,
    rosters: Vec<Roster>,
    packs: BTreeMap<Id, Pack<'o>>,
    /// With who signed each.
    runs: Vec<(Run, Short)>,
    /// Opened frames by pack and offset.
    frames: BTreeMap<(Id, u64), (Recipient, Vec<u8>)>,
    seen: RefCell<BTreeSet<String>>,
}

impl<'o> Reader<'o> {
    /// Key file → slot → bundle → rosters → signatures → packs and runs, which must agree → frames.
    fn open(objects: &'o Objects, key: &str) -> Result<Self> {
        let mut records = BTreeMap::new();
        for (name, bytes) in objects.iter().filter(|(name, _)| !name.starts_with("packs/")) {
            let record = record::parse(name, bytes).map_err(|error| format!("{name}: {error}"))?;
            let record = record.ok_or_else(|| format!("{name}: not a name of the format"))?;
            records.insert(name.as_str(), record);
        }
        let file = RepoFile::parse(records.get("repo.cbor").ok_or("no repo.cbor")?.body)?;
        let secret = key_file(key)?;
        let mut slots = records.iter().filter(|(name, _)| name.starts_with("slots/"));
        let bundle =
            slots.find_map(|(_, slot)| Bundle::open(slot.body, &secret, &file.repository).ok());
        let bundle = bundle.ok_or("no slot fits this key file")?;
        need(bundle.repo_hash == h(&objects["repo.cbor"]), "repo.cbor of the bundle")?;
        let rosters = rosters(&numbered(objects)?, &bundle)?;
        bundle.check_against(rosters.last().expect("one at least"))?;
        let mut reader = Self {
            objects,
            records,
            file,
            bundle,
            rosters,
            packs: BTreeMap::new(),
            runs: Vec::new(),
            frames: BTreeMap::new(),
            seen: RefCell::default(),
        };
        for (name, record) in &reader.records {
            reader.check_record(name, record).map_err(|error| format!("{name}: {error}"))?;
        }
        reader.read_packs()?;
        reader.read_runs()?;
        reader.check_agreement()?;
        reader.open_frames()?;
        Ok(reader)
    }

    fn saw(&self, feature: &str) {
        self.seen.borrow_mut().insert(feature.to_owned());
    }

    fn record(&self, name: &str) -> Result<&Record<'o>> {
        self.records.get(name).ok_or_else(|| format!("no {name}"))
    }

    fn newest_roster(&self) -> &Roster {
        self.rosters.last().expect("there is one at least")
    }

    /// Who signed a record, section 3.
    fn author(&self, record: &Record<'_>) -> Result<Short> {
        let mut cause = "no signature of an identity that may sign this".to_owned();
        for signed in &record.signatures {
            let cited = |roster: &Roster| roster.number == u64::from(signed.roster);
            need(self.rosters.iter().any(cited), "a roster that is cited is not there")?;
            let Some(signer) = self.newest_roster().identities.get(&signed.identity) else {
                continue;
            };
            if signer.state != 1 || !record::signers(record.kind).contains(&signer.role) {
                continue;
            }
            match record.verify(signed, &self.file.repository, &signer.verifying) {
                Ok(()) => return Ok(signed.identity),
                Err(error) => cause = error,
            }
        }
        Err(cause)
    }

    /// The signature, and that the session in the body is the one in the name.
    fn check_record(&self, name: &str, record: &Record<'_>) -> Result<()> {
        // 8.2 has its own rules for rosters; the others are signed by nobody.
        if record.kind <= 3 {
            return Ok(());
        }
        self.author(record)?;
        let (_, last) = name.rsplit_once('/').ok_or("name")?;
        let session = match record.kind {
            4 => bodies::session(record)?.0,
            5 => bodies::seals(record)?.0,
            _ => return Ok(()),
        };
        need(last == hex(&session), "the session in its name")
    }

    fn author_of(&self, session: &Short) -> Result<Short> {
        self.author(self.record(&format!("sessions/{}", hex(session)))?)
    }

    /// The context and payload of a sealed body.
    fn open_sealed(&self, record: &Record<'_>) -> Result<(Context, Vec<u8>)> {
        let mut cursor = Cursor(record.body);
        let context = Context::parse(cursor.array()?)?;
        let commit = cursor.take(32)?;
        let opener =
            Opener::new(&self.secret(&context)?, &context, &object_label(record.kind), commit)?;
        Ok((context, opener.open_stream(cursor.0)?))
    }

    fn secret(&self, context: &Context) -> Result<[u8; 32]> {
        need(context.repository == self.file.repository, "repository of a context")?;
        need(u64::from(context.suite) == self.file.suite, "suite of a context")?;
        if context.recipient == Recipient::Index {
            return self.bundle.key(Recipient::Index, context.epoch).copied();
        }
        let (_, rows) = bodies::seals(self.record(&format!("seals/{}", hex(&context.session)))?)?;
        let fits =
            |row: &&SealRow| (row.recipient, row.epoch) == (context.recipient as u8, context.epoch);
        let row = rows.iter().find(fits).ok_or("no such seal")?;
        let Context { session, recipient, epoch, .. } = context;
        self.bundle.session_secret(session, *recipient, *epoch, &row.sealed)
    }

    // ---- packs and runs ----

    fn read_packs(&mut self) -> Result<()> {
        let mut packs = BTreeMap::new();
        for (name, bytes) in self.objects.iter().filter(|(name, _)| name.starts_with("packs/")) {
            let pack =
                pack::parse(name, bytes, &|context| self.secret(context), self.file.pack_size);
            let pack = pack.map_err(|error| format!("{name}: {error}"))?;
            for row in &pack.seals {
                let (_, rows) =
                    bodies::seals(self.record(&format!("seals/{}", hex(&row.session)))?)?;
                need(rows.contains(row), "a seal in a directory differs from the session's")?;
            }
            let session = self.record(&format!("sessions/{}", hex(&pack.session)))?;
            let announced = (pack.session, u64::from(pack.epoch));
            need(bodies::session(session)? == announced, "session of a pack")?;
            if pack.class == 4 {
                self.saw("mixed pack");
            }
            packs.insert(h(bytes), pack);
        }
        self.packs = packs;
        Ok(())
    }

    fn read_runs(&mut self) -> Result<()> {
        for (name, record) in self.records.iter().filter(|(_, record)| record.kind == 7) {
            let (context, payload) = self.open_sealed(record)?;
            need(context.recipient == Recipient::Index, "recipient of an index run")?;
            let run = run::parse(&payload).map_err(|error| format!("{name}: {error}"))?;
            need(context.session == [0; 16], "an index run belongs to no session")?;
            self.runs.push((run, self.author(record)?));
        }
        Ok(())
    }

    /// What the runs say is what the packs' own directories say, and nothing is missing on either
    /// side.
    fn check_agreement(&self) -> Result<()> {
        let mut described: BTreeMap<(Id, u64), BTreeSet<ChunkRow>> = BTreeMap::new();
        for (run, signer) in &self.runs {
            let merges = self.newest_roster().identities[signer].role >= ADMIN;
            for row in &run.packs {
                let pack = self.packs.get(&row.id).ok_or("a run names a pack that is not there")?;
                let said = (row.len, row.class, row.author);
                let is = (pack.bytes.len() as u64, pack.class, self.author_of(&pack.session)?);
                need(said == is, "a run's row of a pack")?;
                need(merges || row.author == *signer, "a run describes packs of its author")?;
            }
            let place = |frame: &RunFrame| (run.packs[frame.pack as usize].id, frame.row.offset);
            for frame in &run.frames {
                let (pack, offset) = place(frame);
                need(self.frame(&pack, offset)?.row == frame.row, "a run's row of a frame")?;
            }
            for (frame, row) in &run.chunks {
                let place = place(&run.frames[*frame as usize]);
                described.entry(place).or_default().insert(row.clone());
            }
        }
        let frames = self.packs.iter().flat_map(|(id, pack)| {
            let rows = |frame: &Frame| frame.chunks.iter().cloned().collect();
            pack.frames.iter().map(move |frame| ((*id, frame.row.offset), rows(frame)))
        });
        need(described == frames.collect(), "the chunks in the runs and in the directories differ")
    }

    fn frame(&self, pack: &Id, offset: u64) -> Result<&Frame> {
        let mut frames = self.packs[pack].frames.iter();
        frames.find(|frame| frame.row.offset == offset).ok_or("no such frame".to_owned())
    }

    /// Every frame, and in it every chunk.
    fn open_frames(&mut self) -> Result<()> {
        let mut used = BTreeSet::new();
        for (id, pack) in &self.packs {
            for Frame { row: frame, chunks } in &pack.frames {
                let context = &frame.context;
                let opener =
                    Opener::new(&self.secret(context)?, context, &frame_label(), &frame.commit)?;
                need(used.insert((context, frame.ordinal)), "an ordinal is used once")?;
                let plain = frame.open(pack.bytes, &opener)?;
                self.saw(&format!("codec {}", frame.codec));
                let key = match context.recipient {
                    Recipient::Data | Recipient::Tree => &self.bundle.id,
                    Recipient::Meta => &self.bundle.refid,
                    Recipient::Index => return Err("a frame sealed to INDEX".to_owned()),
                };
                for row in chunks {
                    let chunk = &plain[row.offset as usize..][..row.len as usize];
                    need(*blake3::keyed_hash(key, chunk).as_bytes() == row.id, "id of a chunk")?;
                }
                self.frames.insert((*id, frame.offset), (context.recipient, plain));
            }
        }
        Ok(())
    }

    /// A chunk, by the index runs.
    fn chunk(&self, id: &Id, recipient: Recipient) -> Result<&[u8]> {
        for (run, _) in &self.runs {
            for (frame, row) in run.find(id) {
                let frame = &run.frames[*frame as usize];
                let place = (run.packs[frame.pack as usize].id, frame.row.offset);
                let (of, plain) = &self.frames[&place];
                if *of == recipient {
                    return Ok(&plain[row.offset as usize..][..row.len as usize]);
                }
            }
        }
        Err(format!("no chunk {} for {recipient:?}", hex(id)))
    }

    // ---- snapshots and trees ----

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::new();
        let mut hashes = BTreeSet::new();
        for (name, record) in self.records.iter().filter(|(_, record)| record.kind == 8) {
            let (context, body) = self.open_sealed(record)?;
            need(context.recipient == Recipient::Meta, "recipient of a snapshot")?;
            let session = from_hex(&name["snapshots/".len()..])?;
            need(context.session == session, "session of a snapshot")?;
            let snapshot = bodies::snapshot(session, &body)?;
            need(snapshot.author == self.author(record)?, "author of a snapshot")?;
            need(snapshot.author == self.author_of(&session)?, "author of a session")?;
            snapshots.push(snapshot);
            hashes.insert(h(&self.objects[*name]));
        }
        snapshots.sort_by_key(|snapshot| snapshot.time);
        let [first, second] = &snapshots[..] else {
            return Err("two snapshots were frozen".to_owned());
        };
        need(first.previous.is_none() && second.sequence == first.sequence + 1, "sequence")?;
        need(second.previous.is_some_and(|hash| hashes.contains(&hash)), "link of a snapshot")?;
        Ok(snapshots)
    }

    fn manifest(&self) -> Result<Manifest> {
        let mut lines = Manifest::new();
        let mut groups = BTreeMap::new();
        for (n, snapshot) in self.snapshots()?.iter().enumerate() {
            let mut all = Vec::new();
            self.directory(snapshot.root, b"", 0, &mut all)?;
            check_counts(snapshot, &all)?;
            let [root] = &snapshot.roots[..] else { return Err("one path was frozen".to_owned()) };
            for (path, line, group) in all {
                let below = match path.strip_prefix(&root[..]) {
                    Some(b"") => b".",
                    Some([b'/', below @ ..]) => below,
                    _ => continue,
                };
                let place = (n + 1, below.to_vec());
                groups.extend(group.map(|group| (place.clone(), group)));
                lines.insert(place, line);
            }
        }
        manifest::name_links(&mut lines, groups);
        Ok(lines)
    }

    fn directory(&self, ids: (Id, Id), path: &[u8], depth: usize, all: &mut Found) -> Result<()> {
        need(depth <= DEPTH_MAX, "depth of a tree")?;
        let mut entries = Vec::new();
        self.entries(ids, 0, &mut entries)?;
        need(entries.is_sorted_by(|a, b| a.0.name < b.0.name), "names ascend over all leaves")?;
        for (entry, content, child) in entries {
            let path = [path, b"/", &entry.name].concat();
            let line = Line {
                kind: entry.kind,
                mode: entry.mode as u32,
                size: entry.size,
                mtime: (entry.mtime.0, entry.mtime.1 as u32),
                hash: content,
                target: entry.target,
                link: None,
                xattrs: entry.xattrs,
            };
            all.push((path.clone(), line, entry.hard_link));
            if let Some(child) = child {
                self.directory(child, &path, depth + 1, all)?;
            }
        }
        Ok(())
    }

    /// The entries of a directory with the hash of their content and their child; inner nodes
    /// resolved. Gives their number.
    fn entries(&self, ids: (Id, Id), depth: usize, all: &mut Vec<Joined>) -> Result<u64> {
        need(depth <= INNER_DEPTH_MAX, "depth of inner nodes")?;
        let refs = tree::refs(self.chunk(&ids.0, Recipient::Meta)?)?;
        let tree = tree::tree(self.chunk(&ids.1, Recipient::Tree)?)?;
        match (tree, refs) {
            (Tree::Leaf { entries }, Refs::Leaf { children, chunks, lists }) => {
                let count = entries.len() as u64;
                for entry in entries {
                    let child = entry.child.map(|child| children.get(child as usize).copied());
                    let child = child.map(|child| child.ok_or("no such child")).transpose()?;
                    let hash = match entry.size {
                        Some(_) => Some(self.content(&entry, &chunks, &lists)?),
                        None => None,
                    };
                    all.push((entry, hash, child));
                }
                Ok(count)
            }
            (Tree::Inner { children: names }, Refs::Inner { children }) => {
                self.saw("inner node");
                need(names.len() == children.len(), "children of an inner node")?;
                let mut sum = 0;
                for ((first_name, count), child) in names.into_iter().zip(children) {
                    let start = all.len();
                    need(self.entries(child, depth + 1, all)? == count, "entries of a child")?;
                    need(all.get(start).is_some_and(|e| e.0.name == first_name), "first name")?;
                    sum += count;
                }
                Ok(sum)
            }
            _ => Err("REFS and TREE node have different shapes".to_owned()),
        }
    }

    fn content(&self, entry: &Entry, chunks: &[(Id, u32)], lists: &[Id]) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for segment in &entry.content {
            let start = hasher.count();
            let len = match *segment {
                Segment::Chunks { first, chunks: count, len } => {
                    let run =
                        chunks.get(first as usize..).and_then(|rest| rest.get(..count as usize));
                    self.append(run.ok_or("no such chunks")?, &mut hasher)?;
                    len
                }
                Segment::Hole { len } => {
                    self.saw("hole");
                    hasher.update(&vec![0; len as usize]);
                    len
                }
                Segment::List { list, len } => {
                    self.saw("list");
                    self.list(lists.get(list as usize).ok_or("no such list")?, 0, &mut hasher)?;
                    len
                }
            };
            need(hasher.count() - start == len, "length of a segment")?;
        }
        need(Some(hasher.count()) == entry.size, "size of a file")?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn append(&self, chunks: &[(Id, u32)], hasher: &mut blake3::Hasher) -> Result<()> {
        for (id, len) in chunks {
            let chunk = self.chunk(id, Recipient::Data)?;
            need(chunk.len() == *len as usize, "length of a chunk")?;
            hasher.update(chunk);
        }
        Ok(())
    }

    /// Gives the number of chunks.
    fn list(&self, id: &Id, depth: usize, hasher: &mut blake3::Hasher) -> Result<u64> {
        need(depth <= INNER_DEPTH_MAX, "depth of a chunk list")?;
        match tree::refs(self.chunk(id, Recipient::Meta)?)? {
            Refs::List { chunks } => {
                self.append(&chunks, hasher)?;
                Ok(chunks.len() as u64)
            }
            Refs::ListInner { lists } => {
                self.saw("list, inner");
                let mut sum = 0;
                for (id, chunks, bytes) in lists {
                    let start = hasher.count();
                    need(self.list(&id, depth + 1, hasher)? == chunks, "chunks of a list")?;
                    need(hasher.count() - start == bytes, "bytes of a list")?;
                    sum += chunks;
                }
                Ok(sum)
            }
            _ => Err("not a chunk list".to_owned()),
        }
    }
}

/// Path, line, hard-link group.
type Found = Vec<(Vec<u8>, Line, Option<Short>)>;
/// An entry, the hash of its content, its child.
type Joined = (Entry, Option<String>, Option<(Id, Id)>);

fn numbered(objects: &Objects) -> Result<BTreeMap<u64, (Record<'_>, Id)>> {
    let mut numbered = BTreeMap::new();
    for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with("roster/")) {
        let number = name["roster/".len()..].parse().map_err(|_| "number of a roster")?;
        let record = record::parse(name, bytes)?.ok_or("name of a roster")?;
        numbered.insert(number, (record, h(bytes)));
    }
    Ok(numbered)
}

/// Files, directories, other entries and bytes of a snapshot are those of its tree.
fn check_counts(snapshot: &Snapshot, all: &Found) -> Result<()> {
    let of = |kinds: std::ops::RangeInclusive<u64>| {
        all.iter().filter(move |(_, line, _)| kinds.contains(&line.kind))
    };
    let found = [
        of(1..=1).count() as u64,
        // The root directory `/` is one of them.
        of(2..=2).count() as u64 + 1,
        of(3..=7).count() as u64,
        of(1..=1).filter_map(|(_, line, _)| line.size).sum(),
    ];
    let said = [0, 1, 2, 3].map(|n| snapshot.counts[n]);
    if found == said {
        return Ok(());
    }
    Err(format!("counts of {}: {said:?}, but its tree has {found:?}", hex(&snapshot.session)))
}
