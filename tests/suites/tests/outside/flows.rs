//! `portmap flows` shows the connections of clients outside the node.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::process::Process;
use portmap_harness::topology::addresses;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::TARGET_PORT;
use portmap_suites::service_stage::eventually;
use serde_json::Value;

use crate::cases;

cases![connections_are_listed_until_they_are_closed, datagrams_are_listed];

/// The flow of node 1 from this client to this frontend, if it is listed.
fn listed(stage: &Stage, client: SocketAddr, frontend: SocketAddr, protocol: Protocol) -> Result<Option<Value>> {
    let output = stage.agents[0].portmap(&["flows", "-o", "json", "--client", &client.ip().to_string()])?;
    ensure!(output.status.success(), "portmap flows failed: {}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).context("portmap flows prints no JSON")?;
    let frontend = format!("{frontend}/{protocol}");
    Ok(rows.into_iter().find(|row| row["client"] == client.to_string() && row["frontend"] == frontend))
}

/// Fails unless the flow shows these values.
fn expect(flow: &Value, state: &str, backend: SocketAddr, hidden_behind: Option<SocketAddr>) -> Result<()> {
    ensure!(flow["state"] == state && flow["backend"] == backend.to_string(), "expected {state} to {backend}: {flow}");
    let shown = flow["hiddenBehind"].as_str().map(str::parse::<SocketAddr>).transpose()?;
    ensure!(shown.map(|shown| shown.ip()) == hidden_behind.map(|address| address.ip()), "expected {hidden_behind:?}: {flow}");
    Ok(())
}

/// The pods that serve, each with the address that hides the client from it.
fn backends(stage: &Stage, via: Via) -> [(&'static str, SocketAddr, Option<SocketAddr>); 2] {
    let at = |pod| Both::of(pod).at(via, TARGET_PORT);
    [("a", at(&stage.local[0]), None), ("c", at(&stage.remote[0]), Some(addresses::node(1).at(via, 0)))]
}

fn connections_are_listed_until_they_are_closed(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    for (name, backend, hidden_behind) in backends(stage, via) {
        let service = stage.publish(stage.endpoints(&[name]))?;
        let frontend = service.node_port(stage.one(), via);
        let socket = process.connected(frontend, Protocol::Tcp)?;
        socket.ask()?;
        let client = socket.local()?;
        let flow = listed(stage, client, frontend, Protocol::Tcp)?.context("the connection is not listed")?;
        expect(&flow, "established", backend, hidden_behind)?;
        ensure!(flow["service"].as_str().is_some_and(|service| service.starts_with("default/s")), "{flow}");
        drop(socket);
        eventually("the connection is not listed any more", || {
            let flow = listed(stage, client, frontend, Protocol::Tcp)?;
            Ok(flow.is_none().then_some(()))
        })?;
    }
    Ok(())
}

fn datagrams_are_listed(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    for (name, backend, hidden_behind) in backends(stage, via) {
        let service = stage.publish(stage.endpoints(&[name]))?;
        let frontend = service.node_port(stage.one(), via);
        let socket = process.connected(frontend, Protocol::Udp)?;
        socket.ask()?;
        let flow = listed(stage, socket.local()?, frontend, Protocol::Udp)?.context("the flow is not listed")?;
        expect(&flow, "datagrams", backend, hidden_behind)?;
    }
    Ok(())
}
