//! The file API against real trees: odd names, hostile targets, holes, metadata, depth.
//!
//! Passes as root and as a normal user; what a file system lacks is skipped where noted.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use strongroom::sys::dir::{Dir, valid_name};
use strongroom::sys::file::{
    CacheAdvice, advise, data_ranges, is_zero_run, punch_hole, read_full_at, write_all_at,
};
use strongroom::sys::host::{Owners, cpu_has_aes, fs_type, host_name};
use strongroom::sys::meta::{
    Meta, Others, Part, Xattrs, set_meta_fd, set_xattrs, xattrs_at, xattrs_of,
};
use strongroom::sys::place::PlaceDir;
use strongroom::sys::stat::{Kind, Stat, Time, fstat};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LONG: [u8; 255] = [b'n'; 255];
const ODD_NAMES: [&[u8]; 7] = [b"\xff\xfe", b"new\nline", b" ", b"...", b"-rf", b"\x01\x7f", &LONG];
const NOT_NAMES: [&[u8]; 9] =
    [b"", b".", b"..", b"/", b"a/b", b"../x", b"a\0", b"/etc", &[b'n'; 256]];

fn tree() -> io::Result<(TempDir, PathBuf)> {
    let temp = tempfile::tempdir()?;
    let path = temp.path().to_owned();
    Ok((temp, path))
}

