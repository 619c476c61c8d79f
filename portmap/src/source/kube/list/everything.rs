//! Lists the objects of all kinds that `portmap lint` reads.

use anyhow::Result;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, TypeMeta},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{Answer, Lister};

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

/// Lists all objects, or those of one namespace.
///
/// # Errors
///
/// A request fails for another reason than an unknown or forbidden kind.
pub async fn list(lister: &Lister, namespace: Option<&str>) -> Result<Listing> {
    let mut listing = Listing::default();
    for (group, versions, kind, plural) in KINDS {
        // Namespaces are in no namespace, and an outsider of the others may often not list them.
        if namespace.is_some() && kind == "Namespace" {
            continue;
        }
        let apis = versions.iter().map(|version| {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api = match namespace {
                Some(namespace) => Api::namespaced_with(lister.client.clone(), namespace, &resource),
                None => Api::all_with(lister.client.clone(), &resource),
            };
            let types = TypeMeta { api_version: resource.api_version, kind: resource.kind };
            (api, move |object| value(object, &types))
        });
        match lister.list(plural, apis, &ListParams::default()).await? {
            Answer::Objects(objects) => listing.objects.extend(objects),
            Answer::Forbidden => listing.forbidden.push(kind),
            Answer::Unserved => listing.unserved.push(kind),
        }
    }
    Ok(listing)
}

/// An object of a list with its types, which lists leave out.
fn value(mut object: DynamicObject, types: &TypeMeta) -> Result<Value> {
    object.types = Some(types.clone());
    object.metadata.managed_fields = None;
    Ok(serde_json::to_value(object)?)
}
