//! `--keep`: how to look around in the world of the demo from another terminal.

use std::env;
use std::path::Path;

use anyhow::Result;

use super::screen::Screen;
use super::stage::Stage;
use crate::agent::Agent;
use crate::world::{Group, program};

/// Prints commands that work as they stand, from the directory that the demo was started in or from anywhere.
pub fn explain(stage: &Stage, screen: Screen) -> Result<()> {
    let portmap = short(&program::find("portmap")?);
    let world = &stage.world;
    let bpffs = world.bpffs().display();
    let (_, web) = stage.examples.port("web")?;
    let (_, api) = stage.examples.port("api")?;
    let manifests = Agent::manifests(world);
    screen.print("")?;
    screen.headline("Everything keeps running until Ctrl-C. From another terminal, as root:")?;
    for (what, commands) in [
        ("Connect as the client does, in its network namespace and in the cgroup that portmap is attached to:", vec![
            as_client(stage, Group::Clients, &format!("curl -s http://{}/", web.address)),
            as_client(stage, Group::Clients, &format!("curl -s http://{}/", api.address)),
        ]),
        ("The same outside of that cgroup fails:", vec![as_client(
            stage,
            Group::Clean,
            &format!("curl -sS http://{}/", web.address),
        )]),
        ("Edit a manifest, and connect again:", vec![
            format!("sed -i 's/targetPort: admin/targetPort: http/' {}", manifests.join("named-port.yaml").display()),
            format!("tail -f {}", world.directory().join("agent.log").display()),
        ]),
        ("Look at the tables:", vec![
            format!("{portmap} services --bpffs {bpffs}"),
            format!("{portmap} status --bpffs {bpffs}"),
            format!("{portmap} resolve --manifests {}", manifests.display()),
            format!("bpftool map dump pinned {}/FRONTENDS_V4", portmap::datapath::pin::Pins::new(world.bpffs()).set().display()),
            format!("bpftool cgroup show {}", world.cgroup(Group::Clients).display()),
        ]),
    ] {
        screen.print(&format!("\n   {what}"))?;
        commands.iter().try_for_each(|command| screen.command(command))?;
    }
    Ok(screen.print("")?)
}

fn as_client(stage: &Stage, group: Group, command: &str) -> String {
    let cgroup = stage.world.cgroup(group);
    let namespace = stage.client.namespace();
    format!("sh -c 'echo 0 > {}/cgroup.procs; exec nsenter --net={} {command}'", cgroup.display(), namespace.display())
}

/// Relative where it is below the current directory.
fn short(path: &Path) -> String {
    let current = env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}
