//! CBOR bodies without an envelope, sealed ones included: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::control::{Attestation, Damage, Forgotten, Hold, Proposal, Release, Verdict};
use strongroom::format::repo::RepoFile;
use strongroom::format::roster::Roster;
use strongroom::format::session::{Seals, Session, Tombstone};
use strongroom::format::slot::{Bundle, KeyFileSecret, Slot};
use strongroom::format::snapshot::Snapshot;

macro_rules! again {
    ($body:ident, $type:ty) => {
        if let Ok(value) = <$type>::from_cbor($body) {
            assert_eq!(<$type>::from_cbor(&value.to_cbor()).as_ref(), Ok(&value));
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, body)) = bytes.split_first() else { return };
    match which % 15 {
        0 => again!(body, RepoFile),
        1 => again!(body, Slot),
        2 => again!(body, Bundle),
        3 => again!(body, Roster),
        4 => again!(body, Session),
        5 => again!(body, Seals),
        6 => again!(body, Snapshot),
        7 => again!(body, Tombstone),
        8 => again!(body, Forgotten),
        9 => again!(body, Hold),
        10 => again!(body, Release),
        11 => again!(body, Proposal),
        12 => again!(body, Verdict),
        13 => again!(body, Damage),
        _ => again!(body, Attestation),
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = KeyFileSecret::from_text(text);
    }
});
