//! Clients outside the node whose number of connections exceeds the table of flows, and a flood of SYNs.
//!
//! Needs: root and BPF.
#![expect(clippy::unwrap_used, reason = "a test reports an error by a panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::patience::patience;
use portmap_harness::pod_client::NO_ANSWER;
use portmap_harness::pod_socket::SocketOption;
use portmap_harness::process::{Answer, Failure, Met, Process, Socket};
use portmap_harness::say;
use portmap_harness::topology::{Firewall, addresses};
use portmap_harness::worker::Worker;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::TARGET_PORT;
use portmap_suites::service_stage::{Transport, eventually};

/// A small table of flows, of 1024 connections to pods of other nodes.
const SMALL: &[&str] = &["--max-flows", "4096"];

/// Eight ports for clients, and eight ports of the node.
const FEW_PORTS: &[&str] = &["--client-ports", "1024-1039"];

/// Number of idle connections. Half of them are to a pod of another node.
const IDLE: usize = 100;

/// Number of short connections to each of two addresses. The client's ports for one address suffice for them.
const SHORT: u32 = 10_000;

/// Duration of a flood.
const FLOOD: Duration = Duration::from_secs(4);

/// Number of packets that a flood needs to prove something about new clients: five times the table.
const ENOUGH: u64 = 20_000;

/// Number of packets after which new flows are kept apart from the established ones.
const OVERFLOW: u64 = 1_000;

/// A stage with a Service for a pod of node 1, and a Service for a pod of node 2. Returns the node ports on node 1.
fn stage(name: &str, via: Via, arguments: &'static [&'static str]) -> (Stage, [SocketAddr; 2]) {
    let mut stage = Stage::new(name, Firewall::None, arguments).unwrap();
    let targets = ["a", "c"].map(|endpoint| {
        let service = stage.publish(stage.endpoints(&[endpoint])).unwrap();
        service.node_port(stage.one(), via)
    });
    (stage, targets)
}

/// Connections in turn to the targets.
fn connect<'a>(process: &'a Process, targets: &[SocketAddr], count: usize) -> Vec<Socket<'a>> {
    let open = |target: &SocketAddr| {
        let socket = process.connected(*target, Protocol::Tcp).unwrap();
        socket.ask().unwrap();
        socket
    };
    targets.iter().cycle().take(count).map(open).collect()
}

