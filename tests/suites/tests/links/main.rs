//! Clients outside the node that reach it through other devices than plain Ethernet, and pods whose sockets are not the node's.
//!
//! Needs: root and BPF. Kernels without a kind of device skip its test.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::kernel::Features;
use portmap_harness::process::Process;
use portmap_harness::say;
use portmap_harness::topology::{Firewall, addresses};
use portmap_harness::world::{Group, program};
use portmap_suites::outside_answers::{ask, expect_answers, expect_silence};
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_stage::Transport;
use serde_json::json;

/// The address of node 1 on a further link to the neighbour.
const NODE: Both = on_link(11);

/// The address of the neighbour on that link.
const NEIGHBOUR: Both = on_link(100);

const FAMILIES: [Via; 2] = [Via::V4, Via::V6];

const fn on_link(host: u8) -> Both {
    Both { v4: Ipv4Addr::new(192, 168, 60, host), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x60, 0, 0, 0, 0, host as u16) }
}

/// Makes a device on node 1 and one on the neighbour, each with this name, and routes the neighbour's packets for externalIPs
/// through them. False if the kernel has no such devices.
fn connect(stage: &Stage, device: &str, [node, neighbour]: [&str; 2]) -> Result<bool> {
    if stage.one().ip(&format!("link add {device} {node}")).is_err() {
        say::skipped(device, "the kernel has no such device");
        return Ok(false);
    }
    let up = |address: Both| {
        let [v4, v6] = address.texts();
        format!("addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\nlink set {device} up")
    };
    stage.one().ip(&up(NODE))?;
    stage.topology.neighbour.ip(&format!("link add {device} {neighbour}\n{}", up(NEIGHBOUR)))?;
    let [external, _] = addresses::external();
    for (range, via) in external.iter().zip(NODE.texts()) {
        stage.topology.neighbour.ip(&format!("route replace {range} via {via}"))?;
    }
    Ok(true)
}

/// Waits until node 1 serves clients on the device.
fn await_device(stage: &mut Stage, device: &str) -> Result<()> {
    stage.agents[0].wait_until(&format!("{device} has the programs"), |agent| {
        let status = agent.portmap(&["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).context("status prints no JSON")?;
        let mut devices = status["devices"].as_array().into_iter().flatten();
        Ok(devices.any(|found| found["name"] == device && !found["attached"].is_null()))
    })
}

/// Expects answers from backends on both nodes to the neighbour, whose address on the link is `client`.
fn expect_service(stage: &mut Stage, client: Both) -> Result<()> {
    for (endpoint, server) in [("a", "a 8080"), ("c", "c 8080"), ("node-1", "node-1 8095")] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let seen = if endpoint == "c" { addresses::node(1) } else { client };
        for via in FAMILIES {
            expect_answers(&stage.neighbour, service.external(via), server, seen.at(via, 0).ip())?;
        }
    }
    Ok(())
}

fn clients_behind(name: &str, device: &'static str, links: [&str; 2]) -> Result<()> {
    let mut stage = Stage::new(name, Firewall::None, &["--devices", "eth0", "--devices", device])?;
    if connect(&stage, device, links)? {
        await_device(&mut stage, device)?;
        expect_service(&mut stage, NEIGHBOUR).with_context(|| stage.logs())?;
    }
    Ok(())
}

#[test]
fn clients_in_a_vlan_are_served() -> Result<()> {
    clients_behind("vlan", "vlan10", ["link eth0 type vlan id 10"; 2])
}

/// A device without an Ethernet header.
#[test]
fn clients_behind_a_tunnel_are_served() -> Result<()> {
    let tunnel = |local: Both, remote: Both| format!("type gre local {} remote {}", local.v4, remote.v4);
    let (node, neighbour) = (addresses::node(1), addresses::NEIGHBOUR);
    if !Features::here().shows_inner_packets {
        return a_tunnel_is_left_out(&tunnel(node, neighbour));
    }
    clients_behind("tunnel", "tunnel", [&tunnel(node, neighbour), &tunnel(neighbour, node)])
}

/// The agent says that it cannot serve clients behind the tunnel.
fn a_tunnel_is_left_out(tunnel: &str) -> Result<()> {
    let mut stage = Stage::new("tunnel", Firewall::None, &["--devices", "eth0", "--devices", "tunnel"])?;
    stage.one().ip(&format!("link add tunnel {tunnel}\nlink set tunnel up"))?;
    stage.agents[0].wait_until("the log names the tunnel", |agent| Ok(agent.log().contains("no clients are served on tunnel")))
}

/// The node's only link becomes the port of a bond, which takes over its addresses and routes.
#[test]
fn clients_behind_a_bond_are_served() -> Result<()> {
    let mut stage = Stage::new("bond", Firewall::None, &["--devices", "bond*"])?;
    if stage.one().ip("link add bond0 type bond mode active-backup").is_err() {
        say::skipped("bond", "the kernel has no such device");
        return Ok(());
    }
    let ([v4, v6], [router4, router6], [two4, two6]) =
        (stage.one().addresses().texts(), addresses::ROUTER.texts(), stage.two().addresses().texts());
    let [pods4, pods6] = addresses::pods(2);
    let script = format!(
        "link set eth0 down\naddr flush dev eth0\nlink set eth0 master bond0\nlink set bond0 up\n\
         addr add {v4}/24 dev bond0\naddr add {v6}/64 dev bond0 nodad\n\
         route add default via {router4}\nroute add default via {router6}\n\
         route add {pods4} via {two4}\nroute add {pods6} via {two6}"
    );
    stage.one().ip(&script)?;
    await_device(&mut stage, "bond0")?;
    expect_service(&mut stage, addresses::NEIGHBOUR).with_context(|| stage.logs())
}

/// The sockets of virtual machines are not the node's: no program of the cgroup sees their calls.
#[test]
fn pods_with_sockets_of_their_own_are_served() -> Result<()> {
    let mut stage = Stage::new("pod-devices", Firewall::None, &["--pod-devices", "pod*"])?;
    pods_with_sockets_of_their_own(&mut stage).with_context(|| stage.logs())
}

fn pods_with_sockets_of_their_own(stage: &mut Stage) -> Result<()> {
    let address = Both::of(stage.pod("b")?);
    let machine = Process::start(stage.pod("b")?.command_in(Group::Clean, program::find("portmap-pod")?))?;
    for (endpoint, server) in [("a", "a 8080"), ("c", "c 8080"), ("node-1", "node-1 8095"), ("node-2", "node-2 8095")] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        for via in FAMILIES {
            expect_answers(&machine, service.cluster_ip(via), server, address.at(via, 0).ip())
                .with_context(|| format!("from a machine to {endpoint}"))?;
        }
    }
    let service = stage.publish(stage.endpoints(&["b"]))?;
    for via in FAMILIES {
        for transport in Transport::ALL {
            let answer = ask(&machine, transport, service.cluster_ip(via)).context("from a machine to itself")?;
            ensure!(answer.who.starts_with("b 8080"), "{answer:?}");
        }
    }
    // A pod of the node gets the endpoints of all nodes, a client outside only those of this node.
    let service = stage.publish_with(json!({"externalTrafficPolicy": "Local"}), stage.endpoints(&["c"]))?;
    for via in FAMILIES {
        expect_answers(&machine, service.external(via), "c 8080", address.at(via, 0).ip()).context("under the policy Local")?;
        expect_silence(&stage.neighbour, addresses::NEIGHBOUR.at(via, 0), service.external(via))?;
    }
    Ok(())
}
