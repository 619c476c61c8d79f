//! Services without endpoints, traffic policies, and the source ranges of load balancers.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::process::Process;
use portmap_harness::topology::addresses;
use portmap_suites::outside_answers::{ask_from, expect, expect_answers, expect_refusal, expect_silence};
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_stage::Transport;
use serde_json::{Value, json};

use crate::cases;

cases![
    without_endpoints_it_refuses,
    the_local_policy_drops_without_local_endpoints,
    the_local_policy_uses_local_endpoints_and_keeps_the_client,
    the_local_policy_is_that_of_the_other_node_for_pods,
    source_ranges_check_the_clients_address,
];

fn local() -> Value {
    json!({"externalTrafficPolicy": "Local"})
}

fn without_endpoints_it_refuses(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(Vec::new())?;
    for process in [&stage.client, &stage.neighbour] {
        for address in [service.node_port(stage.one(), via), service.external(via), service.load_balancer(via)] {
            expect_refusal(process, address)?;
        }
    }
    // The flows of refused connections end when an endpoint appears.
    stage.set_endpoints(service, stage.endpoints(&["a"]))?;
    expect_answers(&stage.client, service.node_port(stage.one(), via), "a 8080", addresses::CLIENT.at(via, 0).ip())
}

fn the_local_policy_drops_without_local_endpoints(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish_with(local(), stage.endpoints(&["c"]))?;
    let client = addresses::CLIENT.at(via, 0);
    expect_silence(&stage.client, client, service.node_port(stage.one(), via))?;
    expect_silence(&stage.client, client, service.load_balancer(via))?;
    expect_answers(&stage.client, service.node_port(stage.two(), via), "c 8080", client.ip())
}

fn the_local_policy_uses_local_endpoints_and_keeps_the_client(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish_with(local(), stage.endpoints(&["a", "c", "d"]))?;
    let client = addresses::CLIENT.at(via, 0).ip();
    // By chance alone, the first node would have these answers with a probability of 1 in 3^30.
    for _ in 0..10 {
        expect_answers(&stage.client, service.node_port(stage.one(), via), "a 8080", client)?;
    }
    let mut servers = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let answer =
            ask_from(&stage.client, Both::at(addresses::CLIENT, via, 0), Transport::Tcp, service.node_port(stage.two(), via))?;
        ensure!(answer.client.ip() == client, "the server should see {client}, but saw {}", answer.client);
        servers.insert(answer.who);
    }
    ensure!(servers.iter().eq(["c 8080/TCP", "d 8080/TCP"]), "node 2 has led to {servers:?}");
    Ok(())
}

/// As with kube-proxy, the other node's own endpoints answer at its node port, for pods and for processes of this node.
fn the_local_policy_is_that_of_the_other_node_for_pods(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish_with(local(), stage.endpoints(&["a", "c"]))?;
    let address = service.node_port(stage.two(), via);
    let pod = &stage.local[0];
    let clients = [(Process::in_pod(pod)?, Both::of(pod)), (Process::on_node(stage.one())?, stage.one().addresses())];
    for (process, client) in clients {
        // Towards the pod, these become ports that no client behind node 1 gets: see the limits in docs/operating.md.
        for (port, transport) in (61_000..).zip(Transport::ALL.into_iter().cycle().take(30)) {
            let from = client.at(via, port);
            let answer = ask_from(&process, from, transport, address).with_context(|| format!("{transport:?} from {from}"))?;
            expect(&answer, transport.protocol(), "c 8080", from.ip())?;
            ensure!(answer.source.is_none_or(|source| source == address), "the answer is shown as {:?}", answer.source);
        }
    }
    Ok(())
}

fn source_ranges_check_the_clients_address(stage: &mut Stage, via: Via) -> Result<()> {
    let [v4, v6] = addresses::CLIENT.texts();
    let ranges = json!({"loadBalancerSourceRanges": [format!("{v4}/32"), format!("{v6}/128")]});
    for (endpoint, server) in [("a", "a 8080"), ("c", "c 8080")] {
        let service = stage.publish_with(ranges.clone(), stage.endpoints(&[endpoint]))?;
        let [admitted, kept_out] = [addresses::CLIENT, addresses::SECOND_CLIENT].map(|client| client.at(via, 0));
        let seen = |client: IpAddr| if endpoint == "a" { client } else { addresses::node(1).at(via, 0).ip() };
        for transport in Transport::ALL {
            let answer = ask_from(&stage.client, admitted, transport, service.load_balancer(via))?;
            expect(&answer, transport.protocol(), server, seen(admitted.ip()))?;
            // The ranges are for the load balancer only.
            for address in [service.node_port(stage.one(), via), service.external(via)] {
                let answer = ask_from(&stage.client, kept_out, transport, address)?;
                expect(&answer, transport.protocol(), server, seen(kept_out.ip()))?;
            }
        }
        expect_silence(&stage.client, kept_out, service.load_balancer(via))?;
    }
    Ok(())
}
