//! The attachment of the BPF programs: each of them once or none at all, and none after the cleanup.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::links::Link;
use portmap_harness::world::{Group, World, program};
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, left_alone, who};

/// The attach types as bpftool names them.
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
/// A hook that the agent attaches after others.
const LATER_HOOK: &str = "cgroup_udp6_recvmsg";

/// The attach type of each link to a cgroup.
pub fn attached(cgroup: &Path) -> Result<Vec<String>> {
    Ok(Link::to(cgroup)?.into_iter().map(|link| link.hook).collect())
}

/// Fails unless each program is attached once.
pub fn expect_all(world: &World) -> Result<()> {
    let found = attached(&world.cgroup(Group::Clients))?;
    let names: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    ensure!(names == HOOKS.into() && found.len() == HOOKS.len(), "expected each program once, but found {found:?}");
    Ok(())
}

/// Fails if a program is attached.
pub fn expect_none(world: &World) -> Result<()> {
    let found = attached(&world.cgroup(Group::Clients))?;
    ensure!(found.is_empty(), "something is attached: {found:?}");
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
    expect_none(&stage.world)?;
    assert_eq!(ask(), Transport::ALL.map(|_| left_alone()));
    Ok(())
}

/// A socket from before the cleanup keeps its connection.
#[test]
fn open_connections_survive_the_cleanup() -> Result<()> {
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

/// If one hook cannot be attached, none stays attached: a partial translation would be worse than none.
#[test]
fn a_hook_that_cannot_be_attached_leaves_none() -> Result<()> {
    let world = World::new("in-the-way")?;
    // bpftool attaches without a link and excludes other programs from the hook. It needs a loaded program, which is one of
    // another agent.
    let donor = Stage::new("donor", &[], &[])?;
    let links = Link::to(&donor.world.cgroup(Group::Clients))?;
    let own =
        links.iter().find(|link| link.hook == LATER_HOOK).with_context(|| format!("nothing is attached to {LATER_HOOK}"))?;
    legacy("attach", &world, own.program)?;
    let mut agent = Agent::spawn(&world, &[])?;
    let ended = agent.wait_until("never", |_| Ok(false)).map_err(|error| format!("{error:#}"));
    let text = ended.err().unwrap_or_default();
    assert!(text.contains("the agent ended") && text.contains("recvmsg6"), "{text}");
    expect_none(&world).context("no program should be attached")?;
    // The foreign program is still attached: detaching it succeeds.
    legacy("detach", &world, own.program)
}

/// Attaches a program to the cgroup of a world's clients, or detaches it, without a link.
fn legacy(verb: &str, world: &World, program: u64) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["cgroup", verb]).arg(world.cgroup(Group::Clients)).args([LATER_HOOK, "id", &program.to_string()]);
    let output = command.output().context("failed to run bpftool")?;
    ensure!(output.status.success(), "bpftool failed to {verb}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
