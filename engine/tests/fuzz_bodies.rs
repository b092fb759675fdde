//! The bodies of the two large fuzz targets (`fuzz/`), on inputs that are drawn from seeds: so that they go on to build and to hold where
//! nobody fuzzes.

#[path = "../../fuzz/bodies/cache.rs"]
mod cache;
#[path = "../../fuzz/bodies/codec.rs"]
mod codec;
#[path = "../../fuzz/bodies/forge.rs"]
mod forge;
#[path = "../../fuzz/bodies/input.rs"]
mod input;
#[path = "../../fuzz/bodies/mutated.rs"]
mod mutated;
#[path = "../../fuzz/bodies/operations.rs"]
mod operations;
#[path = "../../fuzz/bodies/scene.rs"]
mod scene;

use std::collections::BTreeSet;

/// `STRONGROOM_FUZZ_INPUTS` for more of them.
fn inputs(first: u64, few: u64) -> impl Iterator<Item = Vec<u8>> {
    let wanted = std::env::var("STRONGROOM_FUZZ_INPUTS").ok();
    let count = wanted.map_or(few, |count| count.parse().expect("a number"));
    (first..first + count).map(|seed| scene::noise(seed, 4 + seed as usize % 80))
}

#[test]
fn a_mutated_repository_claims_nothing_that_is_not_so() {
    inputs(1, 60).for_each(|input| mutated::run(&input));
}

#[test]
fn operations_keep_what_lives() {
    inputs(1000, 16).for_each(|input| operations::run(&input));
}

#[test]
fn a_spoilt_cache_does_no_harm() {
    // The chain in place of what the client has seen, found by the fuzzer.
    cache::run(b"\x38\xfc\x47\x8a\xdc\xf7\xd8\xe7\x09\xe4\x17\x59\x47\x3f\x8a\xe1");
    inputs(2000, 40).for_each(|input| cache::run(&input));
}

#[test]
fn codecs_take_anything_and_give_it_back() {
    let mut codecs = codec::Codecs::default();
    for (seed, mut input) in inputs(3000, 600).enumerate() {
        // Every way is taken.
        input[0] = seed as u8 % 6;
        codecs.run(&input);
    }
}

/// What is forged without a change is the record itself: so what is forged with one is refused for what it says, not for how it is sealed.
#[test]
fn the_forger_is_believed() {
    let (sound, mut kinds) = (mutated::sound(), BTreeSet::new());
    for (name, bytes) in &sound.objects {
        if let Some(forged) = sound.forger.forge(name, bytes, |_| ()) {
            assert_eq!(forged, (name.clone(), bytes.clone()), "{name}");
            kinds.insert(name.folder());
        }
    }
    let wanted =
        ["forgotten", "holds", "index", "retired", "roster", "seals", "sessions", "snapshots"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), wanted);
}
