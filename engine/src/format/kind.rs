//! The kinds of object and the names they stand under (`docs/format.md`, section 2).

use super::id::from_hex;

/// One for every kind of object; the code is the ninth byte of its stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Repo = 1,
    Slot,
    Roster,
    Session,
    Seals,
    Pack,
    IndexRun,
    Snapshot,
    Tombstone,
    Forgotten,
    Hold,
    Release,
    Proposal,
    Verdict,
    Damage,
    Attestation,
    Parity,
    Audit,
}

use Kind::{
    Attestation, Audit, Damage, Forgotten, Hold, IndexRun, Pack, Parity, Proposal, Release, Repo,
    Roster, Seals, Session, Slot, Snapshot, Tombstone, Verdict,
};

impl Kind {
    pub const ALL: [Kind; 18] = [
        Repo,
        Slot,
        Roster,
        Session,
        Seals,
        Pack,
        IndexRun,
        Snapshot,
        Tombstone,
        Forgotten,
        Hold,
        Release,
        Proposal,
        Verdict,
        Damage,
        Attestation,
        Parity,
        Audit,
    ];

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Repo => "repository description",
            Slot => "key slot",
            Roster => "roster",
            Session => "session",
            Seals => "seals",
            Pack => "pack",
            IndexRun => "index run",
            Snapshot => "snapshot",
            Tombstone => "tombstone",
            Forgotten => "forgotten record",
            Hold => "hold",
            Release => "release of a hold",
            Proposal => "proposal",
            Verdict => "verdict",
            Damage => "damage record",
            Attestation => "attestation",
            Parity => "parity",
            Audit => "audit record",
        }
    }

    /// Whether the stored bytes end with the hash of all before; the others are named by their content.
    pub fn stated(self) -> bool {
        !matches!(self, Slot | Pack | IndexRun | Damage | Attestation)
    }
}

/// The kinds that may stand under a name in the store. Empty: the name is none of ours, the object is ignored.
pub fn kinds_at(name: &str) -> &'static [Kind] {
    let Some((folder, rest)) = name.split_once('/') else {
        return if name == "repo.cbor" { &[Repo] } else { &[] };
    };
    let hash = |text: &str| from_hex::<32>(text).is_some();
    let id = |text: &str| from_hex::<16>(text).is_some();
    let number = |text: &str| parse_number(text).is_some();
    match folder {
        "slots" if hash(rest) => &[Slot],
        "roster" if number(rest) => &[Roster],
        "sessions" if id(rest) => &[Session],
        "seals" if id(rest) => &[Seals],
        "packs" => match rest.split_once('/') {
            Some((xx, rest)) if hash(rest) && xx.len() == 2 && rest.starts_with(xx) => &[Pack],
            _ => &[],
        },
        "index" if hash(rest) => &[IndexRun],
        "snapshots" if id(rest) => &[Snapshot, Tombstone],
        "forgotten" if id(rest) => &[Forgotten],
        "holds" if id(rest) => &[Hold],
        "holds" if rest.strip_suffix(".released").is_some_and(id) => &[Release],
        "retired" if number(rest) => &[Proposal],
        "retired" if rest.strip_suffix(".verdict").is_some_and(number) => &[Verdict],
        "damaged" if hash(rest) => &[Damage],
        "attest" if hash(rest) => &[Attestation],
        _ => &[],
    }
}

/// A `<n>` in a name: eight decimal digits.
pub fn parse_number(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), i + 1);
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!((Kind::from_code(0), Kind::from_code(19)), (None, None));

        let (id, hash) = ("0a".repeat(16), "0b".repeat(32));
        let cases: [(String, &[Kind]); 20] = [
            ("repo.cbor".into(), &[Repo]),
            (format!("slots/{hash}"), &[Slot]),
            ("roster/00000001".into(), &[Roster]),
            (format!("sessions/{id}"), &[Session]),
            (format!("seals/{id}"), &[Seals]),
            (format!("packs/0b/{hash}"), &[Pack]),
            (format!("index/{hash}"), &[IndexRun]),
            (format!("snapshots/{id}"), &[Snapshot, Tombstone]),
            (format!("forgotten/{id}"), &[Forgotten]),
            (format!("holds/{id}"), &[Hold]),
            (format!("holds/{id}.released"), &[Release]),
            ("retired/00000012".into(), &[Proposal]),
            ("retired/00000012.verdict".into(), &[Verdict]),
            (format!("damaged/{hash}"), &[Damage]),
            (format!("attest/{hash}"), &[Attestation]),
            (format!("packs/0c/{hash}"), &[]),
            ("roster/1".into(), &[]),
            ("roster/+0000001".into(), &[]),
            (format!("index/{}", hash.to_uppercase()), &[]),
            (format!("snapshots/{id}.tmp"), &[]),
        ];
        for (name, kinds) in cases {
            assert_eq!(kinds_at(&name), kinds, "{name}");
        }
    }
}
