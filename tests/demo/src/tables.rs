//! The steps that look into the kernel's tables with portmap's own commands.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::world::program;
use serde_json::Value;

use crate::example_stage::{Stage, output};
use crate::screen::{self, Screen};

/// The tables hold what the manifests ask for.
pub fn services(stage: &mut Stage, screen: Screen) -> Result<String> {
    screen.command(&format!("portmap services --bpffs {}", stage.world.bpffs().display()))?;
    screen::output(&stage.portmap(&["services"])?)?;
    let parse = |text: String| serde_json::from_str::<Value>(&text).context("failed to read JSON");
    let held = parse(stage.portmap(&["services", "-o", "json"])?)?;
    let mut resolve = stage.world.command(program::find("portmap")?);
    resolve.args(["resolve", "--node-name", "node", "-o", "json", "--manifests"]).arg(Agent::manifests(&stage.world));
    let wanted = parse(output(&mut resolve)?)?;
    ensure!(held == wanted, "`portmap resolve` makes something else of the manifests: {wanted}");
    Ok("the same as `portmap resolve` makes of the manifests, without looking at the kernel".to_owned())
}

/// Whether all is well.
pub fn status(stage: &mut Stage, screen: Screen) -> Result<String> {
    screen.command(&format!("portmap status --bpffs {}", stage.world.bpffs().display()))?;
    screen::output(&stage.portmap(&["status"])?)?;
    Ok("exit code 0: healthy".to_owned())
}
