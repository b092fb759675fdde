//! `backup`: from paths, standard input or a command's output to a snapshot and a summary.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use strongroom::backup::{self, BackupOptions, BackupReport, Source};
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::repo::Repo;
use strongroom::restore::PathFilter;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{self, bytes, count, counted, duration, rate, short};
use crate::glob::{self, Filter, Pattern};
use crate::help;
use crate::open;
use crate::progress::{Progress, Work};
use crate::table::{Align, Table};

mod stream;

use stream::Stream;

/// Back up files, standard input or the output of a command
///
/// What did not change since the last backup is not read again, and what is stored already is not
/// stored again. A file that cannot be read is reported and left out; the snapshot is made all the
/// same and the exit status is 3. An interrupted backup goes on where it stopped when it is run
/// again.
///
/// A changed file is stored as its difference to the last version. A key that cannot read (role
/// backup) needs --base-cache for that: about the compressed size of the files that change from
/// one backup to the next. Whoever has the machine and its key can then read those files as of
/// earlier nights, too.
///
/// With --stdin-name the source is standard input, or the standard output of the command after --.
/// Then a snapshot is made only if the command exits 0. STRONGROOM_PASSWORD is not handed on to it.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom backup /srv/imaging/s12 --study S12 --tag nightly
    strongroom backup /home --exclude '*.tmp' --exclude /home/shared/cache --exclude-caches
    mysqldump edc | strongroom backup --stdin-name edc.sql
    strongroom backup --stdin-name edc.sql -- mysqldump --single-transaction edc",
    &[Exit::SourceUnread, Exit::Busy]))]
pub(crate) struct BackupArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required_unless_present_any = ["stdin_name", "command"])]
    paths: Vec<PathBuf>,

    /// Leave out what matches, and everything below a folder that matches; may be repeated
    #[arg(long, value_name = "GLOB", conflicts_with = "stdin_name")]
    exclude: Vec<Pattern>,

    /// As --exclude, for each line of F; # begins a comment line; may be repeated
    #[arg(long, value_name = "F", conflicts_with = "stdin_name")]
    exclude_file: Vec<PathBuf>,

    /// Leave out folders with a CACHEDIR.TAG
    #[arg(long, conflicts_with = "stdin_name")]
    exclude_caches: bool,

    /// Do not cross into other file systems
    #[arg(long, conflicts_with = "stdin_name")]
    one_file_system: bool,

    /// Mark the snapshot; may be repeated
    #[arg(long, value_name = "T")]
    tag: Vec<String>,

    /// The system the data comes from, as the label `system`
    #[arg(long, value_name = "S")]
    system: Option<String>,

    /// The study the data belongs to, as the label `study`
    #[arg(long, value_name = "S")]
    study: Option<String>,

    /// The host's name [default: this machine's]
    #[arg(long, value_name = "H")]
    host: Option<String>,

    /// Compare with this snapshot [default: the last one of the same source]
    #[arg(long, value_name = "SNAP", conflicts_with = "rescan")]
    parent: Option<String>,

    /// Read every file, even if it seems unchanged
    #[arg(long, conflicts_with = "stdin_name")]
    rescan: bool,

    /// A file whose inode number changed may still be unchanged (network and FUSE file systems)
    #[arg(long, conflicts_with = "stdin_name")]
    ignore_inode: bool,

    /// A file whose ctime changed may still be unchanged (after a chmod or a copy of the whole
    /// tree)
    #[arg(long, conflicts_with = "stdin_name")]
    ignore_ctime: bool,

    /// Keep up to this much, sealed, in the cache folder, to store changed files as differences: for
    /// a key that cannot read what it has stored. 0: nothing is kept [default: 0]
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = format::parse_base_cache)]
    #[arg(hide_default_value = true)]
    base_cache: u64,

    /// Say what would be stored and store nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Do not decode and compare what was compressed before it is stored (faster, less safe)
    #[arg(long)]
    no_verify: bool,

    /// Use standard input, or the output of the command after --, as a file of this name
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    stdin_name: Option<OsString>,

    /// The command whose output is backed up, with --stdin-name
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(tool: &Tool, args: &BackupArgs) -> Result<Exit, Fail> {
    let env = open::env(tool);
    // Whatever can be refused is refused before a password is asked for.
    let options = options(args, &env)?;
    let source = match &args.stdin_name {
        Some(name) => What::Stream(stream_name(name)?),
        // Without --stdin-name, what stands after -- are paths that may begin with a dash.
        None => What::Paths(roots(args.paths.iter().chain(&paths_of(&args.command)))?),
    };
    let repo = open::repo(tool)?;
    let report = match &source {
        What::Paths(paths) => {
            let progress = Progress::start(tool, Work::Backup);
            backup::run(&repo, Source::Paths(paths), &options, &progress)?
        }
        What::Stream(name) => run_stream(tool, &repo, name, &args.command, &options)?,
    };
    if tool.out.json() {
        tool.out.event(&object(&report))?;
    } else {
        tool.out.summary(&text(&report))?;
    }
    let counts = &report.counts;
    if counts.unread + counts.inconsistent == 0 {
        return Ok(Exit::Success);
    }
    tool.out.warn(&format!(
        "{} not be read, {} changed while being read",
        counted(counts.unread, "entry could", "entries could"),
        counted(counts.inconsistent, "file", "files")
    ));
    Ok(Exit::SourceUnread)
}

enum What {
    Paths(Vec<PathBuf>),
    Stream(Vec<u8>),
}

