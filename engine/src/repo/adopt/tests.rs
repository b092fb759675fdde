//! A pack that somebody proposed to delete is not adopted. (The rest is seen from outside: `tests/resume.rs`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backup::{self, BackupOptions, Source};
use crate::env::Env;
use crate::format::control::{Doomed, Proposal};
use crate::format::id::{PackId, from_hex};
use crate::format::record::Kind;
use crate::format::repo::ChunkerSpec;
use crate::repo::{InitOptions, KeyFileSecret, Repo, Unlock, init};
use crate::store::{Fault, FaultyStore, MemoryStore, Op, Store};
use crate::watch::Tally;

const KEY: KeyFileSecret = KeyFileSecret([7; 32]);

#[test]
fn what_is_condemned_is_not_adopted() {
    let env = Env::seeded(1, 4_102_444_800_000_000_000);
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut noise = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    std::fs::write(source.path().join("file"), noise).unwrap();
    let store = MemoryStore::new();
    let chunker = ChunkerSpec::windowed_minimum(16 << 10);
    let options = InitOptions { chunker, pack_bytes: 1 << 20, ..InitOptions::default() };
    init(Arc::new(store.clone()), Unlock::KeyFile(&KEY), &options, &env).unwrap();
    let open = |store: Arc<dyn Store>| {
        Repo::open(store, Unlock::KeyFile(&KEY), Some(cache.path()), &env).unwrap()
    };
    let paths = [source.path().to_owned()];
    let back_up = |repo: &Repo| {
        backup::run(repo, Source::Paths(&paths), &BackupOptions::default(), &Tally::default())
    };
    let packs = AtomicU64::new(0);
    let killing = FaultyStore::new(Arc::new(store.clone()), move |_, op, _| {
        let fourth = op == Op::StageCommit && packs.fetch_add(1, Ordering::SeqCst) == 3;
        if fourth { Fault::Kill } else { Fault::None }
    });
    back_up(&open(Arc::new(killing))).unwrap_err();

    let names = store.names().into_iter().filter(|name| name.as_str().starts_with("packs/"));
    let ids: Vec<PackId> = names.filter_map(|name| from_hex(name.last()).map(PackId)).collect();
    assert_eq!(ids.len(), 3);
    let repo = open(Arc::new(store.clone()));
    let doomed = Doomed { packs: vec![ids[1]], ..Doomed::default() };
    let proposal = Proposal { generation: 1, doomed, time_ns: env.now(), previous_verdict: None };
    repo.put_stated(Kind::Proposal, "retired/00000001", &proposal.to_cbor()).unwrap();
    back_up(&repo).unwrap();
    let named: Vec<PackId> = repo
        .index()
        .unwrap()
        .segments()
        .iter()
        .flat_map(|segment| segment.run().packs().map(|pack| pack.id).collect::<Vec<_>>())
        .collect();
    let adopted: Vec<bool> = ids.iter().map(|id| named.contains(id)).collect();
    assert_eq!(adopted, [true, false, true]);
}
