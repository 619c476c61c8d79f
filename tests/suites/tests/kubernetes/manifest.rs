//! `deploy/portmap.yaml` as it is shipped, applied to a cluster.

use anyhow::{Context as _, Result};
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::objects::apply_yaml;
use serde_json::Value;

const TEXT: &str = include_str!("../../../../deploy/portmap.yaml");

/// Where it puts everything.
pub const NAMESPACE: &str = "portmap-system";
/// Whom the agent is to the API server.
pub const SERVICE_ACCOUNT: &str = "portmap";

/// Applies it as `kubectl apply --server-side` does; every mistake in it is an error.
pub async fn apply(plane: &ControlPlane) -> Result<()> {
    apply_yaml(&plane.admin()?, TEXT).await.context("failed to apply deploy/portmap.yaml")
}

/// The only document of a kind.
pub fn document(kind: &str) -> Result<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(TEXT).context("failed to parse deploy/portmap.yaml")?;
    let found = documents.into_iter().find(|document| document["kind"] == kind);
    found.with_context(|| format!("deploy/portmap.yaml has no {kind}"))
}
