//! `sessionAffinity: ClientIP` by the address of the client.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::Via;
use portmap_harness::topology::addresses;
use portmap_suites::outside_answers::ask_from;
use portmap_suites::outside_stage::{Published, Stage};
use portmap_suites::service_stage::Transport;
use serde_json::json;

use crate::cases;

cases![a_client_stays_with_its_endpoint, clients_have_sessions_of_their_own];

const PODS: [&str; 4] = ["a", "b", "c", "d"];

fn sticky() -> serde_json::Value {
    json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}}})
}

/// The pods that answer at all addresses of node 1.
fn answering(stage: &Stage, from: SocketAddr, transport: Transport, service: Published) -> Result<BTreeSet<String>> {
    let via = if from.is_ipv4() { Via::V4 } else { Via::V6 };
    let targets = [service.node_port(stage.one(), via), service.external(via), service.load_balancer(via)];
    let ask =
        |address| ask_from(&stage.client, from, transport, address).with_context(|| format!("{transport:?} to {address}"));
    targets.into_iter().map(|address| Ok(ask(address)?.who)).collect()
}

fn a_client_stays_with_its_endpoint(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish_with(sticky(), stage.endpoints(&["a"]))?;
    let [first, second] = [addresses::CLIENT, addresses::SECOND_CLIENT].map(|client| client.at(via, 0));
    for transport in Transport::ALL {
        answering(stage, first, transport, service)?;
    }
    // By chance alone, thirty answers of one of four pods have a probability of 1 in 4^30.
    stage.set_endpoints(service, stage.endpoints(&PODS))?;
    for transport in Transport::ALL {
        let expected = BTreeSet::from([format!("a 8080/{}", transport.protocol())]);
        let mut others = BTreeSet::new();
        for _ in 0..10 {
            let pods = answering(stage, first, transport, service)?;
            ensure!(pods == expected, "the session should be with a, but {pods:?} answered over {transport:?}");
            others.append(&mut answering(stage, second, transport, service)?);
        }
        ensure!(others.len() == 1, "the second client should stay with one pod, but {others:?} answered over {transport:?}");
    }
    Ok(())
}

/// By chance alone, a second client has the sessions of the first with a probability of 1 in 4^10.
fn clients_have_sessions_of_their_own(stage: &mut Stage, via: Via) -> Result<()> {
    let services = stage.publish_all(10, &sticky(), &stage.endpoints(&PODS))?;
    let [first, second] = [addresses::CLIENT, addresses::SECOND_CLIENT].map(|client| client.at(via, 0));
    let sessions = |client| -> Result<Vec<_>> {
        services.iter().map(|service| answering(stage, client, Transport::Tcp, *service)).collect()
    };
    let (of_first, of_second) = (sessions(first)?, sessions(second)?);
    ensure!(of_first.iter().chain(&of_second).all(|pods| pods.len() == 1), "{of_first:?} {of_second:?}");
    ensure!(of_first != of_second, "both clients have the sessions {of_first:?}");
    ensure!(sessions(first)? == of_first && sessions(second)? == of_second, "a session has moved");
    Ok(())
}
