//! Facts about this machine: owner names, host name, page size, CPU, file systems.
//!
//! Reads no environment variable and caches owner names only.
#![expect(unsafe_code, reason = "libc's name service and sysconf have no safe wrapper here")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::zeroed;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the name service's answer stops growing; a group of 50,000 members fits.
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Users and groups by number and by name, each asked once. A name that is not UTF-8, or that the
/// name service cannot tell, is `None`.
#[derive(Debug, Default)]
pub struct Owners {
    users: Mutex<Known>,
    groups: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<u32, Option<Arc<str>>>,
    ids: HashMap<Box<str>, Option<u32>>,
}

impl Owners {
    pub fn new() -> Owners {
        Owners::default()
    }

    pub fn user_name(&self, uid: u32) -> Option<Arc<str>> {
        known_name(&self.users, uid, || user_by_id(uid))
    }

    pub fn group_name(&self, gid: u32) -> Option<Arc<str>> {
        known_name(&self.groups, gid, || group_by_id(gid))
    }

    pub fn user_id(&self, name: &str) -> Option<u32> {
        known_id(&self.users, name, user_by_name)
    }

    pub fn group_id(&self, name: &str) -> Option<u32> {
        known_id(&self.groups, name, group_by_name)
    }
}

/// Bytes of a memory page.
/// Numeric id of the user that this process acts as.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub fn group_id() -> u32 {
    rustix::process::getegid().as_raw()
}

pub fn page_size() -> usize {
    // SAFETY: takes and returns integers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every system has a page size")
}

/// The machine's name as it calls itself; `None` if it has none or it is not UTF-8.
pub fn host_name() -> Option<String> {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer is valid for the given length, whose last byte stays NUL.
    let status = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    let name = CStr::from_bytes_until_nul(&buffer).ok()?.to_str().ok()?;
    (status == 0 && !name.is_empty()).then(|| name.to_owned())
}

/// Whether AES-GCM runs on AES and carry-less multiplication instructions here.
pub fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

/// The kind of file system that holds `path`, by its magic number (`linux/magic.h`); "other" if we
/// have no name for it. All FUSE file systems are "fuse".
pub fn fs_type(path: &Path) -> io::Result<&'static str> {
    // the field's type differs by architecture; magic numbers have 32 bits
    let magic = rustix::fs::statfs(path)?.f_type as u32;
    Ok(match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "smb",
        0x0102_1997 => "9p",
        0x6573_5546 => "fuse",
        0x00c3_6400 => "ceph",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x7366_746e | 0x5346_544e => "ntfs",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x9660 => "iso9660",
        0x1501_3346 => "udf",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x0027_e0eb | 0x6367_7270 => "cgroup",
        0x1cd1 => "devpts",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0xde5e_81e4 => "efivarfs",
        _ => "other",
    })
}

fn known_name(
    known: &Mutex<Known>,
    id: u32,
    ask: impl FnOnce() -> Option<Entry>,
) -> Option<Arc<str>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let name = known.names.entry(id).or_insert_with(|| Some(ask()?.name.to_str().ok()?.into()));
    name.clone()
}

fn known_id(known: &Mutex<Known>, name: &str, ask: fn(&CStr) -> Option<Entry>) -> Option<u32> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(id) = known.ids.get(name) {
        return *id;
    }
    let id = CString::new(name).ok().and_then(|name| ask(&name)).map(|entry| entry.id);
    known.ids.insert(name.into(), id);
    id
}

/// What we want of a `passwd` or `group` record.
struct Entry {
    name: CString,
    id: u32,
}

fn user_by_id(uid: u32) -> Option<Entry> {
    // SAFETY: `user` passes pointers that are valid for the call.
    user(|record, text, bytes, found| unsafe { libc::getpwuid_r(uid, record, text, bytes, found) })
}

fn user_by_name(name: &CStr) -> Option<Entry> {
    let name = name.as_ptr();
    // SAFETY: as above; `name` ends with NUL.
    user(|record, text, bytes, found| unsafe { libc::getpwnam_r(name, record, text, bytes, found) })
}

fn group_by_id(gid: u32) -> Option<Entry> {
    // SAFETY: `group` passes pointers that are valid for the call.
    group(|record, text, bytes, found| unsafe { libc::getgrgid_r(gid, record, text, bytes, found) })
}

fn group_by_name(name: &CStr) -> Option<Entry> {
    let name = name.as_ptr();
    // SAFETY: as above; `name` ends with NUL.
    group(|record, text, bytes, found| unsafe {
        libc::getgrnam_r(name, record, text, bytes, found)
    })
}

fn user(
    ask: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
) -> Option<Entry> {
    grow(|text| {
        // SAFETY: a C struct of integers and pointers: zeros are valid.
        let mut record: libc::passwd = unsafe { zeroed() };
        let mut found = null_mut();
        match ask(&mut record, text.as_mut_ptr(), text.len(), &mut found) {
            0 if found.is_null() => Ok(None),
            // SAFETY: found, so the name is a NUL-terminated string inside `text`.
            0 => Ok(Some(Entry {
                name: unsafe { CStr::from_ptr(record.pw_name) }.into(),
                id: record.pw_uid,
            })),
            error => Err(error),
        }
    })
}

fn group(
    ask: impl Fn(*mut libc::group, *mut c_char, usize, *mut *mut libc::group) -> c_int,
) -> Option<Entry> {
    grow(|text| {
        // SAFETY: a C struct of integers and pointers: zeros are valid.
        let mut record: libc::group = unsafe { zeroed() };
        let mut found = null_mut();
        match ask(&mut record, text.as_mut_ptr(), text.len(), &mut found) {
            0 if found.is_null() => Ok(None),
            // SAFETY: found, so the name is a NUL-terminated string inside `text`.
            0 => Ok(Some(Entry {
                name: unsafe { CStr::from_ptr(record.gr_name) }.into(),
                id: record.gr_gid,
            })),
            error => Err(error),
        }
    })
}

/// Asks with more room until the answer fits; an error of the name service is no answer.
fn grow(ask: impl Fn(&mut [c_char]) -> Result<Option<Entry>, c_int>) -> Option<Entry> {
    let mut text = vec![0; 1024];
    loop {
        match ask(&mut text) {
            Ok(found) => return found,
            Err(libc::ERANGE) if text.len() < ENTRY_BYTES_MAX => text.resize(text.len() * 4, 0),
            Err(libc::EINTR) => {}
            Err(_) => return None,
        }
    }
}
