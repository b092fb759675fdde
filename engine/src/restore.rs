use std::path::Path;
use crate::{error::Error, repo::*, watch::*};
pub type PathFilter = Box<dyn Fn(&[u8], bool) -> bool + Send + Sync>;
#[derive(Default)]
pub struct RestoreOptions { pub include: Option<PathFilter>, pub exclude: Option<PathFilter>, pub verify_existing: bool, pub dry_run: bool }
pub struct RestoreReport { pub dirs: u64, pub files_restored: u64, pub files_repaired: u64, pub files_in_place: u64, pub others: u64, pub bytes_restored: u64, pub bytes_in_place: u64, pub failed: u64, pub warnings: u64, pub seconds: f64 }
pub fn run(_: &Repo, _: &SnapshotInfo, path: Option<&[u8]>, target: &Path, o: &RestoreOptions, watch: &dyn Watch) -> Result<RestoreReport, Error> {
    watch.problem(Problem { kind: ProblemKind::NotRestored, name: b"/srv/x".to_vec(), cause: "chunk 1234 is damaged".into() });
    Ok(RestoreReport { dirs: 12, files_restored: 1234, files_repaired: 1, files_in_place: 123456, others: 3, bytes_restored: 12 << 30, bytes_in_place: 1 << 40, failed: 1, warnings: 0, seconds: 23.5 })
}
