//! `key`: the slots that open the repository. Changing a password rewrites a slot, never the data.

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use strongroom::maintain::keys::{self, SlotInfo};
use strongroom::repo::{Repo, Role};

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format::{minute, rfc3339, short};
use crate::help;
use crate::open;
use crate::sanitise;
use crate::secret::{self, NewSecretArgs};
use crate::settings::SecretFrom;
use crate::table::{Align, Table, clip};

const NAME_CHARS_MAX: usize = 24;

/// Manage who may open the repository, and as what
///
/// Each slot opens the repository for one person or machine in one role:
///
/// backup adds snapshots and cannot read them back; restore reads everything and adds nothing;
/// auditor sees what was backed up when and by whom, but no names or content; admin deletes and
/// manages backup identities, without seeing names or content; owner does everything.
#[derive(Args)]
#[command(
    after_long_help = help::with_repository("
    strongroom key list
    strongroom key add --role backup --name mri-04 --new-key-file /etc/strongroom/mri-04.key
    strongroom key passwd
    strongroom key remove a1b2", &[]),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    List(ListArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
    Passwd(PasswdArgs),
}

/// List the slots; * marks the one in use
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom key list
    strongroom key list --json | jq -r 'select(.role == \"backup\") | .name'", &[]))]
struct ListArgs {}

/// Add a slot for another person or machine
///
/// Only an owner may add roles other than backup. The repository is opened as usual;
/// --new-password-file or --new-key-file are for the new slot, and without them a new password is
/// asked for twice.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom key add --role backup --name mri-04 --new-key-file /etc/strongroom/mri-04.key
    strongroom key add --role restore --name 'Night shift'", &[]))]
struct AddArgs {
    /// What the new identity may do: backup, restore, auditor, admin or owner
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,

    /// Who it is: shown as author of its snapshots
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,

    #[command(flatten)]
    secret: NewSecretArgs,
}

/// Remove a slot
///
/// Whoever used it can no longer open the repository with it. The last owner's slot cannot be
/// removed. Somebody who has kept copies of the slot and of the data can still open those copies.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom key remove a1b2", &[]))]
struct RemoveArgs {
    /// The beginning of the slot's id
    #[arg(value_name = "SLOT")]
    slot: String,
}

/// Change the password or key file of the slot in use
///
/// The new one is asked for twice, or given by --new-password-file or --new-key-file. The data is
/// not touched.
#[derive(Args)]
#[command(after_long_help = help::with_repository("
    strongroom key passwd
    strongroom --password-file old key passwd --new-password-file new
    strongroom key passwd --new-key-file /etc/strongroom/s12.key", &[]))]
struct PasswdArgs {
    #[command(flatten)]
    secret: NewSecretArgs,
}

pub(crate) fn run(tool: &Tool, args: &KeyArgs) -> Result<Exit, Fail> {
    let repo = open::repo(tool)?;
    match &args.action {
        Action::List(_) => list(tool, &repo),
        Action::Add(args) => add(tool, &repo, args),
        Action::Remove(args) => remove(tool, &repo, args),
        Action::Passwd(args) => passwd(tool, &repo, args),
    }?;
    Ok(Exit::Success)
}

fn list(tool: &Tool, repo: &Repo) -> Result<(), Fail> {
    let slots = keys::list(repo)?;
    if tool.out.json() {
        return slots.iter().try_for_each(|slot| tool.out.object(&object("slot", slot)));
    }
    tool.out.line(&table(&slots, &TimeZone::system()))
}

fn add(tool: &Tool, repo: &Repo, args: &AddArgs) -> Result<(), Fail> {
    let (secret, file) = secret::new(tool, &args.secret, &SecretFrom::Prompt, &open::env(tool))?;
    let (slot, identity) = keys::add(repo, args.role, &args.name, secret.unlock())?;
    let key_file = file.as_ref().map(|file| sanitise::path(file.path()));
    if let Some(file) = file {
        file.keep();
    }
    if tool.out.json() {
        return tool.out.event(&json!({"type": "slot_added", "id": slot.to_string(),
            "identity": identity.to_string(), "name": args.name, "role": args.role.to_string(),
            "key_file": key_file}));
    }
    let (name, role) = (sanitise::text(&args.name), args.role);
    tool.out.summary(&format!("slot {} added for {name} ({role})", short(slot)))
}

fn remove(tool: &Tool, repo: &Repo, args: &RemoveArgs) -> Result<(), Fail> {
    let slot = keys::remove(repo, &args.slot)?;
    if tool.out.json() {
        return tool.out.event(&object("slot_removed", &slot));
    }
    let (id, name, role) = (short(slot.id), sanitise::text(&slot.name), slot.role);
    tool.out.summary(&format!("slot {id} of {name} ({role}) removed"))
}

fn passwd(tool: &Tool, repo: &Repo, args: &PasswdArgs) -> Result<(), Fail> {
    let (secret, file) = secret::new(tool, &args.secret, &SecretFrom::Prompt, &open::env(tool))?;
    let changed = keys::change_password(repo, secret.unlock());
    // Unlike elsewhere the file stays even after a failure: should the slot have been rewritten all
    // the same, it is the only way in.
    if let Some(file) = file {
        if changed.is_err() {
            let path = sanitise::path(file.path());
            tool.out.warn(&format!(
                "{path} was kept; remove it once the old secret has proved to open"
            ));
        }
        file.keep();
    }
    let slot = changed?;
    if tool.out.json() {
        return tool.out.event(&json!({"type": "slot_changed", "id": slot.to_string()}));
    }
    tool.out.summary(&format!("the slot was rewritten; it is {} now", short(slot)))
}

fn table(slots: &[SlotInfo], zone: &TimeZone) -> String {
    let mut table = Table::new(&[
        ("SLOT", Align::Left),
        ("", Align::Left),
        ("ROLE", Align::Left),
        ("NAME", Align::Left),
        ("OPENS WITH", Align::Left),
        ("ADDED", Align::Left),
    ]);
    for slot in slots {
        let added = slot.added.map_or_else(|| "-".to_owned(), |time| minute(time, zone));
        table.row([
            short(slot.id),
            if slot.ours { "*".to_owned() } else { String::new() },
            slot.role.to_string(),
            clip(&sanitise::text(&slot.name), NAME_CHARS_MAX),
            slot.method.to_owned(),
            if slot.active { added } else { "revoked".to_owned() },
        ]);
    }
    table.render()
}

fn object(kind: &str, slot: &SlotInfo) -> Value {
    json!({
        "type": kind,
        "id": slot.id.to_string(),
        "method": slot.method,
        "identity": slot.identity.to_string(),
        "name": slot.name,
        "role": slot.role.to_string(),
        "added": slot.added.map(rfc3339),
        "active": slot.active,
        "ours": slot.ours,
    })
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|_| "a role is backup, restore, auditor, admin or owner".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a name is needed".to_owned()) } else { Ok(text.to_owned()) }
}
