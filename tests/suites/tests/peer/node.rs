//! The Node of both proxies, and its zone.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use portmap_harness::control_plane::objects;
use serde_json::json;

/// The Node's name, which the harness passes to the agent.
pub const NODE: &str = "node";
/// The zones of the Node and the endpoints.
pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

/// Creates the Node without a zone.
pub async fn create(client: &Client, addresses: &[IpAddr]) -> Result<()> {
    objects::create_node(client, NODE, addresses).await
}

/// Sets or removes the zone of the Node.
pub async fn set_zone(client: &Client, zone: Option<&str>) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let patched = nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("failed to label the Node {NODE}"))?;
    Ok(())
}
