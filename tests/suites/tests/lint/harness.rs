//! Runs the command, and makes directories of files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use portmap_suites::command::{Outcome, binary, finish};
use tempfile::TempDir;

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
