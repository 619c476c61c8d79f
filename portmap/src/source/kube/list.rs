//! Lists the objects for `portmap lint` once, without a watch.

use std::path::Path;

use anyhow::{Context as _, Result};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, TypeMeta},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{
    connection::{configuration, new_client},
    connector::Connector,
};

/// A kind to list: group, versions from the newest on, kind, and the plural in URLs.
type Kind = (&'static str, &'static [&'static str], &'static str, &'static str);

const GATEWAY: &str = "gateway.networking.k8s.io";

const KINDS: [Kind; 19] = [
    ("", &["v1"], "Service", "services"),
    ("", &["v1"], "Pod", "pods"),
    ("", &["v1"], "Endpoints", "endpoints"),
    ("", &["v1"], "Namespace", "namespaces"),
    ("", &["v1"], "ReplicationController", "replicationcontrollers"),
    ("apps", &["v1"], "Deployment", "deployments"),
    ("apps", &["v1"], "StatefulSet", "statefulsets"),
    ("apps", &["v1"], "DaemonSet", "daemonsets"),
    ("apps", &["v1"], "ReplicaSet", "replicasets"),
    ("batch", &["v1"], "Job", "jobs"),
    ("batch", &["v1"], "CronJob", "cronjobs"),
    ("discovery.k8s.io", &["v1"], "EndpointSlice", "endpointslices"),
    ("networking.k8s.io", &["v1"], "NetworkPolicy", "networkpolicies"),
    ("networking.k8s.io", &["v1"], "Ingress", "ingresses"),
    (GATEWAY, &["v1", "v1beta1"], "HTTPRoute", "httproutes"),
    (GATEWAY, &["v1", "v1alpha2"], "GRPCRoute", "grpcroutes"),
    (GATEWAY, &["v1", "v1alpha3", "v1alpha2"], "TLSRoute", "tlsroutes"),
    (GATEWAY, &["v1", "v1alpha2"], "TCPRoute", "tcproutes"),
    (GATEWAY, &["v1", "v1alpha2"], "UDPRoute", "udproutes"),
];

/// The number of objects per request.
const PAGE: u32 = 500;

/// The objects of a cluster.
#[derive(Debug, Default)]
pub struct Listing {
    /// The objects, each with `kind` and `apiVersion`.
    pub objects: Vec<Value>,
    /// The kinds that the user may not list.
    pub forbidden: Vec<&'static str>,
    /// The kinds that the API server does not have.
    pub unserved: Vec<&'static str>,
}

/// Lists all objects, or those of one namespace. The kubeconfig is found as in [`super::open`].
///
/// # Errors
///
/// There is no configuration, or a request fails for another reason than an unknown or forbidden kind.
pub async fn list(kubeconfig: Option<&Path>, namespace: Option<&str>) -> Result<Listing> {
    let config = configuration(kubeconfig).await?;
    let server = config.cluster_url.to_string();
    let client = new_client(config, &Connector::new())?;
    let mut listing = Listing::default();
    for (group, versions, kind, plural) in KINDS {
        // Namespaces are in no namespace, and an outsider of the others may often not list them.
        if namespace.is_some() && kind == "Namespace" {
            continue;
        }
        let resources = versions
            .iter()
            .map(|version| ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural));
        match list_kind(&client, resources, namespace).await.with_context(|| format!("failed to list {plural} at {server}"))? {
            Answer::Objects(objects) => listing.objects.extend(objects),
            Answer::Forbidden => listing.forbidden.push(kind),
            Answer::Unserved => listing.unserved.push(kind),
        }
    }
    Ok(listing)
}

/// The answer to the list of a kind.
enum Answer {
    Objects(Vec<Value>),
    Forbidden,
    Unserved,
}

/// Lists a kind in its first version that the API server has.
async fn list_kind(client: &Client, resources: impl Iterator<Item = ApiResource>, namespace: Option<&str>) -> Result<Answer> {
    for resource in resources {
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let error = match pages(&api, &resource).await {
            Ok(objects) => return Ok(Answer::Objects(objects)),
            Err(error) => error,
        };
        match error.downcast_ref() {
            Some(kube::Error::Api(status)) if status.code == 404 => {}
            Some(kube::Error::Api(status)) if status.code == 403 => return Ok(Answer::Forbidden),
            _ => return Err(error),
        }
    }
    Ok(Answer::Unserved)
}

async fn pages(api: &Api<DynamicObject>, resource: &ApiResource) -> Result<Vec<Value>> {
    let types = TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
    let (mut objects, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let list = api.list(&page).await?;
        for mut object in list.items {
            object.types = Some(types.clone());
            object.metadata.managed_fields = None;
            objects.push(serde_json::to_value(object)?);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
