//! The tail of every long help text: examples, then EXIT STATUS. The meaning of the codes is stated
//! once, in `fail`.

use crate::fail::Exit;

const ANY: &[Exit] = &[Exit::Success, Exit::Failure, Exit::Usage];
const REPOSITORY: &[Exit] = &[Exit::NoRepository, Exit::WrongKey, Exit::Role, Exit::Damage];

pub(crate) fn top() -> String {
    let example = "
  strongroom --repo /mnt/backup/s12 init
  export STRONGROOM_REPO=/mnt/backup/s12
  strongroom backup /srv/imaging/s12 --study S12 --tag nightly
  strongroom snapshots
  strongroom restore latest:/srv/imaging/s12/pat-007 --target /tmp/pat-007
  strongroom check --read-data";
    let words = "WORDS
  SNAP is the beginning of a snapshot's id, or `latest`. SNAP:PATH names a path in it.
  GLOB is a pattern where * and ? match within one name, ** across folders, [ab] and {x,y} choose.
  Without a / it matches a name at any depth, with a leading / the absolute path, else the path's
  last parts. A trailing / makes it match folders only.

ENVIRONMENT
  STRONGROOM_REPO, STRONGROOM_PASSWORD, STRONGROOM_PASSWORD_FILE, STRONGROOM_PASSWORD_COMMAND,
  STRONGROOM_KEY_FILE, STRONGROOM_CACHE_DIR: see the options of the same names.
  NO_COLOR, TZ: as usual. A flag wins over the environment.";
    format!("EXAMPLES{example}\n\n{words}\n\n{}", exit_status(&all()))
}

/// For commands that open a repository. `more` are codes that only this command has.
pub(crate) fn with_repository(examples: &str, more: &[Exit]) -> String {
    let mut codes = [ANY, REPOSITORY, more, &[Exit::Interrupted]].concat();
    codes.sort_by_key(|code| *code as u8);
    after(examples, &codes)
}

pub(crate) fn without_repository(examples: &str, more: &[Exit]) -> String {
    after(examples, &[ANY, more].concat())
}

fn after(examples: &str, codes: &[Exit]) -> String {
    let examples: String = examples.trim().lines().map(|e| format!("  {}\n", e.trim())).collect();
    format!("EXAMPLES\n{examples}\n{}", exit_status(codes))
}

fn exit_status(codes: &[Exit]) -> String {
    let lines: Vec<_> =
        codes.iter().map(|code| format!("  {:<4} {}", *code as u8, code.meaning())).collect();
    format!("EXIT STATUS\n{}", lines.join("\n"))
}

fn all() -> Vec<Exit> {
    [ANY, &[Exit::SourceUnread, Exit::NoRepository, Exit::Busy, Exit::WrongKey], &REPOSITORY[2..]]
        .concat()
        .into_iter()
        .chain([Exit::Interrupted])
        .collect()
}
