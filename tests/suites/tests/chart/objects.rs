//! The rendered objects are of the types of the Kubernetes API, without unknown fields.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::helm::{EDGE, objects};
use crate::render::{cases, values_of};

/// The group of the objects of the Prometheus Operator, which are no part of the Kubernetes API.
const OPERATOR: &str = "monitoring.coreos.com/v1";

#[test]
fn the_objects_have_known_fields_only() -> Result<()> {
    let mut kinds = Vec::new();
    for case in cases()? {
        for object in objects(EDGE, &["--values", &values_of(&case)?, "--set", "grafanaDashboard.enabled=true"])? {
            check(&object).with_context(|| format!("{} of {}", object["kind"], case.display()))?;
            kinds.push(object["kind"].to_string());
        }
    }
    kinds.sort();
    kinds.dedup();
    ensure!(kinds.len() == 12, "the cases have only objects of these kinds: {}", kinds.join(", "));
    Ok(())
}

fn check(object: &Value) -> Result<()> {
    let kind = object["kind"].as_str().unwrap_or_default();
    match kind {
        "Namespace" => round_trip::<Namespace>(object),
        "ServiceAccount" => round_trip::<ServiceAccount>(object),
        "ClusterRole" => round_trip::<ClusterRole>(object),
        "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(object),
        "DaemonSet" => round_trip::<DaemonSet>(object),
        "Service" => round_trip::<Service>(object),
        "NetworkPolicy" => round_trip::<NetworkPolicy>(object),
        "ConfigMap" => round_trip::<ConfigMap>(object),
        "Pod" => round_trip::<Pod>(object),
        "ServiceMonitor" | "PodMonitor" | "PrometheusRule" if object["apiVersion"] == OPERATOR => Ok(()),
        _ => bail!("the kind {kind} is unknown"),
    }
}

/// Fails if the type does not keep all fields: a misspelt field is dropped, and a value of a wrong type is an error.
fn round_trip<T: Serialize + DeserializeOwned>(object: &Value) -> Result<()> {
    let typed: T = serde_json::from_value(object.clone())?;
    let kept = serde_json::to_value(&typed)?;
    ensure!(kept == *object, "the API has other fields: {kept:#}");
    Ok(())
}
