//! The life of a Service, from its creation to its deletion.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use portmap_harness::control_plane::objects::{Readiness, terminate_pod};

use crate::cluster::{COMMON_PORT, Cluster, Landing, NAMESPACE, rows};

const WEB: &str = "web";

#[tokio::test]
async fn a_service_is_followed_from_creation_to_deletion() -> Result<()> {
    let cluster = Cluster::start("services").await?;
    let agent = cluster.agent().await?;
    named_ports_differ_between_pods(&cluster).await.context("named ports")?;
    the_target_port_is_changed(&cluster).await.context("another target port")?;
    the_port_is_renamed(&cluster).await.context("another port name")?;
    a_pod_is_not_ready(&cluster).await.context("readiness")?;
    pods_terminate(&cluster).await.context("terminating pods")?;
    no_pod_is_left(&cluster).await.context("no pods")?;
    pods_come_back(&cluster).await.context("pods again")?;
    the_service_is_deleted(&cluster).await.context("deletion")?;
    agent.terminate()
}

/// Waits until the tables of `web` have these pods and port numbers, and connects. Without pods, connections must be refused.
async fn expect(cluster: &Cluster, port: &str, landings: &[Landing<'_>]) -> Result<()> {
    let frontends = cluster.frontends(WEB).await?;
    cluster.await_table(&rows(WEB, port, &frontends, landings)).await?;
    if landings.is_empty() {
        return cluster.expect_error(&frontends, "ECONNREFUSED");
    }
    cluster.expect_landings(&frontends, landings)
}

fn both(cluster: &Cluster) -> [Landing<'_>; 2] {
    [(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)]
}

async fn named_ports_differ_between_pods(cluster: &Cluster) -> Result<()> {
    let Cluster { a, b, .. } = cluster;
    cluster.apply_service(WEB, "http", "http").await?;
    expect(cluster, "http", &[(a, a.http), (b, b.http)]).await
}

async fn the_target_port_is_changed(cluster: &Cluster) -> Result<()> {
    cluster.apply_service(WEB, "http", &COMMON_PORT.to_string()).await?;
    expect(cluster, "http", &both(cluster)).await
}

async fn the_port_is_renamed(cluster: &Cluster) -> Result<()> {
    cluster.apply_service(WEB, "web", &COMMON_PORT.to_string()).await?;
    expect(cluster, "web", &both(cluster)).await
}

async fn a_pod_is_not_ready(cluster: &Cluster) -> Result<()> {
    cluster.set_ready(&cluster.b, Readiness::NotReady).await?;
    expect(cluster, "web", &[(&cluster.a, COMMON_PORT)]).await?;
    cluster.set_ready(&cluster.b, Readiness::Ready).await?;
    expect(cluster, "web", &both(cluster)).await
}

/// A terminating pod gets no new connections while another pod is ready. Without a ready pod, terminating pods that serve get
/// them.
async fn pods_terminate(cluster: &Cluster) -> Result<()> {
    terminate_pod(&cluster.plane.admin()?, NAMESPACE, cluster.a.name()).await?;
    expect(cluster, "web", &[(&cluster.b, COMMON_PORT)]).await?;
    terminate_pod(&cluster.plane.admin()?, NAMESPACE, cluster.b.name()).await?;
    expect(cluster, "web", &both(cluster)).await
}

async fn no_pod_is_left(cluster: &Cluster) -> Result<()> {
    cluster.delete(&cluster.a).await?;
    cluster.delete(&cluster.b).await?;
    expect(cluster, "web", &[]).await
}

async fn pods_come_back(cluster: &Cluster) -> Result<()> {
    cluster.run(&cluster.a).await?;
    cluster.run(&cluster.b).await?;
    expect(cluster, "web", &both(cluster)).await
}

async fn the_service_is_deleted(cluster: &Cluster) -> Result<()> {
    let frontends = cluster.frontends(WEB).await?;
    cluster.delete_service(WEB).await?;
    cluster.await_table(&BTreeSet::new()).await?;
    // The address is in the ServiceCIDR, and no Service has it any more.
    cluster.expect_error(&frontends, "ETIMEDOUT")
}
