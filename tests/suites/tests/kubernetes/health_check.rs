//! `healthCheckNodePort`: the API server chooses the port, and the agent answers with the number of ready pods on its node.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use portmap_harness::control_plane::objects::{Readiness, create_node};
use serde_json::Value;

use crate::answer::Answer;
use crate::cluster::{Cluster, NAMESPACE};
use crate::wait::eventually;

#[tokio::test]
async fn health_checks_report_the_number_of_local_pods() -> Result<()> {
    let cluster = Cluster::start("health-check").await?;
    let agent = cluster.agent().await?;
    cluster.apply(&balanced()).await?;
    let url = format!("http://127.0.0.1:{}/", port(&cluster).await?);
    expect(&url, 200, 2).await.context("two pods")?;
    cluster.set_ready(&cluster.a, Readiness::NotReady).await?;
    expect(&url, 200, 1).await.context("one pod is not ready")?;
    create_node(&cluster.plane.admin()?, "node-2", &[]).await?;
    cluster.run_on(&cluster.b, "node-2").await?;
    expect(&url, 503, 0).await.context("one pod is on another node")?;
    cluster.set_ready(&cluster.a, Readiness::Ready).await?;
    expect(&url, 200, 1).await.context("one again")?;
    cluster.delete_service("balanced").await?;
    eventually(async || Answer::of(&url), |answer| answer.status == 0).await.context("after the deletion of the Service")?;
    agent.terminate()
}

fn balanced() -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: balanced, namespace: {NAMESPACE}}}\n\
         spec: {{type: LoadBalancer, externalTrafficPolicy: Local, selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
    )
}

async fn port(cluster: &Cluster) -> Result<i32> {
    let services: Api<Service> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    let port = services.get("balanced").await?.spec.and_then(|spec| spec.health_check_node_port);
    port.context("the API server chose no port")
}

async fn expect(url: &str, status: u16, count: u64) -> Result<()> {
    let is_so = |answer: &Answer| {
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let name = &body["service"];
        answer.status == status
            && body["localEndpoints"] == count
            && name["namespace"] == NAMESPACE
            && name["name"] == "balanced"
            && answer.headers.to_lowercase().contains(&format!("x-load-balancing-endpoint-weight: {count}"))
    };
    eventually(async || Answer::of(url), is_so).await?;
    Ok(())
}
