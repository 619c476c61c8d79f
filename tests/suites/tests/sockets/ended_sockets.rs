//! Connected UDP sockets whose backend ended: the agent destroys them, and no others.
//!
//! The pods of removed endpoints keep running and would answer. So an error on a socket shows that the agent destroyed it.

use std::net::SocketAddr;

use anyhow::Result;
use portmap_harness::listen::Protocol;
use portmap_harness::process::{Failure, Process, Socket};
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, eventually, serving};

/// Errors of calls on a destroyed UDP socket. One call fails with `ECONNABORTED`. Sends fail with the others, because the
/// socket has no destination any more.
const ERRORS: [&str; 3] = ["ECONNABORTED", "EDESTADDRREQ", "ENOTCONN"];

/// Service 1 has the pod `a` as its only endpoint. Most tests replace it by the pod `b`.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    stage.apply(&[service().endpoints(endpoints(&stage.pods[..1]))])?;
    Ok(stage)
}

fn service() -> Service {
    Service::new("dns", 1)
}

fn expect_a(socket: &Socket<'_>) {
    assert_eq!(socket.ask(), Ok(answer("a", Transport::UdpConnected)));
}

/// Waits until calls on the socket fail. If a send fails first, the next receive must fail with `ECONNABORTED`.
fn await_destruction(socket: &Socket<'_>) -> Result<()> {
    let error = eventually("the socket returns an error", || Ok(socket.ask().err()))?;
    assert!(ERRORS.map(Failure::named).contains(&error), "{error}");
    if error != Failure::named(ERRORS[0]) {
        assert_eq!(socket.receive(), Err(Failure::named(ERRORS[0])));
    }
    Ok(())
}

#[test]
fn a_connected_udp_socket_of_a_removed_backend_is_destroyed() -> Result<()> {
    let mut stage = stage("ended")?;
    let (in_pod, on_node) = (stage.process()?, Process::on_node(&stage.world)?);
    for next in [endpoints(&stage.pods[1..]), Vec::new()] {
        stage.apply(&[service().endpoints(endpoints(&stage.pods[..1]))])?;
        let mut sockets = Vec::new();
        for (process, via) in [&in_pod, &on_node].into_iter().flat_map(|process| Via::ALL.map(|via| (process, via))) {
            let socket = process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp)?;
            expect_a(&socket);
            sockets.push((via, socket));
        }
        stage.apply(&[service().endpoints(next.clone())])?;
        for (via, socket) in &sockets {
            await_destruction(socket)?;
            // The client connects the same socket to the Service again.
            let again = socket.connect(cluster_ip(1).at(*via, PORT));
            assert_eq!(again.is_ok(), !next.is_empty(), "{via:?}: {again:?}");
            if again.is_ok() {
                // A datagram that `a` sent before may still arrive.
                let next = Ok(answer("b", Transport::UdpConnected));
                eventually("the other pod answers", || Ok((socket.ask() == next).then_some(())))?;
            }
        }
    }
    Ok(())
}

/// The deletion of the Service destroys its sockets too.
#[test]
fn a_socket_of_a_deleted_service_is_destroyed() -> Result<()> {
    let mut stage = stage("ended-service")?;
    let process = stage.process()?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    for socket in sockets.iter().flatten() {
        expect_a(socket);
    }
    stage.apply(&[])?;
    for socket in sockets {
        await_destruction(&socket?)?;
    }
    Ok(())
}

/// The agent keeps TCP sockets, UDP sockets of another Service with the same pod, and UDP sockets that are connected to the
/// pod's own address.
#[test]
fn other_sockets_are_not_destroyed() -> Result<()> {
    let mut stage = Stage::new("ended-others", &["a", "b"], &[])?;
    let other = Service::new("other", 2).endpoints(endpoints(&stage.pods[..1]));
    stage.apply(&[service().endpoints(endpoints(&stage.pods[..1])), other.clone()])?;
    let process = stage.process()?;
    let mut kept = Vec::new();
    let mut lost = Vec::new();
    for via in Via::ALL {
        let (service, other) = (cluster_ip(1).at(via, PORT), cluster_ip(2).at(via, PORT));
        let plain = Both::of(&stage.pods[0]).at(via, TARGET_PORT);
        kept.push((process.connected(service, Protocol::Tcp)?, Transport::Tcp));
        kept.push((process.connected(other, Protocol::Udp)?, Transport::UdpConnected));
        kept.push((process.connected(plain, Protocol::Udp)?, Transport::UdpConnected));
        lost.push(process.connected(service, Protocol::Udp)?);
        let socket = process.open_for(service, Protocol::Udp)?;
        assert_eq!(socket.ask_at(service)?.text, answer("a", Transport::UdpUnconnected));
        // An unconnected request went to the Service before. Now the socket is connected to the pod's own address.
        socket.connect(plain)?;
        kept.push((socket, Transport::UdpConnected));
    }
    for (socket, transport) in &kept {
        assert_eq!(socket.ask(), Ok(answer("a", *transport)));
    }
    stage.apply(&[service().endpoints(endpoints(&stage.pods[1..])), other])?;
    for socket in &lost {
        await_destruction(socket)?;
    }
    // The destruction of the sockets in `lost` shows that the agent has finished.
    for (socket, transport) in &kept {
        assert_eq!(socket.ask(), Ok(answer("a", *transport)), "a socket that must not be destroyed");
    }
    Ok(())
}

