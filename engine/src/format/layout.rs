//! Fixed-width rows: reading little-endian fields at known offsets, and the checks every binary
//! table shares.

use crate::error::FormatError;

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Bytes that the format calls *zero*.
pub(super) fn check_zero(object: &'static str, bytes: &[u8]) -> Result<(), FormatError> {
    check(object, bytes.iter().all(|&byte| byte == 0), "a reserved byte is not zero")
}

pub(super) fn check(object: &'static str, ok: bool, what: &'static str) -> Result<(), FormatError> {
    if ok { Ok(()) } else { Err(FormatError::Malformed { object, what }) }
}

pub(super) fn limit(object: &'static str, ok: bool, what: &'static str) -> Result<(), FormatError> {
    if ok { Ok(()) } else { Err(FormatError::Limit { object, what }) }
}

/// Cuts `count` rows of `N` bytes off the front; the caller has compared the counts with the
/// length.
pub(super) fn take_rows<'a, const N: usize>(rest: &mut &'a [u8], count: usize) -> &'a [[u8; N]] {
    let (rows, tail) = rest.split_at(count * N);
    *rest = tail;
    rows.as_chunks().0
}
