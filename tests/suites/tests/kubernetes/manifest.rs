//! `deploy/portmap.yaml`, applied to a cluster without changes.

use anyhow::{Context as _, Result};
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::objects::apply_yaml;
use serde_json::Value;

/// The text of `deploy/portmap.yaml`.
pub const TEXT: &str = include_str!("../../../../deploy/portmap.yaml");

/// The namespace that `deploy/portmap.yaml` creates for the agent.
pub const NAMESPACE: &str = "portmap-system";
/// The name of the agent's service account.
pub const SERVICE_ACCOUNT: &str = "portmap";

/// Applies the manifest as `kubectl apply --server-side` does. Unknown fields are errors.
pub async fn apply(plane: &ControlPlane) -> Result<()> {
    apply_yaml(&plane.admin()?, TEXT).await.context("failed to apply deploy/portmap.yaml")
}

/// The first document of this kind in `deploy/portmap.yaml`.
pub fn document(kind: &str) -> Result<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(TEXT).context("failed to parse deploy/portmap.yaml")?;
    let found = documents.into_iter().find(|document| document["kind"] == kind);
    found.with_context(|| format!("deploy/portmap.yaml has no {kind}"))
}
