//! Forgetting snapshots: by name, or by a retention policy that says for each snapshot why it stays
//! or goes. A forgotten snapshot is no longer live; what only it needs is freed by prune, not here.
//! Held snapshots, and those with a date of retention still ahead, stay whatever anyone asks.

mod policy;

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};
use crate::format::control::Forgotten;
use crate::format::id::{IdentityId, SessionId};
use crate::repo::{Repo, SnapshotInfo};
use crate::watch::Watch;

pub use policy::{Keep, Policy, Span};

/// What snapshots must share, besides their author, to be counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    pub host: bool,
    pub paths: bool,
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ForgetOptions {
    /// Decide and report, write nothing.
    pub dry_run: bool,
    /// Stands in the record of each snapshot.
    pub reason: String,
    /// Applied to all live snapshots if none are named.
    pub policy: Policy,
    pub group_by: GroupBy,
}

#[derive(Debug, Clone)]
pub struct ForgetReport {
    pub groups: Vec<Group>,
    /// Snapshots forgotten (in a dry run: that would be).
    pub forgotten: u64,
    pub kept: u64,
}

#[derive(Debug, Clone)]
pub struct Group {
    pub author: String,
    /// What the group was made by; `None`: not by this.
    pub host: Option<String>,
    pub paths: Option<Vec<Vec<u8>>>,
    pub tags: Option<Vec<String>>,
    /// Newest first.
    pub decisions: Vec<Decision>,
}

#[derive(Debug, Clone)]
pub struct Decision {
    pub info: SnapshotInfo,
    /// Why it stays; empty: it goes.
    pub keep: Vec<Keep>,
}

/// Forgets the snapshots `wanted`, or without any those that the policy does not keep.
pub fn run(
    repo: &Repo,
    wanted: &[SessionId],
    options: &ForgetOptions,
    watch: &dyn Watch,
) -> Result<ForgetReport> {
    repo.needs_admin()?;
    if wanted.is_empty() && options.policy.is_empty() {
        let what = "neither a snapshot nor a policy was given".to_owned();
        return Err(Error::Setting { what });
    }
    let mut groups = grouped(repo.snapshots()?, options.group_by);
    let held: HashMap<SessionId, String> =
        repo.holds()?.into_iter().map(|hold| (hold.snapshot, hold.reason)).collect();
    for group in &mut groups {
        if wanted.is_empty() {
            options.policy.apply(&mut group.decisions);
        } else {
            group.decisions.retain(|decision| wanted.contains(&decision.info.id));
        }
        for decision in &mut group.decisions {
            protect(decision, &held, repo.env().now());
        }
        if wanted.is_empty() && group.decisions.iter().all(|decision| decision.keep.is_empty()) {
            return Err(nothing_left(group));
        }
    }
    groups.retain(|group| !group.decisions.is_empty());
    let all = groups.iter().flat_map(|group| &group.decisions);
    let (forgotten, kept): (Vec<_>, Vec<_>) = all.partition(|decision| decision.keep.is_empty());
    let report_counts = (forgotten.len() as u64, kept.len() as u64);
    if !options.dry_run {
        for decision in forgotten {
            if watch.cancelled() {
                return Err(Error::Interrupted);
            }
            forget(repo, &decision.info, options, wanted.is_empty())?;
        }
    }
    Ok(ForgetReport { groups, forgotten: report_counts.0, kept: report_counts.1 })
}

fn forget(
    repo: &Repo,
    info: &SnapshotInfo,
    options: &ForgetOptions,
    by_policy: bool,
) -> Result<()> {
    let record = Forgotten {
        snapshot: info.id,
        time_ns: repo.env().now(),
        reason: options.reason.clone(),
        policy: by_policy.then(|| options.policy.to_string()),
        stored_hash: info.hash,
    };
    repo.put_forgotten(&record).map(drop)
}

/// What no policy and no order overrules.
fn protect(decision: &mut Decision, held: &HashMap<SessionId, String>, now: i64) {
    if let Some(reason) = held.get(&decision.info.id) {
        decision.keep.push(Keep::Held { reason: reason.clone() });
    }
    if let Some(until_ns) = decision.info.snapshot.retain_until_ns.filter(|until| *until > now) {
        decision.keep.push(Keep::Retained { until_ns });
    }
}

fn nothing_left(group: &Group) -> Error {
    let host = group.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
    let what = format!(
        "the policy would keep none of the {} snapshots of {}{host}; \
         to forget the last snapshots of a source, name them",
        group.decisions.len(),
        group.author
    );
    Error::Setting { what }
}

type GroupKey = (IdentityId, Option<String>, Option<Vec<Vec<u8>>>, Option<Vec<String>>);

/// By author first, each group newest first.
fn grouped(snapshots: Vec<SnapshotInfo>, by: GroupBy) -> Vec<Group> {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    // `snapshots` gives them oldest first.
    for info in snapshots.into_iter().rev() {
        let snapshot = &info.snapshot;
        let host = by.host.then(|| snapshot.host.clone());
        let paths = by.paths.then(|| snapshot.roots.clone());
        let tags = by.tags.then(|| {
            let mut tags = snapshot.tags.clone();
            tags.sort();
            tags
        });
        let author = info.author_name.clone();
        let key = (snapshot.author, host.clone(), paths.clone(), tags.clone());
        let group = groups.entry(key);
        let group = group.or_insert(Group { author, host, paths, tags, decisions: Vec::new() });
        group.decisions.push(Decision { info, keep: Vec::new() });
    }
    groups.into_values().collect()
}
