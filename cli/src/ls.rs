//! `ls`: what is in a snapshot, without restoring it. Listings stream: a folder of a million
//! entries is never held.

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use strongroom::browse::{self, Entry, EntryKind};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format;
use crate::help;
use crate::open;
use crate::output::Output;
use crate::sanitise;
use crate::table::{Align, Table};
use crate::wanted::{self, Wanted};

/// Rows that are aligned together.
const ROWS_MAX: usize = 1000;

/// List a folder of a snapshot
///
/// Names that hold control characters, or bytes that are not UTF-8, are shown escaped, a backslash
/// doubled. A folder's name ends in /. With --json there is one object an entry; a path that is not
/// UTF-8 stands in `path_hex` too.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom ls latest
    strongroom ls -l latest:/srv/imaging/s12
    strongroom ls -R --json 3f2a:/srv | jq -r 'select(.size > 1e9) | .path'", &[]))]
pub(crate) struct LsArgs {
    /// The snapshot, and the folder or file in it (default: its top)
    #[arg(value_name = "SNAP[:PATH]", value_parser = wanted::parser())]
    place: Wanted,

    /// Mode, owner, size in bytes, time and target as well
    #[arg(short, long)]
    long: bool,

    /// Everything below, with whole paths
    #[arg(short = 'R', long)]
    recursive: bool,
}

pub(crate) fn run(tool: &Tool, args: &LsArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    let snapshot = repo.find_snapshot(&args.place.snapshot)?;
    let path = args.place.path.as_deref().unwrap_or(b"/");
    let mut listing = Listing::new(&tool.out, args);
    // The engine's callback knows only the engine's errors; ours waits beside it.
    let mut failed = None;
    let listed = browse::list(&repo, &snapshot, path, args.recursive, &mut |path, entry| {
        listing.entry(path, entry).map_err(|fail| {
            failed = Some(fail);
            strongroom::error::Error::Interrupted
        })
    });
    if let Some(fail) = failed {
        return Err(fail);
    }
    // What was listed before a damaged folder is shown all the same.
    listing.flush()?;
    listed?;
    Ok(Exit::Success)
}

struct Listing<'a> {
    out: &'a Output,
    long: bool,
    whole_paths: bool,
    zone: TimeZone,
    rows: Vec<[String; 5]>,
}

impl<'a> Listing<'a> {
    fn new(out: &'a Output, args: &LsArgs) -> Self {
        let (long, whole_paths) = (args.long, args.recursive);
        Self { out, long, whole_paths, zone: TimeZone::system(), rows: Vec::new() }
    }

    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<(), Fail> {
        if self.out.json() {
            return self.out.object(&object(path, entry));
        }
        let mut name = sanitise::name(if self.whole_paths { path } else { &entry.name });
        if entry.kind == EntryKind::Directory {
            name.push('/');
        }
        if !self.long {
            return self.out.line(&name);
        }
        if let Some(target) = &entry.target {
            name = format!("{name} -> {}", sanitise::name(target));
        }
        self.rows.push([
            mode(entry.kind, u32::from(entry.mode)),
            owner(entry),
            entry.size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
            format::minute_of_secs(entry.mtime.secs, &self.zone),
            name,
        ]);
        if self.rows.len() == ROWS_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Fail> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut table =
            Table::bare(&[Align::Left, Align::Left, Align::Right, Align::Left, Align::Left]);
        self.rows.drain(..).for_each(|row| table.row(row));
        self.out.line(&table.render())
    }
}

fn owner(entry: &Entry) -> String {
    let name = |name: &Option<String>, id: u32| match name {
        Some(name) => sanitise::text(name),
        None => id.to_string(),
    };
    format!("{}:{}", name(&entry.user, entry.uid), name(&entry.group, entry.gid))
}

/// As `ls -l` shows it: "drwxr-sr-t".
fn mode(kind: EntryKind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn object(path: &[u8], entry: &Entry) -> Value {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Directory => "dir",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice => "char_device",
        EntryKind::BlockDevice => "block_device",
    };
    let mut object = Map::new();
    object.insert("type".to_owned(), "entry".into());
    sanitise::insert_name(&mut object, "path", path);
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("kind", kind.into());
    put("mode", (entry.mode & 0o7777).into());
    put("uid", entry.uid.into());
    put("gid", entry.gid.into());
    put("user", entry.user.clone().into());
    put("group", entry.group.clone().into());
    put("size", entry.size.into());
    put("mtime", format::rfc3339_of_secs(entry.mtime.secs, entry.mtime.nanos).into());
    put("mtime_seconds", entry.mtime.secs.into());
    put("mtime_nanos", entry.mtime.nanos.into());
    if let Some(target) = &entry.target {
        sanitise::insert_name(&mut object, "target", target);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_in_ls() {
        let check = |kind, bits, shown: &str| assert_eq!(mode(kind, bits), shown);
        check(EntryKind::File, 0o100644, "-rw-r--r--");
        check(EntryKind::Directory, 0o755, "drwxr-xr-x");
        check(EntryKind::Directory, 0o1777, "drwxrwxrwt");
        check(EntryKind::Directory, 0o1776, "drwxrwxrwT");
        check(EntryKind::File, 0o6755, "-rwsr-sr-x");
        check(EntryKind::File, 0o6644, "-rwSr-Sr--");
        check(EntryKind::Symlink, 0o777, "lrwxrwxrwx");
        check(EntryKind::Fifo, 0, "p---------");
    }
}
