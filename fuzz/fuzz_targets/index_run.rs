//! An index run: nothing panics before `validate`, and every reference holds after it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::id::ChunkId;
use strongroom::format::index::Run;

fuzz_target!(|bytes: &[u8]| {
    let Ok(run) = Run::new(bytes) else { return };
    let valid = run.validate().is_ok();
    for position in 0..run.len() {
        let location = run.location(position);
        assert!(location.is_some() || !valid);
        if let Some(location) = location {
            location.table_hash();
            assert!(run.bases(&location.frame).is_some() || !valid);
        }
    }
    for id in run.ids() {
        let found = run.find(&ChunkId(*id)).count();
        assert!(found > 0 || !valid);
    }
});
