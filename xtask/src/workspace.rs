//! Paths of this workspace, and commands of cargo with the environment that it needs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::program;
use crate::setup::toolchain;

/// Prefixes of the variables that `cargo run` sets for its program.
///
/// Some build scripts run again if one of these changes. So they are not passed on: otherwise `cargo build` and `cargo xtask` would
/// rebuild these crates alternately.
const SET_BY_CARGO_RUN: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Cargo's arguments for the packages that xtask builds and tests. Another profile or selection would change the features of
/// dependencies and rebuild them. `portmap-ebpf` has another target, and portmap's build script builds it.
pub const SELECTION: [&str; 4] = ["--release", "--workspace", "--exclude", "portmap-ebpf"];

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's target directory, from the path of this program.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("failed to get the path of this program")?;
    let target = program.ancestors().nth(2).context("failed to find the target directory above this program")?;
    Ok(target.to_path_buf())
}

/// The directory of tools that the set-up installs for this workspace only.
pub fn tools_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("tools"))
}

/// A command of cargo in the workspace, with the environment for building portmap.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    prepare(&mut cargo);
    cargo
}

/// A command of cargo of the toolchain that compiles the BPF programs.
pub fn bpf_cargo() -> Result<Command> {
    let mut cargo = program::command("rustup");
    cargo.args(["run", &toolchain::chosen()?.name, "cargo"]);
    prepare(&mut cargo);
    // With an inherited `CARGO`, the subcommands would use the other toolchain's cargo.
    cargo.env_remove("CARGO");
    Ok(cargo)
}

fn prepare(cargo: &mut Command) {
    cargo.current_dir(root()).env("PATH", program::search_path());
    for (name, _) in env::vars_os() {
        if SET_BY_CARGO_RUN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    // .cargo/config.toml sets this for the build inside portmap's build script, and `cargo run` passes it on.
    cargo.env_remove("CARGO_TERM_QUIET");
    // The variable stays unset for the default toolchain, so that a plain `cargo build` sees no change.
    if let Ok(chosen) = toolchain::chosen()
        && chosen.name != toolchain::DEFAULT
    {
        cargo.env(toolchain::VARIABLE, chosen.name);
    }
}
