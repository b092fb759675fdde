//! GLOBs of `--exclude` and `--include`: `*` and `?` stay within one name, `**` crosses folders. A
//! pattern without `/` matches a name at any depth, one that begins with `/` the absolute path, any
//! other the path's last parts; one that ends in `/` matches folders only. No negation: a list of
//! exclusions that can be taken back is hard to audit.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::fail::{Exit, Fail};
use crate::sanitise;

#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    glob: Glob,
    folders_only: bool,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('!') {
            return Err(
                "patterns cannot be negated; a name that begins with ! is written \\!".into()
            );
        }
        let body = text.trim_end_matches('/');
        if body.is_empty() {
            return Err("the pattern matches nothing, or everything".into());
        }
        // `**/` also stands for no folder at all, so that one rule serves names and trailing parts.
        let anchored = if body.starts_with('/') { body.to_owned() } else { format!("**/{body}") };
        let glob = GlobBuilder::new(&anchored)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|e| e.kind().to_string())?;
        Ok(Self { glob, folders_only: body.len() < text.len() })
    }
}

/// Lines of an `--exclude-file`: one pattern each, blanks around it left out, `#` begins a comment
/// line.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Pattern>, Fail> {
    let shown = sanitise::path(path);
    let text = fs::read_to_string(path)
        .map_err(|e| Fail::new(Exit::Failure, format!("cannot read {shown}: {e}")))?;
    parse_lines(&text).map_err(|(line, what)| Fail::usage(format!("{shown}, line {line}: {what}")))
}

fn parse_lines(text: &str) -> Result<Vec<Pattern>, (usize, String)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| line.parse().map_err(|what| (at, what)))
        .collect()
}

/// Many patterns at once.
pub(crate) struct Filter {
    any: GlobSet,
    folders: GlobSet,
}

impl Filter {
    /// `None`: there are no patterns.
    pub(crate) fn new(patterns: &[Pattern]) -> Result<Option<Self>, Fail> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let set = |folders_only| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns.iter().filter(|p| p.folders_only == folders_only) {
                set.add(pattern.glob.clone());
            }
            set.build()
                .map_err(|e| Fail::usage(format!("the patterns are too many or too long: {e}")))
        };
        Ok(Some(Self { any: set(false)?, folders: set(true)? }))
    }

    /// `path` is absolute.
    pub(crate) fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        let candidate = Candidate::from_bytes(path);
        self.any.is_match_candidate(&candidate)
            || is_folder && self.folders.is_match_candidate(&candidate)
    }

    /// The entry or a folder above it matches.
    pub(crate) fn covers(&self, path: &[u8], is_folder: bool) -> bool {
        let folders_above = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
        folders_above.map(|(at, _)| &path[..at]).any(|above| self.matches(above, true))
            || self.matches(path, is_folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str]) -> Filter {
        let patterns: Vec<Pattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
        Filter::new(&patterns).unwrap().unwrap()
    }

    #[test]
    fn what_a_pattern_matches() {
        let check = |pattern: &str, path: &[u8], folder, expected| {
            let matched = filter(&[pattern]).matches(path, folder);
            assert_eq!(matched, expected, "{pattern} on {}", sanitise::name(path));
        };
        // A name at any depth, within one name.
        check("*.tmp", b"/a.tmp", false, true);
        check("*.tmp", b"/x/y/a.tmp", false, true);
        check("*.tmp", b"/x/y.tmp/a", false, false);
        check("a*z", b"/a/z", false, false);
        check("cache", b"/x/cache", true, true);
        check("cache", b"/x/cache2", true, false);
        check("*", b"/.hidden", false, true);
        check("scan?.dcm", b"/scan1.dcm", false, true);
        check("[ab]{x,y}", b"/q/by", false, true);
        // Anchored to the absolute path.
        check("/x/cache", b"/x/cache", true, true);
        check("/x/cache", b"/y/x/cache", true, false);
        check("/x/*/c", b"/x/b/c", false, true);
        check("/x/*/c", b"/x/b/b/c", false, false);
        check("/x/**/c", b"/x/b/b/c", false, true);
        check("/x/**/c", b"/x/c", false, true);
        check("/x/**", b"/x/b/b", false, true);
        check("/x/**", b"/x", true, false);
        // The last parts of the path.
        check("x/cache", b"/y/x/cache", true, true);
        check("x/cache", b"/x/cache", true, true);
        check("x/cache", b"/ax/cache", true, false);
        check("x/cache", b"/x/cache/y", false, false);
        check("**/cache", b"/x/cache", true, true);
        // Folders only.
        check("tmp/", b"/x/tmp", true, true);
        check("tmp/", b"/x/tmp", false, false);
        check("/x/tmp/", b"/x/tmp", true, true);
        // Bytes that are not UTF-8, and escapes.
        check("*.dcm", b"/x/bad\xff.dcm", false, true);
        check("a?c", b"/a\xffc", false, true);
        check(r"\*", b"/*", false, true);
        check(r"\*", b"/a", false, false);
        check(r"\!a", b"/!a", false, true);
    }

    #[test]
    fn what_lies_below_a_match_is_covered() {
        let check = |pattern: &str, path: &str, expected| {
            let covered = filter(&[pattern]).covers(path.as_bytes(), false);
            assert_eq!(covered, expected, "{pattern} on {path}");
        };
        check("pat-7", "/srv/pat-7/ct/1.dcm", true);
        check("pat-7/", "/srv/pat-7/ct/1.dcm", true);
        check("pat-7/", "/srv/pat-7", false);
        check("/srv", "/srv/pat-7/ct/1.dcm", true);
        check("pat-7", "/srv/pat-70/1.dcm", false);
        check("*.dcm", "/srv/1.dcm", true);
    }

    #[test]
    fn patterns_that_cannot_be_are_refused() {
        for pattern in ["", "/", "//", "!keep", "a[", "{a"] {
            assert!(pattern.parse::<Pattern>().is_err(), "{pattern}");
        }
        assert!(Filter::new(&[]).unwrap().is_none());
    }

    #[test]
    fn exclude_files_have_comments_and_blank_lines() {
        assert_eq!(parse_lines("# all\n\n *.tmp \r\n/x/#y\n\\#z\n").unwrap().len(), 3);
        assert_eq!(parse_lines("ok\n\na[\n").unwrap_err().0, 3);
    }
}
