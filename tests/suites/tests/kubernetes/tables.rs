//! Output of `portmap services` and `portmap status`.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::world::{World, program};
use serde::Deserialize;

/// The Service that the API server creates for itself. It has no endpoints, unless a test creates them.
pub const API_SERVER: &str = "default/kubernetes";

/// A frontend as `portmap services` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Row {
    /// Address, port and protocol, such as `10.96.0.10:80/TCP`.
    pub frontend: String,
    /// `namespace/name` of the Service.
    pub service: String,
    /// The name of the Service port.
    pub port: String,
    /// `forward`, `refuse` or `drop`.
    pub action: String,
    /// The backends, such as `10.244.0.2:8080`, sorted.
    pub backends: Vec<String>,
}

/// The frontends of all Services but the API server's own.
pub fn services(world: &World) -> Result<BTreeSet<Row>> {
    let mut rows = all(world)?;
    rows.retain(|row| row.service != API_SERVER);
    Ok(rows)
}

/// The frontends of all Services.
pub fn all(world: &World) -> Result<BTreeSet<Row>> {
    let output = ask(world, "services")?;
    ensure!(output.status.success(), "portmap services failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("failed to read the output of portmap services")
}

/// The output of `portmap status`.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// Whether all checks are fine.
    pub healthy: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    fine: bool,
    text: String,
}

impl Status {
    /// Whether the check `synced` is fine.
    pub fn synced(&self) -> bool {
        self.is_fine("synced")
    }

    /// Whether this check exists and is fine.
    pub fn is_fine(&self, check: &str) -> bool {
        self.checks.iter().any(|found| found.name == check && found.fine)
    }

    /// The text of a check; empty if the check does not exist.
    pub fn text(&self, check: &str) -> &str {
        self.checks.iter().find(|found| found.name == check).map_or("", |found| &found.text)
    }

    /// Whether the running agent has this process id.
    pub fn is_agent(&self, process: u32) -> bool {
        self.is_fine("agent") && self.checks.iter().any(|found| found.text.contains(&format!("process {process} ")))
    }
}

/// Runs `portmap status`. Fails if the exit code does not agree with `healthy`.
pub fn status(world: &World) -> Result<Status> {
    let output = ask(world, "status")?;
    let status: Status = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("portmap status failed: {}", String::from_utf8_lossy(&output.stderr)))?;
    let expected = i32::from(!status.healthy);
    ensure!(output.status.code() == Some(expected), "healthy: {}, but {}", status.healthy, output.status);
    Ok(status)
}

fn ask(world: &World, subcommand: &str) -> Result<Output> {
    let mut command = Command::new(program::find("portmap")?);
    command.args([subcommand, "--output", "json", "--bpffs"]).arg(world.bpffs());
    command.stdin(Stdio::null()).output().with_context(|| format!("failed to run portmap {subcommand}"))
}
