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
use portmap_harness::pod_socket::SocketOption;
use portmap_harness::process::{Process, Socket};
use portmap_harness::say;
use portmap_harness::topology::{Firewall, addresses};
use portmap_harness::worker::Worker;
use portmap_suites::outside_answers::ask;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::TARGET_PORT;
use portmap_suites::service_stage::Transport;

/// A small table of flows, of 1024 connections to pods of other nodes.
const SMALL: &[&str] = &["--max-flows", "4096"];

/// Number of idle connections. Half of them are to a pod of another node.
const IDLE: usize = 100;

/// Number of short connections to each of two addresses. The client's ports for one address suffice for them.
const SHORT: u32 = 10_000;

/// Duration of a flood.
const FLOOD: Duration = Duration::from_secs(4);

/// Number of packets that a flood needs to prove something: five times the table.
const ENOUGH: u64 = 20_000;

/// A stage with a Service for a pod of node 1, and a Service for a pod of node 2. Returns the node ports on node 1.
fn stage(name: &str, via: Via) -> (Stage, [SocketAddr; 2]) {
    let mut stage = Stage::new(name, Firewall::None, SMALL).unwrap();
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
    let (stage, targets) = stage(name, via);
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

/// Opens connections from one client port to all addresses of a Service, and to its pod.
fn expect_one_port_for_all(process: &Process, targets: &[SocketAddr], via: Via, port: u16) {
    let open = |target: &SocketAddr| {
        let socket = process.open_for(*target, Protocol::Tcp).unwrap();
        socket.set(SocketOption::Shared).unwrap();
        socket.bind(addresses::CLIENT.at(via, port)).unwrap();
        socket.connect(*target).unwrap();
        (socket, *target)
    };
    let sockets: Vec<_> = targets.iter().map(open).collect();
    for (socket, target) in sockets.iter().cycle().take(2 * targets.len()) {
        let answer = socket.ask();
        assert!(answer.is_ok(), "port {port} to {target}: {answer:?}");
    }
}

fn clients_are_served_during_a_flood(name: &str, via: Via) {
    let (mut stage, targets) = stage(name, via);
    let several = stage.publish(stage.endpoints(&["c"])).unwrap();
    let pod = Both::of(&stage.remote[0]).at(via, TARGET_PORT);
    let several = [several.node_port(stage.one(), via), several.external(via), several.load_balancer(via), pod];
    let process = Process::in_pod(&stage.topology.client).unwrap();
    let established = connect(&process, &targets, IDLE);
    let expected = answers(&established);
    let mut worker = flood(&stage, &targets, via);
    let (start, mut slowest, mut count) = (Instant::now(), Duration::ZERO, 0);
    while start.elapsed() < patience(FLOOD) {
        for target in targets {
            for transport in Transport::ALL {
                let before = Instant::now();
                let answer = ask(&process, transport, target);
                assert!(answer.is_ok(), "a new client during the flood: {transport:?} to {target}: {answer:?}");
                slowest = slowest.max(before.elapsed());
                count += 1;
            }
        }
        assert_eq!(answers(&established), expected, "established connections during the flood");
        expect_one_port_for_all(&process, &several, via, 33_000 + count);
    }
    let sent: u64 = worker.finish::<u64>().unwrap().into_iter().sum();
    say::figures(format_args!("{count} new clients during {sent} SYNs of nobody, the slowest served in {slowest:.1?}"));
    assert!(sent >= ENOUGH, "too few SYNs for a result: {sent}");
}

#[test]
fn clients_are_served_during_a_flood_ipv4() {
    clients_are_served_during_a_flood("flood-ipv4", Via::V4);
}

#[test]
fn clients_are_served_during_a_flood_ipv6() {
    clients_are_served_during_a_flood("flood-ipv6", Via::V6);
}
