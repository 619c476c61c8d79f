//! Builds statically linked programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::architecture::Architecture;
use crate::{program, workspace};

/// The path of the workspace in the files of a release.
pub const ROOT: &str = "/portmap";

/// The profile of Cargo.toml for releases.
const PROFILE: &str = "dist";

/// Builds portmap for an architecture, and returns the path of the program. It needs no file of the system that it runs on.
pub fn build(architecture: Architecture) -> Result<PathBuf> {
    program::run(&mut command(architecture, workspace::root())?)?;
    Ok(path_in(&workspace::target_dir()?, architecture))
}

/// The command that builds portmap for an architecture, from the sources in `root`.
pub fn command(architecture: Architecture, root: &Path) -> Result<Command> {
    let target = architecture.target();
    let mut cargo = workspace::cargo();
    cargo.current_dir(root);
    cargo.args(["build", "--locked", "--package", "portmap", "--bin", "portmap", "--profile", PROFILE, "--target", target]);
    let of_target = target.replace('-', "_");
    cargo.env(format!("CC_{of_target}"), architecture.compiler());
    // For mimalloc: newer C has names for functions that musl lacks, and one text has the time of the compilation.
    cargo.env(format!("CFLAGS_{of_target}"), "-std=gnu17").env("SOURCE_DATE_EPOCH", "0");
    cargo.env(format!("CARGO_TARGET_{}_LINKER", of_target.to_uppercase()), architecture.compiler());
    cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", of_target.to_uppercase()), flags(root)?);
    Ok(cargo)
}

/// The path of the program in a target directory of cargo.
pub fn path_in(target: &Path, architecture: Architecture) -> PathBuf {
    target.join(architecture.target()).join(PROFILE).join("portmap")
}

/// Flags of rustc that replace the paths of this machine in texts such as those of panics.
fn flags(root: &Path) -> Result<String> {
    let cargo = program::cargo_home().context("cargo has no home directory")?;
    let replaced = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok([replaced(&cargo, "/cargo"), replaced(root, ROOT)].join(" "))
}
