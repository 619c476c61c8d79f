//! Connections while agents end and start, and while endpoints change.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Protocol;
use portmap_harness::pod_client::NO_ANSWER;
use portmap_harness::pod_hammer::Tally;
use portmap_harness::process::{Failure, Process};
use portmap_harness::worker::Worker;
use portmap_suites::outside_answers::ask;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_stage::{Transport, eventually};

use crate::cases;

cases![
    connections_outlive_the_agent,
    no_connect_fails_while_programs_are_replaced,
    datagrams_leave_an_ended_endpoint_and_connections_stay,
    datagrams_are_refused_after_the_last_endpoint,
];

/// Number of requests that a run needs to prove something.
const ENOUGH: u64 = 2_000;

/// The ends of the agents of a run. Another agent takes over after each.
const ENDS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGKILL];

/// A Service for each kind of backend: the server, and the node port on node 1.
fn services(stage: &mut Stage, via: Via) -> Result<Vec<(&'static str, SocketAddr)>> {
    let servers = [("a", "a 8080"), ("c", "c 8080"), ("node-1", "node-1 8095")];
    let publish = |(endpoint, server)| {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        Ok((server, service.node_port(stage.one(), via)))
    };
    servers.into_iter().map(publish).collect()
}

fn connections_outlive_the_agent(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    let services = services(stage, via)?;
    let mut sockets = Vec::new();
    for (server, address) in &services {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            sockets.push((format!("{server}/{protocol}"), process.connected(*address, protocol)?));
        }
    }
    let expect_all = |when: &str| -> Result<()> {
        for (server, socket) in &sockets {
            let who = socket.ask().with_context(|| format!("{server} {when}"))?;
            ensure!(who == *server, "expected an answer of {server} {when}, but got one of {who}");
        }
        for (server, address) in &services {
            let answer =
                ask(&process, Transport::Tcp, *address).with_context(|| format!("a new connection to {server} {when}"))?;
            ensure!(answer.who == format!("{server}/TCP"), "{answer:?} {when}");
        }
        Ok(())
    };
    expect_all("at first")?;
    for signal in ENDS {
        stage.agents[0].stop(signal)?;
        expect_all(&format!("after {signal}"))?;
        stage.start_agent(0)?;
        expect_all(&format!("with the agent after {signal}"))?;
    }
    Ok(())
}

fn no_connect_fails_while_programs_are_replaced(stage: &mut Stage, via: Via) -> Result<()> {
    let services = services(stage, via)?;
    let targets =
        services.iter().flat_map(|(_, address)| ["--tcp", "--connected"].map(|kind| [kind.into(), address.to_string()]));
    // On one processor, two threads without a pause would leave the starting agent a fraction of it.
    let threads = thread::available_parallelism()?.get().min(2).to_string();
    let arguments = ["hammer", "--tally", "--threads", &threads].map(str::to_owned).into_iter().chain(targets.flatten());
    let mut worker = Worker::start(&stage.topology.client, arguments)?;
    for signal in ENDS {
        stage.agents[0].stop(signal)?;
        stage.start_agent(0)?;
    }
    let tallies: Vec<Tally> = worker.finish()?;
    let is_right = |tally: &&Tally| {
        let server = services.iter().find(|(_, address)| *address == tally.target);
        tally.answer.as_ref().is_ok_and(|who| server.is_some_and(|(server, _)| who.starts_with(server)))
    };
    let (right, wrong): (Vec<&Tally>, Vec<&Tally>) = tallies.iter().partition(is_right);
    ensure!(wrong.is_empty(), "failed or misdirected: {wrong:#?}");
    let count: u64 = right.iter().map(|tally| tally.count).sum();
    ensure!(count >= ENOUGH, "too few requests for a result: {count}");
    Ok(())
}

fn datagrams_leave_an_ended_endpoint_and_connections_stay(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    for (first, second) in [("a", "b"), ("c", "d"), ("a", "c"), ("c", "a")] {
        let service = stage.publish(stage.endpoints(&[first]))?;
        let address = service.node_port(stage.one(), via);
        let [tcp, udp] = [Protocol::Tcp, Protocol::Udp].map(|protocol| process.connected(address, protocol));
        let (tcp, udp) = (tcp?, udp?);
        for socket in [&tcp, &udp] {
            ensure!(socket.ask()?.starts_with(first));
        }
        stage.set_endpoints(service, stage.endpoints(&[second]))?;
        eventually(&format!("the datagrams go from {first} to {second}"), || match udp.ask() {
            Ok(who) => Ok(who.starts_with(second).then_some(())),
            // The answer of an endpoint is lost if its flow is deleted meanwhile.
            Err(failure) if failure == Failure::named(NO_ANSWER) => Ok(None),
            Err(failure) => Err(failure.into()),
        })?;
        let who = tcp.ask().with_context(|| format!("the connection to {first}"))?;
        ensure!(who.starts_with(first), "the connection should stay with {first}, but {who} has answered");
        let next = ask(&process, Transport::Tcp, address)?.who;
        ensure!(next.starts_with(second), "a new connection should reach {second}, but {next} has answered");
    }
    Ok(())
}

fn datagrams_are_refused_after_the_last_endpoint(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    for endpoint in ["a", "c"] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let socket = process.connected(service.node_port(stage.one(), via), Protocol::Udp)?;
        socket.ask()?;
        stage.set_endpoints(service, Vec::new())?;
        let refused = Err(Failure::named("ECONNREFUSED"));
        eventually("the datagrams are refused", || Ok((socket.ask() == refused).then_some(())))?;
    }
    Ok(())
}
