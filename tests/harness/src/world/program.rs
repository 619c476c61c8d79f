//! The programs that a world runs: those of this workspace, built beside the one that is running.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Finds a program of this workspace: where `<NAME>_BIN` says (`PORTMAP_POD_BIN`), else beside this program or one directory
/// up, since tests are in `deps/`.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    if let Some(path) = env::var_os(&variable) {
        let path = PathBuf::from(path);
        return path.is_file().then_some(path).with_context(|| format!("{variable} names no file"));
    }
    let this = env::current_exe().context("failed to find the running program")?;
    let beside = this.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    beside.with_context(|| {
        format!("found no {name} near {}: `cargo build --bin {name}` with the same profile, or set {variable}", this.display())
    })
}