fn target() -> io::Result<(TempDir, PathBuf, PlaceDir)> {
    let (temp, path) = tree()?;
    let place = PlaceDir::open_root(&path, false)?;
    Ok((temp, path, place))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn stat(place: &PlaceDir, name: &[u8]) -> Stat {
    place.stat(name).expect("stat").expect("exists")
}

#[test]
fn names_are_bytes_in_order() -> Outcome {
    let (_temp, path, place) = target()?;
    for name in ODD_NAMES {
        write_all_at(&place.create_file(name)?, 0, name)?;
    }
    let dir = Dir::open(&path)?;
    let mut expected = ODD_NAMES.to_vec();
    expected.sort();
    for _ in 0..2 {
        let names = dir.names()?;
        assert!(names.iter().eq(expected.iter().copied()));
        assert!((0..names.len()).all(|at| matches!(names.kind(at), None | Some(Kind::File))));
    }
    for name in ODD_NAMES {
        let (file, stat) = (dir.open_file(name)?, dir.stat(name)?);
        assert_eq!(fstat(&file)?, stat);
        assert_eq!((stat.kind, stat.size, stat.mode), (Kind::File, name.len() as u64, 0o600));
        assert_eq!((stat.uid, stat.gid, stat.nlink), (me().0, me().1, 1));
        let mut bytes = vec![0; 300];
        let read = read_full_at(&file, 0, &mut bytes)?;
        assert_eq!(&bytes[..read], name);
    }
    Ok(())
}

#[test]
fn stat_agrees_with_the_standard_library() -> Outcome {
    for (parent, name) in [("/", "etc"), ("/etc", "passwd"), ("/dev", "null"), ("/proc", "self")] {
        let (ours, path) =
            (Dir::open(Path::new(parent))?.stat(name.as_bytes())?, Path::new(parent));
        let theirs = fs::symlink_metadata(path.join(name))?;
        assert_eq!((ours.dev, ours.ino, ours.nlink), (theirs.dev(), theirs.ino(), theirs.nlink()));
        assert_eq!(
            (ours.uid, ours.gid, ours.mode),
            (theirs.uid(), theirs.gid(), theirs.mode() & 0o7777)
        );
        assert_eq!((ours.size, ours.blocks), (theirs.size(), theirs.blocks()), "{parent} {name}");
        let mtime = Time { secs: theirs.mtime(), nanos: theirs.mtime_nsec() as u32 };
        let ctime = Time { secs: theirs.ctime(), nanos: theirs.ctime_nsec() as u32 };
        assert_eq!((ours.mtime, ours.ctime), (mtime, ctime));
        if ours.kind == Kind::CharDevice {
            assert_eq!(ours.rdev, (1, 3));
        }
    }
    let file = tempfile::tempfile()?;
    let born = fstat(&file)?.btime;
    assert!(born.is_none_or(|time| time.secs > 1_600_000_000));
    Ok(())
}

#[test]
fn listing_spans_many_buffers() -> Outcome {
    let (_temp, path, place) = target()?;
    let name = |number| format!("{number:0100}").into_bytes();
    for number in 0..2000 {
        place.mknod(&name(number), Kind::Fifo, (0, 0))?;
    }
    let names = Dir::open(&path)?.names()?;
    assert_eq!(names.len(), 2000);
    assert!(names.iter().enumerate().all(|(number, found)| found == name(number)));
    Ok(())
}

#[test]
fn the_walk_follows_no_symlink() -> Outcome {
    let (_temp, path) = tree()?;
    fs::create_dir(path.join("real"))?;
    fs::write(path.join("file"), "x")?;
    symlink("real", path.join("to-dir"))?;
    symlink("file", path.join("to-file"))?;
    let odd = std::ffi::OsStr::from_bytes(b"/no\n\xff/../where");
    symlink(odd, path.join("odd"))?;
    let dir = Dir::open(&path)?;
    assert!(dir.open_dir(b"real").is_ok());
    for name in ["to-dir", "file", "absent"] {
        assert!(dir.open_dir(name.as_bytes()).is_err(), "{name}");
    }
    for name in ["to-file", "to-dir", "odd"] {
        assert!(dir.open_file(name.as_bytes()).is_err(), "{name}");
        assert_eq!(dir.stat(name.as_bytes())?.kind, Kind::Symlink);
    }
    assert_eq!(dir.read_link(b"odd")?, odd.as_bytes());
    assert!(dir.read_link(b"file").is_err());
    for name in NOT_NAMES {
        assert!(!valid_name(name));
        assert!(
            dir.stat(name).is_err() && dir.open_dir(name).is_err() && dir.open_file(name).is_err()
        );
        assert!(dir.read_link(name).is_err() && xattrs_at(&dir, name).is_err());
    }
    assert!(ODD_NAMES.iter().all(|name| valid_name(name)));
    Ok(())
}

#[test]
fn a_fifo_does_not_block() -> Outcome {
    let (_temp, path, place) = target()?;
    place.mknod(b"fifo", Kind::Fifo, (0, 0))?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let kind = Dir::open(&path).and_then(|dir| fstat(dir.open_file(b"fifo")?));
        let refused = [place.open_file(b"fifo"), place.open_file_to_write(b"fifo")];
        let refused = refused.map(|outcome| outcome.map_err(|error| error.kind()).err());
        let _ = sender.send((kind.map(|stat| stat.kind), refused));
    });
    let (kind, refused) = receiver.recv_timeout(Duration::from_secs(60))?;
    assert_eq!(kind?, Kind::Fifo);
    assert_eq!(refused, [Some(ErrorKind::InvalidInput); 2]);
    Ok(())
}

#[test]
fn reading_leaves_the_access_time() -> Outcome {
    let (_temp, path, place) = target()?;
    let file = place.create_file(b"f")?;
    write_all_at(&file, 0, b"content")?;
    let (old, mtime) = (Time { secs: 1000, nanos: 5 }, Time { secs: 2000, nanos: 0 });
    let meta = Meta { mode: 0o600, mtime, atime: Some(old), ..Meta::default() };
    assert!(set_meta_fd(&file, &meta).is_empty());
    assert!(set_meta_fd(&file, &Meta { atime: None, ..meta }).is_empty());
    let mut content = String::new();
    Dir::open(&path)?.open_file(b"f")?.read_to_string(&mut content)?;
    assert_eq!(content, "content");
    let after = file.metadata()?;
    assert_eq!((after.atime(), after.atime_nsec()), (1000, 5));
    // someone else's file, for whom a normal user may not ask that
    let mut passwd = String::new();
    Dir::open(Path::new("/etc"))?.open_file(b"passwd")?.read_to_string(&mut passwd)?;
    assert!(passwd.contains("root"));
    Ok(())
}

