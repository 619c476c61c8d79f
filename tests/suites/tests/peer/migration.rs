//! From kube-proxy to portmap and back. Connections of a client outside the node and of a pod are open all the time, and the
//! client makes new ones.

mod open;
mod ports;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Protocol;
use portmap_harness::process::Process;
use portmap_harness::say;
use portmap_harness::topology::addresses;
use portmap_suites::service_objects::{Endpoint, PORT, Service, TARGET_PORT, cluster_ip, load_balancer_ip, node_port};

use crate::cluster::Cluster;
use crate::dial::{Outcome, dial_in};
use crate::series::{LIMIT, Series, Target};
use open::{Open, check, open};
use ports::{open_beside, open_with_port_of_portmap};

/// The numbers of the Services, and the pod behind each: the index in [`Cluster::pods`], and that of its node.
const SERVICES: [(u8, usize, usize); 2] = [(10, 0, 0), (11, 2, 1)];

/// A table without a verdict. While a NAT chain exists and a rule uses connection tracking, the kernel goes on to translate
/// the connections that kube-proxy's rules have translated.
const KEEP: &str = "table inet keep-nat { chain prerouting { type nat hook prerouting priority dstnat; ct state new; }; }";

/// The number of UDP flows of each family that portmap has when it begins to drain.
const FLOWS: usize = 1_000;

/// The local port of a client that connects again from the same port while portmap drains.
const USED_AGAIN: u16 = 31_000;

#[tokio::test]
async fn no_connection_is_lost_from_kube_proxy_to_portmap_and_back() -> Result<()> {
    let mut cluster = serving_cluster().await?;
    let client = Process::in_pod(&cluster.topology.client)?;
    let pod = Process::in_pod(&cluster.pods[1])?;
    to_portmap(&mut cluster, &client, &pod).await.context("on the way to portmap")?;
    back(&mut cluster, &client, &pod).await.context("on the way back")?;
    back_with_open_connections(&mut cluster, &client).context("with a connection that does not end")
}

/// kube-proxy serves first, and portmap at the end.
async fn to_portmap(cluster: &mut Cluster, client: &Process, pod: &Process) -> Result<()> {
    cluster.start_kube_proxy().await?;
    let mut old = open(client, &outside(cluster))?;
    old.extend(open(pod, &inside())?);
    let hidden = open_with_port_of_portmap(client, &remote_node_port(cluster))?;
    let series = Series::start(&cluster.topology.client, &node_ports(cluster));
    cluster.start_portmap()?;
    check(&old).context("portmap has started")?;
    let mut new = open(client, &node_ports(cluster))?;
    new.push(open_beside(client, &hidden)?);
    old.push(hidden);
    check(&old).context("portmap has opened connections")?;
    cluster.stop_kube_proxy();
    check(&old).context("kube-proxy has ended")?;
    nft(KEEP)?;
    cluster.clean_up_kube_proxy()?;
    check(&old).context("the rules of kube-proxy were removed")?;
    check(&new)?;
    let report = series.finish()?;
    say::figures(format_args!("{} requests, the longest took {:?}", report.count, report.longest));
    // Of a pod on node 1, only portmap keeps the client's address.
    ensure!(new[0].answer.client.ip() == client_address(&new[0]), "new connections are not portmap's");
    nft("delete table inet keep-nat")?;
    ensure!(old[0].check().is_err(), "the table keep-nat is not needed");
    check(&new)
}

/// portmap serves first, and kube-proxy at the end.
async fn back(cluster: &mut Cluster, client: &Process, pod: &Process) -> Result<()> {
    let mut old = open(client, &outside(cluster))?;
    let inside = open(pod, &inside())?;
    let series = Series::start(&cluster.topology.client, &node_ports(cluster));
    cluster.start_kube_proxy().await?;
    check(&old).context("kube-proxy has started")?;
    cluster.stop_portmap()?;
    check(&old).context("portmap has ended")?;
    expect_answer_at_used_port(cluster)?;
    ask_remote_backend(cluster, FLOWS)?;
    let mut drain = cluster.drain(60)?;
    // kube-proxy chooses a port of one of these flows for 3 of 200 clients.
    ask_remote_backend(cluster, 20).context("portmap drains")?;
    expect_answer_at_used_port(cluster).context("portmap drains")?;
    check(&old).context("portmap drains")?;
    let new = open(client, &node_ports(cluster))?;
    ensure!(new[0].answer.client.ip() != client_address(&new[0]), "new connections are not kube-proxy's");
    ensure!(drain.is_running()?, "the drain has ended with open connections");
    old.retain(|open| open.target.protocol == Protocol::Udp);
    drain.finish()?;
    for connections in [&old, &new, &inside] {
        check(connections).context("portmap was removed")?;
    }
    let report = series.finish()?;
    say::figures(format_args!("{} requests, the longest took {:?}", report.count, report.longest));
    Ok(())
}

