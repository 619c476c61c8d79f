//! The steps at the other addresses of a Service: node ports, a load balancer's address, IPv6.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap::model::Family;
use portmap_common::AddressKind;
use portmap_harness::process::Process;
use portmap_harness::world::Group;

use crate::connect;
use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::Screen;

/// The Service of both families that clients outside find, too.
const SERVICE: &str = "shop";

/// A node port answers at the node's own addresses.
pub fn node_port(stage: &mut Stage, screen: Screen) -> Result<String> {
    let node: [IpAddr; 2] = [stage.world.ipv4().into(), stage.world.ipv6().into()];
    for address in node {
        let port = ask_for(stage, screen, AddressKind::NodePort, Family::of(address))?;
        connect::spread_over(stage, screen, &port.on(address))?;
    }
    let (_, port) = stage.examples.port_at(SERVICE, AddressKind::NodePort, Family::V4)?;
    let pod = port.backends.first().context("expected a pod")?.clone();
    let elsewhere = port.on(pod.address.ip());
    screen.line("client", &format!("connect({}), the same number at {}", elsewhere.address, pod.pod))?;
    connect::expect_error(stage, screen, Group::Clients, &elsewhere, Errno::ECONNREFUSED)?;
    Ok(format!("port {} of the node is the Service; that of others is their own", elsewhere.address.port()))
}

/// A load balancer's address, from inside.
pub fn load_balancer(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = ask_for(stage, screen, AddressKind::LoadBalancer, Family::V4)?;
    connect::spread_over(stage, screen, &port)?;
    connect::untranslated(stage, screen, &port)?;
    Ok("straight to a pod: nothing leaves the node, and no route to the load balancer is needed".to_owned())
}

/// The same over IPv6.
pub fn ipv6(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = ask_for(stage, screen, AddressKind::ClusterIp, Family::V6)?;
    connect::spread_over(stage, screen, &port)?;
    screen.line("client", &format!("connect({}), getpeername()", port.address))?;
    let process = Process::in_pod(&stage.client)?;
    let socket = process.connected(port.address, port.protocol)?;
    let (answer, peer) = (socket.ask()?, socket.peer()?);
    screen.line("answer", &format!("{answer}, and the peer is {peer}"))?;
    ensure!(peer == port.address, "expected the peer {}", port.address);
    Ok("connected to a pod, and getpeername() says what the client asked for".to_owned())
}

/// Says what the manifests ask for.
fn ask_for(stage: &Stage, screen: Screen, kind: AddressKind, family: Family) -> Result<Port> {
    let (file, port) = stage.examples.port_at(SERVICE, kind, family)?;
    connect::asked(screen, file, &port)?;
    Ok(port)
}
