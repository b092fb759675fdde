//! `SNAP[:PATH]` on the command line: what is asked for, before any repository is open.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A snapshot and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) snapshot: String,
    /// Absolute, without `.`, `..`, doubled or trailing slashes.
    pub(crate) path: Option<Vec<u8>>,
}

pub(crate) fn parser() -> impl TypedValueParser<Value = Wanted> {
    OsStringValueParser::new().try_map(parse)
}

/// As `parser`, but a path must be given.
pub(crate) fn file_parser() -> impl TypedValueParser<Value = Wanted> {
    OsStringValueParser::new().try_map(|text| {
        let wanted = parse(text)?;
        if wanted.path.is_none() {
            return Err("a file is named as SNAP:PATH".to_owned());
        }
        Ok(wanted)
    })
}

fn parse(text: OsString) -> Result<Wanted, String> {
    let text = text.into_vec();
    let mut parts = text.splitn(2, |&byte| byte == b':');
    let snapshot = parts.next().unwrap_or_default();
    let path = parts.next().map(normal).transpose()?;
    let known = snapshot == b"latest"
        || !snapshot.is_empty() && snapshot.iter().all(|byte| byte.is_ascii_hexdigit());
    if !known {
        return Err("a snapshot is `latest` or the beginning of an id".to_owned());
    }
    let snapshot = String::from_utf8_lossy(snapshot).to_ascii_lowercase();
    Ok(Wanted { snapshot, path })
}

fn normal(path: &[u8]) -> Result<Vec<u8>, String> {
    let mut normal = Vec::with_capacity(path.len() + 1);
    for part in path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return Err("a path in a snapshot cannot have ..".to_owned());
        }
        normal.push(b'/');
        normal.extend(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_with_and_without_a_path() {
        let check = |text: &[u8], expected: Option<(&str, Option<&[u8]>)>| {
            let wanted = parse(OsString::from_vec(text.to_vec())).ok();
            let wanted = wanted.as_ref().map(|w| (w.snapshot.as_str(), w.path.as_deref()));
            assert_eq!(wanted, expected);
        };
        check(b"latest", Some(("latest", None)));
        check(b"3F2a", Some(("3f2a", None)));
        check(b"3f:/a/b", Some(("3f", Some(b"/a/b"))));
        check(b"3f:a//b/./c/", Some(("3f", Some(b"/a/b/c"))));
        check(b"latest:", Some(("latest", Some(b"/"))));
        check(b"latest:/", Some(("latest", Some(b"/"))));
        check(b"latest:/a:b\xff", Some(("latest", Some(b"/a:b\xff"))));
        check(b"latest:/a/../b", None);
        check(b"", None);
        check(b":/a", None);
        check(b"newest", None);
    }
}
