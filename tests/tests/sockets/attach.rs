//! The hooks themselves: all or none, ours only, and gone when they should be.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_tests::agent::Agent;
use portmap_tests::world::{Group, World, program};
use serde_json::Value;

use crate::objects::{PORT, Service, Via, cluster_ip, endpoints};
use crate::stage::{Stage, Transport, answer, left_alone, who};

/// As bpftool calls them.
const HOOKS: [&str; 8] = [
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
];

/// The attach types of what is attached to a cgroup and those below it, once for each program.
pub fn attached(cgroup: &Path) -> Result<Vec<String>> {
    let output =
        Command::new("bpftool").args(["-j", "cgroup", "tree"]).arg(cgroup).output().context("failed to run bpftool")?;
    ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stderr));
    let tree: Value = serde_json::from_slice(&output.stdout).context("bpftool prints no JSON")?;
    let programs = tree.as_array().into_iter().flatten().filter_map(|cgroup| cgroup["programs"].as_array()).flatten();
    Ok(programs.filter_map(|program| Some(kernel_name(program["attach_type"].as_str()?))).collect())
}

/// bpftool has had short names too, until 5.19.
fn kernel_name(attach_type: &str) -> String {
    match attach_type {
        "connect4" | "connect6" | "getpeername4" | "getpeername6" | "sendmsg4" | "sendmsg6" | "recvmsg4" | "recvmsg6" => {
            let (name, family) = attach_type.split_at(attach_type.len() - 1);
            let prefix = if name.ends_with("msg") { "udp" } else { "inet" };
            format!("cgroup_{prefix}{family}_{name}")
        }
        name => name.into(),
    }
}

/// Fails unless all programs are attached, each once.
pub fn expect_all(world: &World) -> Result<()> {
    let found = attached(&world.cgroup(Group::Clients))?;
    let names: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    ensure!(names == HOOKS.into() && found.len() == HOOKS.len(), "not each once: {found:?}");
    Ok(())
}

fn cleanup(world: &World) -> Result<()> {
    let output = Command::new(program::find("portmap")?).args(["cleanup", "--bpffs"]).arg(world.bpffs()).output()?;
    ensure!(output.status.success(), "portmap cleanup failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn all_hooks_are_attached_until_the_cleanup() -> Result<()> {
    let mut stage = Stage::new("hooks", &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    expect_all(&stage.world)?;
    let process = stage.process()?;
    let ask = || Transport::ALL.map(|transport| who(&process, transport, cluster_ip(1).at(Via::V6, PORT)));
    let translated = Transport::ALL.map(|transport| Ok(answer("a", transport)));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        stage.agent.stop(signal)?;
        expect_all(&stage.world)?;
        assert_eq!(ask(), translated, "while no agent runs");
        stage.agent = Agent::start(&stage.world, &[])?;
        expect_all(&stage.world)?;
        assert_eq!(ask(), translated);
    }
    stage.agent.stop(Signal::SIGTERM)?;
    cleanup(&stage.world)?;
    assert_eq!(attached(&stage.world.cgroup(Group::Clients))?, Vec::<String>::new());
    assert_eq!(ask(), Transport::ALL.map(|_| left_alone()));
    Ok(())
}

/// A socket of before the cleanup goes on with what it has.
#[test]
fn open_connections_outlive_the_cleanup() -> Result<()> {
    let mut stage = Stage::new("outlive", &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    let ways = Via::ALL.iter().flat_map(|via| [Transport::Tcp, Transport::UdpConnected].map(|transport| (*via, transport)));
    let open =
        ways.map(|(via, transport)| Ok((process.connected(cluster_ip(1).at(via, PORT), transport.protocol())?, transport)));
    let open = open.collect::<Result<Vec<_>>>()?;
    stage.agent.stop(Signal::SIGTERM)?;
    cleanup(&stage.world)?;
    for (socket, transport) in open {
        assert_eq!(socket.ask(), Ok(answer("a", transport)));
    }
    Ok(())
}

/// One hook that cannot be had is no hook at all: half a translation would be worse than none.
#[test]
fn one_hook_in_the_way_leaves_none() -> Result<()> {
    let world = World::new("in-the-way")?;
    // bpftool attaches without a flag as in the days before links: exclusively. Ours is the only program that it can find here.
    let donor = Stage::new("donor", &[], &[])?;
    let own = attached_ids(&donor.world, "cgroup_udp6_recvmsg")?;
    let cgroup = world.cgroup(Group::Clients);
    let output = Command::new("bpftool")
        .args(["cgroup", "attach"])
        .arg(&cgroup)
        .args(["cgroup_udp6_recvmsg", "id", &own.to_string()])
        .output()?;
    ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut agent = Agent::spawn(&world, &[])?;
    let ended = agent.wait_until("never", |_| Ok(false)).map_err(|error| format!("{error:#}"));
    let text = ended.err().unwrap_or_default();
    assert!(text.contains("the agent ended") && text.contains("recvmsg6"), "{text}");
    assert_eq!(attached(&cgroup)?, ["cgroup_udp6_recvmsg"], "only what was there before");
    Ok(())
}

/// The id of the program that a world's agent attached there.
fn attached_ids(world: &World, hook: &str) -> Result<u64> {
    let output = Command::new("bpftool").args(["-j", "cgroup", "show"]).arg(world.cgroup(Group::Clients)).output()?;
    let programs: Value = serde_json::from_slice(&output.stdout).context("bpftool prints no JSON")?;
    let program = programs
        .as_array()
        .into_iter()
        .flatten()
        .find(|program| program["attach_type"].as_str().is_some_and(|name| kernel_name(name) == hook));
    program.and_then(|program| program["id"].as_u64()).with_context(|| format!("nothing is attached to {hook}"))
}
