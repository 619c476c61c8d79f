//! Installs what builds statically linked programs for all architectures.

use anyhow::{Context as _, Result, bail};

use super::{Purpose, Step, apt};
use crate::program;
use crate::release::architecture::Architecture;

/// The step that installs Rust's targets and the C compilers. A dependency has parts in C and in assembler.
pub struct Targets;

impl Step for Targets {
    fn name(&self) -> &'static str {
        "targets of releases"
    }

    fn why(&self) -> &'static str {
        "the releases are built for them"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Release
    }

    fn check(&self) -> Result<String> {
        let installed = program::output(program::command("rustup").args(["target", "list", "--installed"]))?;
        let targets = Architecture::ALL.map(Architecture::target);
        if let Some(missing) = targets.into_iter().find(|target| !installed.lines().any(|line| line == *target)) {
            bail!("rustup has not installed the target {missing}");
        }
        for compiler in Architecture::ALL.map(Architecture::compiler) {
            program::find(compiler).with_context(|| format!("{compiler} is not installed"))?;
        }
        Ok(targets.join(", "))
    }

    fn install(&self) -> Result<()> {
        program::run(program::command("rustup").args(["target", "add"]).args(Architecture::ALL.map(Architecture::target)))?;
        let missing = Architecture::ALL.into_iter().filter(|architecture| program::find(architecture.compiler()).is_none());
        let packages: Vec<String> =
            missing.flat_map(Architecture::compiler_packages).map(|package| (*package).to_owned()).collect();
        if packages.is_empty() { Ok(()) } else { apt::install(&packages) }
    }
}
