//! `cargo xtask msrv`: compiles the workspace with the oldest Rust that it promises to support, `rust-version` in `Cargo.toml`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::screen::Screen;
use crate::setup::{self, Purpose, toolchain};
use crate::{program, workspace};

/// Check that the workspace compiles with the oldest Rust that Cargo.toml names (`rust-version`), its tests included
#[derive(clap::Args, Default)]
pub struct Args {}

/// Installs that Rust with rustup, and runs `cargo check`.
pub fn run(_: &Args) -> Result<ExitCode> {
    setup::require(&[Purpose::Build])?;
    let version = oldest()?;
    toolchain::ensure(&version)?;
    Screen::Stderr.title(&format!("cargo check with Rust {version}"));
    let mut check = workspace::cargo_of(&version);
    check.args(["check", "--locked", "--workspace", "--exclude", "portmap-ebpf", "--all-targets"]);
    program::run(check.arg("--target-dir").arg(workspace::target_dir()?.join("msrv")))?;
    Ok(ExitCode::SUCCESS)
}

/// The `rust-version` of this workspace.
fn oldest() -> Result<String> {
    let own = workspace::members()?.into_iter().find(|member| member.name == env!("CARGO_PKG_NAME"));
    own.and_then(|member| member.rust_version).context("Cargo.toml has no rust-version")
}
