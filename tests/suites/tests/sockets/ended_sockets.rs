//! Connected UDP sockets whose backend is no backend any more: they are destroyed, and nothing else is.
//!
//! The pods themselves live on and would answer: whatever fails was destroyed.

use anyhow::Result;
use portmap_harness::listen::Protocol;
use portmap_harness::process::{Failure, Process, Socket};
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, eventually, serving};

/// What the next calls on a destroyed UDP socket may give: the kernel's `ECONNABORTED` once, then it has no destination.
const ERRORS: [&str; 3] = ["ECONNABORTED", "EDESTADDRREQ", "ENOTCONN"];

/// Service 1 has the pod `a` as its only endpoint; `b` is there to take over.
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

/// Takes what the kernel has to say of it: whoever sends has no destination, and whoever receives is told of the end, once.
fn await_destruction(socket: &Socket<'_>) -> Result<()> {
    let error = eventually("an error surfaces", || Ok(socket.ask().err()))?;
    assert!(ERRORS.map(Failure::named).contains(&error), "{error}");
    if error != Failure::named(ERRORS[0]) {
        assert_eq!(socket.receive(), Err(Failure::named(ERRORS[0])));
    }
    Ok(())
}

#[test]
fn a_connected_udp_socket_learns_that_its_backend_is_gone() -> Result<()> {
    let mut stage = stage("stale")?;
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
            // As the clients that it is done for do it.
            let again = socket.connect(cluster_ip(1).at(*via, PORT));
            assert_eq!(again.is_ok(), !next.is_empty(), "{via:?}: {again:?}");
            if again.is_ok() {
                // What `a` said last may still come.
                let next = Ok(answer("b", Transport::UdpConnected));
                eventually("the other pod answers", || Ok((socket.ask() == next).then_some(())))?;
            }
        }
    }
    Ok(())
}

/// The Service itself going is the same to its clients.
#[test]
fn so_does_one_whose_service_is_deleted() -> Result<()> {
    let mut stage = stage("stale-service")?;
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

/// TCP, other Services' sockets, other backends' sockets, unconnected ones, and plain ones to the very same pod.
#[test]
fn nothing_else_is_destroyed() -> Result<()> {
    let mut stage = Stage::new("stale-others", &["a", "b"], &[])?;
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
        // It is connected to the pod itself now, and was the Service's before.
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
    // What was to be destroyed is: the rest has had its time.
    for (socket, transport) in &kept {
        assert_eq!(socket.ask(), Ok(answer("a", *transport)), "a socket that has nothing to do with it");
    }
    Ok(())
}

/// A socket is what it was last connected to.
#[test]
fn a_socket_that_was_connected_elsewhere_since_is_spared() -> Result<()> {
    let mut stage = stage("stale-moved")?;
    let third = serving(&stage.world, "c")?;
    let process = stage.process()?;
    let mut kept = Vec::new();
    let mut lost = Vec::new();
    for via in Via::ALL {
        let service = cluster_ip(1).at(via, PORT);
        // The same pod's own address, after a dissolve and without one; and another pod's.
        for (plain, dissolve) in [(&stage.pods[0], true), (&stage.pods[0], false), (&third, true), (&third, false)] {
            let socket = process.connected(service, Protocol::Udp)?;
            expect_a(&socket);
            if dissolve {
                socket.dissolve()?;
            }
            socket.connect(Both::of(plain).at(via, TARGET_PORT))?;
            kept.push((plain.name().to_owned(), via, socket));
        }
        // Connected to nobody, it speaks to anybody.
        let socket = process.connected(service, Protocol::Udp)?;
        socket.dissolve()?;
        kept.push((String::new(), via, socket));
        // And one that came back.
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
            // The kernel (6.18) takes only what comes from the last IPv6 peer.
            let plain = Both::of(&stage.pods[0]).at(*via, TARGET_PORT);
            assert_eq!(socket.ask_at(plain)?.text, answer("a", Transport::UdpUnconnected));
        } else {
            assert_eq!(socket.ask(), Ok(answer(name, Transport::UdpConnected)), "a socket that is another's now");
        }
    }
    Ok(())
}

/// Serving is what counts: a backend that finishes its work keeps its sockets until it does not serve any more.
#[test]
fn a_backend_that_finishes_its_work_keeps_its_sockets() -> Result<()> {
    let mut stage = stage("stale-terminating")?;
    let process = stage.process()?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>, _>>()?;
    let [a, b] = [0, 1].map(|pod| Endpoint::of(&stage.pods[pod]));
    stage.apply(&[service().endpoints([a.clone().terminating(), b.clone()])])?;
    // A socket to a third endpoint that is destroyed shows that it is done with.
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

/// What happened while no agent ran is caught up with.
#[test]
fn an_agent_that_starts_finds_the_stale_ones() -> Result<()> {
    let mut stage = stage("stale-restart")?;
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

/// The socket's namespace is searched wherever it is, and it may have come after the agent.
#[test]
fn a_pod_that_came_later_is_searched_too() -> Result<()> {
    let mut stage = stage("stale-later")?;
    let late = stage.world.client("late")?;
    let process = Process::in_pod(&late)?;
    let sockets = Via::ALL.map(|via| process.connected(cluster_ip(1).at(via, PORT), Protocol::Udp));
    stage.apply(&[service().endpoints(endpoints(&stage.pods[1..]))])?;
    for socket in sockets {
        await_destruction(&socket?)?;
    }
    Ok(())
}
