//! Creates Nodes and Pods for tests. Their status is written here, because there is no kubelet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::manifests::strict_apply;
pub use super::manifests::{apply_yaml, ensure_namespace};
pub use super::watch::{await_objects, await_slices};

/// The properties of a running Pod, for [`apply_pod`].
#[derive(Clone, Copy, Debug)]
pub struct PodSpec<'a> {
    /// The Pod's namespace, which is created if it does not exist.
    pub namespace: &'a str,
    /// The Pod's name, unique within the namespace.
    pub name: &'a str,
    /// Keys and values of the labels, which selectors of Services match.
    pub labels: &'a [(&'a str, &'a str)],
    /// The name of the Pod's Node.
    pub node: &'a str,
    /// At most one address of each family; the first is the primary address.
    pub ips: &'a [IpAddr],
    /// Name, number and protocol (`TCP`, `UDP`, `SCTP`) of the container's ports; a name may be empty.
    pub ports: &'a [(&'a str, u16, &'a str)],
    /// The Pod's condition `Ready`.
    pub ready: Readiness,
}

/// The status of a Pod's condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The condition is `True`.
    Ready,
    /// The condition is `False`.
    NotReady,
}

/// Creates a Node with these internal addresses, or sets the addresses of an existing Node.
pub async fn create_node(client: &Client, name: &str, internal_ips: &[IpAddr]) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let addresses: Vec<Value> = internal_ips.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let status = json!({"status": {"addresses": addresses}});

    let nodes: Api<Node> = Api::all(client.clone());
    let applied = nodes.patch(name, &strict_apply(), &Patch::Apply(&node)).await;
    applied.with_context(|| format!("failed to create the Node {name}"))?;
    let patched = nodes.patch_status(name, &strict_merge(), &Patch::Merge(&status)).await;
    patched.with_context(|| format!("failed to set the addresses of the Node {name}"))?;
    Ok(())
}

/// Creates a running Pod, or changes the labels, addresses and readiness of an existing Pod. Creates a missing namespace.
pub async fn apply_pod(client: &Client, pod: PodSpec<'_>) -> Result<()> {
    ensure_namespace(client, pod.namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.namespace);
    let applied = pods.patch(pod.name, &strict_apply(), &Patch::Apply(&manifest(&pod))).await;
    applied.with_context(|| format!("failed to create the Pod {}/{}", pod.namespace, pod.name))?;

    let addresses: Vec<Value> = pod.ips.iter().map(|address| json!({"ip": address})).collect();
    let status = json!({"status": {
        "phase": "Running",
        "podIP": pod.ips.first(),
        "podIPs": addresses,
        "conditions": conditions(pod.ready),
    }});
    patch_status(&pods, pod.name, &status).await
}

/// Sets the condition `Ready` of an existing Pod.
pub async fn set_ready(client: &Client, namespace: &str, name: &str, ready: Readiness) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    patch_status(&pods, name, &json!({"status": {"conditions": conditions(ready)}})).await
}

/// Starts the deletion of a Pod with a long grace period, as in a rolling update. The Pod is terminating until [`delete_pod`].
pub async fn terminate_pod(client: &Client, namespace: &str, name: &str) -> Result<()> {
    delete(client, namespace, name, 3600).await
}

/// Deletes a Pod without a grace period.
pub async fn delete_pod(client: &Client, namespace: &str, name: &str) -> Result<()> {
    delete(client, namespace, name, 0).await
}

fn manifest(pod: &PodSpec<'_>) -> Value {
    let labels: BTreeMap<_, _> = pod.labels.iter().copied().collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels},
        "spec": {
            "nodeName": pod.node,
            "containers": [{
                "name": "main",
                "image": "none",
                "ports": pod.ports.iter().copied().map(container_port).collect::<Vec<_>>(),
            }],
        },
    })
}

fn container_port((name, number, protocol): (&str, u16, &str)) -> Value {
    let mut port = json!({"containerPort": number, "protocol": protocol});
    if !name.is_empty() {
        port["name"] = json!(name);
    }
    port
}

fn conditions(ready: Readiness) -> Value {
    let status = match ready {
        Readiness::Ready => "True",
        Readiness::NotReady => "False",
    };
    json!([{"type": "Ready", "status": status}])
}

/// Patches the status of a Pod. A merge patch keeps the fields that it does not name; an apply would remove those that were
/// applied before.
async fn patch_status(pods: &Api<Pod>, name: &str, status: &Value) -> Result<()> {
    let patched = pods.patch_status(name, &strict_merge(), &Patch::Merge(status)).await;
    patched.with_context(|| format!("failed to set the status of the Pod {name}"))?;
    Ok(())
}

fn strict_merge() -> PatchParams {
    PatchParams::default().validation_strict()
}

async fn delete(client: &Client, namespace: &str, name: &str, grace_seconds: u32) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let deleted = pods.delete(name, &DeleteParams::default().grace_period(grace_seconds)).await;
    deleted.with_context(|| format!("failed to delete the Pod {namespace}/{name}"))?;
    Ok(())
}
