//! Applies manifests as `kubectl apply --server-side --force-conflicts` does, and creates missing namespaces. Unknown fields
//! are refused.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

const FIELD_MANAGER: &str = "portmap-tests";

/// The fields of a document that determine its URL.
#[derive(Deserialize)]
struct Header {
    #[serde(flatten)]
    types: TypeMeta,
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    namespace: Option<String>,
}

/// Applies every document of a YAML text, of any kind, in order. Creates missing namespaces. Fails at fields that the API
/// server does not know.
pub async fn apply_yaml(client: &Client, text: &str) -> Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("failed to parse the manifests")?;
    for (index, document) in documents.iter().enumerate() {
        let header = Header::deserialize(document)
            .with_context(|| format!("document {} lacks apiVersion, kind or metadata.name", index + 1))?;
        let name = format!("{} {}", header.types.kind, header.metadata.name);
        apply(client, &header, document).await.with_context(|| format!("failed to apply {name}"))?;
    }
    Ok(())
}

/// Creates a namespace if it does not exist.
pub async fn ensure_namespace(client: &Client, name: &str) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let applied = namespaces.patch(name, &strict_apply(), &Patch::Apply(&namespace)).await;
    applied.with_context(|| format!("failed to create the namespace {name}"))?;
    Ok(())
}

/// Parameters of a server-side apply. It takes over fields of other managers, and refuses unknown fields.
pub(super) fn strict_apply() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force().validation_strict()
}

/// Applies a document unchanged. A typed object would drop unknown fields before the API server can refuse them.
async fn apply(client: &Client, header: &Header, document: &Value) -> Result<()> {
    let kind = GroupVersionKind::try_from(&header.types).context("the apiVersion is malformed")?;
    let (resource, capabilities) = pinned_kind(client, &kind).await.context("the API server does not know this kind")?;
    let objects: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = header.metadata.namespace.as_deref().unwrap_or("default");
            ensure_namespace(client, namespace).await?;
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    objects.patch(&header.metadata.name, &strict_apply(), &Patch::Apply(document)).await?;
    Ok(())
}
