//! Sources of endpoints: families that are added and removed, and pods that are published although not ready. Also Endpoints
//! objects, which the mirroring controller copies into slices.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use portmap_harness::control_plane::objects::Readiness;
use serde_json::json;

use crate::cluster::{COMMON_PORT, Cluster, Landing, NAMESPACE, rows};

#[tokio::test]
async fn endpoints_of_every_source_are_followed() -> Result<()> {
    let cluster = Cluster::start("endpoints").await?;
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    a_family_comes_and_goes(&cluster).await.context("families")?;
    pods_are_published_before_they_are_ready(&cluster).await.context("publishNotReadyAddresses")?;
    an_endpoints_object_is_mirrored(&cluster).await.context("Endpoints")?;
    agent.terminate()
}

fn both(cluster: &Cluster) -> [Landing<'_>; 2] {
    [(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)]
}

async fn a_family_comes_and_goes(cluster: &Cluster) -> Result<()> {
    cluster.apply(&service("dual", "ipFamilyPolicy: SingleStack, selector: {app: web}")).await?;
    let one = cluster.addresses("dual").await?;
    let [v4] = one[..] else { anyhow::bail!("a single address was expected, not {one:?}") };
    for _ in 0..2 {
        cluster.await_backends(v4, &both(cluster)).await?;
        cluster.expect_landings(&[v4], &both(cluster))?;

        cluster.patch_service("dual", &json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}})).await?;
        let frontends = cluster.frontends("dual").await?;
        cluster.await_table(&rows("dual", "", &frontends, &both(cluster))).await?;
        cluster.expect_landings(&frontends, &both(cluster))?;

        cluster.patch_service("dual", &json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await?;
        let [_, v6] = frontends;
        cluster.await_no_frontend(v6).await?;
        cluster.expect_error(&[v6], "ETIMEDOUT")?;
    }
    cluster.delete_service("dual").await
}

async fn pods_are_published_before_they_are_ready(cluster: &Cluster) -> Result<()> {
    let fields = "ipFamilyPolicy: RequireDualStack, selector: {app: web}";
    cluster.apply(&service("early", fields)).await?;
    let frontends = cluster.frontends("early").await?;
    cluster.await_table(&rows("early", "", &frontends, &both(cluster))).await?;

    cluster.set_ready(&cluster.b, Readiness::NotReady).await?;
    cluster.await_table(&rows("early", "", &frontends, &[(&cluster.a, COMMON_PORT)])).await?;
    cluster.patch_service("early", &json!({"spec": {"publishNotReadyAddresses": true}})).await?;
    cluster.await_table(&rows("early", "", &frontends, &both(cluster))).await?;
    cluster.expect_landings(&frontends, &both(cluster))?;
    cluster.patch_service("early", &json!({"spec": {"publishNotReadyAddresses": false}})).await?;
    cluster.await_table(&rows("early", "", &frontends, &[(&cluster.a, COMMON_PORT)])).await?;
    cluster.set_ready(&cluster.b, Readiness::Ready).await?;
    cluster.delete_service("early").await
}

async fn an_endpoints_object_is_mirrored(cluster: &Cluster) -> Result<()> {
    cluster.apply(&service("mirrored", "clusterIP: 10.96.8.8")).await?;
    let address = SocketAddr::new("10.96.8.8".parse()?, 80);
    cluster.await_backends(address, &[]).await?;
    cluster.expect_error(&[address], "ECONNREFUSED")?;
    cluster.apply(&endpoints("mirrored", &cluster.b.ipv4().to_string())).await?;
    cluster.await_backends(address, &[(&cluster.b, COMMON_PORT)]).await?;
    cluster.expect_landings(&[address], &[(&cluster.b, COMMON_PORT)])?;
    cluster.apply(&endpoints("mirrored", &cluster.a.ipv4().to_string())).await?;
    cluster.await_backends(address, &[(&cluster.a, COMMON_PORT)]).await?;
    cluster.expect_landings(&[address], &[(&cluster.a, COMMON_PORT)])?;
    cluster.delete_service("mirrored").await
}

/// The manifest of a Service from port 80 to the common port of the pods.
fn service(name: &str, fields: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         spec: {{ports: [{{port: 80, targetPort: {COMMON_PORT}}}], {fields}}}\n"
    )
}

fn endpoints(name: &str, pod: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Endpoints\n\
         metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
         subsets: [{{addresses: [{{ip: {pod}}}], ports: [{{port: {COMMON_PORT}}}]}}]\n"
    )
}
