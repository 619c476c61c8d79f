//! `--keep`: prints commands to explore the running demo from another terminal.

use std::env;
use std::path::Path;

use anyhow::Result;
use portmap::maps::pin::Pins;
use portmap_harness::agent::Agent;
use portmap_harness::world::{Group, program};

use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::{self, Screen};

/// Prints commands that a user can copy into a shell. They work in the directory in which the demo was started.
pub fn explain(stage: &Stage, screen: Screen) -> Result<()> {
    screen::print("")?;
    screen.headline("Pods and agent run until Ctrl-C. Try these commands in another terminal, as root:")?;
    let (_, web) = stage.examples.port("web")?;
    let (_, api) = stage.examples.port("api")?;
    let curl = |group, port: &Port| as_client(stage, group, &format!("curl -sS http://{}/", port.address));
    section("Connect from the client's network namespace, in the cgroup that portmap is attached to:")?;
    screen.command(&curl(Group::Clients, &web))?;
    screen.command(&curl(Group::Clients, &api))?;
    section("Connect outside of that cgroup, which fails:")?;
    screen.command(&curl(Group::Clean, &web))?;
    section("Edit a manifest, read the agent's log, and connect again:")?;
    let manifests = Agent::manifests(&stage.world);
    let named_port = manifests.join("named-port.yaml");
    screen.command(&format!("sed -i 's/targetPort: admin/targetPort: http/' {}", named_port.display()))?;
    screen.command(&format!("tail {}", stage.world.directory().join("agent.log").display()))?;
    section("Read the BPF maps:")?;
    show_map_commands(stage, screen)?;
    Ok(screen::print("")?)
}

fn section(title: &str) -> Result<()> {
    Ok(screen::print(&format!("\n   {title}"))?)
}

fn as_client(stage: &Stage, group: Group, command: &str) -> String {
    let cgroup = stage.world.cgroup(group);
    let namespace = stage.client.namespace();
    format!("sh -c 'echo 0 > {}/cgroup.procs; exec nsenter --net={} {command}'", cgroup.display(), namespace.display())
}

fn show_map_commands(stage: &Stage, screen: Screen) -> Result<()> {
    let portmap = relative(&program::find("portmap")?);
    let bpffs = stage.world.bpffs();
    for subcommand in ["services", "status"] {
        screen.command(&format!("{portmap} {subcommand} --bpffs {}", bpffs.display()))?;
    }
    screen.command(&format!("bpftool map dump pinned {}/FRONTENDS_V4", Pins::new(bpffs).set().display()))?;
    screen.command(&format!("bpftool cgroup show {}", stage.world.cgroup(Group::Clients).display()))?;
    Ok(())
}

/// The path relative to the current directory, or unchanged if it is not below that directory.
fn relative(path: &Path) -> String {
    let current = env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}
