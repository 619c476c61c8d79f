//! Services without endpoints, traffic policies, and the source ranges of load balancers.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
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
    a_process_of_a_node_and_a_client_behind_it_have_different_ports,
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
        for _ in 0..10 {
            expect_answers(&process, address, "c 8080", client.at(via, 0).ip()).with_context(|| format!("from {client:?}"))?;
        }
    }
    Ok(())
}

/// A backend meets both at the address of node 1: a process of that node, and a client that it hides.
fn a_process_of_a_node_and_a_client_behind_it_have_different_ports(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    let node = stage.one().addresses();
    let process = Process::on_node(stage.one())?;
    for port in 40_000..40_010 {
        // The flows of datagrams stay for a while, in each order of the two clients.
        let asks = [(&process, node, stage.two()), (&stage.client, addresses::CLIENT, stage.one())];
        let turned = if port % 2 == 0 {
            asks
        } else {
            let [first, second] = asks;
            [second, first]
        };
        for (process, from, at) in turned {
            let from = from.at(via, port);
            let answer = ask_from(process, from, Transport::UdpConnected, service.node_port(at, via))
                .with_context(|| format!("from {from}"))?;
            expect(&answer, Protocol::Udp, "c 8080", node.at(via, 0).ip())?;
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
