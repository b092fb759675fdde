//! Golden bytes and round trips.

use proptest::prelude::{any, prop, proptest};

use super::{
    Attestation, Damage, DamagedFrame, Doomed, Forgotten, Hold, Proposal, Release, Verdict,
};
use crate::format::id::{HoldId, ObjectHash, PackId, SessionId, hash, to_hex};

const ID: SessionId = SessionId([0xcc; 16]);

fn doomed() -> Doomed {
    Doomed {
        packs: vec![PackId([1; 32]), PackId([2; 32])],
        runs: vec![ObjectHash([3; 32])],
        snapshots: vec![],
        sessions: vec![ID],
    }
}

#[test]
fn golden() {
    let id = "cc".repeat(16);
    let hold = Hold { snapshot: ID, time_ns: 1, reason: "trial".into() };
    assert_eq!(to_hex(&hold.to_cbor()), format!("a30150{id}02010365747269616c"));
    let release = Release { hold: HoldId([0xcc; 16]), time_ns: 1, reason: "trial".into() };
    assert_eq!(release.to_cbor(), hold.to_cbor());
    let forgotten = Forgotten {
        snapshot: ID,
        time_ns: 1,
        reason: "old".into(),
        policy: None,
        stored_hash: [0xdd; 32],
    };
    let hex = format!("a40150{id}020103636f6c64055820{}", "dd".repeat(32));
    assert_eq!(to_hex(&forgotten.to_cbor()), hex);
    let frame = DamagedFrame { pack: PackId([0xdd; 32]), offset: 64, stored: 300 };
    let damage = Damage { frames: vec![frame], time_ns: 1, found: "check".into() };
    let hex = format!("a30181835820{}184019012c02010365636865636b", "dd".repeat(32));
    assert_eq!(to_hex(&damage.to_cbor()), hex);
    let attestation = Attestation { packs: vec![PackId([0xdd; 32])], time_ns: 1 };
    let hex = format!("a201815820{}0201", "dd".repeat(32));
    assert_eq!(to_hex(&attestation.to_cbor()), hex);
    let proposal = Proposal { generation: 1, doomed: doomed(), time_ns: 2, previous_verdict: None };
    assert_eq!(
        to_hex(&hash(&proposal.to_cbor())),
        "14fb9030be0bf11afdc42b5e0484fabed8c6c6c0036e138373e380500f4ebde1"
    );
    let verdict = Verdict { generation: 1, doomed: doomed(), time_ns: 2, proposal: [4; 32] };
    assert_eq!(
        to_hex(&hash(&verdict.to_cbor())),
        "9a31503c93420e69f81e4cceeb21ae33381fecd75661a879fc720deef6e263a5"
    );
}

proptest! {
    #[test]
    fn come_back(
        id: [u8; 16],
        time_ns: i64,
        reason: String,
        policy: Option<String>,
        stored_hash: [u8; 32],
        packs in prop::collection::vec(any::<[u8; 32]>(), 0..30),
        generation: u32,
        previous_verdict: Option<[u8; 32]>,
        frame: (u64, u32),
    ) {
        let (snapshot, packs) = (SessionId(id), packs.into_iter().map(PackId).collect::<Vec<_>>());
        let hold = Hold { snapshot, time_ns, reason: reason.clone() };
        assert_eq!(Hold::from_cbor(&hold.to_cbor()), Ok(hold));
        let release = Release { hold: HoldId(id), time_ns, reason: reason.clone() };
        assert_eq!(Release::from_cbor(&release.to_cbor()), Ok(release));
        let frames = packs.iter().map(|pack| DamagedFrame { pack: *pack, offset: frame.0, stored: frame.1 });
        let damage = Damage { frames: frames.collect(), time_ns, found: reason.clone() };
        assert_eq!(Damage::from_cbor(&damage.to_cbor()), Ok(damage));
        let forgotten = Forgotten { snapshot, time_ns, reason, policy, stored_hash };
        assert_eq!(Forgotten::from_cbor(&forgotten.to_cbor()), Ok(forgotten));
        let attestation = Attestation { packs: packs.clone(), time_ns };
        assert_eq!(Attestation::from_cbor(&attestation.to_cbor()), Ok(attestation));
        let doomed = Doomed { packs, ..doomed() };
        let verdict = Verdict { generation, doomed: doomed.clone(), time_ns, proposal: stored_hash };
        assert_eq!(Verdict::from_cbor(&verdict.to_cbor()), Ok(verdict));
        let proposal = Proposal { generation, doomed, time_ns, previous_verdict };
        assert_eq!(Proposal::from_cbor(&proposal.to_cbor()), Ok(proposal));
    }
}
