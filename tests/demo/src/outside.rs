//! The steps that use other addresses of a Service than its IPv4 clusterIP: node ports, a load balancer's address, IPv6.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap::model::Family;
use portmap_common::AddressKind;
use portmap_harness::process::Process;
use portmap_harness::world::{Group, program};

use crate::connect;
use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::{self, Screen};
use crate::spread;

/// The example Service of type `LoadBalancer`, which has IPv4 and IPv6 addresses.
const SERVICE: &str = "shop";

/// Connects to a node port at the node's addresses. Verifies that a connection to the same port number of a pod is refused.
pub fn node_port(stage: &mut Stage, screen: Screen) -> Result<String> {
    let node: [IpAddr; 2] = [stage.world.ipv4().into(), stage.world.ipv6().into()];
    for address in node {
        let port = introduce_address(stage, screen, AddressKind::NodePort, Family::of(address))?;
        connect::spread_over(stage, screen, &port.on(address))?;
    }
    let (_, port) = stage.examples.port_at(SERVICE, AddressKind::NodePort, Family::V4)?;
    let pod = port.backends.first().context("expected a pod")?.clone();
    let on_pod = port.on(pod.address.ip());
    screen.line("client", &format!("connect({}), the same port number on the pod {}", on_pod.address, pod.pod))?;
    connect::expect_error(stage, screen, Group::Clients, &on_pod, Errno::ECONNREFUSED)?;
    Ok(format!("port {} is translated at the node's addresses only, not at other addresses", on_pod.address.port()))
}

/// Connects to a node port from outside the node. Shows the flows that portmap keeps for these connections.
pub fn from_outside(stage: &mut Stage, screen: Screen) -> Result<String> {
    let node: [IpAddr; 2] = [stage.world.ipv4().into(), stage.world.ipv6().into()];
    for address in node {
        let port = introduce_address(stage, screen, AddressKind::NodePort, Family::of(address))?.on(address);
        screen.line("outside", &format!("{} × connect({}) with {}", connect::MANY, port.address, port.protocol))?;
        spread::show(screen, &stage.ask_from_outside(&port, connect::MANY)?, &port)?;
    }
    let (_, port) = stage.examples.port_at(SERVICE, AddressKind::NodePort, Family::V4)?;
    let port = port.on(node[0]);
    screen.line("outside", &format!("connect({}), which stays open", port.address))?;
    let process = Process::start(stage.outside.command_in(Group::Clean, program::find("portmap-pod")?))?;
    let socket = process.connected(port.address, port.protocol)?;
    screen.line("reply", &socket.ask()?)?;
    let flows = stage.portmap(&["flows", "--service", SERVICE])?;
    let peer = socket.local()?.to_string();
    let lines: Vec<&str> = flows.lines().filter(|line| line.starts_with("CLIENT") || line.contains(&peer)).collect();
    ensure!(lines.len() == 2, "`portmap flows` does not list the connection of {peer}:\n{flows}");
    screen.command(&format!("portmap flows --service {SERVICE} --bpffs {}", stage.world.bpffs().display()))?;
    // The state and the times of a connection are not needed here, and the lines would be too long.
    let end = lines.iter().find_map(|line| line.find("STATE")).context("`portmap flows` has no column STATE")?;
    lines.iter().try_for_each(|line| screen::output(&format!("{}…", line.get(..end).unwrap_or(line))))?;
    Ok("the client has no socket on this node: programs at the node's interface translate its packets".to_owned())
}

/// Connects to a load balancer's address from a pod. Verifies that the address is unreachable without portmap.
pub fn load_balancer(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = introduce_address(stage, screen, AddressKind::LoadBalancer, Family::V4)?;
    connect::spread_over(stage, screen, &port)?;
    connect::untranslated(stage, screen, &port)?;
    Ok("connections go directly to a pod, so no route to the load balancer is needed".to_owned())
}

/// Connects to an IPv6 clusterIP, and verifies that `getpeername()` returns the Service's address.
pub fn ipv6(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = introduce_address(stage, screen, AddressKind::ClusterIp, Family::V6)?;
    connect::spread_over(stage, screen, &port)?;
    screen.line("client", &format!("connect({}), getpeername()", port.address))?;
    let process = Process::in_pod(&stage.client)?;
    let socket = process.connected(port.address, port.protocol)?;
    let (reply, peer) = (socket.ask()?, socket.peer()?);
    screen.line("reply", &format!("{reply}; getpeername() returns {peer}"))?;
    ensure!(peer == port.address, "expected the peer {}", port.address);
    Ok("the client is connected to a pod, but getpeername() returns the Service's address".to_owned())
}

/// Shows the manifest of a Service port at an address of this kind and family, and returns the port.
fn introduce_address(stage: &Stage, screen: Screen, kind: AddressKind, family: Family) -> Result<Port> {
    let (file, port) = stage.examples.port_at(SERVICE, kind, family)?;
    connect::show_manifest(screen, file, &port)?;
    Ok(port)
}
