//! Passwords and key files: reading them from wherever `settings` located them, asking for new
//! ones, and making key files. What is read is wiped when dropped; nothing here is ever printed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use strongroom::env::Env;
use strongroom::error::Error;
use strongroom::repo::{KeyFileSecret, Unlock};
use zeroize::Zeroizing;

use crate::Tool;
use crate::fail::{Exit, Fail};
use crate::sanitise;
use crate::settings::SecretFrom;

/// More than any password or key file; the buffer is allocated once, so that no copy is left behind
/// by growing.
const SECRET_BYTES_MAX: usize = 64 * 1024;
const TRIES_MAX: usize = 3;
const NO_TERMINAL: &str = "give --password-file, --password-command or --key-file, or set \
     STRONGROOM_PASSWORD_FILE or STRONGROOM_KEY_FILE";

/// How a new slot is to open; without either the terminal is asked.
#[derive(Args)]
pub(crate) struct NewSecretArgs {
    /// Take the new password from the first line of F
    #[arg(long, value_name = "F", conflicts_with = "new_key_file")]
    pub(crate) new_password_file: Option<PathBuf>,

    /// Make a new key file F (mode 0600), which must not exist, and open with it; no password is
    /// asked
    #[arg(long, value_name = "F")]
    pub(crate) new_key_file: Option<PathBuf>,
}

pub(crate) enum Secret {
    Password(Zeroizing<Vec<u8>>),
    KeyFile(KeyFileSecret),
}

impl Secret {
    pub(crate) fn unlock(&self) -> Unlock<'_> {
        match self {
            Secret::Password(password) => Unlock::Password(password),
            Secret::KeyFile(key) => Unlock::KeyFile(key),
        }
    }
}

/// The secret that unlocks an existing repository.
pub(crate) fn existing(tool: &Tool) -> Result<Secret, Fail> {
    match &tool.settings.secret.value {
        SecretFrom::Prompt => prompt(tool, "Password: ").map(Secret::Password),
        located => read(tool, located),
    }
}

/// The secret of a new slot. `fallback`: where to look before asking on the terminal (`init` has no
/// old secret, so that there the general options mean the new one).
pub(crate) fn new(
    tool: &Tool,
    args: &NewSecretArgs,
    fallback: &SecretFrom,
    env: &Env,
) -> Result<(Secret, Option<NewKeyFile>), Fail> {
    if let Some(path) = &args.new_key_file {
        let key = KeyFileSecret(env.random());
        let file = NewKeyFile::create(path, key.to_text().as_bytes())?;
        return Ok((Secret::KeyFile(key), Some(file)));
    }
    let secret = match (&args.new_password_file, fallback) {
        (Some(path), _) => Secret::Password(password_file(tool, path)?),
        (None, SecretFrom::Prompt) => Secret::Password(prompt_twice(tool)?),
        (None, located) => read(tool, located)?,
    };
    Ok((secret, None))
}

/// A key file that is on disk before the slot that it opens, and is taken away again unless `keep`
/// is called.
pub(crate) struct NewKeyFile {
    path: PathBuf,
    kept: bool,
}

