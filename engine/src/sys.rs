//! The operating system's file API, as the rest of the engine sees it.
//!
//! - [`buffer`]: memory that the kernel copies into at full speed.
//! - [`clock`]: processor time, for measuring.
//! - [`dir`]: the way in: directories by handle, names as bytes, one `statx` a file.
//! - [`fault`]: how tests make any of these fail.
//! - [`file`]: bytes of an open file: full reads, holes, cache advice.
//! - [`map`]: read-only maps that survive the file being truncated underneath.
//! - [`meta`]: owner, xattrs, ACLs, mode and times, read and written.
//! - [`place`]: the way back: writing below a directory and never outside of it.
//! - [`prefetch`]: memory that is needed soon.
//! - [`host`]: owner names, host name, page size, what the CPU and the file system are.
//! - [`stat`]: the plain values that the others speak in.
//! - [`wipe`]: values that are overwritten when they are dropped.
//!
//! Errors are `std::io::Error`; callers add the path. Nothing here knows of repositories, formats or
//! policy, and all names are raw bytes. All `unsafe` of the engine but SIMD is in `map`, `host`, `prefetch` and
//! `wipe`.
//! Linux is first class; calls that only Linux has stay behind the functions of this module.

pub mod buffer;
pub mod clock;
pub mod dir;
pub mod fault;
pub mod file;
pub mod host;
pub mod map;
pub mod meta;
pub mod place;
pub mod prefetch;
pub mod stat;
pub mod wipe;
