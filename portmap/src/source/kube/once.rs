//! Lists objects of the API server once, for subcommands. Failed requests are not repeated.
//!
//! [`super::run`] watches the same objects, with the same selectors.

use std::{fmt::Debug, path::Path, sync::Arc};

use anyhow::{Context, Result};
use k8s_openapi::api::{core::v1::Node, core::v1::Service, discovery::v1::EndpointSlice, networking::v1::ServiceCIDRSpec};
use kube::{
    Api, Resource,
    api::{ApiResource, ListParams, NotUsed},
    core::{GroupVersionKind, object::Object as Manifest},
};
use serde::de::DeserializeOwned;

use super::{CIDR_VERSIONS, Selectors, connection::Cluster};
use crate::model::event::{Object, ObjectKind, Wanted};

/// Configures the connection to the API server, see [`super::open`]. Does not connect.
///
/// # Errors
///
/// There is no configuration, or it is invalid.
pub async fn open(kubeconfig: Option<&Path>) -> Result<Arc<Cluster>> {
    Cluster::open(kubeconfig, Arc::default()).await
}

/// Lists all objects that an agent watches.
///
/// # Errors
///
/// The API server is unreachable, or refuses the list of a kind. ServiceCIDRs may be missing or forbidden.
pub async fn list(cluster: &Arc<Cluster>, wanted: &Wanted) -> Result<Vec<Object>> {
    let Selectors { services, ours, others, slices, node } = Selectors::of(wanted);
    let (ours, others) = (params(&services, &ours), params(&services, &others));
    let (slices, node) = (params("", &slices), params(&node, ""));
    let slice = |slice: EndpointSlice| Object::slice(slice, &wanted.node);
    let lists = tokio::try_join!(
        of_kind(cluster, ObjectKind::Service, &ours, |service: Service| Object::service(service)),
        of_kind(cluster, ObjectKind::OtherService, &others, |service: Service| Object::other_service(service)),
        of_kind(cluster, ObjectKind::Slice, &slices, slice),
        of_kind(cluster, ObjectKind::Node, &node, |node: Node| Object::node(node)),
        service_cidrs(cluster),
    )?;
    let (services, others, slices, nodes, cidrs) = lists;
    Ok([services, others, slices, nodes, cidrs].into_iter().flatten().collect())
}

/// Lists the ServiceCIDRs in the newest version that the API server has. None if it has or allows none.
async fn service_cidrs(cluster: &Arc<Cluster>) -> Result<Vec<Object>> {
    for version in CIDR_VERSIONS {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.k8s.io", version, "ServiceCIDR"));
        let api: Api<Manifest<ServiceCIDRSpec, NotUsed>> = Api::all_with(cluster.client(ObjectKind::ServiceCidr), &kind);
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                return Ok(list.items.into_iter().map(|cidr| Object::service_cidr(&cidr.metadata, cidr.spec).0).collect());
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {}
            Err(error) => return Err(error).with_context(|| failure(cluster, ObjectKind::ServiceCidr)),
        }
    }
    Ok(Vec::new())
}

async fn of_kind<K>(
    cluster: &Arc<Cluster>,
    kind: ObjectKind,
    params: &ListParams,
    convert: impl Fn(K) -> Object,
) -> Result<Vec<Object>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client(kind));
    let list = api.list(params).await.with_context(|| failure(cluster, kind))?;
    Ok(list.items.into_iter().map(convert).collect())
}

fn params(fields: &str, labels: &str) -> ListParams {
    let selector = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ListParams { field_selector: selector(fields), label_selector: selector(labels), ..ListParams::default() }
}

fn failure(cluster: &Cluster, kind: ObjectKind) -> String {
    format!("failed to list {kind} at {}", cluster.server())
}
