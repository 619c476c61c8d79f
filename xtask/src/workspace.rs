//! Where things are in this workspace, and cargo as it must be called for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::program;
use crate::setup::toolchain;

/// The variables that `cargo run` sets for the program it runs. Some build scripts ask to be run again when one of them changes, so
/// passing them on would build those crates anew at each change between `cargo build` and `cargo xtask`.
const SET_BY_CARGO_RUN: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// What xtask builds, checks and tests: one profile, and always the same packages, as another selection gives dependencies other
/// features and builds them again. portmap's build script builds `portmap-ebpf`, for its own target.
pub const SELECTION: [&str; 4] = ["--release", "--workspace", "--exclude", "portmap-ebpf"];

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's target directory: the one that this very program was built into.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("failed to find this program's own path")?;
    let target = program.ancestors().nth(2).context("failed to find the target directory above this program")?;
    Ok(target.to_path_buf())
}

/// Where the set-up puts tools that are for this workspace only.
pub fn tools_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("tools"))
}

/// `cargo`, in the workspace, with the environment that building portmap needs.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    prepare(&mut cargo);
    cargo
}

/// `cargo` of the toolchain that compiles the BPF programs.
pub fn bpf_cargo() -> Result<Command> {
    let mut cargo = program::command("rustup");
    cargo.args(["run", &toolchain::chosen()?.name, "cargo"]);
    prepare(&mut cargo);
    // Cargo believes a `CARGO` that it inherits, and would hand its subcommands the other toolchain's.
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
    // Meant for the build inside portmap's build script (.cargo/config.toml); `cargo run` passes it on.
    cargo.env_remove("CARGO_TERM_QUIET");
    // Left unset where the default fits, so that a plain `cargo build` finds nothing changed.
    if let Ok(chosen) = toolchain::chosen()
        && chosen.name != toolchain::DEFAULT
    {
        cargo.env(toolchain::VARIABLE, chosen.name);
    }
}
