//! The chain of rosters, followed again from the root key. One that has rotted or is missing is
//! damage; one that is void (somebody wrote what he may not) harms nobody and is a notice.

use super::Check;
use crate::error::{Named, Result};
use crate::format::kind::parse_number;
use crate::format::record::check_rot;
use crate::format::roster::{Link, Roster, validate_next};
use crate::repo::records::RECORD_BYTES_MAX;

pub fn check(check: &Check) -> Result<()> {
    let mut names = Vec::new();
    check.repo.store().list("roster", &mut |name, _| {
        names.extend(parse_number(name.last()).map(|number| (number, name.as_str().to_owned())));
    })?;
    let seen = check.repo.roster().number;
    for number in 1..=seen {
        let name = Roster::name(number);
        if !names.iter().any(|(_, found)| *found == name) {
            check.findings.damage(&name, "it is missing: rosters are never deleted");
        }
    }
    let mut newest: Option<Link> = None;
    for (number, name) in &names {
        let Some(bytes) = check.findings.take(name, sound_bytes(check, name))? else { continue };
        let bundle = check.repo.bundle();
        match validate_next(check.repo.id(), &bundle.root, newest.as_ref(), *number, &bytes) {
            Ok(next) => {
                if *number == seen && next.1 != check.repo.roster_hash() {
                    check.findings.damage(name, "it is not the roster that this key has seen");
                }
                newest = Some(next);
            }
            Err(error) if check.repo.knows_roster(*number) => {
                check.findings.damage(name, &format!("it was valid, and is void: {error}"));
            }
            Err(error) => check.findings.notice(name, &format!("void: {error}")),
        }
    }
    let reached = newest.map_or(0, |(roster, _)| roster.number);
    if reached > seen {
        check.findings.expect_newer_rosters();
    }
    if reached < seen {
        let what =
            format!("the chain of valid rosters ends at {reached}, this key has seen {seen}");
        check.findings.damage(&Roster::name(seen), &what);
    }
    Ok(())
}

fn sound_bytes(check: &Check, name: &str) -> Result<Vec<u8>> {
    let bytes = check.repo.get(name, RECORD_BYTES_MAX)?;
    check.read(bytes.len() as u64);
    check_rot(name, &bytes).named(name)?;
    Ok(bytes)
}