/// kube-proxy serves beside portmap. portmap is removed before its connection has ended.
fn back_with_open_connections(cluster: &mut Cluster, client: &Process) -> Result<()> {
    cluster.start_portmap()?;
    let open = open(client, &node_ports(cluster)[..1])?;
    ensure!(open[0].answer.client.ip() == client_address(&open[0]), "the connection is not portmap's");
    cluster.stop_portmap()?;
    cluster.drain(1)?.finish()?;
    ensure!(open[0].check().is_err(), "a drain is not needed");
    check(&self::open(client, &node_ports(cluster))?)
}

/// Expects that a client gets an answer from the local port [`USED_AGAIN`] at the first node port.
fn expect_answer_at_used_port(cluster: &Cluster) -> Result<()> {
    let target = &node_ports(cluster)[0];
    let (client, from) = (&cluster.topology.client, addresses::CLIENT.at(Via::V4, USED_AGAIN));
    let outcome = dial_in(client.namespace(), from, target.protocol, target.address, LIMIT)?;
    ensure!(matches!(outcome, Outcome::Answered(..)), "from port {USED_AGAIN}: {outcome:?}");
    Ok(())
}

/// The node port of the Service on node 2, for TCP and IPv4.
fn remote_node_port(cluster: &Cluster) -> Target {
    node_ports(cluster).swap_remove(4)
}

/// Sends `count` datagrams of each family, each from another port, to the Service on node 2, and expects an answer to each.
fn ask_remote_backend(cluster: &Cluster, count: usize) -> Result<()> {
    let is_asked = |target: &Target| target.protocol == Protocol::Udp && target.address.port() == node_port(SERVICES[1].0);
    for target in node_ports(cluster).into_iter().filter(is_asked) {
        let client = &cluster.topology.client;
        let from: IpAddr = if target.address.is_ipv4() { client.ipv4().into() } else { client.ipv6().into() };
        for _ in 0..count {
            let outcome = dial_in(client.namespace(), (from, 0).into(), target.protocol, target.address, LIMIT)?;
            ensure!(matches!(outcome, Outcome::Answered(..)), "{target:?}: {outcome:?}");
        }
    }
    Ok(())
}

/// The client's address in the family of an open connection.
fn client_address(open: &Open<'_>) -> IpAddr {
    let via = if open.target.address.is_ipv4() { Via::V4 } else { Via::V6 };
    addresses::CLIENT.at(via, 0).ip()
}

/// The node ports of node 1.
fn node_ports(cluster: &Cluster) -> Vec<Target> {
    let node = cluster.one().addresses();
    targets(|number, via| node.at(via, node_port(number)))
}

/// The node ports, and the addresses of load balancers.
fn outside(cluster: &Cluster) -> Vec<Target> {
    [node_ports(cluster), targets(|number, via| load_balancer_ip(number).at(via, PORT))].concat()
}

/// The ClusterIPs.
fn inside() -> Vec<Target> {
    targets(|number, via| cluster_ip(number).at(via, PORT))
}

/// Each combination of Service, family and protocol, with the address of the Service.
fn targets(address: impl Fn(u8, Via) -> SocketAddr) -> Vec<Target> {
    let mut targets = Vec::new();
    for (number, pod, _) in SERVICES {
        let pod = ["a", "b", "c", "d"][pod];
        for via in [Via::V4, Via::V6] {
            targets.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| Target {
                protocol,
                address: address(number, via),
                server: format!("{pod} {TARGET_PORT}/{protocol}"),
            }));
        }
    }
    targets
}

async fn serving_cluster() -> Result<Cluster> {
    let mut cluster = Cluster::start("migration").await?;
    let service = |(number, pod, node): (u8, usize, usize)| {
        let endpoint = Endpoint::of(&cluster.pods[pod]).node(cluster.topology.nodes[node].name());
        (number, Service::new(&format!("s{number}"), number).exposed(number).endpoints([endpoint]))
    };
    let services = SERVICES.map(service).into();
    cluster.write(services).await?;
    Ok(cluster)
}

/// Runs a command of nftables on node 1.
fn nft(command: &str) -> Result<()> {
    let output = Command::new("nft").arg(command).output().context("failed to run nft")?;
    ensure!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
