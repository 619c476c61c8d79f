//! The agent's own connections to the API server, on a node where they are translated like those of other processes.
//!
//! The tables may be outdated, or may have a Service with the API server's address. The certificate of the API server is valid
//! for the ClusterIP of `default/kubernetes` and for the advertised address. Each test decides which of them reach the API
//! server from the world's node.

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
/// The address that the API server advertises, with a port of the tests.
const ADVERTISED: &str = "192.0.2.1:6443";
const WARNING: &str = "is reachable only through portmap's own translation";

/// The tables refuse connections to the ClusterIP of the API server. Without translation it reaches the API server, as if
/// another proxy served it.
#[tokio::test]
async fn tables_that_refuse_do_not_stop_the_agent() -> Result<()> {
    let cluster = Cluster::start("own-refuses").await?;
    write_tables(&cluster, None).await?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    ensure!(on_node(&cluster, CLUSTER_IP)? == "ECONNREFUSED", "the tables should refuse");
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(&cluster, "new").await?;
    ensure!(!agent.log()?.0.contains(WARNING), "the tables should not lead to the API server");
    agent.terminate()
}

/// The outdated tables lead from the ClusterIP of the API server to another server. Without translation it reaches the API
/// server.
#[tokio::test]
async fn tables_with_another_server_do_not_stop_the_agent() -> Result<()> {
    let cluster = Cluster::start("own-misleads").await?;
    let other = SocketAddr::new(cluster.a.ipv4(), COMMON_PORT);
    write_tables(&cluster, Some(other)).await?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    ensure!(on_node(&cluster, CLUSTER_IP)? == format!("pod-a {COMMON_PORT}/TCP"), "the tables should lead to the pod");
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(&cluster, "new").await?;
    agent.terminate()
}

/// Without translation the ClusterIP is not usable: no route, a route on which packets are lost, or another server. Only the
/// tables lead to the API server.
#[tokio::test]
async fn the_tables_are_used_if_nothing_else_reaches_the_api_server() -> Result<()> {
    let cluster = Cluster::start("table-leads").await?;
    let real = SocketAddr::new(cluster.world.ipv4().into(), 6443);
    let _gate = Gate::start_on_node(&cluster.world, real, cluster.plane.address())?;
    write_tables(&cluster, Some(real)).await?;

    expect_sync(&cluster, "first").await.context("no route")?;
    cluster.world.ip("route add 10.96.0.0/16 dev pods\nneigh add 10.96.0.1 lladdr 02:00:00:00:00:01 dev pods nud permanent")?;
    expect_sync(&cluster, "second").await.context("a route on which packets are lost")?;
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _other = cluster.world.serve(&[Listen::tcp(443)])?;
    expect_sync(&cluster, "third").await.context("another server")
}

/// The API server is not reachable in any way. The log names the remedy.
#[tokio::test]
async fn an_unreachable_api_server_gives_a_remedy_in_the_log() -> Result<()> {
    let cluster = Cluster::start("own-alone").await?;
    write_tables(&cluster, None).await?;
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    agent.await_log("give the agent an address that works without Services: KUBERNETES_SERVICE_HOST").await?;
    let log = agent.log()?.0;
    ensure!(log.contains("without portmap's translation: Network is unreachable"), "{log}");
    ensure!(log.contains("with it: Connection refused"), "{log}");
    // The agent connects as soon as a route exists.
    cluster.world.ip("addr add 10.96.0.1/32 dev lo")?;
    let _gate = Gate::start_on_node(&cluster.world, CLUSTER_IP.parse()?, cluster.plane.address())?;
    expect_changes(&cluster, "new").await?;
    agent.terminate()
}

/// A Service has the API server's address. Other processes get the Service, and the agent gets the API server, also if it
/// starts later.
#[tokio::test]
async fn a_service_with_the_api_servers_address_does_not_affect_the_agent() -> Result<()> {
    let cluster = Cluster::start("claimed").await?;
    cluster.world.ip("addr add 192.0.2.1/32 dev lo")?;
    let gate = Gate::start_on_node(&cluster.world, ADVERTISED.parse()?, cluster.plane.address())?;
    let url = format!("https://{ADVERTISED}");
    let agent = cluster.agent_on_node_by(&url).await?;
    cluster.await_healthy().await?;

    claim(&cluster).await?;
    let service = format!("pod-a {COMMON_PORT}/TCP");
    eventually(async || on_node(&cluster, ADVERTISED), |answer| *answer == service)
        .await
        .context("other processes should get the Service")?;
    gate.set(Mode::Reset);
    gate.set(Mode::Open);
    expect_changes(&cluster, "while-running").await.context("an agent that started before the Service")?;
    agent.terminate()?;

    let agent = cluster.agent_on_node_by(&url).await?;
    expect_changes(&cluster, "at-start").await.context("an agent that started after the Service")?;
    ensure!(on_node(&cluster, ADVERTISED)? == service, "other processes should still get the Service");
    agent.terminate()
}

/// Starts an agent that writes tables in which `default/kubernetes` has this endpoint, or none. Then stops the agent.
async fn write_tables(cluster: &Cluster, server: Option<SocketAddr>) -> Result<()> {
    if let Some(server) = server {
        cluster.apply(&slice(server)).await?;
    }
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    let backends: Vec<String> = server.iter().map(SocketAddr::to_string).collect();
    let written = |rows: &BTreeSet<Row>| rows.iter().any(|row| row.service == API_SERVER && row.backends == backends);
    eventually(async || tables::all(&cluster.world), written).await.context("the tables should be written")?;
    agent.terminate()
}

/// An EndpointSlice of `default/kubernetes`, as API servers usually write it. The API server of the tests writes none.
fn slice(server: SocketAddr) -> String {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "ports": [{"name": "https", "port": server.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [server.ip()], "conditions": {"ready": true}}],
    });
    slice.to_string()
}

/// Starts an agent with the ClusterIP as its API server. Expects that it follows changes, and warns that it needs portmap's own
/// translation.
async fn expect_sync(cluster: &Cluster, name: &str) -> Result<()> {
    let agent = cluster.agent_on_node_by(&format!("https://{CLUSTER_IP}")).await?;
    expect_changes(cluster, name).await?;
    agent.await_log(WARNING).await?;
    agent.terminate()
}

/// Waits until the agent is healthy and a new Service is in the tables.
async fn expect_changes(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.await_healthy().await?;
    cluster.apply_service(name, "http", "http").await?;
    let service = format!("{NAMESPACE}/{name}");
    within(MINUTES, async || cluster.table(), |rows| rows.iter().any(|row| row.service == service)).await?;
    Ok(())
}

/// Creates a `LoadBalancer` Service with the address that the API server advertises.
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

/// The answer or the error of a connection from a process on the node.
fn on_node(cluster: &Cluster, address: &str) -> Result<String> {
    let process = Process::on_node(&cluster.world)?;
    let answer = process.connected(address.parse()?, Protocol::Tcp).and_then(|socket| socket.ask());
    Ok(answer.unwrap_or_else(|failure| failure.to_string()))
}
