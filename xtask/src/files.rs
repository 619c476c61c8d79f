//! Directories and files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Creates a directory and its parents.
pub fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("failed to create {}", directory.display()))
}

/// Removes a directory with its content, if it exists.
pub fn remove(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(directory).with_context(|| format!("failed to remove {}", directory.display()))
}

/// Writes a file, and replaces an existing one.
pub fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

/// Copies a file with its permissions, and creates the directory of the copy.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    create(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