/// A socket that was connected to the Service before, and to another address last. `dissolve` disconnects it between, by
/// `connect()` to `AF_UNSPEC`.
fn reconnected(process: &Process, service: SocketAddr, last: SocketAddr, dissolve: bool) -> Result<Socket<'_>> {
    let socket = process.connected(service, Protocol::Udp)?;
    expect_a(&socket);
    if dissolve {
        socket.dissolve()?;
    }
    socket.connect(last)?;
    Ok(socket)
}

/// Only the last `connect()` of a socket decides whether the agent destroys it.
#[test]
fn a_socket_that_was_reconnected_is_not_destroyed() -> Result<()> {
    let mut stage = stage("ended-moved")?;
    let third = serving(&stage.world, "c")?;
    let process = stage.process()?;
    let mut kept = Vec::new();
    let mut lost = Vec::new();
    for via in Via::ALL {
        let service = cluster_ip(1).at(via, PORT);
        // The last address is the backend's own or another pod's, with and without `connect()` to `AF_UNSPEC` before.
        for (plain, dissolve) in [(&stage.pods[0], true), (&stage.pods[0], false), (&third, true), (&third, false)] {
            let socket = reconnected(&process, service, Both::of(plain).at(via, TARGET_PORT), dissolve)?;
            kept.push((plain.name().to_owned(), via, socket));
        }
        // `connect()` to `AF_UNSPEC` disconnects the socket. The agent must keep it, because it has no connection to the
        // removed backend any more.
        let socket = process.connected(service, Protocol::Udp)?;
        socket.dissolve()?;
        kept.push((String::new(), via, socket));
        // A socket that was connected to another pod before, and to the Service last.
        let socket = process.connected(Both::of(&third).at(via, TARGET_PORT), Protocol::Udp)?;
        socket.connect(service)?;
        lost.push(socket);
    }
    stage.apply(&[service().endpoints(endpoints(&stage.pods[1..]))])?;
    for socket in &lost {
        await_destruction(socket)?;
    }
    for (name, via, socket) in &kept {
        if name.is_empty() {
            // A socket that had an IPv6 peer still receives datagrams only from that peer (kernel 6.18). So the removed backend
            // is asked.
            let plain = Both::of(&stage.pods[0]).at(*via, TARGET_PORT);
            assert_eq!(socket.ask_at(plain)?.text, answer("a", Transport::UdpUnconnected));
        } else {
            assert_eq!(socket.ask(), Ok(answer(name, Transport::UdpConnected)), "a reconnected socket must not be destroyed");
        }
    }
    Ok(())
}

/// A terminating backend keeps its sockets while its condition `serving` is true.
#[test]
fn a_terminating_backend_keeps_its_sockets() -> Result<()> {
    let mut stage = stage("ended-terminating")?;
    let process = stage.process()?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>, _>>()?;
    let [a, b] = [0, 1].map(|pod| Endpoint::of(&stage.pods[pod]));
    stage.apply(&[service().endpoints([a.clone().terminating(), b.clone()])])?;
    // The destruction of a socket to the other endpoint, `b`, shows that the agent has finished.
    let canary = process.connected(cluster_ip(1).at(Via::V4, PORT), Protocol::Udp)?;
    assert_eq!(canary.ask(), Ok(answer("b", Transport::UdpConnected)));
    stage.apply(&[service().endpoints([a.clone().terminating()])])?;
    await_destruction(&canary)?;
    for socket in &sockets {
        expect_a(socket);
    }
    stage.apply(&[service().endpoints([a.not_serving(), b])])?;
    for socket in &sockets {
        await_destruction(socket)?;
    }
    Ok(())
}

/// The next agent destroys sockets whose backend ended while no agent ran.
#[test]
fn a_new_agent_destroys_sockets_of_removed_backends() -> Result<()> {
    let mut stage = stage("ended-restart")?;
    let process = stage.process()?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>, _>>()?;
    stage.agent.stop(nix::sys::signal::Signal::SIGKILL)?;
    for socket in &sockets {
        expect_a(socket);
    }
    stage.write_only(&[service().endpoints(endpoints(&stage.pods[1..]))])?;
    stage.agent = portmap_harness::agent::Agent::start(&stage.world, &[])?;
    for socket in &sockets {
        await_destruction(socket)?;
    }
    Ok(())
}

/// The agent searches every network namespace, also one that is created after its start.
#[test]
fn sockets_of_a_later_pod_are_destroyed() -> Result<()> {
    let mut stage = stage("ended-later")?;
    let late = stage.world.client("late")?;
    let process = Process::in_pod(&late)?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    stage.apply(&[service().endpoints(endpoints(&stage.pods[1..]))])?;
    for socket in sockets {
        await_destruction(&socket?)?;
    }
    Ok(())
}
