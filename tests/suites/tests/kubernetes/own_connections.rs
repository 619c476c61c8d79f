//! The agent's own connections to the API server, on a node where they are translated like those of any process: by tables that may
//! be as old as the agent before, or hold a Service that claims the API server's address.
//!
//! The API server's certificate is good for the ClusterIP of `default/kubernetes` and for the address that it advertises. Each leads
//! to it, or not, as a test sets it up on the world's node.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portmap_harness::control_plane::gate::{Gate, Mode};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::process::Process;
use serde_json::json;

use crate::cluster::{COMMON_PORT, Cluster, NAMESPACE};
use crate::tables::{self, API_SERVER, Row};
use crate::wait::{MINUTES, eventually, within};

/// The ClusterIP of `default/kubernetes`.
const CLUSTER_IP: &str = "10.96.0.1:443";
/// The address that the API server advertises, at a port of the tests' own.
const ADVERTISED: &str = "192.0.2.1:6443";
const WARNING: &str = "is reachable only through portmap's own translation";

/// The table refuses; the ClusterIP would lead to the API server, as where another proxy serves it.
#[tokio::test]
async fn a_table_that_refuses_does_not_keep_the_agent_away() -> Result<()> {
    let cluster = Cluster::start("stale-refuses").await?;
    write_tables(&cluster, None).await?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    ensure!(on_node(&cluster, CLUSTER_IP)? == "ECONNREFUSED", "the tables do not refuse");
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(&cluster, "new").await?;
    ensure!(!agent.log()?.0.contains(WARNING), "the tables did not lead there");
    agent.terminate()
}

/// The table leads to somebody else by now.
#[tokio::test]
async fn a_table_that_leads_to_another_server_does_not_keep_the_agent_away() -> Result<()> {
    let cluster = Cluster::start("stale-misleads").await?;
    let other = SocketAddr::new(cluster.a.ipv4(), COMMON_PORT);
    write_tables(&cluster, Some(other)).await?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    ensure!(on_node(&cluster, CLUSTER_IP)? == format!("pod-a {COMMON_PORT}/TCP"), "the tables do not lead there");
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(&cluster, "new").await?;
    agent.terminate()
}

/// Nobody else serves the ClusterIP: there is no route to it, packets to it vanish, or somebody else is there. All that leads to
/// the API server is the table.
#[tokio::test]
async fn the_table_leads_to_the_api_server_where_nothing_else_does() -> Result<()> {
    let cluster = Cluster::start("table-leads").await?;
    let real = SocketAddr::new(cluster.world.ipv4().into(), 6443);
    let _gate = Gate::start_on_node(&cluster.world, real, cluster.plane.address())?;
    write_tables(&cluster, Some(real)).await?;

    expect_sync(&cluster, "first").await.context("no route")?;
    cluster.world.ip("route add 10.96.0.0/16 dev pods\nneigh add 10.96.0.1 lladdr 02:00:00:00:00:01 dev pods nud permanent")?;
    expect_sync(&cluster, "second").await.context("a route on which packets vanish")?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _other = cluster.world.serve(&[Listen::tcp(443)])?;
    expect_sync(&cluster, "third").await.context("another server")
}

/// Nothing leads there. The agent says what to do.
#[tokio::test]
async fn an_agent_that_cannot_get_there_says_what_to_do() -> Result<()> {
    let cluster = Cluster::start("stale-alone").await?;
    write_tables(&cluster, None).await?;
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    agent.await_log("give the agent one that works without Services: KUBERNETES_SERVICE_HOST").await?;
    let log = agent.log()?.0;
    ensure!(log.contains("without portmap's translation: Network is unreachable"), "{log}");
    ensure!(log.contains("with it: Connection refused"), "{log}");
    // Once there is a way, it is found.
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    expect_changes(&cluster, "new").await?;
    agent.terminate()
}

/// Other processes get the Service. Whether the agent runs meanwhile or starts then, it gets the API server.
#[tokio::test]
async fn a_service_that_claims_the_api_servers_address_does_not_get_the_agent() -> Result<()> {
    let cluster = Cluster::start("claimed").await?;
    cluster.world.ip("addr add 192.0.2.1/32 dev lo")?;
    let gate = Gate::start_on_node(&cluster.world, ADVERTISED.parse()?, cluster.plane.address())?;
    let url = format!("https://{ADVERTISED}");
    let agent = cluster.agent_on_node_by(&url).await?;
    cluster.await_healthy().await?;

    claim(&cluster).await?;
    let service = format!("pod-a {COMMON_PORT}/TCP");
    eventually(async || on_node(&cluster, ADVERTISED), |answer| *answer == service).await.context("nobody gets the Service")?;
    gate.set(Mode::Reset);
    gate.set(Mode::Open);
    expect_changes(&cluster, "while-running").await.context("an agent that was there before")?;
    agent.terminate()?;

    let agent = cluster.agent_on_node_by(&url).await?;
    expect_changes(&cluster, "at-start").await.context("an agent that came later")?;
    ensure!(on_node(&cluster, ADVERTISED)? == service, "others do not get the Service any more");
    agent.terminate()
}

/// Has an agent write the tables, with `default/kubernetes` leading to this address, and end.
async fn write_tables(cluster: &Cluster, server: Option<SocketAddr>) -> Result<()> {
    if let Some(server) = server {
        cluster.apply(&slice(server)).await?;
    }
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    let backends: Vec<String> = server.iter().map(SocketAddr::to_string).collect();
    let written = |rows: &BTreeSet<Row>| rows.iter().any(|row| row.service == API_SERVER && row.backends == backends);
    eventually(async || tables::all(&cluster.world), written).await.context("the tables are not written")?;
    agent.terminate()
}

/// What the API server writes for itself, where it is told its addresses.
fn slice(server: SocketAddr) -> String {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "ports": [{"name": "https", "port": server.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [server.ip()], "conditions": {"ready": true}}],
    });
    slice.to_string()
}

/// An agent that starts on the ClusterIP gets everything, and says by which way.
async fn expect_sync(cluster: &Cluster, name: &str) -> Result<()> {
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(cluster, name).await?;
    agent.await_log(WARNING).await?;
    agent.terminate()
}

/// The agent is synced, and hears of a Service that is new.
async fn expect_changes(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.await_healthy().await?;
    cluster.apply_service(name, "http", "http").await?;
    let service = format!("{NAMESPACE}/{name}");
    within(MINUTES, async || cluster.table(), |rows| rows.iter().any(|row| row.service == service)).await?;
    Ok(())
}

/// A Service of type `LoadBalancer`, with the address that the API server advertises.
async fn claim(cluster: &Cluster) -> Result<()> {
    let port = ADVERTISED.parse::<SocketAddr>()?.port();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "claim", "namespace": NAMESPACE},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": port}]},
    });
    cluster.apply(&service.to_string()).await?;
    let endpoints = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "claim", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "claim"}},
        "ports": [{"name": "http", "port": COMMON_PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [cluster.a.ipv4()], "conditions": {"ready": true}}],
    });
    cluster.apply(&endpoints.to_string()).await?;
    let address = ADVERTISED.parse::<SocketAddr>()?.ip();
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let services: Api<Service> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    services
        .patch_status("claim", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .context("failed to set the status")?;
    Ok(())
}

/// What a process on the node gets at an address: an answer, or an error.
fn on_node(cluster: &Cluster, address: &str) -> Result<String> {
    let process = Process::on_node(&cluster.world)?;
    let answer = process.connected(address.parse()?, Protocol::Tcp).and_then(|socket| socket.ask());
    Ok(answer.unwrap_or_else(|failure| failure.to_string()))
}
