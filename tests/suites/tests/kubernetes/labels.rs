//! Labels of Services and EndpointSlices that make portmap ignore these objects, added and removed while the agent runs.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::http::StatusCode;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portmap_harness::control_plane::detour::{Detour, Refusal};
use serde_json::{Value, json};

use crate::cluster::{COMMON_PORT, Cluster, NAMESPACE, rows};
use crate::wait::{MINUTES, within};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// A part of the URL that only requests for Services of other proxies have.
const OTHERS: &str = "labelSelector=service.kubernetes.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

#[tokio::test]
async fn labels_are_followed_while_a_service_exists() -> Result<()> {
    let cluster = Cluster::start("labels").await?;
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    another_proxy_takes_it_and_gives_it_back(&cluster).await.context("another proxy")?;
    a_slice_becomes_headless(&cluster).await.context("headless")?;
    agent.terminate()
}

/// While another proxy serves the Service, portmap leaves its address alone: neither refused nor dropped.
async fn another_proxy_takes_it_and_gives_it_back(cluster: &Cluster) -> Result<()> {
    let (a, b) = (&cluster.a, &cluster.b);
    cluster.apply_service("web", "http", "http").await?;
    let frontends = cluster.frontends("web").await?;
    let served = rows("web", "http", &frontends, &[(a, a.http), (b, b.http)]);
    for _ in 0..2 {
        cluster.await_table(&served).await?;
        cluster.expect_landings(&frontends, &[(a, a.http), (b, b.http)])?;
        cluster.patch_service("web", &labelled(PROXY_NAME, Some("another"))).await?;
        cluster.await_table(&[].into()).await?;
        cluster.expect_error(&frontends, "ENETUNREACH")?;
        cluster.patch_service("web", &labelled(PROXY_NAME, None)).await?;
    }
    cluster.await_table(&served).await?;
    cluster.delete_service("web").await
}

/// If the watch of other proxies' Services fails, a Service that gets the label looks deleted. Its address must not be dropped.
#[tokio::test]
async fn a_service_with_an_unseen_label_is_left_alone() -> Result<()> {
    let cluster = Cluster::start("unheard").await?;
    cluster.apply_service("web", "http", "http").await?;
    let frontends = cluster.frontends("web").await?;
    let unused = SocketAddr::new("10.96.99.99".parse()?, 80);
    let detour = Detour::start(cluster.plane.anonymous()?).await?;
    let agent = cluster.agent_by(&detour.url()).await?;
    cluster.await_healthy().await?;
    cluster.await_error(unused, "ETIMEDOUT").await.context("an address without a Service")?;

    detour.refuse(Some(Refusal { of: OTHERS, status: StatusCode::SERVICE_UNAVAILABLE, retry_after: None }));
    detour.break_off();
    within(MINUTES, async || Ok(detour.refused()), |refused| *refused > 0)
        .await
        .context("no request for Services of other proxies")?;
    cluster.patch_service("web", &labelled(PROXY_NAME, Some("another"))).await?;
    cluster.await_table(&[].into()).await?;
    cluster.expect_error(&frontends, "ENETUNREACH").context("the Service belongs to another proxy")?;
    cluster.await_error(unused, "ENETUNREACH").await.context("the owners of addresses are not known")?;

    detour.refuse(None);
    cluster.await_error(unused, "ETIMEDOUT").await.context("all watches work again")?;
    cluster.expect_error(&frontends, "ENETUNREACH")?;
    agent.terminate()
}

/// A slice with the headless label is ignored. Without a slice the Service refuses.
async fn a_slice_becomes_headless(cluster: &Cluster) -> Result<()> {
    let address = SocketAddr::new("10.96.7.7".parse()?, 80);
    let pod = SocketAddr::new(cluster.a.ipv4(), COMMON_PORT);
    cluster.apply(&by_hand(address, pod)).await?;
    for _ in 0..2 {
        cluster.await_backends(address, &[(&cluster.a, COMMON_PORT)]).await?;
        cluster.expect_landings(&[address], &[(&cluster.a, COMMON_PORT)])?;
        label_slice(cluster, Some("")).await?;
        cluster.await_backends(address, &[]).await?;
        cluster.expect_error(&[address], "ECONNREFUSED")?;
        label_slice(cluster, None).await?;
    }
    cluster.delete_service("by-hand").await
}

/// The manifest of a Service without a selector and of its slice. No controller changes them.
fn by_hand(service: SocketAddr, pod: SocketAddr) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: by-hand, namespace: {NAMESPACE}}}\n\
         spec: {{clusterIP: {}, ports: [{{port: {}}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: by-hand, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: by-hand}}}}\n\
         addressType: IPv4\n\
         ports: [{{name: '', port: {}}}]\n\
         endpoints: [{{addresses: [{}]}}]\n",
        service.ip(),
        service.port(),
        pod.port(),
        pod.ip(),
    )
}

async fn label_slice(cluster: &Cluster, value: Option<&str>) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    slices.patch("by-hand", &PatchParams::default(), &Patch::Merge(labelled(HEADLESS, value))).await?;
    Ok(())
}

/// A merge patch that sets or removes a label.
fn labelled(label: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"labels": {label: value}}})
}
