//! Builds statically linked programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::architecture::Architecture;
use crate::{program, workspace};

/// The profile of Cargo.toml for releases.
const PROFILE: &str = "dist";

/// Builds portmap for an architecture, and returns the path of the program. It needs no file of the system that it runs on.
pub fn build(architecture: Architecture) -> Result<PathBuf> {
    let target = architecture.target();
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--package", "portmap", "--bin", "portmap", "--profile", PROFILE, "--target", target]);
    let of_target = target.replace('-', "_");
    cargo.env(format!("CC_{of_target}"), architecture.compiler());
    cargo.env(format!("CARGO_TARGET_{}_LINKER", of_target.to_uppercase()), architecture.compiler());
    cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", of_target.to_uppercase()), flags()?);
    program::run(&mut cargo)?;
    Ok(workspace::target_dir()?.join(target).join(PROFILE).join("portmap"))
}

/// Flags of rustc that replace the paths of this machine in texts such as those of panics.
fn flags() -> Result<String> {
    let cargo = program::cargo_home().context("cargo has no home directory")?;
    let replaced = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok([replaced(&cargo, "/cargo"), replaced(workspace::root(), "/portmap")].join(" "))
}
