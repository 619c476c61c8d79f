//! Builds the workspace's programs in release mode, and executes one of them in place of this process.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Purpose};
use crate::{program, workspace};

/// Installs missing tools, builds the workspace, and replaces this process by `<target>/release/<name>`, which then gets
/// signals directly. Returns only an error, for example if the user is not root.
pub fn become_program(name: &str, args: &[OsString]) -> Result<Infallible> {
    if !program::is_root() {
        bail!("{name} makes network namespaces and loads BPF programs: run this command as root");
    }
    setup::require(&[Purpose::Build, Purpose::Kernel])?;
    build()?;
    let path = workspace::target_dir()?.join("release").join(name);
    let failure = Command::new(&path).args(args).env("PATH", program::search_path()).exec();
    Err(failure).with_context(|| format!("failed to start {}", path.display()))
}

/// Builds all programs of the workspace in release mode: the agent with its BPF programs, and the programs of the
/// tests, demo and measurements.
pub fn build() -> Result<()> {
    program::run(workspace::cargo().arg("build").args(workspace::SELECTION).arg("--bins"))
}