impl NewKeyFile {
    fn create(path: &Path, text: &[u8]) -> Result<Self, Fail> {
        let fail = |e: io::Error| {
            let fail = Fail::new(
                Exit::Failure,
                format!("cannot make key file {}: {e}", sanitise::path(path)),
            );
            match e.kind() {
                io::ErrorKind::AlreadyExists => fail.hint("it may open something; choose another"),
                _ => fail,
            }
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
        let made = Self { path: path.to_owned(), kept: false };
        file.write_all(text).and_then(|()| file.sync_all()).map_err(fail)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.kept {
            // It opens nothing; if it cannot be removed, that does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn read(tool: &Tool, from: &SecretFrom) -> Result<Secret, Fail> {
    Ok(match from {
        SecretFrom::Prompt => unreachable!("the callers ask"),
        SecretFrom::Password(password) => Secret::Password(password.clone()),
        SecretFrom::PasswordFile(path) => Secret::Password(password_file(tool, path)?),
        SecretFrom::PasswordCommand(command) => Secret::Password(password_command(command)?),
        SecretFrom::KeyFile(path) => Secret::KeyFile(key_file(tool, path)?),
    })
}

fn password_file(tool: &Tool, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fail> {
    let what = || format!("password file {}", sanitise::path(path));
    let file = File::open(path).map_err(|e| unusable(&what(), &e))?;
    warn_if_open_to_all(tool, &what(), &file);
    let text = read_limited(file).map_err(|e| unusable(&what(), &e))?;
    first_line(&text).ok_or_else(|| Fail::new(Exit::WrongKey, format!("{}: no password", what())))
}

fn key_file(tool: &Tool, path: &Path) -> Result<KeyFileSecret, Fail> {
    let key_error = |what: String| Fail::from(Error::KeyFile { path: path.to_owned(), what });
    let file = File::open(path).map_err(|e| key_error(e.to_string()))?;
    warn_if_open_to_all(tool, &format!("key file {}", sanitise::path(path)), &file);
    let text = read_limited(file).map_err(|e| key_error(e.to_string()))?;
    let key = std::str::from_utf8(&text).ok().and_then(|text| KeyFileSecret::from_text(text).ok());
    key.ok_or_else(|| key_error("not a key file of Strongroom".to_owned()))
}

fn password_command(command: &OsStr) -> Result<Zeroizing<Vec<u8>>, Fail> {
    let what = format!("password command {}", sanitise::path(Path::new(command)));
    // No standard input: it may be the source of the backup.
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| unusable(&what, &e))?;
    let output = child.stdout.take().expect("it is piped");
    let text = read_limited(output);
    let status = child.wait().map_err(|e| unusable(&what, &e))?;
    if !status.success() {
        return Err(Fail::new(Exit::WrongKey, format!("{what}: {status}")));
    }
    let text = text.map_err(|e| unusable(&what, &e))?;
    first_line(&text)
        .ok_or_else(|| Fail::new(Exit::WrongKey, format!("{what}: it printed no password")))
}

fn prompt(tool: &Tool, question: &str) -> Result<Zeroizing<Vec<u8>>, Fail> {
    // The prompt restores the terminal before it gives up, so a signal must not end the process
    // inside it.
    let orderly = tool.interrupt.orderly();
    let answer = rpassword::prompt_password(question);
    if tool.interrupt.asked() {
        return Err(Fail::new(Exit::Interrupted, "interrupted"));
    }
    drop(orderly);
    let password = answer.map_err(|e| {
        Fail::new(Exit::WrongKey, format!("cannot ask for the password: {e}")).hint(NO_TERMINAL)
    })?;
    let password = Zeroizing::new(password.into_bytes());
    if password.is_empty() {
        return Err(Fail::new(Exit::WrongKey, "the password is empty"));
    }
    Ok(password)
}

fn prompt_twice(tool: &Tool) -> Result<Zeroizing<Vec<u8>>, Fail> {
    for _ in 0..TRIES_MAX {
        let password = prompt(tool, "New password: ")?;
        if *password == *prompt(tool, "The same again: ")? {
            return Ok(password);
        }
        tool.out.warn("the two differ");
    }
    Err(Fail::new(Exit::WrongKey, "the passwords differed each time; nothing was changed"))
}

fn read_limited(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    from.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Without its line end; `None` if it is empty.
fn first_line(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (!line.is_empty()).then(|| Zeroizing::new(line.to_vec()))
}

fn unusable(what: &str, error: &io::Error) -> Fail {
    Fail::new(Exit::WrongKey, format!("{what}: {error}"))
}

fn warn_if_open_to_all(tool: &Tool, what: &str, file: &File) {
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    // Pipes and terminals (`--password-file <(…)`) have modes that mean nothing.
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if regular && mode & 0o006 != 0 {
        tool.out.warn(&format!("{what} is open to every user (mode {:04o})", mode & 0o7777));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        let check = |text: &[u8], expected: Option<&[u8]>| {
            assert_eq!(first_line(text).as_ref().map(|line| line.as_slice()), expected);
        };
        check(b"secret", Some(b"secret"));
        check(b"secret\nnot this\n", Some(b"secret"));
        check(b" se cret \r\n", Some(b" se cret "));
        check(b"\xff\xfe\n", Some(b"\xff\xfe"));
        check(b"\nsecond", None);
        check(b"", None);
    }

    #[test]
    fn what_is_longer_than_any_secret_is_refused() {
        assert!(read_limited(&vec![b'x'; SECRET_BYTES_MAX][..]).is_ok());
        assert!(read_limited(&vec![b'x'; SECRET_BYTES_MAX + 1][..]).is_err());
    }

    #[test]
    fn a_key_file_is_private_never_overwrites_and_goes_if_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        drop(NewKeyFile::create(&path, b"x").unwrap());
        assert!(!path.exists());
        NewKeyFile::create(&path, b"x").unwrap().keep();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(NewKeyFile::create(&path, b"y").err().unwrap().exit, Exit::Failure);
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
