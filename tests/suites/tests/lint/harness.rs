//! Runs the command, and makes directories of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::world::program;
use tempfile::TempDir;

/// The path of the command under test.
pub fn binary() -> Result<PathBuf> {
    program::find("portmap").context("build the command first: cargo build --release -p portmap")
}

/// Exit code and output of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Fails if the exit code differs.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "the exit code should be {code}: {self:#?}");
        Ok(self)
    }
}

/// Runs `portmap lint` in a directory, without standard input.
pub fn lint(directory: &Path, arguments: &[&str]) -> Result<Outcome> {
    finish(Command::new(binary()?).arg("lint").args(arguments).current_dir(directory))
}

/// Runs a line of a shell in a directory, with the command in its path.
pub fn shell(directory: &Path, line: &str) -> Result<Outcome> {
    let binary = binary()?;
    let programs = binary.parent().context("the command is in no directory")?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    finish(Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(directory))
}

fn finish(command: &mut Command) -> Result<Outcome> {
    for variable in ["NO_COLOR", "RUST_LOG", "KUBECONFIG"] {
        command.env_remove(variable);
    }
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {command:?}"))?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(!stderr.contains("panicked"), "{command:?} panicked: {stderr}");
    Ok(Outcome { code: output.status.code(), stdout, stderr })
}

/// Creates a directory with these files.
pub fn directory(files: &[(&str, &str)]) -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(path, text)?;
    }
    Ok(directory)
}

/// Whether an environment variable asks to rewrite the expected texts.
pub fn is_update(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}
