//! The Node that both proxies are for, and where it is.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use portmap_harness::control_plane::objects;
use serde_json::json;

/// Its name, as the harness tells the agent.
pub const NODE: &str = "node";
/// The zones that it, or endpoints, may be in.
pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];

/// Makes the Node, in no zone.
pub async fn create(client: &Client, addresses: &[IpAddr]) -> Result<()> {
    objects::create_node(client, NODE, addresses).await
}

/// Moves it to a zone, or to none.
pub async fn set_zone(client: &Client, zone: Option<&str>) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
    let patched = nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("failed to label the Node {NODE}"))?;
    Ok(())
}
