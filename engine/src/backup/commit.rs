//! The snapshot: last of all, put if absent under the session's name. What was relied on is made durable first.

use crate::backup::walk::Roots;
use crate::backup::work::Work;
use crate::error::{Error, Result};
use crate::format::id::{SessionId, hash};
use crate::format::record::Kind;
use crate::format::snapshot::Directory;
use crate::format::snapshot::{Class, Clock, Snapshot};
use crate::repo::session::Session;
use crate::store::Put;
use crate::watch::{Problem, ProblemKind, Watch};

/// `None`: a dry run.
pub fn commit(
    work: &Work,
    session: &Session,
    roots: &Roots,
    root: Directory,
    exit_code: Option<u32>,
) -> Result<Option<SessionId>> {
    if work.options.dry_run {
        return Ok(None);
    }
    let repo = work.repo;
    work.go_on()?;
    let (sequence, previous) = repo.chain()?;
    let (zone, utc_offset_s) =
        work.options.zone.clone().map_or((None, 0), |(name, offset)| (Some(name), offset));
    let host = work.options.host.clone().or_else(crate::sys::host::host_name);
    let snapshot = Snapshot {
        sequence: sequence + 1,
        previous,
        time_ns: work.started,
        utc_offset_s,
        zone,
        clock: Clock::Unknown,
        author: repo.identity(),
        host: host.unwrap_or_else(|| "unknown".to_owned()),
        tool: concat!("strongroom ", env!("CARGO_PKG_VERSION")).to_owned(),
        roots: roots.paths.clone(),
        labels: work.options.labels.clone(),
        tags: work.options.tags.clone(),
        class: Class::Archive,
        retain_until_ns: None,
        counts: work.counts(),
        exit_code,
        root,
        parent: work.before.parent(),
        end_ns: repo.env().now(),
    };
    // Index runs of others that were visible may not have been durable yet; their packs were, before them.
    repo.make_index_durable()?;
    let body = session.seal_snapshot(repo, &snapshot.to_cbor());
    let name = format!("snapshots/{}", session.id);
    let (put, bytes) = repo.try_put_stated(Kind::Snapshot, &name, &body)?;
    if put == Put::Existed && repo.get(&name, u64::MAX)? != bytes {
        return Err(Error::Fenced { session: session.id });
    }
    remembered(work.watch(), repo.keep_chain(sequence + 1, hash(&bytes)));
    Ok(Some(session.id))
}

/// The snapshot stands. What the client could not keep in its own cache only makes the next one slower.
pub fn remembered(watch: &dyn Watch, kept: Result<()>) {
    if let Err(error) = kept {
        let cause = format!("the snapshot is complete, but this was not kept: {error}");
        watch.problem(Problem { kind: ProblemKind::Notice, name: b"cache".to_vec(), cause });
    }
}