#[test]
fn full_reads_stop_at_the_end() -> Outcome {
    let file = tempfile::tempfile()?;
    write_all_at(&file, 3, b"abc")?;
    advise(&file, 0, 0, CacheAdvice::Sequential);
    let mut buffer = [9; 8];
    assert_eq!(read_full_at(&file, 1, &mut buffer)?, 5);
    assert_eq!(&buffer, b"\0\0abc\x09\x09\x09");
    assert_eq!(read_full_at(&file, 6, &mut buffer)?, 0);
    assert_eq!(read_full_at(&file, u64::from(u32::MAX), &mut buffer)?, 0);
    Ok(())
}

const K: u64 = 1 << 10;

/// The ranges cover all data; where the file system keeps holes of this size, exactly.
#[track_caller]
fn check_ranges(file: &File, len: u64, data: &[Range<u64>]) {
    let stat = fstat(file).expect("stat");
    let found = data_ranges(file, len).expect("ranges");
    let dense = data.len() == 1 && data[0].end - data[0].start == len;
    if dense || stat.blocks * 512 < stat.size {
        assert_eq!(found, data);
    }
    let covered = |at: u64| found.iter().any(|range| range.contains(&at));
    assert!(data.iter().all(|range| covered(range.start) && covered(range.end - 1)));
    assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
}

#[test]
fn holes_are_found_and_made() -> Outcome {
    let file = tempfile::tempfile()?;
    check_ranges(&file, 0, &[]);
    file.set_len(4096 * K)?;
    check_ranges(&file, 4096 * K, &[]);
    write_all_at(&file, 1024 * K, &[1; 64 << 10])?;
    write_all_at(&file, 2048 * K, &[1; 64 << 10])?;
    check_ranges(&file, 4096 * K, &[1024 * K..1088 * K, 2048 * K..2112 * K]);
    check_ranges(&file, 2049 * K, &[1024 * K..1088 * K, 2048 * K..2049 * K]);
    check_ranges(&file, 1000 * K, &[]);
    punch_hole(&file, 1024 * K, 64 * K)?;
    check_ranges(&file, 4096 * K, &[Range { start: 2048 * K, end: 2112 * K }]);
    punch_hole(&file, 2048 * K + 5, 10)?;
    punch_hole(&file, 5000 * K, 10 * K)?;
    punch_hole(&file, 0, 0)?;
    assert_eq!(fstat(&file)?.size, 4096 * K);
    let mut bytes = vec![1; 64 << 10];
    read_full_at(&file, 1024 * K, &mut bytes)?;
    assert!(is_zero_run(&bytes));
    read_full_at(&file, 2048 * K, &mut bytes)?;
    assert_eq!(bytes.iter().position(|byte| *byte == 0), Some(5));
    assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 10);
    let dense = tempfile::tempfile()?;
    write_all_at(&dense, 0, &[1; 100_000])?;
    check_ranges(&dense, 100_000, &[Range { start: 0, end: 100_000 }]);
    Ok(())
}

fn xattr(name: &str, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (name.into(), value.into())
}

/// False if the file system has no xattrs of users.
fn has_user_xattrs(file: &File) -> bool {
    let probe = set_xattrs(file, &[xattr("user.probe", b"")], Others::Keep);
    assert!(set_xattrs(file, &[], Others::Remove).is_empty());
    if let Some((_, error)) = probe.first() {
        assert_eq!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP));
        eprintln!("skipped: no user xattrs here");
    }
    probe.is_empty()
}