fn run_stream(
    tool: &Tool,
    repo: &Repo,
    name: &[u8],
    command: &[OsString],
    options: &BackupOptions,
) -> Result<BackupReport, Fail> {
    let progress = Progress::start(tool, Work::Backup);
    let stream = Stream::start(command, &tool.interrupt)?;
    let (mut reader, mut writer) = stream.split();
    let finish = &mut || writer.finish();
    let source = Source::Stream { name, reader: &mut reader, finish };
    let ended = backup::run(repo, source, options, &progress);
    // A read that was broken off looks like a source that failed.
    if ended.is_err() && tool.interrupt.asked() {
        return Err(Error::Interrupted.into());
    }
    Ok(ended?)
}

fn options(args: &BackupArgs, env: &Env) -> Result<BackupOptions, Fail> {
    let mut patterns = args.exclude.clone();
    for file in &args.exclude_file {
        patterns.extend(glob::read_file(file)?);
    }
    let exclude = Filter::new(&patterns)?.map(|filter| -> PathFilter {
        Box::new(move |path, is_folder| filter.matches(path, is_folder))
    });
    let mut labels = BTreeMap::new();
    for (name, value) in [("system", &args.system), ("study", &args.study)] {
        if let Some(value) = value {
            labels.insert(name.to_owned(), value.clone());
        }
    }
    Ok(BackupOptions {
        exclude,
        exclude_caches: args.exclude_caches,
        one_file_system: args.one_file_system,
        tags: args.tag.clone(),
        labels,
        host: Some(args.host.clone().unwrap_or_else(host)),
        parent: args.parent.clone(),
        rescan: args.rescan,
        ignore_inode: args.ignore_inode,
        ignore_ctime: args.ignore_ctime,
        dry_run: args.dry_run,
        base_cache_bytes: args.base_cache,
        no_verify: args.no_verify,
        zone: Some(format::local_zone(env.now())),
    })
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn paths_of(command: &[OsString]) -> Vec<PathBuf> {
    command.iter().map(PathBuf::from).collect()
}

/// Absolute, since a snapshot's paths mean nothing relative to a folder long forgotten.
fn roots<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>, Fail> {
    let absolute = |path: &PathBuf| {
        // `a/..` is not `.` where `a` is a link, so only the system can say what it is.
        if path.components().any(|part| part == Component::ParentDir) {
            path.canonicalize()
        } else {
            std::path::absolute(path).map(|path| without_trailing_slash(&path))
        }
    };
    paths
        .map(|path| {
            absolute(path).map_err(|source| Error::Source { path: path.clone(), source }.into())
        })
        .collect()
}

fn without_trailing_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

fn stream_name(name: &OsString) -> Result<Vec<u8>, Fail> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(Fail::usage("--stdin-name: a file name is needed, without /"));
    }
    Ok(bytes.to_vec())
}

fn text(report: &BackupReport) -> String {
    let counts = &report.counts;
    let mut table = Table::bare(&[Align::Left, Align::Right]);
    for (what, n) in [
        ("files new", count(counts.files_new)),
        ("files changed", count(counts.files_changed)),
        ("files unchanged", count(counts.files_unchanged)),
        ("bytes read", bytes(report.bytes_read)),
        ("bytes new", bytes(counts.bytes_new)),
        ("bytes stored", bytes(report.bytes_stored)),
        ("time", duration(report.seconds)),
        ("rate", rate(report.bytes_read, report.seconds)),
    ] {
        table.row([what.to_owned(), n]);
    }
    let head = match report.snapshot {
        Some(id) => format!("snapshot {}", short(id)),
        None => "nothing was stored (dry run)".to_owned(),
    };
    let parent = report.parent.map(|id| format!(", compared with {}", short(id)));
    format!(
        "{head}{}\n{} in {} and {}\n\n{}",
        parent.unwrap_or_default(),
        bytes(counts.bytes),
        counted(counts.files, "file", "files"),
        counted(counts.directories, "folder", "folders"),
        table.render()
    )
}

fn object(report: &BackupReport) -> Value {
    let counts = &report.counts;
    json!({
        "type": "backup",
        "snapshot": report.snapshot.map(|id| id.to_string()),
        "parent": report.parent.map(|id| id.to_string()),
        "dry_run": report.snapshot.is_none(),
        "files": counts.files,
        "dirs": counts.directories,
        "others": counts.others,
        "unread": counts.unread,
        "inconsistent": counts.inconsistent,
        "files_new": counts.files_new,
        "files_changed": counts.files_changed,
        "files_unchanged": counts.files_unchanged,
        "bytes": counts.bytes,
        "bytes_read": report.bytes_read,
        "bytes_new": counts.bytes_new,
        "bytes_stored": report.bytes_stored,
        "chunks_new": report.chunks_new,
        "chunks_known": report.chunks_known,
        "seconds": report.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_absolute_and_resolved() {
        let check = |path: &str, expected: &str| {
            assert_eq!(roots([PathBuf::from(path)].iter()).unwrap(), [PathBuf::from(expected)]);
        };
        check("/a/b/", "/a/b");
        check("/a/./b", "/a/b");
        check("/", "/");
        check("/proc/..", "/");
        let here = std::env::current_dir().unwrap();
        check(".", here.to_str().unwrap());
        check("x", here.join("x").to_str().unwrap());
        assert!(roots([PathBuf::from("/does-not-exist/..")].iter()).is_err());
    }

    #[test]
    fn a_stream_needs_a_plain_name() {
        for name in ["", ".", "..", "a/b", "/a"] {
            assert!(stream_name(&name.into()).is_err(), "{name}");
        }
        assert_eq!(stream_name(&"edc.sql".into()).unwrap(), b"edc.sql");
    }
}
