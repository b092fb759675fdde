//! Bytes of an open file: whole reads and writes at an offset, holes, cache advice.
//!
//! The file's position is never used by these, except by [`data_ranges`], which moves it.

use std::fs::File;
use std::io;
use std::iter;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::io::{ReadWriteFlags, preadv2};

use super::fault;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What the page cache is told about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAdvice {
    /// It is read from front to back: read ahead further.
    Sequential,
    /// The range is read soon: start now.
    WillNeed,
    /// The range is not read again: drop its clean pages.
    DontNeed,
}

/// Reads until the buffer is full or the file ends; returns the bytes read.
pub fn read_full_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let len = fault::pass_bytes("read", buffer.len())?;
    let buffer = &mut buffer[..len];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`.
pub fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    fault::write("target write", bytes, |bytes| file.write_all_at(bytes, offset))
}

/// Cuts a file off, or lengthens it by a hole.
pub fn set_len(file: &File, len: u64) -> io::Result<()> {
    fault::pass("target set length")?;
    file.set_len(len)
}

/// The parts of `0..len` that are not holes, in order, apart from each other. The whole where the
/// file system cannot tell. Costs two seeks a range, so ask only when `blocks * 512 < size`.
pub fn data_ranges(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    fault::pass("seek data")?;
    let mut ranges = Vec::new();
    let mut position = 0;
    while position < len {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return Ok(iter::once(0..len).collect());
            }
            Err(error) => return Err(error.into()),
        };
        if start >= len {
            break;
        }
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(len),
            // truncated since: the reader will find out where it ends now
            Err(Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        if end <= start {
            return Err(io::Error::other(format!("hole at {end} found from {start} on")));
        }
        ranges.push(start..end);
        position = end;
    }
    Ok(ranges)
}

/// Makes `offset..offset + len` read as zeros, as a hole where the file system has them; the file's
/// length stays as it is.
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    fault::pass("target punch hole")?;
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, offset, len),
        other => Ok(other?),
    }
}

/// The plain twin of [`punch_hole`].
fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = offset.saturating_add(len).min(file.metadata()?.len());
    let mut position = offset;
    while position < end {
        let step = ZEROS.len().min((end - position) as usize);
        file.write_all_at(&ZEROS[..step], position)?;
        position += step as u64;
    }
    Ok(())
}

/// Whether all bytes are zero; true for none. One `memcmp` of the slice against itself shifted, so
/// it stops at the first other byte and runs at memory speed in debug builds too.
pub fn is_zero_run(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == 0 && rest == &bytes[..rest.len()],
    }
}

/// Whether the page at `offset` is in the page cache; `None` where the system cannot tell.
#[cfg(target_os = "linux")]
pub fn is_cached(file: &File, offset: u64) -> Option<bool> {
    let mut byte = [0];
    let mut room = [io::IoSliceMut::new(&mut byte)];
    // A read that would have to wait for the disk is refused.
    match preadv2(file, &mut room, offset, ReadWriteFlags::NOWAIT) {
        Ok(1) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
pub fn is_cached(_file: &File, _offset: u64) -> Option<bool> {
    None
}

/// Advises the page cache about `offset..offset + len`, to the end if `len` is 0. Advice is never
/// needed for correctness, so its errors are dropped.
pub fn advise(file: &File, offset: u64, len: u64, advice: CacheAdvice) {
    let advice = match advice {
        CacheAdvice::Sequential => Advice::Sequential,
        CacheAdvice::WillNeed => Advice::WillNeed,
        CacheAdvice::DontNeed => Advice::DontNeed,
    };
    let _ = fadvise(file, offset, NonZeroU64::new(len), advice);
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{is_cached, is_zero_run, read_full_at, write_all_at, write_zeros};

    #[test]
    fn zero_runs() {
        for len in [0, 1, 2, 63, 64, 65, 4096, 100_000] {
            let mut bytes = vec![0u8; len];
            assert!(is_zero_run(&bytes));
            for at in [0, len / 2, len.saturating_sub(1)].into_iter().filter(|at| *at < len) {
                bytes[at] = 1;
                assert!(!is_zero_run(&bytes), "length {len}, other byte at {at}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn what_was_just_written_is_cached() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        write_all_at(&file, 0, &[7; 10_000])?;
        // Some file systems do not say.
        assert_ne!(is_cached(&file, 5_000), Some(false));
        assert_eq!(is_cached(&file, 20_000), None, "beyond the end");
        Ok(())
    }

    #[test]
    fn zeros_stop_at_the_end_of_the_file() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        write_all_at(&file, 0, &[7; 200_000])?;
        write_zeros(&file, 10, 150_000)?;
        write_zeros(&file, 199_999, u64::MAX)?;
        let mut bytes = vec![0; 300_000];
        assert_eq!(read_full_at(&file, 0, &mut bytes)?, 200_000);
        assert!(bytes[..10].iter().all(|byte| *byte == 7));
        assert!(is_zero_run(&bytes[10..150_010]));
        assert!(bytes[150_010..199_999].iter().all(|byte| *byte == 7));
        assert_eq!(bytes[199_999], 0);
        Ok(())
    }
}