#[test]
fn xattrs_come_back() -> Outcome {
    let (_temp, path, place) = target()?;
    let file = place.create_file(b"f")?;
    assert_eq!(xattrs_of(&file)?, Xattrs::new());
    if !has_user_xattrs(&file) {
        return Ok(());
    }
    let dir = place.make_dir(b"d")?;
    let wanted = vec![
        xattr("user.a", b""),
        xattr("user.big", &[0xa5; 2000]),
        (b"user.\xff\n".to_vec(), b"odd\0".to_vec()),
    ];
    let mut sorted = wanted.clone();
    sorted.sort();
    for (fd, name) in [(file.as_fd(), b"f"), (dir.as_fd(), b"d")] {
        assert!(set_xattrs(fd, &wanted, Others::Keep).is_empty());
        assert_eq!(xattrs_of(fd)?, sorted);
        assert_eq!(xattrs_at(&Dir::open(&path)?, name)?, sorted);
        assert!(set_xattrs(fd, &[xattr("user.z", b"1")], Others::Keep).is_empty());
        assert_eq!(xattrs_of(fd)?.len(), 4);
        assert!(set_xattrs(fd, &[xattr("user.z", b"2")], Others::Remove).is_empty());
        assert_eq!(xattrs_of(fd)?, [xattr("user.z", b"2")]);
    }
    let many: Xattrs = (0..60).map(|n| xattr(&format!("user.{n:030}"), b"v")).collect();
    assert!(set_xattrs(&file, &many, Others::Remove).is_empty());
    assert_eq!(xattrs_of(&file)?, many, "a list longer than the usual buffer");
    let refused = set_xattrs(&file, &[xattr("bogus", b""), xattr("user.ok", b"")], Others::Keep);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, Part::Xattr(b"bogus".to_vec()));
    assert!(xattrs_of(&file)?.contains(&xattr("user.ok", b"")));
    Ok(())
}

/// A symlink has its own attributes, not its target's; only root can make one to see.
#[test]
fn xattrs_of_entries_not_opened() -> Outcome {
    let (_temp, path, place) = target()?;
    let file = place.create_file(b"f")?;
    let there = has_user_xattrs(&file);
    set_xattrs(&file, &[xattr("user.a", b"1")], Others::Keep);
    place.symlink(b"f", b"link")?;
    place.mknod(b"fifo", Kind::Fifo, (0, 0))?;
    let dir = Dir::open(&path)?;
    assert_eq!(xattrs_at(&dir, b"link")?, Xattrs::new());
    assert_eq!(xattrs_at(&dir, b"fifo")?, Xattrs::new());
    assert!(xattrs_at(&dir, b"absent").is_err());
    if is_root() && there {
        let wanted = Some(vec![xattr("trusted.t", b"x")]);
        let meta = Meta { owner: Some((1, 1)), xattrs: wanted.clone(), ..Meta::default() };
        for name in [b"link".as_slice(), b"fifo"] {
            let warnings = place.set_meta_at(name, &meta)?;
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(Some(xattrs_at(&dir, name)?), wanted);
            assert_eq!((stat(&place, name).uid, stat(&place, name).gid), (1, 1));
        }
        assert_eq!(xattrs_of(&file)?, [xattr("user.a", b"1")], "the link was not followed");
        assert_eq!(fstat(&file)?.uid, 0);
    }
    Ok(())
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, allowed, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(allowed.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn acls_come_back() -> Outcome {
    let (_temp, _path, place) = target()?;
    let all = u32::MAX;
    let entries = [(1, 6, all), (2, 4, 65534), (4, 0, all), (16, 4, all), (32, 0, all)];
    let access = xattr("system.posix_acl_access", &acl(&entries));
    let default = xattr("system.posix_acl_default", &acl(&entries));
    let parent = place.make_dir(b"d")?;
    if let Some((_, error)) =
        set_xattrs(&parent, std::slice::from_ref(&default), Others::Keep).first()
    {
        assert_eq!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP));
        eprintln!("skipped: no ACLs here");
        return Ok(());
    }
    let heir = parent.create_file(b"heir")?;
    assert!(!xattrs_of(&heir)?.is_empty(), "inherited an ACL");
    let plain = Meta { mode: 0o640, xattrs: Some(Vec::new()), ..Meta::default() };
    assert!(set_meta_fd(&heir, &plain).is_empty());
    assert_eq!((xattrs_of(&heir)?, fstat(&heir)?.mode), (Vec::new(), 0o640));

    let meta = Meta { mode: 0o640, xattrs: Some(vec![access.clone()]), ..Meta::default() };
    assert!(set_meta_fd(&heir, &meta).is_empty());
    assert_eq!((xattrs_of(&heir)?, fstat(&heir)?.mode), (vec![access.clone()], 0o640));
    let meta = Meta { mode: 0o750, xattrs: Some(vec![access, default]), ..Meta::default() };
    assert!(set_meta_fd(&parent, &meta).is_empty());
    assert_eq!((xattrs_of(&parent)?.len(), fstat(&parent)?.mode), (2, 0o750));
    Ok(())
}