/// The number of each kind of answer.
fn answers(sockets: &[Socket<'_>]) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for socket in sockets {
        let answer = socket.ask().unwrap_or_else(|error| error.to_string());
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

fn idle_connections_live_through_short_ones(name: &str, via: Via) {
    let (stage, targets) = stage(name, via, SMALL);
    let process = Process::in_pod(&stage.topology.client).unwrap();
    let idle = connect(&process, &targets, IDLE);
    let start = Instant::now();
    for (target, server) in targets.into_iter().zip(["a 8080/TCP", "c 8080/TCP"]) {
        let short = stage.topology.client.connect(target, Protocol::Tcp, SHORT).unwrap();
        assert_eq!(short.replies, [(server.to_owned(), SHORT)].into(), "{short}");
    }
    let elapsed = start.elapsed();
    let alive = answers(&idle);
    say::figures(format_args!("{alive:?} of {IDLE} idle connections after {} short ones in {elapsed:.1?}", 2 * SHORT));
    let half = IDLE / 2;
    assert_eq!(alive, [("a 8080/TCP".to_owned(), half), ("c 8080/TCP".to_owned(), half)].into(), "{}", stage.logs());
}

#[test]
fn idle_connections_live_through_short_ones_ipv4() {
    idle_connections_live_through_short_ones("idle-ipv4", Via::V4);
}

#[test]
fn idle_connections_live_through_short_ones_ipv6() {
    idle_connections_live_through_short_ones("idle-ipv6", Via::V6);
}

/// Starts a flood of SYNs to the targets, from addresses that do not exist.
fn flood(stage: &Stage, targets: &[SocketAddr], via: Via) -> Worker {
    let [v4, v6] = addresses::nobody();
    let range = if via == Via::V4 { v4 } else { v6 };
    let sources = range.split('/').next().unwrap().to_owned();
    let arguments = ["flood", "eth0", addresses::ROUTER_HARDWARE].map(str::to_owned).into_iter().chain([sources]);
    Worker::start(&stage.topology.client, arguments.chain(targets.iter().map(ToString::to_string))).unwrap()
}

/// As [`ask`]. Waits for a repeated SYN, and repeats a datagram some times, as clients do. The flood fills the queues of the
/// kernel, too. And a SYN may meet a half-open connection of the flood at the backend, which sees the same address and port.
fn ask_again(process: &Process, transport: Transport, target: SocketAddr) -> Met<Answer> {
    let socket = process.open_for(target, transport.protocol())?;
    if transport == Transport::Tcp {
        socket.set(SocketOption::TimeLimit(8_000))?;
        socket.connect(target)?;
        return socket.converse();
    }
    socket.set(SocketOption::TimeLimit(500))?;
    let mut attempts = (0..10).map(|_| socket.converse_with(target));
    attempts.find(Result::is_ok).unwrap_or_else(|| socket.converse_with(target))
}

fn clients_are_served_during_a_flood(name: &str, via: Via) {
    let (stage, targets) = stage(name, via, SMALL);
    let process = Process::in_pod(&stage.topology.client).unwrap();
    let established = connect(&process, &targets, IDLE);
    let expected = answers(&established);
    let mut worker = flood(&stage, &targets, via);
    let (start, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0);
    while start.elapsed() < patience(FLOOD) {
        for target in targets {
            for transport in Transport::ALL {
                let before = Instant::now();
                let answer = ask_again(&process, transport, target);
                assert!(answer.is_ok(), "a new client during the flood: {transport:?} to {target}: {answer:?}");
                slowest = slowest.max(before.elapsed());
                count += 1;
            }
        }
        assert_eq!(answers(&established), expected, "established connections during the flood");
    }
    let sent = finish(&mut worker, ENOUGH);
    say::figures(format_args!("{count} new clients during {sent} SYNs of nobody, the slowest served in {slowest:.1?}"));
}

/// Ends a flood, and returns the number of its packets. Fails if there were too few for a result.
fn finish(worker: &mut Worker, least: u64) -> u64 {
    let sent: u64 = worker.finish::<u64>().unwrap().into_iter().sum();
    assert!(sent >= least, "too few SYNs for a result: {sent}");
    sent
}

#[test]
fn clients_are_served_during_a_flood_ipv4() {
    clients_are_served_during_a_flood("flood-ipv4", Via::V4);
}

#[test]
fn clients_are_served_during_a_flood_ipv6() {
    clients_are_served_during_a_flood("flood-ipv6", Via::V6);
}

/// One client port for several frontends of one pod, and for the pod. One of the connections was opened before the flood.
fn connections_of_one_port_stay_apart(name: &str, via: Via) {
    let (mut stage, targets) = stage(name, via, SMALL);
    let process = Process::in_pod(&stage.topology.client).unwrap();
    for endpoint in ["a", "c"] {
        let service = stage.publish(stage.endpoints(&[endpoint])).unwrap();
        let pod = Both::of(stage.pod(endpoint).unwrap()).at(via, TARGET_PORT);
        let frontends = [service.node_port(stage.one(), via), service.external(via), service.load_balancer(via), pod];
        let ports = 33_000..33_020;
        let open = |port: u16, target: SocketAddr| {
            let socket = process.open_for(target, Protocol::Tcp).unwrap();
            socket.set(SocketOption::Shared).unwrap();
            socket.bind(addresses::CLIENT.at(via, port)).unwrap();
            let opened = socket.connect(target).and_then(|()| socket.ask());
            assert!(opened.is_ok(), "port {port} to {target}: {opened:?}");
            socket
        };
        let mut sockets: Vec<_> = ports.clone().map(|port| open(port, frontends[0])).collect();
        let mut worker = flood(&stage, &targets, via);
        for target in &frontends[1..] {
            sockets.extend(ports.clone().map(|port| open(port, *target)));
        }
        let expected = [(format!("{endpoint} 8080/TCP"), sockets.len())].into();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            assert_eq!(answers(&sockets), expected, "connections of the same ports to {frontends:?}");
        }
        finish(&mut worker, OVERFLOW);
    }
}

#[test]
fn connections_of_one_port_stay_apart_ipv4() {
    connections_of_one_port_stay_apart("ports-ipv4", Via::V4);
}

#[test]
fn connections_of_one_port_stay_apart_ipv6() {
    connections_of_one_port_stay_apart("ports-ipv6", Via::V6);
}

/// Twice as many clients as ports: each client gets one at the first try, because the others have their answers. Some of them get
/// the same port again when they ask again, and keep it: so the others may have to try some times.
#[test]
fn answered_datagrams_leave_their_ports_to_others() {
    let (stage, targets) = stage("few-ports", Via::V6, FEW_PORTS);
    let process = Process::in_pod(&stage.topology.client).unwrap();
    for (target, server) in targets.into_iter().zip(["a 8080/UDP", "c 8080/UDP"]) {
        let sockets: Vec<_> = (0..16).map(|_| process.connected(target, Protocol::Udp).unwrap()).collect();
        for socket in &sockets {
            assert_eq!(socket.ask(), Ok(server.to_owned()), "{}", stage.logs());
        }
        for socket in &sockets {
            socket.set(SocketOption::TimeLimit(200)).unwrap();
            let answer = eventually("an answer", || match socket.ask() {
                Err(failure) if failure == Failure::named(NO_ANSWER) => Ok(None),
                answer => Ok(Some(answer?)),
            });
            assert_eq!(answer.unwrap(), server);
        }
    }
}
