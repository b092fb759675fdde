//! The envelope of every record, and every clear body behind it: whatever parses comes out of its encoder again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::control::{Attestation, Proposal, Verdict};
use strongroom::format::record::{Kind, Record};
use strongroom::format::repo::RepoFile;
use strongroom::format::roster::Roster;
use strongroom::format::session::{Seals, Session, Tombstone};
use strongroom::format::slot::Slot;

macro_rules! again {
    ($body:ident, $type:ty) => {
        if let Ok(value) = <$type>::from_cbor($body) {
            assert_eq!(<$type>::from_cbor(&value.to_cbor()).as_ref(), Ok(&value));
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes, &Kind::ALL) else { return };
    let body = record.body;
    match record.kind {
        Kind::Repo => again!(body, RepoFile),
        Kind::Slot => again!(body, Slot),
        Kind::Roster => again!(body, Roster),
        Kind::Session => again!(body, Session),
        Kind::Seals => again!(body, Seals),
        Kind::Tombstone => again!(body, Tombstone),
        Kind::Proposal => again!(body, Proposal),
        Kind::Verdict => again!(body, Verdict),
        Kind::Attestation => again!(body, Attestation),
        _ => {}
    }
});
