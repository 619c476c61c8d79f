//! ICMP errors: closed ports, packets that exceed the MTU of a path, and packets whose time to live ends.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_problem::Problem;
use portmap_harness::pod_socket::SocketOption;
use portmap_harness::process::{Failure, Process};
use portmap_harness::topology::{Path, addresses};
use portmap_harness::world::Pod;
use portmap_suites::outside_answers::expect_refusal;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_stage::eventually;

use crate::cases;

cases![
    a_closed_port_of_a_backend_refuses,
    pods_learn_the_mtu_of_the_path_to_the_client,
    clients_learn_the_mtu_between_nodes,
    a_datagram_that_must_stay_whole_fails_between_nodes,
    a_time_to_live_ends_at_each_hop,
];

/// A small MTU, which IPv6 allows.
const SMALL: u32 = 1300;

/// The size of a datagram that exceeds [`SMALL`], and fits into the MTU of the other links.
const TOO_LONG: usize = 1400;

/// More data than one window, so that many packets meet the MTU.
const FLOOD: usize = 1_000_000;

/// A port without a server.
const CLOSED: u16 = 9;

fn a_closed_port_of_a_backend_refuses(stage: &mut Stage, via: Via) -> Result<()> {
    for endpoint in ["a", "c"] {
        let service = stage.publish(vec![stage.endpoint(endpoint).port(CLOSED)])?;
        for process in [&stage.client, &stage.neighbour] {
            for address in [service.node_port(stage.one(), via), service.external(via)] {
                expect_refusal(process, address).with_context(|| format!("the endpoint is {endpoint}"))?;
            }
        }
    }
    Ok(())
}

/// Removes all path MTUs that a case has taught.
fn forget(stage: &Stage) -> Result<()> {
    stage.local.iter().chain(&stage.remote).try_for_each(Pod::forget_path_mtus)?;
    stage.topology.forget_path_mtus()
}

/// Expects that the first long datagram meets this error, and that later ones arrive in fragments.
fn expect_fragments_later(process: &Process, address: SocketAddr, error: &str) -> Result<()> {
    let socket = process.connected(address, Protocol::Udp)?;
    socket.set(SocketOption::TimeLimit(300))?;
    let first = socket.echo(TOO_LONG);
    ensure!(first == Err(Failure::named(error)), "the path should not pass the first long datagram: {first:?}");
    eventually("long datagrams arrive", || Ok(socket.echo(TOO_LONG).ok())).map(drop)
}

fn pods_learn_the_mtu_of_the_path_to_the_client(stage: &mut Stage, via: Via) -> Result<()> {
    for endpoint in ["a", "c"] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let address = service.node_port(stage.one(), via);
        stage.topology.set_mtu(Path::ToClient, Some(SMALL))?;
        expect_fragments_later(&stage.client, address, "no answer").with_context(|| format!("the endpoint is {endpoint}"))?;
        forget(stage)?;
        let socket = stage.client.connected(address, Protocol::Tcp)?;
        socket.transfer(10, FLOOD).with_context(|| format!("TCP from {endpoint}"))?;
        stage.topology.set_mtu(Path::ToClient, None)?;
        forget(stage)?;
    }
    Ok(())
}

fn clients_learn_the_mtu_between_nodes(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    stage.topology.set_mtu(Path::BetweenNodes, Some(SMALL))?;
    for process in [&stage.client, &stage.neighbour] {
        for address in [service.node_port(stage.one(), via), service.load_balancer(via)] {
            expect_fragments_later(process, address, "EMSGSIZE").with_context(|| format!("to {address}"))?;
        }
        forget(stage)?;
        for address in [service.node_port(stage.one(), via), service.load_balancer(via)] {
            let socket = process.connected(address, Protocol::Tcp)?;
            socket.transfer(FLOOD, 10).with_context(|| format!("TCP to {address}"))?;
        }
    }
    stage.topology.set_mtu(Path::BetweenNodes, None)?;
    forget(stage)
}

fn a_datagram_that_must_stay_whole_fails_between_nodes(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    stage.topology.set_mtu(Path::BetweenNodes, Some(SMALL))?;
    for address in [service.node_port(stage.one(), via), service.external(via)] {
        let socket = stage.client.connected(address, Protocol::Udp)?;
        socket.set(SocketOption::Whole)?;
        socket.set(SocketOption::Problems)?;
        let too_long = Err(Failure::named("EMSGSIZE"));
        let first = socket.echo(TOO_LONG);
        ensure!(first == too_long, "the first long datagram: {first:?}");
        let Problem { destination, mtu, offender, .. } = socket.problem()?;
        ensure!((destination, mtu) == (Some(address), SMALL), "the error is about {destination:?} and the MTU {mtu}");
        ensure!(offender == Some(stage.one().addresses().at(via, 0).ip()), "the error comes from {offender:?}");
        let second = socket.echo(TOO_LONG);
        ensure!(second == too_long, "the client should know the MTU, but the second long datagram: {second:?}");
        socket.echo(1200).with_context(|| format!("a short datagram to {address}"))?;
    }
    stage.topology.set_mtu(Path::BetweenNodes, None)?;
    forget(stage)
}

/// As `traceroute` does it: each hop answers, with an error about the datagram that the client has sent.
fn a_time_to_live_ends_at_each_hop(stage: &mut Stage, via: Via) -> Result<()> {
    let [router, one, two] = [addresses::ROUTER_OUTSIDE, addresses::node(1), addresses::node(2)];
    for (endpoint, hops) in [("node-1", &[router][..]), ("a", &[router, one]), ("c", &[router, one, two])] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        for address in [service.node_port(stage.one(), via), service.external(via)] {
            let socket = stage.client.connected(address, Protocol::Udp)?;
            socket.set(SocketOption::Problems)?;
            for (hops, host) in (1..).zip(hops) {
                socket.set(SocketOption::Hops(hops))?;
                let what = || format!("to {endpoint} through {address} with {hops} hops");
                let result = socket.ask();
                ensure!(result == Err(Failure::named("EHOSTUNREACH")), "{}: {result:?}", what());
                let problem = socket.problem()?;
                let expected = (Some(address), Some(Both::at(*host, via, 0).ip()));
                ensure!((problem.destination, problem.offender) == expected, "{}: {problem:?}", what());
            }
            socket.set(SocketOption::Hops(u8::try_from(hops.len())? + 1))?;
            socket.ask().with_context(|| format!("to {endpoint} through {address} with enough hops"))?;
        }
    }
    Ok(())
}
