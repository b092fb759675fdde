//! Where repository, secret, cache and threads come from: parsed arguments and the environment are
//! settled here once, each value with its origin. Precedence: flag, environment, default. Secrets
//! are located here, not read.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::args::Globals;
use crate::fail::Fail;
use crate::sanitise;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Env(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Env(name) => f.write_str(name),
            Origin::Default => f.write_str("default"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Where the password or key file is to be had.
#[derive(PartialEq, Eq)]
pub(crate) enum SecretFrom {
    Prompt,
    Password(Zeroizing<Vec<u8>>),
    PasswordFile(PathBuf),
    PasswordCommand(OsString),
    KeyFile(PathBuf),
}

impl fmt::Debug for SecretFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretFrom::Prompt => f.write_str("asked for on the terminal"),
            SecretFrom::Password(_) => f.write_str("a password"),
            SecretFrom::PasswordFile(path) => write!(f, "file {}", sanitise::path(path)),
            SecretFrom::PasswordCommand(command) => {
                write!(f, "command {}", sanitise::path(Path::new(command)))
            }
            SecretFrom::KeyFile(path) => write!(f, "key file {}", sanitise::path(path)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Settings {
    repo: Option<Setting<PathBuf>>,
    pub(crate) secret: Setting<SecretFrom>,
    /// `None`: neither a flag nor the environment says where a cache may be, so there is none.
    pub(crate) cache_dir: Option<Setting<PathBuf>>,
    pub(crate) threads: Setting<usize>,
}

impl Settings {
    pub(crate) fn repo(&self) -> Result<&Path, Fail> {
        self.repo.as_ref().map(|setting| setting.value.as_path()).ok_or_else(|| {
            Fail::usage("no repository was named").hint("use --repo R, or set STRONGROOM_REPO")
        })
    }

    /// For commands that do with a repository and without.
    pub(crate) fn has_repo(&self) -> bool {
        self.repo.is_some()
    }

    /// For `-v`: each setting with its origin.
    pub(crate) fn origins(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(Setting { value, origin }) = &self.repo {
            lines.push(format!("repository: {} ({origin})", sanitise::path(value)));
        }
        lines.push(format!("secret: {:?} ({})", self.secret.value, self.secret.origin));
        match &self.cache_dir {
            Some(Setting { value, origin }) => {
                lines.push(format!("cache: {} ({origin})", sanitise::path(value)));
            }
            None => lines.push("cache: none (no HOME)".to_owned()),
        }
        lines.push(format!("threads: {} ({})", self.threads.value, self.threads.origin));
        lines
    }
}

type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// `env` looks a variable up; an empty one counts as unset.
pub(crate) fn settle(parsed: &Globals, env: Environment<'_>) -> Result<Settings, Fail> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    if parsed.quiet && parsed.verbose {
        return Err(Fail::usage("--quiet and --verbose exclude each other"));
    }
    let folder = |flag: &Option<PathBuf>, flag_name, env_name| match flag {
        Some(path) => Some(Setting { value: path.clone(), origin: Origin::Flag(flag_name) }),
        None => env(env_name).map(|v| Setting { value: v.into(), origin: Origin::Env(env_name) }),
    };
    Ok(Settings {
        repo: folder(&parsed.repo, "--repo", "STRONGROOM_REPO"),
        secret: secret(parsed, &env)?,
        cache_dir: folder(&parsed.cache_dir, "--cache-dir", "STRONGROOM_CACHE_DIR")
            .or_else(|| default_cache(&env)),
        threads: threads(parsed),
    })
}

fn secret(parsed: &Globals, env: Environment<'_>) -> Result<Setting<SecretFrom>, Fail> {
    let file = parsed.password_file.clone().map(SecretFrom::PasswordFile);
    let command =
        parsed.password_command.as_ref().map(|c| SecretFrom::PasswordCommand(OsString::from(c)));
    let key = parsed.key_file.clone().map(SecretFrom::KeyFile);
    let flags = [("--password-file", file), ("--password-command", command), ("--key-file", key)];
    if let Some(setting) = only_one(flags, Origin::Flag)? {
        return Ok(setting);
    }
    let value = |name, make: fn(OsString) -> SecretFrom| (name, env(name).map(make));
    let variables = [
        value("STRONGROOM_PASSWORD", |v| {
            SecretFrom::Password(Zeroizing::new(v.into_encoded_bytes()))
        }),
        value("STRONGROOM_PASSWORD_FILE", |v| SecretFrom::PasswordFile(v.into())),
        value("STRONGROOM_PASSWORD_COMMAND", SecretFrom::PasswordCommand),
        value("STRONGROOM_KEY_FILE", |v| SecretFrom::KeyFile(v.into())),
    ];
    let setting = only_one(variables, Origin::Env)?;
    Ok(setting.unwrap_or(Setting { value: SecretFrom::Prompt, origin: Origin::Default }))
}

/// Two secrets at one level are refused: to guess which one was meant could lock somebody out.
fn only_one<const N: usize>(
    choices: [(&'static str, Option<SecretFrom>); N],
    origin: fn(&'static str) -> Origin,
) -> Result<Option<Setting<SecretFrom>>, Fail> {
    let mut chosen: Option<(&'static str, SecretFrom)> = None;
    for (name, choice) in choices {
        match (choice, &chosen) {
            (Some(_), Some((first, _))) => {
                let message = format!("{first} and {name} exclude each other");
                return Err(Fail::usage(message).hint("keep one of them"));
            }
            (Some(value), None) => chosen = Some((name, value)),
            (None, _) => {}
        }
    }
    Ok(chosen.map(|(name, value)| Setting { value, origin: origin(name) }))
}

/// XDG Base Directory Specification 0.8: a relative XDG_CACHE_HOME is to be ignored.
fn default_cache(env: Environment<'_>) -> Option<Setting<PathBuf>> {
    let xdg = env("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let value = xdg.or_else(home)?.join("strongroom");
    Some(Setting { value, origin: Origin::Default })
}

fn threads(parsed: &Globals) -> Setting<usize> {
    match parsed.threads {
        Some(threads) => Setting { value: threads.into(), origin: Origin::Flag("--threads") },
        None => Setting {
            value: std::thread::available_parallelism().map_or(1, usize::from),
            origin: Origin::Default,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(parsed: &Globals, vars: &[(&str, &str)]) -> Result<Settings, Fail> {
        settle(parsed, &|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn flags() -> Globals {
        Globals {
            repo: Some("/flag/repo".into()),
            key_file: Some("/flag/key".into()),
            cache_dir: Some("/flag/cache".into()),
            threads: Some(3),
            ..Globals::default()
        }
    }

    const VARS: &[(&str, &str)] = &[
        ("STRONGROOM_REPO", "/env/repo"),
        ("STRONGROOM_PASSWORD_FILE", "/env/password"),
        ("STRONGROOM_CACHE_DIR", "/env/cache"),
        ("XDG_CACHE_HOME", "/xdg"),
        ("HOME", "/home/x"),
    ];

    #[test]
    fn a_flag_wins_over_the_environment() {
        let settings = settled(&flags(), VARS).unwrap();
        assert_eq!(settings.repo().unwrap(), Path::new("/flag/repo"));
        assert_eq!(settings.secret.value, SecretFrom::KeyFile("/flag/key".into()));
        assert_eq!(settings.secret.origin, Origin::Flag("--key-file"));
        assert_eq!(settings.cache_dir.unwrap().value, Path::new("/flag/cache"));
        assert_eq!(settings.threads.value, 3);
    }

    #[test]
    fn the_environment_wins_over_the_default() {
        let settings = settled(&Globals::default(), VARS).unwrap();
        assert_eq!(settings.repo().unwrap(), Path::new("/env/repo"));
        assert_eq!(settings.secret.value, SecretFrom::PasswordFile("/env/password".into()));
        assert_eq!(settings.secret.origin, Origin::Env("STRONGROOM_PASSWORD_FILE"));
        assert_eq!(settings.cache_dir.unwrap().value, Path::new("/env/cache"));
    }

    #[test]
    fn defaults_and_empty_variables() {
        let settings = settled(&Globals::default(), &[("STRONGROOM_REPO", "")]).unwrap();
        assert_eq!(settings.repo().unwrap_err().exit, crate::fail::Exit::Usage);
        assert_eq!(settings.secret.value, SecretFrom::Prompt);
        assert!(settings.cache_dir.is_none());
        assert!(settings.threads.value >= 1);
    }

    #[test]
    fn the_cache_follows_xdg_then_home() {
        let check = |vars, expected: &str| {
            let settings = settled(&Globals::default(), vars).unwrap();
            assert_eq!(settings.cache_dir.unwrap().value, Path::new(expected));
        };
        check(&[("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/x")], "/xdg/strongroom");
        check(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/home/x")], "/home/x/.cache/strongroom");
        check(&[("HOME", "/home/x")], "/home/x/.cache/strongroom");
    }

    #[test]
    fn two_secrets_at_one_level_are_refused() {
        let both = Globals { password_file: Some("/p".into()), ..flags() };
        let fail = settled(&both, &[]).unwrap_err();
        assert_eq!(fail.message, "--password-file and --key-file exclude each other");
        let vars = [("STRONGROOM_PASSWORD", "x"), ("STRONGROOM_KEY_FILE", "/k")];
        assert!(settled(&Globals::default(), &vars).is_err());
        assert!(settled(&flags(), &vars).is_ok(), "a flag decides");
    }

    #[test]
    fn no_password_is_ever_shown() {
        let settings = settled(&Globals::default(), &[("STRONGROOM_PASSWORD", "hush")]).unwrap();
        let shown = format!("{settings:?} {:?}", settings.origins());
        assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
    }
}
