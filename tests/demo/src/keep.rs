//! `--keep`: how to look around in the world of the demo from another terminal.

use std::env;
use std::path::Path;

use anyhow::Result;
use portmap::maps::pin::Pins;
use portmap_harness::agent::Agent;
use portmap_harness::world::{Group, program};

use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::{self, Screen};

/// Prints commands that work as they stand, from the directory that the demo was started in.
pub fn explain(stage: &Stage, screen: Screen) -> Result<()> {
    screen::print("")?;
    screen.headline("Everything keeps running until Ctrl-C. From another terminal, as root:")?;
    let (_, web) = stage.examples.port("web")?;
    let (_, api) = stage.examples.port("api")?;
    let curl = |group, port: &Port| as_client(stage, group, &format!("curl -sS http://{}/", port.address));
    section("Connect as the client does, in its network namespace and in the cgroup that portmap is attached to:")?;
    screen.command(&curl(Group::Clients, &web))?;
    screen.command(&curl(Group::Clients, &api))?;
    section("The same outside of that cgroup fails:")?;
    screen.command(&curl(Group::Clean, &web))?;
    section("Edit a manifest, and connect again; the agent says what it did:")?;
    let manifests = Agent::manifests(&stage.world);
    let named_port = manifests.join("named-port.yaml");
    screen.command(&format!("sed -i 's/targetPort: admin/targetPort: http/' {}", named_port.display()))?;
    screen.command(&format!("tail {}", stage.world.directory().join("agent.log").display()))?;
    section("Look at the tables:")?;
    look(stage, screen)?;
    Ok(screen::print("")?)
}

fn section(what: &str) -> Result<()> {
    Ok(screen::print(&format!("\n   {what}"))?)
}

fn as_client(stage: &Stage, group: Group, command: &str) -> String {
    let cgroup = stage.world.cgroup(group);
    let namespace = stage.client.namespace();
    format!("sh -c 'echo 0 > {}/cgroup.procs; exec nsenter --net={} {command}'", cgroup.display(), namespace.display())
}

fn look(stage: &Stage, screen: Screen) -> Result<()> {
    let portmap = short(&program::find("portmap")?);
    let bpffs = stage.world.bpffs();
    for subcommand in ["services", "status"] {
        screen.command(&format!("{portmap} {subcommand} --bpffs {}", bpffs.display()))?;
    }
    screen.command(&format!("bpftool map dump pinned {}/FRONTENDS_V4", Pins::new(bpffs).set().display()))?;
    screen.command(&format!("bpftool cgroup show {}", stage.world.cgroup(Group::Clients).display()))?;
    Ok(())
}

/// Relative where it is below the current directory.
fn short(path: &Path) -> String {
    let current = env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}
