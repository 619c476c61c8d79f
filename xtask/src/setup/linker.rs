//! Installs bpf-linker, which rustc calls to link the BPF target.

use anyhow::{Context as _, Result, bail};

use super::{Purpose, Step};
use crate::{program, workspace};

/// The required version of bpf-linker. Its default features use the LLVM version that [`super::toolchain`] requires.
const VERSION: &str = "0.10.4";

/// The step that installs bpf-linker.
pub struct BpfLinker;

impl Step for BpfLinker {
    fn name(&self) -> &'static str {
        "bpf-linker"
    }

    fn why(&self) -> &'static str {
        "links the BPF programs"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Build
    }

    fn check(&self) -> Result<String> {
        let path = program::find("bpf-linker").context("not on PATH")?;
        let found = program::output(program::command("bpf-linker").arg("--version"))?;
        let found = found.trim();
        if found != format!("bpf-linker {VERSION}") {
            bail!("{} is {found}, but {VERSION} is needed", path.display());
        }
        Ok(found.to_owned())
    }

    /// Installs bpf-linker into cargo's bin directory, so that a plain `cargo build` finds it too.
    fn install(&self) -> Result<()> {
        program::run(workspace::cargo().args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]))
    }
}