#[test]
fn times_keep_nanoseconds_and_the_past() -> Outcome {
    let (_temp, _path, place) = target()?;
    let file = place.create_file(b"file")?;
    let dir = place.make_dir(b"dir")?;
    place.symlink(b"file", b"link")?;
    place.mknod(b"fifo", Kind::Fifo, (0, 0))?;
    let nanos = 999_999_999;
    for secs in [0, 1_700_000_000, -1, -2_000_000_000] {
        let mtime = Time { secs, nanos };
        let meta = Meta { mode: 0o751, mtime, ..Meta::default() };
        assert!(set_meta_fd(&file, &Meta { mtime: Time::default(), ..meta.clone() }).is_empty());
        assert!(set_meta_fd(&dir, &meta).is_empty());
        for name in [b"link", b"fifo"] {
            assert!(place.set_meta_at(name, &meta)?.is_empty());
        }
        for name in [b"dir".as_slice(), b"link", b"fifo"] {
            assert_eq!(stat(&place, name).mtime, mtime);
        }
        assert_eq!(fstat(&file)?.mtime, Time::default(), "the link was not followed");
        assert_eq!((fstat(&dir)?.mode, stat(&place, b"fifo").mode), (0o751, 0o751));
    }
    let wrong =
        Meta { mtime: Time { secs: 5, nanos: 1_073_741_823 }, mode: 0o600, ..Meta::default() };
    let warnings = set_meta_fd(&file, &wrong);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].0, Part::Times);
    assert_eq!(fstat(&file)?.mtime, Time::default());
    Ok(())
}

/// Mode asked, owner asked, then whether the owner is refused and which mode there is.
#[track_caller]
fn check_mode(mode: u32, owner: Option<(u32, u32)>, refused: bool, expected: u32) {
    let (_temp, _path, place) = target().expect("target");
    let file = place.create_file(b"f").expect("creates");
    let warnings = set_meta_fd(&file, &Meta { owner, mode, ..Meta::default() });
    let parts: Vec<_> = warnings.into_iter().map(|(part, _)| part).collect();
    assert_eq!(parts, if refused { vec![Part::Owner] } else { vec![] });
    let stat = fstat(&file).expect("stat");
    assert_eq!(format!("{:o}", stat.mode), format!("{expected:o}"));
    if let (Some(owner), false) = (owner, refused) {
        assert_eq!((stat.uid, stat.gid), owner);
    }
}

#[test]
fn setuid_only_for_the_right_owner() {
    check_mode(0o6755, Some(me()), false, 0o6755);
    check_mode(0o6755, None, false, 0o755);
    check_mode(0o1755, None, false, 0o1755);
    check_mode(0o106_644, Some(me()), false, 0o6644);
    check_mode(0o6755, Some((u32::MAX, me().1)), true, 0o755);
    check_mode(0o6755, Some((me().0, u32::MAX)), true, 0o755);
    if is_root() {
        check_mode(0o6711, Some((12345, 54321)), false, 0o6711);
    } else {
        check_mode(0o6711, Some((0, 0)), true, 0o711);
        check_mode(0o6711, Some((me().0 + 1, me().1)), true, 0o711);
    }
}

