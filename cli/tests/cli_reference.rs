//! `docs/cli.md` is what the binary says about itself. `UPDATE=1` writes it.

use std::path::Path;
use std::process::Command;

#[test]
fn docs_cli_md_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let output = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .arg("__markdown")
        .env_clear()
        .output()
        .expect("the binary runs");
    assert!(output.status.success());
    let now = String::from_utf8(output.stdout).expect("it is UTF-8");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).expect("docs/ can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        now == written,
        "docs/cli.md is out of date, first at {differs:?}; run\n  \
         UPDATE=1 cargo test -p strongroom-cli --test cli_reference"
    );
}

/// Every visible command says how it is used, by example, and how it exits.
#[test]
fn every_command_has_examples_and_exit_status() {
    let commands: &[&[&str]] = &[
        &[],
        &["init"],
        &["backup"],
        &["snapshots"],
        &["ls"],
        &["stats"],
        &["restore"],
        &["dump"],
        &["check"],
        &["repair"],
        &["key"],
        &["key", "list"],
        &["key", "add"],
        &["key", "remove"],
        &["key", "passwd"],
        &["completions"],
    ];
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(*command)
            .arg("--help")
            .env_clear()
            .output()
            .expect("the binary runs");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command:?}");
        for part in ["EXAMPLES\n  strongroom ", "EXIT STATUS\n  0    success\n", "130  "] {
            let wanted = part != "130  " || !matches!(command, ["init"] | ["completions"]);
            assert!(!wanted || help.contains(part), "{command:?} lacks {part:?}:\n{help}");
        }
    }
}
