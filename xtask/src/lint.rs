//! `cargo xtask lint`: checks formatting, spelling, the links within the documents and the imports between rooms (first-level
//! modules of the library), and runs clippy.
//!
//! Clippy has two passes, because the host and the BPF target compile different code.

mod links;
mod rooms;

use std::env::consts::ARCH;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::screen::Screen;
use crate::setup::wheels::{TAPLO, TYPOS, Wheel};
use crate::setup::{self, Purpose, toolchain};
use crate::{program, workspace};

/// Check formatting, spelling, links and the imports between modules, and run clippy for the host and for the BPF programs;
/// warnings are errors
#[derive(clap::Args, Default)]
pub struct Args {}

/// Runs the checks in order. Fails at the first check that finds a fault.
pub fn run(_: &Args) -> Result<ExitCode> {
    setup::require(&[Purpose::Build])?;
    // A linter that cannot be installed is skipped below.
    setup::ensure(&[Purpose::Lint])?;
    let ours = program::output(toolchain::rustup().args(["show", "active-toolchain"]).current_dir(workspace::root()))?;
    let ours = ours.split_whitespace().next().context("failed to find the active toolchain")?;
    formatting(ours)?;
    wheel(&TAPLO, "format of TOML files", &["format", "--check"], "`target/tools/python/bin/taplo format` writes it")?;
    wheel(&TYPOS, "spelling", &[], "_typos.toml lists words of the field")?;
    Screen::Stderr.title("links within the documents");
    links::check()?;
    Screen::Stderr.title("imports between rooms");
    rooms::check()?;
    host(ours)?;
    bpf()?;
    Ok(ExitCode::SUCCESS)
}

fn formatting(toolchain: &str) -> Result<()> {
    add_component(toolchain, "rustfmt")?;
    Screen::Stderr.title("formatting");
    program::run(workspace::cargo().args(["fmt", "--all", "--check"]))
        .context("some files are not formatted (`cargo fmt --all` does it)")
}

/// Runs a linter from PyPI in the root of the workspace. Skipped with the reason if it cannot be installed on this machine.
fn wheel(linter: &Wheel, title: &str, args: &[&str], remedy: &'static str) -> Result<()> {
    let mut command = match linter.command() {
        Ok(command) => command,
        Err(reason) => {
            Screen::Stderr.line(&format!("skipped: {title} ({reason:#})"));
            return Ok(());
        }
    };
    Screen::Stderr.title(title);
    program::run(command.args(args).current_dir(workspace::root()).env("RUST_LOG", "warn")).context(remedy)
}

fn host(toolchain: &str) -> Result<()> {
    add_component(toolchain, "clippy")?;
    Screen::Stderr.title("clippy for the host");
    let mut clippy = workspace::cargo();
    clippy.arg("clippy").args(workspace::SELECTION).arg("--all-targets");
    program::run(clippy.args(["--", "-D", "warnings"]))
}

/// Runs clippy for the BPF programs with the compiler flags of aya-build, so that it checks the same code as the build. Skipped
/// if clippy cannot be installed for the nightly toolchain.
fn bpf() -> Result<()> {
    if let Err(reason) = add_component(&toolchain::chosen()?.name, "clippy") {
        Screen::Stderr.line(&format!("skipped: clippy for the BPF programs ({reason:#})"));
        return Ok(());
    }
    Screen::Stderr.title("clippy for the BPF programs");
    let mut clippy = workspace::bpf_cargo()?;
    clippy.args(["clippy", "--release", "-p", "portmap-ebpf", "--lib", "--bins", "--target", "bpfel-unknown-none"]);
    clippy.args(["-Z", "build-std=core", "--target-dir"]).arg(workspace::target_dir()?.join("bpf-clippy"));
    // Flags are separated by the unit separator.
    clippy.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{ARCH}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf"));
    program::run(clippy.args(["--", "-D", "warnings"]))
}

/// Adds `rustfmt` or `clippy` to a toolchain with rustup, if it is missing: a minimal toolchain has neither.
fn add_component(toolchain: &str, component: &str) -> Result<()> {
    let tool = if component == "rustfmt" { "rustfmt" } else { "cargo-clippy" };
    if program::output(toolchain::rustup().args(["which", "--toolchain", toolchain, tool])).is_ok() {
        return Ok(());
    }
    program::output(toolchain::rustup().args(["component", "add", component, "--toolchain", toolchain])).map(drop)
}
