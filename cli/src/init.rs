//! `init`: makes a repository and its owner's slot.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use strongroom::error::Error;
use strongroom::repo::{self, ChunkerSpec, InitOptions, Suite};
use strongroom::store::LocalStore;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::format;
use crate::help;
use crate::open;
use crate::sanitise;
use crate::secret::{self, NewSecretArgs};
use crate::settings::SecretFrom;

/// The first identity's name.
pub(crate) const OWNER: &str = "owner";
/// The one object that every repository has (docs/format.md); asked for before a password is.
const REPO_OBJECT: &str = "repo.cbor";

/// Make a repository
///
/// Makes the folder named by --repo and in it a repository with one key slot, the owner's. That
/// slot opens with a new key file (--new-key-file) or with a password: the one that
/// --new-password-file, the global options or the environment give, else one asked for twice.
#[derive(Args)]
#[command(after_long_help = help::without_repository("
    strongroom --repo /mnt/backup/s12 init
    strongroom --repo /mnt/backup/s12 init --new-key-file /etc/strongroom/s12.key
    strongroom --repo /mnt/s12 --password-file /etc/strongroom/s12.pw init --cipher chacha20-poly1305",
    &[Exit::WrongKey]))]
pub(crate) struct InitArgs {
    /// How data is encrypted; `auto` takes AES where the processor has instructions for it
    #[arg(long, value_name = "CIPHER", default_value = "auto")]
    cipher: Cipher,

    /// How files are cut into chunks
    #[arg(long, value_name = "CHUNKER", default_value = "mincdc")]
    chunker: Chunker,

    /// Mean size of a chunk, such as 1MiB, 512KiB, 64k
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = format::parse_chunk_size)]
    chunk_size: u32,

    #[command(flatten)]
    secret: NewSecretArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Cipher {
    Auto,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

#[derive(Clone, Copy, ValueEnum)]
enum Chunker {
    Mincdc,
    Fastcdc,
}

pub(crate) fn run(tool: &Tool, args: &InitArgs) -> Result<Exit, Fail> {
    let place = tool.settings.repo()?;
    if place.join(REPO_OBJECT).exists() {
        return Err(Error::RepositoryExists { place: place.display().to_string() }.into());
    }
    let env = open::env(tool);
    let fallback = &tool.settings.secret.value;
    let (secret, key_file) = secret::new(tool, &args.secret, fallback, &env)?;
    let store = Arc::new(LocalStore::create(place)?);
    store.probe()?;
    if !store.fs_kind()?.suits_several_hosts() {
        tool.out.note(
            "warning: this file system caches attributes (a network share): use the repository from \
             one host only",
        );
    }
    let id = repo::init(store.clone(), secret.unlock(), &options(args), &env)?;
    let key_path = key_file.as_ref().map(|file| sanitise::path(file.path()));
    if let Some(file) = key_file {
        file.keep();
    }
    // Opened once, so that what is told was read from the repository itself.
    let repo = repo::Repo::open(store, secret.unlock(), None, &env)?;
    let cipher = cipher_name(repo.file().suite);
    if tool.out.json() {
        tool.out.object(&json!({"type": "init", "id": id.to_string(), "cipher": cipher,
            "repository": place.to_string_lossy(), "key_file": key_path}))?;
        return Ok(Exit::Success);
    }
    tool.out.summary(&format!(
        "repository  {id}\nplace       {}\ncipher      {cipher}",
        sanitise::path(place)
    ))?;
    let key = match (key_path, &args.secret.new_password_file, fallback) {
        (Some(path), _, _) => format!("key file {path}"),
        (None, None, SecretFrom::KeyFile(path)) => format!("key file {}", sanitise::path(path)),
        _ => "password".to_owned(),
    };
    tool.out.note(&format!(
        "\nKeep the {key} safe, and a copy in another place:\n\
         without it nothing can be restored, by anyone."
    ));
    Ok(Exit::Success)
}

fn options(args: &InitArgs) -> InitOptions {
    InitOptions {
        suite: match args.cipher {
            Cipher::Auto => None,
            Cipher::Aes256Gcm => Some(Suite::Aes256Gcm),
            Cipher::ChaCha20Poly1305 => Some(Suite::ChaCha20Poly1305),
        },
        chunker: match args.chunker {
            Chunker::Mincdc => ChunkerSpec::windowed_minimum(args.chunk_size),
            Chunker::Fastcdc => ChunkerSpec::fast_cdc(args.chunk_size),
        },
        owner_name: OWNER.to_owned(),
        ..InitOptions::default()
    }
}

fn cipher_name(suite: Suite) -> &'static str {
    match suite {
        Suite::Aes256Gcm => "aes-256-gcm",
        Suite::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}
