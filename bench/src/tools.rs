//! How each backup tool is called. One arm per tool; defaults of each tool, its cache inside the
//! work folder, its source in the page cache. Who lacks an operation says so with `None`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child;
use crate::tree;

const PASSWORD: &str = "correct horse battery staple";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    Strongroom,
    Restic,
    Rustic,
    Bupstash,
    Borg,
}

/// Where one run of one tool works; all absolute.
pub struct Places<'a> {
    folder: PathBuf,
    pub program: &'a Path,
    pub repository: PathBuf,
    pub cache: PathBuf,
    pub key: PathBuf,
    pub source: &'a Path,
    pub target: PathBuf,
}

impl<'a> Places<'a> {
    /// Makes what the tools expect to be there below a folder.
    pub fn below(folder: &Path, program: &'a Path, source: &'a Path) -> io::Result<Places<'a>> {
        let places = Places {
            folder: folder.to_owned(),
            program,
            repository: folder.join("repository"),
            cache: folder.join("cache"),
            key: folder.join("key"),
            source,
            target: folder.join("target"),
        };
        fs::create_dir_all(&places.cache)?;
        fs::create_dir_all(&places.target)?;
        Ok(places)
    }

    /// What the last command said.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Makes an empty repository.
    pub fn init(&self, tool: Tool) -> io::Result<()> {
        let run = |command| child::run(command, &self.log()).map(|_| ());
        tool.init(self).into_iter().try_for_each(run)
    }

    pub fn empty_target(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.target)?;
        fs::create_dir(&self.target)
    }

    /// An error unless what was restored has the contents that `digest` stands for.
    pub fn compare(&self, tool: Tool, digest: blake3::Hash) -> io::Result<()> {
        let restored = tool.restored(self);
        if tree::summary(&restored)?.digest == digest {
            return Ok(());
        }
        Err(io::Error::other(format!("{} is not what was backed up", restored.display())))
    }
}

impl Tool {
    /// Whether `backup --no-verify` leaves out a comparison that it makes otherwise.
    pub fn can_skip_verification(self) -> bool {
        self == Tool::Strongroom
    }

    pub fn name(self) -> &'static str {
        match self {
            Tool::Strongroom => "strongroom",
            Tool::Restic => "restic",
            Tool::Rustic => "rustic",
            Tool::Bupstash => "bupstash",
            Tool::Borg => "borg",
        }
    }

    pub fn version(self, program: &Path) -> Option<String> {
        let argument = match self {
            Tool::Restic | Tool::Bupstash => "version",
            Tool::Strongroom | Tool::Rustic | Tool::Borg => "--version",
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
    }

    /// The commands that make an empty repository, in order.
    pub fn init(self, places: &Places) -> Vec<Command> {
        let mut init = self.base(places);
        match self {
            Tool::Strongroom => {
                init = Command::new(places.program);
                init.arg("--repo").arg(&places.repository);
                init.args(["init", "--new-key-file"]).arg(&places.key);
            }
            Tool::Restic | Tool::Rustic => {
                init.arg("init");
            }
            Tool::Bupstash => {
                init.arg("init");
                let mut key = self.base(places);
                key.args(["new-key", "-o"]).arg(&places.key);
                return vec![init, key];
            }
            Tool::Borg => {
                init.args(["init", "-e", "repokey-blake2"]).arg(&places.repository);
            }
        }
        vec![init]
    }

    /// Backs up the source; `generation` names the archive where a tool wants a name.
    pub fn backup(self, places: &Places, generation: u32) -> Command {
        let mut command = self.base(places);
        match self {
            Tool::Strongroom | Tool::Restic | Tool::Rustic => command.arg("backup"),
            Tool::Bupstash => {
                command.arg("put").arg("-k").arg(&places.key).arg(format!("name=g{generation}"))
            }
            Tool::Borg => command.arg("create").arg(archive(places, generation)),
        };
        command.arg(places.source);
        command
    }

    /// Restores the newest backup below the target, which exists.
    pub fn restore(self, places: &Places, generation: u32) -> Command {
        let mut command = self.base(places);
        match self {
            Tool::Strongroom | Tool::Restic => {
                command.args(["restore", "latest", "--target"]).arg(&places.target)
            }
            Tool::Rustic => command.args(["restore", "latest"]).arg(&places.target),
            Tool::Bupstash => {
                command.args(["restore", "-k"]).arg(&places.key);
                command.arg("--into").arg(&places.target).arg(format!("name=g{generation}"))
            }
            Tool::Borg => {
                command.current_dir(&places.target);
                command.arg("extract").arg(archive(places, generation))
            }
        };
        command
    }

    /// Reads and verifies all data of the repository.
    pub fn check(self, places: &Places) -> Option<Command> {
        let mut command = self.base(places);
        match self {
            Tool::Strongroom | Tool::Restic | Tool::Rustic => {
                command.args(["check", "--read-data"]);
            }
            Tool::Bupstash => return None,
            Tool::Borg => {
                command.args(["check", "--verify-data"]).arg(&places.repository);
            }
        }
        Some(command)
    }

    /// Lists the backups: little more than the fixed cost of a command.
    pub fn list(self, places: &Places) -> Command {
        let mut command = self.base(places);
        match self {
            Tool::Strongroom | Tool::Restic | Tool::Rustic => command.arg("snapshots"),
            Tool::Bupstash => command.args(["list", "-k"]).arg(&places.key),
            Tool::Borg => command.arg("list").arg(&places.repository),
        };
        command
    }

    /// Where the source's own contents lie after a restore: below its absolute path, or at once.
    pub fn restored(self, places: &Places) -> PathBuf {
        match self {
            Tool::Bupstash => places.target.clone(),
            _ => places.target.join(places.source.strip_prefix("/").unwrap_or(places.source)),
        }
    }

    /// The program with what every one of its commands needs; nothing of the user's own settings.
    fn base(self, places: &Places) -> Command {
        let mut command = Command::new(places.program);
        command.env("HOME", &places.cache).env("XDG_CACHE_HOME", &places.cache);
        match self {
            Tool::Strongroom => {
                command.arg("--repo").arg(&places.repository);
                command.arg("--key-file").arg(&places.key);
                command.arg("--cache-dir").arg(&places.cache);
            }
            Tool::Restic => {
                command.env("RESTIC_PASSWORD", PASSWORD).arg("--repo").arg(&places.repository);
                command.arg("--cache-dir").arg(&places.cache);
            }
            Tool::Rustic => {
                command.arg("--repository").arg(&places.repository);
                command.arg("--password").arg(PASSWORD).arg("--no-progress");
                command.arg("--cache-dir").arg(&places.cache);
            }
            Tool::Bupstash => {
                command.env("BUPSTASH_REPOSITORY", &places.repository);
                command.env("BUPSTASH_SEND_LOG", places.cache.join("send.log"));
            }
            Tool::Borg => {
                command.env("BORG_PASSPHRASE", PASSWORD).env("BORG_BASE_DIR", &places.cache);
                command.env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
            }
        }
        command
    }
}

fn archive(places: &Places, generation: u32) -> String {
    format!("{}::g{generation}", places.repository.display())
}
