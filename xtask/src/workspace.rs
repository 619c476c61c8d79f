//! Paths of this workspace, and cargo commands with the environment for building portmap.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::program;
use crate::setup::toolchain;

/// Prefixes of the environment variables that `cargo run` sets for its program.
///
/// Some build scripts run again if one of these variables changes. xtask removes them for the cargo that it starts. Otherwise
/// `cargo build` and `cargo xtask` would rebuild these crates alternately.
const SET_BY_CARGO_RUN: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Cargo's arguments for the packages that xtask builds and tests. Every command uses the same profile and packages: others
/// would change the features of dependencies and rebuild them. portmap's build script builds `portmap-ebpf` for the BPF target.
pub const SELECTION: [&str; 4] = ["--release", "--workspace", "--exclude", "portmap-ebpf"];

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Cargo's target directory, derived from the path of this program, `<target>/<profile>/xtask`.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("failed to get the path of this program")?;
    let target = program.ancestors().nth(2).context("failed to find the target directory above this program")?;
    Ok(target.to_path_buf())
}

/// The directory for tools that the set-up installs for this workspace only. It may not exist yet.
pub fn tools_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("tools"))
}

/// A package of this workspace, as `cargo metadata` describes it.
#[derive(Debug, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The path of its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The oldest Rust that it promises to support.
    pub rust_version: Option<String>,
}

/// The packages of this workspace.
pub fn members() -> Result<Vec<Member>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Member>,
    }

    let text = program::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("failed to parse the output of cargo metadata")?;
    Ok(metadata.packages)
}

/// A command of cargo in the workspace, with the environment for building portmap.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    prepare(&mut cargo);
    cargo
}

/// A command of the cargo that belongs to the toolchain for the BPF programs. Fails if no toolchain is suitable.
pub fn bpf_cargo() -> Result<Command> {
    Ok(cargo_of(&toolchain::chosen()?.name))
}

/// A command of the cargo of this toolchain.
pub fn cargo_of(toolchain: &str) -> Command {
    let mut cargo = program::command("rustup");
    cargo.args(["run", toolchain, "cargo"]);
    prepare(&mut cargo);
    // With an inherited `CARGO`, the subcommands would use the other toolchain's cargo.
    cargo.env_remove("CARGO");
    cargo
}

fn prepare(cargo: &mut Command) {
    cargo.current_dir(root()).env("PATH", program::search_path());
    for (name, _) in env::vars_os() {
        if SET_BY_CARGO_RUN.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    // .cargo/config.toml sets it for the inner build of portmap's build script. `cargo run` also sets it for this process.
    cargo.env_remove("CARGO_TERM_QUIET");
    // The variable is not added for the default toolchain, so that a plain `cargo build` sees no change and rebuilds nothing.
    if let Ok(chosen) = toolchain::chosen()
        && chosen.name != toolchain::DEFAULT
    {
        cargo.env(toolchain::VARIABLE, chosen.name);
    }
}
