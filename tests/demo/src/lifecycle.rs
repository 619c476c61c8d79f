//! The first step, in which the agent starts, and the last steps, in which it ends and its pinned objects are removed.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap_common::AddressKind;
use portmap_harness::agent::Agent;
use portmap_harness::world::Group;

use crate::connect;
use crate::example_stage::Stage;
use crate::screen::{self, Screen};

/// The number of the node's addresses of each family, towards the pods and towards the client outside. A node port is at each.
const NODE_ADDRESSES: usize = 2;

/// Starts the agent. Fails unless the number of frontends in its log is that of the manifests.
pub fn start(stage: &mut Stage, screen: Screen) -> Result<String> {
    let world = &stage.world;
    screen.command(&format!("portmap run --manifests {} \\", Agent::manifests(world).display()))?;
    screen::output(&format!("    --cgroup {} \\", world.cgroup(Group::Clients).display()))?;
    screen::output(&format!("    --bpffs {}", world.bpffs().display()))?;
    let log = stage.start_agent()?.log();
    let messages: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" INFO ")?.1.trim())).collect();
    screen::output(&messages.join("\n"))?;
    let synced = messages.iter().find(|message| message.contains("synced"));
    let synced = synced.context("expected a message `synced` in the agent's log")?;
    let ports = stage.examples.all_ports()?;
    let count: usize = ports.iter().map(|port| if port.kind == AddressKind::NodePort { NODE_ADDRESSES } else { 1 }).sum();
    let frontends = format!("{count} frontends");
    ensure!(synced.ends_with(&format!(", {frontends}")), "expected {frontends}");
    Ok(format!("the BPF maps match the manifests: {frontends}, each a Service port at one address"))
}

/// Ends the agent, and verifies that new connections still work.
pub fn stop(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    let process = stage.agent()?.id();
    screen.command(&format!("kill {process}"))?;
    stage.stop_agent()?;
    connect::spread_over(stage, screen, &port)?;
    Ok("BPF programs and maps stay in the kernel: connections do not need the agent".to_owned())
}

/// Runs `portmap cleanup`, and verifies that the address of the Service `web` is unreachable afterwards.
pub fn clean_up(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    screen.command(&format!("portmap cleanup --bpffs {}", stage.world.bpffs().display()))?;
    let removed = stage.portmap(&["cleanup"])?.lines().count();
    screen::output(&format!("({removed} lines: one for each removed pin)"))?;
    screen.line("client", &format!("connect({})", port.address))?;
    connect::expect_error(stage, screen, Group::Clients, &port, Errno::ENETUNREACH)?;
    Ok("the Service address is unreachable again".to_owned())
}
