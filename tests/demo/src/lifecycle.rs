//! The first steps and the last ones: the agent starts, ends, and what it left in the kernel is removed.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap_harness::agent::Agent;
use portmap_harness::world::Group;

use crate::connect;
use crate::example_stage::Stage;
use crate::screen::{self, Screen};

/// The agent brings the manifests into the kernel.
pub fn start(stage: &mut Stage, screen: Screen) -> Result<String> {
    let world = &stage.world;
    screen.command(&format!("portmap run --manifests {} \\", Agent::manifests(world).display()))?;
    screen::output(&format!("    --cgroup {} \\", world.cgroup(Group::Clients).display()))?;
    screen::output(&format!("    --bpffs {}", world.bpffs().display()))?;
    let log = stage.start_agent()?.log();
    let messages: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" INFO ")?.1.trim())).collect();
    screen::output(&messages.join("\n"))?;
    let synced = messages.iter().find(|message| message.contains("synced"));
    let synced = synced.context("expected the agent to log that it is synced")?;
    let frontends = format!("{} frontends", stage.examples.all_ports()?.len());
    ensure!(synced.ends_with(&format!(", {frontends}")), "expected {frontends}");
    Ok(format!("the tables agree with the manifests: {frontends}, each a Service port at one address"))
}

/// The agent ends, and connections go on.
pub fn stop(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    let process = stage.agent()?.id();
    screen.command(&format!("kill {process}"))?;
    stage.stop_agent()?;
    connect::spread_over(stage, screen, &port)?;
    Ok("programs and tables stay in the kernel: nobody who connects needs the agent for it".to_owned())
}

/// Nothing is left in the kernel.
pub fn clean_up(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    screen.command(&format!("portmap cleanup --bpffs {}", stage.world.bpffs().display()))?;
    let removed = stage.portmap(&["cleanup"])?.lines().count();
    screen::output(&format!("removed {removed} pins"))?;
    screen.line("client", &format!("connect({})", port.address))?;
    connect::expect_error(stage, screen, Group::Clients, &port, Errno::ENETUNREACH)?;
    Ok("the address leads nowhere again".to_owned())
}
