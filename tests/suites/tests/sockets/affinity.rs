//! `sessionAffinity: ClientIP`.
//!
//! A random choice of backends must not look like affinity. So the Service of most tests has ten ports, each with its own
//! session. The probability that ten random choices among five pods are equal is one in two million.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Listen;
use portmap_harness::process::{Met, Process};
use portmap_suites::service_objects::{
    Both, PORT, Service, Via, cluster_ip, endpoints, external_ip, load_balancer_ip, node_port,
};
use portmap_suites::service_stage::{Stage, Transport, answer, who};
use serde_json::json;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const PORTS: std::ops::Range<u16> = 8000..8010;
const HOURS: u32 = 10_800;

fn service() -> Service {
    Service::new("web", 1).ports(PORTS.map(Listen::tcp))
}

/// The answer at each port of Service 1.
fn all(process: &Process) -> Met<Vec<String>> {
    PORTS.map(|port| who(process, Transport::Tcp, cluster_ip(1).at(Via::V4, port))).collect()
}

fn only_a() -> Vec<String> {
    PORTS.map(|_| answer("a", Transport::Tcp)).collect()
}

fn is_only_a(answers: &Met<Vec<String>>) -> bool {
    *answers == Ok(only_a())
}

/// A client whose ten sessions are with the pod `a`, while all five pods are endpoints.
fn with_sessions(name: &str, seconds: u32, arguments: &[&str]) -> Result<(Stage, Process)> {
    let mut stage = Stage::new(name, &NAMES, arguments)?;
    let process = stage.process()?;
    stage.apply(&[service().sticky(seconds).endpoints(endpoints(&stage.pods[..1]))])?;
    assert_eq!(all(&process), Ok(only_a()));
    stage.apply(&[service().sticky(seconds).endpoints(endpoints(&stage.pods))])?;
    Ok((stage, process))
}

#[test]
fn a_session_stays_when_endpoints_are_added() -> Result<()> {
    let (mut stage, process) = with_sessions("affinity", HOURS, &[])?;
    for _ in 0..3 {
        assert_eq!(all(&process), Ok(only_a()));
    }
    // Removals of other endpoints and other changes of the Service do not affect the sessions either.
    let more = json!({"externalIPs": ["192.0.2.1"]});
    stage.apply(&[service().sticky(HOURS).spec(more).endpoints(endpoints(&stage.pods[..3]))])?;
    assert_eq!(all(&process), Ok(only_a()));
    Ok(())
}

/// All addresses of one family and all kinds of sockets share one session for each Service port.
#[test]
fn all_addresses_of_a_port_share_a_session() -> Result<()> {
    let mut stage = Stage::new("affinity-kinds", &NAMES, &[])?;
    stage.apply(&[Service::new("web", 1).exposed(1).sticky(HOURS).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    let node = Both { v4: stage.world.ipv4(), v6: stage.world.ipv6() };
    for via in [Via::V4, Via::V6] {
        let vias = if via == Via::V4 { [Via::V4, Via::Mapped] } else { [Via::V6, Via::V6] };
        for transports in [&[Transport::Tcp][..], &[Transport::UdpConnected, Transport::UdpUnconnected]] {
            let mut seen = BTreeSet::new();
            for via in vias.iter().cycle().take(6) {
                for transport in transports {
                    for address in [
                        cluster_ip(1).at(*via, PORT),
                        node.at(*via, node_port(1)),
                        external_ip(1).at(*via, PORT),
                        load_balancer_ip(1).at(*via, PORT),
                    ] {
                        seen.insert(who(&process, *transport, address)?);
                    }
                }
            }
            assert_eq!(seen.len(), 1, "{via:?} {transports:?}: {seen:?}");
        }
    }
    Ok(())
}

/// All processes of a pod are one client. Another pod is another client.
#[test]
fn a_client_is_a_network_namespace() -> Result<()> {
    let (stage, process) = with_sessions("affinity-pods", HOURS, &[])?;
    let sibling = stage.process()?;
    assert_eq!(all(&sibling), Ok(only_a()));
    let other = stage.world.client("other")?;
    let other = all(&Process::in_pod(&other)?);
    assert!(other.is_ok() && !is_only_a(&other), "another pod should have its own sessions: {other:?}");
    let node = all(&Process::on_node(&stage.world)?);
    assert!(node.is_ok() && !is_only_a(&node), "the node should have its own sessions: {node:?}");
    assert_eq!(all(&process), Ok(only_a()));
    Ok(())
}

#[test]
fn an_endpoint_that_returns_has_no_sessions() -> Result<()> {
    let (mut stage, process) = with_sessions("affinity-returns", HOURS, &[])?;
    stage.apply(&[service().sticky(HOURS).endpoints(endpoints(&stage.pods[1..]))])?;
    stage.apply(&[service().sticky(HOURS).endpoints(endpoints(&stage.pods))])?;
    let answers = all(&process);
    assert!(answers.is_ok() && !is_only_a(&answers), "sessions with a removed endpoint: {answers:?}");
    assert_eq!(all(&process), answers, "new sessions have begun");
    Ok(())
}

/// An endpoint that takes no new connections keeps no session.
#[test]
fn a_terminating_endpoint_loses_its_sessions() -> Result<()> {
    let (mut stage, process) = with_sessions("affinity-ends", HOURS, &[])?;
    let mut set = endpoints(&stage.pods);
    set[0] = set[0].clone().terminating();
    stage.apply(&[service().sticky(HOURS).endpoints(set)])?;
    let answers = all(&process)?;
    assert!(!answers.contains(&answer("a", Transport::Tcp)), "{answers:?}");
    assert_eq!(all(&process)?, answers);
    Ok(())
}

#[test]
fn switching_affinity_off_removes_the_sessions() -> Result<()> {
    let (mut stage, process) = with_sessions("affinity-off", HOURS, &[])?;
    stage.apply(&[service().endpoints(endpoints(&stage.pods))])?;
    let answers = all(&process);
    assert!(answers.is_ok() && !is_only_a(&answers), "expected no sessions: {answers:?}");
    stage.apply(&[service().sticky(HOURS).endpoints(endpoints(&stage.pods))])?;
    let answers = all(&process);
    assert!(answers.is_ok() && !is_only_a(&answers), "old sessions should be removed: {answers:?}");
    assert_eq!(all(&process), answers, "new sessions have begun");
    Ok(())
}

#[test]
fn sessions_survive_the_agent() -> Result<()> {
    let (mut stage, process) = with_sessions("affinity-restart", HOURS, &[])?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        stage.agent.stop(signal)?;
        assert_eq!(all(&process), Ok(only_a()), "while no agent runs");
        stage.agent = Agent::start(&stage.world, &[])?;
        stage.apply(&[service().sticky(HOURS).endpoints(endpoints(&stage.pods))])?;
        assert_eq!(all(&process), Ok(only_a()), "with the next agent");
    }
    Ok(())
}

/// The timeout of a session starts with its last connection. One port is used all the time, and nine ports are not.
#[test]
fn the_timeout_runs_from_the_last_connection() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (_stage, process) = with_sessions("affinity-timeout", 2, &[])?;
    assert_eq!(all(&process), Ok(only_a()));
    let since = Instant::now();
    let busy = cluster_ip(1).at(Via::V4, PORTS.start);
    // After more than twice the timeout, all sessions without a further connection have expired.
    while since.elapsed() < TIMEOUT * 2 + Duration::from_secs(1) {
        assert_eq!(who(&process, Transport::Tcp, busy), Ok(answer("a", Transport::Tcp)), "after {:?}", since.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let idle = PORTS.skip(1).map(|port| who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, port)));
    let idle = idle.collect::<Met<BTreeSet<_>>>()?;
    assert!(idle.len() > 1, "nine sessions should have ended, but all were with {idle:?}");
    Ok(())
}

