//! Unpacks promtool, which checks the alerts of the Helm chart.
//!
//! It comes from the package `prometheus` of Debian or Ubuntu. The package is not installed, because it would start a server.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Purpose, Step, apt};
use crate::{program, workspace};

const PROMTOOL: &str = "promtool";
const PACKAGE: &str = "prometheus";

/// The step that unpacks promtool.
pub struct Promtool;

impl Step for Promtool {
    fn name(&self) -> &'static str {
        PROMTOOL
    }

    fn why(&self) -> &'static str {
        "checks the alerts of the Helm chart"
    }

    fn purpose(&self) -> Purpose {
        Purpose::Promtool
    }

    fn check(&self) -> Result<String> {
        program::find(PROMTOOL).context("not installed")?;
        let printed = program::output(program::command(PROMTOOL).arg("--version"))?;
        Ok(printed.lines().next().and_then(|line| line.split(" (").next()).unwrap_or(PROMTOOL).to_owned())
    }

    fn install(&self) -> Result<()> {
        let directory = directory()?;
        let partial = directory.with_extension("partial");
        fs::remove_dir_all(&partial).ok();
        apt::unpack(PACKAGE, &partial)?;
        // The server itself is not needed.
        let program = partial.join("usr/bin").join(PROMTOOL);
        let placed = directory.join("bin");
        fs::create_dir_all(&placed).with_context(|| format!("failed to create {}", placed.display()))?;
        fs::rename(&program, placed.join(PROMTOOL)).with_context(|| format!("the package {PACKAGE} has no {PROMTOOL}"))?;
        fs::remove_dir_all(&partial).with_context(|| format!("failed to remove {}", partial.display()))
    }
}

fn directory() -> Result<PathBuf> {
    Ok(workspace::tools_dir()?.join(PROMTOOL))
}
