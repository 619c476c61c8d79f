//! Unusual clients: pods of other nodes, privileged ports, and one port for several connections.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_socket::SocketOption;
use portmap_harness::process::{Process, Socket};
use portmap_harness::topology::addresses;
use portmap_suites::outside_answers::{ask_from, expect, expect_answers};
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::TARGET_PORT;
use portmap_suites::service_stage::Transport;

use crate::cases;

cases![
    a_pod_of_another_node_reaches_itself,
    a_pod_of_another_node_reaches_itself_from_any_port,
    a_pod_reaches_pods_through_another_node,
    a_privileged_port_stays_privileged,
    one_tcp_port_reaches_frontends_and_the_pod,
    one_udp_port_reaches_frontends_and_the_pod,
];

/// The pod sees the node whose port it has called, because it would drop packets that seem to come from itself.
fn a_pod_of_another_node_reaches_itself(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    let process = Process::in_pod(&stage.remote[0])?;
    expect_answers(&process, service.node_port(stage.one(), via), "c 8080", addresses::node(1).at(via, 0).ip())
}

/// Towards the pod, its own port cannot be the one it serves: then a request could not be told from its answer.
fn a_pod_of_another_node_reaches_itself_from_any_port(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    let process = Process::in_pod(&stage.remote[0])?;
    let from = Both::of(&stage.remote[0]).at(via, port_that_becomes(TARGET_PORT));
    for transport in Transport::ALL {
        let answer = ask_from(&process, from, transport, service.node_port(stage.one(), via))?;
        expect(&answer, transport.protocol(), "c 8080", addresses::node(1).at(via, 0).ip())?;
    }
    Ok(())
}

/// The client's own port for which portmap first tries `port` towards a backend. portmap takes the remainder of the client's port
/// by the number of ports for clients, which is half of the default `--client-ports`.
fn port_that_becomes(port: u16) -> u16 {
    const FIRST: u16 = 1_024;
    const END: u16 = 30_000;
    const COUNT: u16 = (END - FIRST) / 2;
    2 * COUNT + port - FIRST
}

fn a_pod_reaches_pods_through_another_node(stage: &mut Stage, via: Via) -> Result<()> {
    let pod = Both::of(&stage.remote[0]).at(via, 0).ip();
    let process = Process::in_pod(&stage.remote[0])?;
    for (endpoint, server, seen) in [
        ("a", "a 8080", pod),
        ("d", "d 8080", addresses::node(1).at(via, 0).ip()),
        ("node-1", "node-1 8095", pod),
        ("node-2", "node-2 8095", addresses::node(1).at(via, 0).ip()),
    ] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        expect_answers(&process, service.node_port(stage.one(), via), server, seen).with_context(|| format!("to {server}"))?;
    }
    Ok(())
}

fn a_privileged_port_stays_privileged(stage: &mut Stage, via: Via) -> Result<()> {
    // Each connection has a port of its own, because the port of a closed connection is not free at once.
    for (port, (endpoint, server)) in (700..).zip([("a", "a 8080"), ("c", "c 8080")]) {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let seen = if endpoint == "a" { addresses::CLIENT } else { addresses::node(1) };
        for transport in Transport::ALL {
            let from = addresses::CLIENT.at(via, port);
            let answer = ask_from(&stage.client, from, transport, service.node_port(stage.one(), via))?;
            expect(&answer, transport.protocol(), server, seen.at(via, 0).ip())?;
            ensure!(answer.client.port() < 1024, "{transport:?}: {server} saw {}", answer.client);
        }
    }
    Ok(())
}

/// The addresses of a Service, and that of the pod behind it.
fn targets(stage: &mut Stage, endpoint: &str, via: Via) -> Result<[SocketAddr; 4]> {
    let service = stage.publish(stage.endpoints(&[endpoint]))?;
    let pod = Both::of(stage.pod(endpoint)?).at(via, TARGET_PORT);
    Ok([service.node_port(stage.one(), via), service.external(via), service.load_balancer(via), pod])
}

/// The client's port must differ towards the pod: connections to a Service and directly to the pod would be mixed up.
fn one_tcp_port_reaches_frontends_and_the_pod(stage: &mut Stage, via: Via) -> Result<()> {
    for (port, (endpoint, server)) in (31_000..).zip([("a", "a 8080/TCP"), ("c", "c 8080/TCP")]) {
        let targets = targets(stage, endpoint, via)?;
        let open = |address: &SocketAddr| -> Result<Socket<'_>> {
            let socket = stage.client.open_for(*address, Protocol::Tcp)?;
            socket.set(SocketOption::Shared)?;
            socket.bind(addresses::CLIENT.at(via, port))?;
            socket.connect(*address).with_context(|| format!("to {address}"))?;
            Ok(socket)
        };
        let sockets = targets.iter().map(open).collect::<Result<Vec<_>>>()?;
        for (socket, address) in sockets.iter().zip(targets).cycle().take(12) {
            let answer = socket.converse().with_context(|| format!("at {address}"))?;
            ensure!(answer.who == server, "{answer:?} at {address}");
        }
    }
    Ok(())
}

fn one_udp_port_reaches_frontends_and_the_pod(stage: &mut Stage, via: Via) -> Result<()> {
    for (port, (endpoint, server)) in (31_100..).zip([("a", "a 8080/UDP"), ("c", "c 8080/UDP")]) {
        let targets = targets(stage, endpoint, via)?;
        let socket = stage.client.open_for(targets[0], Protocol::Udp)?;
        socket.bind(addresses::CLIENT.at(via, port))?;
        for address in targets.into_iter().cycle().take(12) {
            let answer = socket.converse_with(address).with_context(|| format!("at {address}"))?;
            ensure!(answer.who == server && answer.source == Some(address), "{answer:?} at {address}");
        }
    }
    Ok(())
}
