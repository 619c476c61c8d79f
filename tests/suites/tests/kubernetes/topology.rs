//! Topology hints that the EndpointSlice controller sets for Nodes in several zones.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portmap_harness::control_plane::objects::create_node;
use serde_json::json;

use crate::cluster::{Backend, COMMON_PORT, Cluster, Landing, NODE};

const ZONE: &str = "topology.kubernetes.io/zone";

#[tokio::test]
async fn clients_stay_in_their_zone_with_zone_hints() -> Result<()> {
    let cluster = Cluster::start("topology").await?;
    create_node(&cluster.plane.admin()?, "node-2", &[]).await?;
    put_in_zone(&cluster, NODE, "east").await?;
    put_in_zone(&cluster, "node-2", "west").await?;
    cluster.run_on(&cluster.a, NODE).await?;
    cluster.run_on(&cluster.b, "node-2").await?;
    let agent = cluster.agent().await?;
    cluster.apply_service("web", "http", &COMMON_PORT.to_string()).await?;
    let (a, b) = ((&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT));
    expect(&cluster, &[a, b]).await.context("without a wish")?;

    for wish in ["PreferClose", "PreferSameZone"] {
        cluster.patch_service("web", &json!({"spec": {"trafficDistribution": wish}})).await?;
        expect(&cluster, &[a]).await.context(wish)?;
        cluster.patch_service("web", &json!({"spec": {"trafficDistribution": null}})).await?;
        expect(&cluster, &[a, b]).await.with_context(|| format!("after {wish}"))?;
    }
    the_node_itself_is_preferred(&cluster, &cluster.a, &cluster.b).await.context("PreferSameNode")?;
    agent.terminate()
}

/// `PreferSameNode` selects the pod on the client's node, independent of zones. Without such a pod, other pods are selected.
async fn the_node_itself_is_preferred(cluster: &Cluster, a: &Backend, b: &Backend) -> Result<()> {
    put_in_zone(cluster, NODE, "west").await?;
    cluster.patch_service("web", &json!({"spec": {"trafficDistribution": "PreferSameNode"}})).await?;
    expect(cluster, &[(a, COMMON_PORT)]).await?;
    cluster.delete(a).await?;
    expect(cluster, &[(b, COMMON_PORT)]).await
}

async fn expect(cluster: &Cluster, landings: &[Landing<'_>]) -> Result<()> {
    let frontends = cluster.frontends("web").await?;
    for frontend in frontends {
        cluster.await_backends(frontend, landings).await?;
    }
    cluster.expect_landings(&frontends, landings)
}

/// Sets the Node's zone and capacity, and marks it as ready. The older controller logic for hints reads the capacity.
async fn put_in_zone(cluster: &Cluster, node: &str, zone: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.plane.admin()?);
    let merge = PatchParams::default();
    nodes.patch(node, &merge, &Patch::Merge(json!({"metadata": {"labels": {ZONE: zone}}}))).await?;
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}, "conditions": ready});
    nodes.patch_status(node, &merge, &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}