/// If AFFINITY is full, the kernel removes the sessions that were not used for the longest time. New clients still get
/// sessions.
#[test]
fn the_oldest_sessions_are_removed_if_the_map_is_full() -> Result<()> {
    // One port for each session that a cgroup may add in an hour: at least 64, even if the map is smaller.
    const MANY: std::ops::Range<u16> = 8000..8064;
    let mut stage = Stage::new("affinity-full", &NAMES, &["--max-affinity-clients", "32"])?;
    let service = Service::new("web", 1).ports(MANY.map(Listen::tcp)).sticky(HOURS);
    let process = stage.process()?;
    let ask = |ports: std::ops::Range<u16>| -> Met<Vec<String>> {
        ports.map(|port| who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, port))).collect()
    };
    stage.apply(&[service.clone().endpoints(endpoints(&stage.pods[..1]))])?;
    assert_eq!(ask(MANY)?.len(), MANY.len());
    stage.apply(&[service.endpoints(endpoints(&stage.pods))])?;
    let last = ask(MANY.end - 1..MANY.end)?;
    assert_eq!(last, [answer("a", Transport::Tcp)], "the latest session should exist");
    let first: BTreeSet<String> = ask(MANY.start..MANY.start + 50)?.into_iter().collect();
    assert!(first.len() > 1, "the oldest sessions should be removed");
    Ok(())
}

/// A cgroup may add a limited number of sessions in an hour, here 64. Further sessions are not added, so they displace no older
/// session.
#[test]
fn one_cgroup_displaces_only_its_own_sessions() -> Result<()> {
    const MANY: std::ops::Range<u16> = 8000..9000;
    let mut stage = Stage::new("affinity-share", &NAMES, &["--max-affinity-clients", "512"])?;
    let service = Service::new("web", 1).ports(MANY.map(Listen::tcp)).sticky(HOURS);
    let other = stage.world.client("greedy")?;
    let (victim, greedy) = (stage.process()?, Process::in_pod(&other)?);
    stage.apply(&[service.clone().endpoints(endpoints(&stage.pods[..1]))])?;
    let ask = |process: &Process, ports: std::ops::Range<u16>| -> Met<Vec<String>> {
        ports.map(|port| who(process, Transport::Tcp, cluster_ip(1).at(Via::V4, port))).collect()
    };
    let kept = MANY.start..MANY.start + 20;
    ask(&victim, kept.clone())?;
    // Affinity limits sessions of network namespaces and Service ports alike. So 1000 ports replace 1000 namespaces here.
    assert_eq!(ask(&greedy, MANY)?.len(), MANY.len());
    stage.apply(&[service.endpoints(endpoints(&stage.pods))])?;
    let answers: BTreeSet<String> = ask(&victim, kept)?.into_iter().collect();
    assert_eq!(answers, BTreeSet::from([answer("a", Transport::Tcp)]), "the sessions of the other pod should exist");
    let status = stage.agent.portmap(&["status"])?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    // Both pods are in one cgroup. It added 64 of 20 + 1000 sessions.
    assert!(text.contains("956 clients were not remembered by session affinity"), "{text}");
    Ok(())
}