#[test]
fn planted_symlinks_lead_nowhere() -> Outcome {
    let (_outside, outside) = tree()?;
    fs::write(outside.join("victim"), "untouched")?;
    let (_temp, path, place) = target()?;
    let victim = outside.join("victim");
    symlink(&outside, path.join("dir"))?;
    symlink(&victim, path.join("file"))?;
    symlink(outside.join("born"), path.join("dangling"))?;

    assert!(place.open_dir(b"dir").is_err());
    for name in [b"file".as_slice(), b"dangling", b"dir"] {
        assert_eq!(place.create_file(name).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(place.open_file(name).is_err() && place.open_file_to_write(name).is_err());
        assert_eq!(stat(&place, name).kind, Kind::Symlink);
    }
    let before = fs::metadata(&victim)?;
    place.set_meta_at(b"file", &Meta { mode: 0o777, ..Meta::default() })?;
    place.hard_link(&place, b"file", b"second")?;
    assert_eq!(stat(&place, b"second").kind, Kind::Symlink);
    let after = fs::metadata(&victim)?;
    assert_eq!((before.mode(), before.nlink()), (after.mode(), after.nlink()));
    assert_eq!(before.mtime_nsec(), after.mtime_nsec());

    place.make_dir(b"dir")?.create_file(b"inside")?;
    assert_eq!(stat(&place, b"dir").kind, Kind::Dir);
    assert_eq!(fs::read_dir(&outside)?.count(), 1);
    assert!(place.remove(b"file")?);
    assert_eq!(fs::read_to_string(&victim)?, "untouched");
    Ok(())
}

#[test]
fn planted_hard_links_are_not_written_through() -> Outcome {
    let (_temp, path, place) = target()?;
    fs::write(path.join("victim"), "untouched")?;
    let inner = place.make_dir(b"target")?;
    inner.hard_link(&place, b"victim", b"f")?;
    assert_eq!(inner.open_file(b"f")?.1.nlink, 2);
    assert_eq!(inner.open_file_to_write(b"f").unwrap_err().kind(), ErrorKind::TooManyLinks);
    write_all_at(&inner.create_file(b"new")?, 0, b"restored")?;
    inner.rename(b"new", &inner, b"f")?;
    assert_eq!(fs::read_to_string(path.join("victim"))?, "untouched");
    write_all_at(&inner.open_file_to_write(b"f")?.0, 0, b"R")?;
    assert_eq!(fs::read_to_string(path.join("target/f"))?, "Restored");
    Ok(())
}

#[test]
fn names_that_are_none_are_refused_everywhere() -> Outcome {
    let (_temp, _path, root) = target()?;
    let place = root.make_dir(b"inner")?;
    place.create_file(b"ok")?;
    let meta = Meta::default();
    for name in NOT_NAMES {
        let refusals = [
            place.open_dir(name).err(),
            place.make_dir(name).err(),
            place.stat(name).err(),
            place.read_link(name).err(),
            place.create_file(name).err(),
            place.open_file(name).err(),
            place.open_file_to_write(name).err(),
            place.remove(name).err(),
            place.symlink(b"t", name).err(),
            place.hard_link(&place, name, b"x").err(),
            place.hard_link(&place, b"ok", name).err(),
            place.mknod(name, Kind::Fifo, (0, 0)).err(),
            place.rename(name, &place, b"x").err(),
            place.rename(b"ok", &place, name).err(),
            place.set_meta_at(name, &meta).err(),
        ];
        for (call, refusal) in refusals.into_iter().enumerate() {
            let kind = refusal.map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::InvalidInput), "call {call}, {}", name.escape_ascii());
        }
    }
    assert_eq!(place.names()?.len(), 1);
    assert_eq!(root.names()?.len(), 1);
    Ok(())
}

