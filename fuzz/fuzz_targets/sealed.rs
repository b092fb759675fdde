//! Sealed bodies, streams and secrets: damage is an error, never a panic, and nothing but what was sealed opens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::format::id::{RepositoryId, SessionId};
use strongroom::format::record::Kind;
use strongroom::format::seal::{Context, Label, Recipient, Sealer, Secret, Suite, open_body, seal_body};

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (place, flip, payload) = input;
    let context = Context {
        suite: Suite::Aes256Gcm,
        recipient: Recipient::Index,
        epoch: 1,
        repository: RepositoryId([1; 16]),
        session: SessionId([0; 16]),
        salt: [3; 32],
    };
    let secret = || Secret([5; 32]);
    let _ = open_body(payload, Kind::Damage, |_| Ok(secret()));
    let sealer = Sealer::new(&secret(), &context, Label::PackDirectory);
    let _ = sealer.open_stream(payload, "stream");
    let _ = sealer.open_stream_blocks(1, payload, true, "stream");
    let mut body = seal_body(&secret(), &context, Kind::Damage, payload);
    let opened = open_body(&body, Kind::Damage, |_| Ok(secret())).expect("just sealed");
    assert_eq!(opened.1, payload);
    let place = usize::from(place) % body.len();
    body[place] ^= flip;
    let opened = open_body(&body, Kind::Damage, |_| Ok(secret()));
    assert!(opened.is_err() || flip == 0);
});
