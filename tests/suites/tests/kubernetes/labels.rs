//! Labels that say who serves a Service, put on and taken off while it lives.

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
/// What only the requests for the Services of other proxies have in common.
const OTHERS: &str = "labelSelector=service.kubernetes.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

#[tokio::test]
async fn labels_are_followed_while_a_service_lives() -> Result<()> {
    let cluster = Cluster::start("labels").await?;
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    another_proxy_takes_it_and_gives_it_back(&cluster).await.context("another proxy")?;
    a_slice_becomes_headless(&cluster).await.context("headless")?;
    agent.terminate()
}

/// Meanwhile its address is nobody's here, neither refused nor dropped.
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

/// What was a Service's address looks like nobody's, where nothing is heard of the Services of other proxies.
#[tokio::test]
async fn a_service_that_another_proxy_takes_unheard_is_left_alone() -> Result<()> {
    let cluster = Cluster::start("unheard").await?;
    cluster.apply_service("web", "http", "http").await?;
    let frontends = cluster.frontends("web").await?;
    let nobodys = SocketAddr::new("10.96.99.99".parse()?, 80);
    let detour = Detour::start(cluster.plane.anonymous()?).await?;
    let agent = cluster.agent_by(&detour.url()).await?;
    cluster.await_healthy().await?;
    cluster.await_error(nobodys, "ETIMEDOUT").await.context("an address that nobody has")?;

    detour.refuse(Some(Refusal { of: OTHERS, status: StatusCode::SERVICE_UNAVAILABLE, retry_after: None }));
    detour.break_off();
    within(MINUTES, async || Ok(detour.refused()), |refused| *refused > 0).await.context("nobody asks for them")?;
    cluster.patch_service("web", &labelled(PROXY_NAME, Some("another"))).await?;
    cluster.await_table(&[].into()).await?;
    cluster.expect_error(&frontends, "ENETUNREACH").context("it is another proxy's")?;
    cluster.await_error(nobodys, "ENETUNREACH").await.context("whose an address is is not known")?;

    detour.refuse(None);
    cluster.await_error(nobodys, "ETIMEDOUT").await.context("everything is heard of again")?;
    cluster.expect_error(&frontends, "ENETUNREACH")?;
    agent.terminate()
}

/// A slice with the label is not seen; no slice means refusal.
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

/// A Service without a selector, and its slice: no controller looks after them.
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

/// A change that sets a label, or takes it off.
fn labelled(label: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"labels": {label: value}}})
}
