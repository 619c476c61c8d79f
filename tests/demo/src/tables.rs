//! The steps that read the BPF maps with portmap's own commands.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::world::program;
use serde_json::Value;

use crate::example_stage::{Stage, output};
use crate::screen::{self, Screen};

/// Lists the Services in the maps with `portmap services`. Fails unless `portmap resolve` computes the same rows from the
/// manifests.
pub fn services(stage: &mut Stage, screen: Screen) -> Result<String> {
    screen.command(&format!("portmap services --bpffs {}", stage.world.bpffs().display()))?;
    screen::output(&stage.portmap(&["services"])?)?;
    let parse = |text: String| serde_json::from_str::<Value>(&text).context("failed to read JSON");
    let actual = parse(stage.portmap(&["services", "-o", "json"])?)?;
    let mut resolve = stage.world.command(program::find("portmap")?);
    resolve.args(["resolve", "--node-name", "node", "-o", "json", "--manifests"]).arg(Agent::manifests(&stage.world));
    let expected = parse(output(&mut resolve)?)?;
    ensure!(actual == expected, "`portmap resolve` computes other rows from the manifests: {expected}");
    Ok("`portmap resolve` computes the same rows from the manifests, without the kernel".to_owned())
}

/// Runs `portmap status` and prints its output. Fails unless the agent is healthy, which is exit code 0.
pub fn status(stage: &mut Stage, screen: Screen) -> Result<String> {
    screen.command(&format!("portmap status --bpffs {}", stage.world.bpffs().display()))?;
    screen::output(&stage.portmap(&["status"])?)?;
    Ok("the exit code is 0: the agent is healthy".to_owned())
}