#[test]
fn entries_of_every_kind() -> Outcome {
    let (_temp, path, _) = target()?;
    assert!(PlaceDir::open_root(&path.join("a/b"), false).is_err());
    let place = PlaceDir::open_root(&path.join("a/b"), true)?;
    assert_eq!(fs::metadata(path.join("a/b"))?.permissions(), Permissions::from_mode(0o40700));
    let sub = place.make_dir(b"dir")?;
    assert_eq!(fstat(&sub)?.mode, 0o700);
    sub.create_file(b"kept")?;
    assert_eq!(place.make_dir(b"dir")?.names()?.len(), 1, "what is there stays");
    place.create_file(b"file")?;
    place.make_dir(b"file")?;
    assert_eq!(stat(&place, b"file").kind, Kind::Dir, "a file gives way");
    for name in ODD_NAMES {
        place.make_dir(name)?;
        assert!(place.remove(name)?);
    }
    place.mknod(b"fifo", Kind::Fifo, (0, 0))?;
    place.mknod(b"socket", Kind::Socket, (0, 0))?;
    place.symlink(b"\xff\n", b"link")?;
    assert_eq!(place.read_link(b"link")?, b"\xff\n");
    for (name, kind) in [("fifo", Kind::Fifo), ("socket", Kind::Socket), ("link", Kind::Symlink)] {
        assert_eq!(stat(&place, name.as_bytes()).kind, kind);
    }
    let refused = place.open_file(b"socket").unwrap_err().kind();
    assert_eq!(refused, ErrorKind::InvalidInput, "not even tried");
    for (kind, rdev) in [(Kind::CharDevice, (1, 3)), (Kind::BlockDevice, (7, 300))] {
        match place.mknod(b"device", kind, rdev) {
            Ok(()) => assert_eq!(stat(&place, b"device").rdev, rdev),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
        place.remove(b"device")?;
    }
    for kind in [Kind::File, Kind::Dir, Kind::Symlink] {
        assert_eq!(place.mknod(b"x", kind, (0, 0)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(place.remove(b"dir").unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    assert!(sub.remove(b"kept")? && place.remove(b"dir")? && !place.remove(b"dir")?);
    assert_eq!(place.stat(b"dir")?, None);
    place.sync()?;
    Ok(())
}

/// Paths of 15,000 bytes, which no call could take as a whole.
#[test]
fn depth_has_no_limit() -> Outcome {
    let (_temp, path, mut place) = target()?;
    let name = [b'd'; 50];
    for _ in 0..300 {
        place = place.make_dir(&name)?;
    }
    write_all_at(&place.create_file(b"bottom")?, 0, b"here")?;
    place.symlink(b"bottom", b"link")?;
    let mtime = Time { secs: 77, nanos: 7 };
    assert!(place.set_meta_at(b"link", &Meta { mtime, ..Meta::default() })?.is_empty());
    let mut dir = Dir::open(&path)?;
    for _ in 0..300 {
        assert_eq!(dir.names()?[0], name);
        dir = dir.open_dir(&name)?;
    }
    let mut content = String::new();
    dir.open_file(b"bottom")?.read_to_string(&mut content)?;
    assert_eq!(content, "here");
    assert_eq!((dir.stat(b"link")?.mtime, xattrs_at(&dir, b"link")?), (mtime, Xattrs::new()));
    Ok(())
}

#[test]
fn owners_have_names() {
    let owners = Owners::new();
    for _ in 0..2 {
        assert_eq!(owners.user_name(0).as_deref(), Some("root"));
        assert_eq!(owners.group_name(0).as_deref(), Some("root"));
        assert_eq!((owners.user_id("root"), owners.group_id("root")), (Some(0), Some(0)));
        assert_eq!(
            (owners.user_name(3_999_999_999), owners.group_name(3_999_999_999)),
            (None, None)
        );
        assert_eq!((owners.user_id("no such user"), owners.group_id("")), (None, None));
        assert_eq!(owners.user_id("ro\0ot"), None);
    }
}

#[test]
fn facts_about_the_host() -> Outcome {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    assert_eq!(host_name().as_deref().unwrap_or(""), name.trim_end());
    assert_eq!(fs_type(Path::new("/proc"))?, "proc");
    assert!(fs_type(Path::new("/no such path")).is_err());
    let flags = fs::read_to_string("/proc/cpuinfo")?;
    assert_eq!(cpu_has_aes(), flags.split_whitespace().any(|flag| flag == "aes"));
    Ok(())
}
