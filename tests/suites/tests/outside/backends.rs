//! Each kind of backend: the address that the client gets the answer from, and the address that the backend sees.

use anyhow::{Context as _, Result};
use portmap_harness::dual_stack::Via;
use portmap_harness::topology::{HOST_PORT, addresses};

use crate::cases;
use portmap_suites::outside_answers::expect_answers;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::PORT;
use serde_json::json;

cases![
    a_local_backend_sees_the_client,
    a_remote_backend_sees_the_node,
    a_host_network_backend_on_the_node_sees_the_client,
    externalips_lead_to_backends,
    load_balancers_lead_to_backends,
    an_externalip_may_be_the_nodes_own_address,
];

/// The host of a backend, by the address that it sees.
#[derive(Clone, Copy)]
enum Host {
    /// The node that the client connects to. The backend sees the client.
    This,
    /// Another node. The backend sees the node that the client connects to.
    Other,
}

/// Expects answers for both clients.
fn expect_both(stage: &Stage, via: Via, target: std::net::SocketAddr, server: &str, host: Host) -> Result<()> {
    let clients = [(&stage.client, addresses::CLIENT), (&stage.neighbour, addresses::NEIGHBOUR)];
    for (process, client) in clients {
        let seen = match host {
            Host::This => client,
            Host::Other => addresses::node(1),
        };
        expect_answers(process, target, server, seen.at(via, 0).ip()).with_context(|| format!("from {client:?}"))?;
    }
    Ok(())
}

fn a_local_backend_sees_the_client(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["a"]))?;
    expect_both(stage, via, service.node_port(stage.one(), via), "a 8080", Host::This)
}

fn a_remote_backend_sees_the_node(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    expect_both(stage, via, service.node_port(stage.one(), via), "c 8080", Host::Other)
}

fn a_host_network_backend_on_the_node_sees_the_client(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["node-1"]))?;
    expect_both(stage, via, service.node_port(stage.one(), via), "node-1 8095", Host::This)?;
    stage.set_endpoints(service, stage.endpoints(&["node-2"]))?;
    expect_both(stage, via, service.node_port(stage.one(), via), "node-2 8095", Host::Other)
}

fn externalips_lead_to_backends(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["a"]))?;
    expect_both(stage, via, service.external(via), "a 8080", Host::This)?;
    stage.set_endpoints(service, stage.endpoints(&["c"]))?;
    expect_both(stage, via, service.external(via), "c 8080", Host::Other)
}

fn load_balancers_lead_to_backends(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["a"]))?;
    expect_both(stage, via, service.load_balancer(via), "a 8080", Host::This)?;
    stage.set_endpoints(service, stage.endpoints(&["c"]))?;
    expect_both(stage, via, service.load_balancer(via), "c 8080", Host::Other)
}

/// The Service has one port of the address. The others stay the node's.
fn an_externalip_may_be_the_nodes_own_address(stage: &mut Stage, via: Via) -> Result<()> {
    let node = stage.one().addresses();
    for (endpoint, server, host) in [("a", "a 8080", Host::This), ("c", "c 8080", Host::Other)] {
        stage.begin()?;
        stage.publish_with(json!({"externalIPs": node.texts()}), stage.endpoints(&[endpoint]))?;
        expect_both(stage, via, node.at(via, PORT), server, host)?;
        expect_both(stage, via, node.at(via, HOST_PORT), "node-1 8095", Host::This)?;
    }
    Ok(())
}
