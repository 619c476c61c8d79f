//! The agent with a part of its capabilities: the required ones suffice, and missing ones are named.

use anyhow::{Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::kernel::Features;
use portmap_harness::listen::Protocol;
use portmap_harness::say;
use portmap_harness::world::World;
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip, endpoints, load_balancer_ip};
use portmap_suites::service_stage::{Stage, Transport, answer, dropped, eventually, serving, who};
use serde_json::json;

use crate::attach::{expect_all, expect_none};

const FOR_NAMESPACES: [&str; 2] = ["sys_admin", "sys_ptrace"];

/// The required capabilities: three, and one more on kernels before 5.11.
fn needed() -> Vec<&'static str> {
    let for_memory = Features::here().locks_memory.then_some("sys_resource");
    ["bpf", "net_admin", "perfmon"].into_iter().chain(for_memory).collect()
}

/// Starts pods and an agent, and replaces the agent by one with only these capabilities.
fn stage(name: &str, capabilities: &[&str]) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    stage.agent.stop(nix::sys::signal::Signal::SIGTERM)?;
    stage.agent = Agent::spawn_with(&stage.world, capabilities, &[])?;
    stage.agent.wait_until("the agent is synced", |agent| Ok(agent.portmap(&["status"])?.status.success()))?;
    Ok(stage)
}

#[test]
fn three_capabilities_suffice_to_translate() -> Result<()> {
    let mut stage = stage("three-capabilities", &needed())?;
    assert!(stage.agent.log().contains("without CAP_SYS_ADMIN and CAP_SYS_PTRACE"), "{}", stage.agent.log());
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods[..1]))])?;
    let process = stage.process()?;
    for via in Via::ALL {
        for transport in Transport::ALL {
            assert_eq!(who(&process, transport, cluster_ip(1).at(via, PORT)), Ok(answer("a", transport)));
        }
    }
    expect_all(&stage.world)
}

/// `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE` are needed to enter the network namespaces of pods: for source ranges, and to destroy
/// sockets.
#[test]
fn two_more_capabilities_give_access_to_pods_namespaces() -> Result<()> {
    let mut stage = stage("five-capabilities", &[needed().as_slice(), &FOR_NAMESPACES].concat())?;
    let client = stage.client.ipv4();
    let ranged = Service::new("ranged", 2).exposed(2).spec(json!({"loadBalancerSourceRanges": [format!("{client}/32")]}));
    let web = |pod: usize| Service::new("web", 1).endpoints([Endpoint::of(&stage.pods[pod])]);
    let (first, second) = (web(0), web(1));
    let to_a = ranged.endpoints(endpoints(&stage.pods[..1]));
    stage.apply(&[first, to_a])?;
    let process = stage.process()?;
    let address = load_balancer_ip(2).at(Via::V4, PORT);
    if Features::here().tells_namespaces {
        eventually("the client's address is known", || {
            let met = who(&process, Transport::Tcp, address);
            ensure!(met == dropped() || met == Ok(answer("a", Transport::Tcp)), "{met:?}");
            Ok(met.ok())
        })?;
    } else {
        say::skipped("source ranges by network namespace", "SO_NETNS_COOKIE exists from 5.14 on");
    }
    let socket = process.connected(cluster_ip(1).at(Via::V4, PORT), Protocol::Udp)?;
    assert_eq!(socket.ask(), Ok(answer("a", Transport::UdpConnected)));
    stage.apply(&[second])?;
    eventually("the socket is destroyed", || Ok(socket.ask().err())).map(drop)
}

#[test]
fn each_missing_capability_is_named() -> Result<()> {
    let world = World::new("no-capability")?;
    serving(&world, "a")?;
    for missing in needed() {
        let held: Vec<&str> = needed().into_iter().filter(|name| *name != missing).collect();
        let mut agent = Agent::spawn_with(&world, &held, &[])?;
        let error = agent.wait_until("never", |_| Ok(false)).map_err(|error| format!("{error:#}")).err().unwrap_or_default();
        let name = format!("lacks CAP_{}", missing.to_uppercase());
        assert!(error.contains("the agent ended") && error.contains(&name), "{error}");
    }
    expect_none(&world)
}
