//! Lists the objects that an agent watches, with the selectors of [`super::super::run`].

use std::fmt::Debug;

use anyhow::{Result, bail};
use k8s_openapi::api::{core::v1::Node, core::v1::Service, networking::v1::ServiceCIDRSpec};
use kube::{
    Api, Resource,
    api::{ApiResource, ListParams, NotUsed},
    core::{GroupVersionKind, object::Object as Manifest},
};
use serde::de::DeserializeOwned;

use super::{Answer, Lister};
use crate::{
    model::{
        ObjectName,
        event::{Object, ObjectKind, Wanted},
        object::{EndpointSlice, SERVICE_NAME_LABEL},
    },
    source::kube::{CIDR_VERSIONS, Selectors},
};

/// Lists all objects that an agent watches.
///
/// # Errors
///
/// The API server is unreachable, or refuses the list of a kind. ServiceCIDRs may be missing or forbidden.
pub async fn list(lister: &Lister, wanted: &Wanted) -> Result<Vec<Object>> {
    let Selectors { services, ours, others, slices, node } = Selectors::of(wanted);
    let (ours, others) = (params(&services, &ours), params(&services, &others));
    let (slices, node) = (params("", &slices), params(&node, ""));
    let slice = |slice: EndpointSlice| Object::slice(slice, &wanted.node);
    let lists = tokio::try_join!(
        of_kind(lister, ObjectKind::Service, &ours, |service: Service| Object::service(service)),
        of_kind(lister, ObjectKind::OtherService, &others, |service: Service| Object::other_service(service)),
        of_kind(lister, ObjectKind::Slice, &slices, slice),
        of_kind(lister, ObjectKind::Node, &node, |node: Node| Object::node(node)),
        service_cidrs(lister),
    )?;
    let (services, others, slices, nodes, cidrs) = lists;
    Ok([services, others, slices, nodes, cidrs].into_iter().flatten().collect())
}

/// Lists the ServiceCIDRs in the newest version that the API server has. None if it has or allows none.
async fn service_cidrs(lister: &Lister) -> Result<Vec<Object>> {
    let convert = |cidr: Manifest<ServiceCIDRSpec, NotUsed>| Ok(Object::service_cidr(&cidr.metadata, cidr.spec).0);
    let apis = CIDR_VERSIONS.into_iter().map(|version| {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("networking.k8s.io", version, "ServiceCIDR"));
        (Api::all_with(lister.client.clone(), &kind), convert)
    });
    match lister.list(ObjectKind::ServiceCidr, apis, &ListParams::default()).await? {
        Answer::Objects(cidrs) => Ok(cidrs),
        Answer::Forbidden | Answer::Unserved => Ok(Vec::new()),
    }
}

/// Lists the whole Services that these fields select, of all proxies, and also without an address.
///
/// # Errors
///
/// The API server is unreachable, or refuses the list.
pub async fn services(lister: &Lister, fields: &str) -> Result<Vec<Service>> {
    of_kind(lister, ObjectKind::Service, &params(fields, ""), |service| service).await
}

/// Lists the whole Services of all proxies that may have an address.
///
/// # Errors
///
/// As for [`services`].
pub async fn all_services(lister: &Lister, wanted: &Wanted) -> Result<Vec<Service>> {
    services(lister, &Selectors::of(wanted).services).await
}

/// Lists the whole EndpointSlices of one Service.
///
/// # Errors
///
/// As for [`services`].
pub async fn slices_of(lister: &Lister, service: &ObjectName, wanted: &Wanted) -> Result<Vec<EndpointSlice>> {
    let labels = format!("{SERVICE_NAME_LABEL}={},{}", service.name(), Selectors::of(wanted).slices);
    let namespace = format!("metadata.namespace={}", service.namespace());
    of_kind(lister, ObjectKind::Slice, &params(&namespace, &labels), |slice| slice).await
}

/// Lists the whole EndpointSlices of all Services.
///
/// # Errors
///
/// As for [`services`].
pub async fn all_slices(lister: &Lister, wanted: &Wanted) -> Result<Vec<EndpointSlice>> {
    of_kind(lister, ObjectKind::Slice, &params("", &Selectors::of(wanted).slices), |slice| slice).await
}

/// Lists the Node and the ServiceCIDRs.
///
/// # Errors
///
/// As for [`list`].
pub async fn surroundings(lister: &Lister, wanted: &Wanted) -> Result<Vec<Object>> {
    let node = params(&Selectors::of(wanted).node, "");
    let nodes = of_kind(lister, ObjectKind::Node, &node, |node: Node| Object::node(node));
    let (nodes, cidrs) = tokio::try_join!(nodes, service_cidrs(lister))?;
    Ok([nodes, cidrs].into_iter().flatten().collect())
}

async fn of_kind<K, T>(lister: &Lister, kind: ObjectKind, params: &ListParams, convert: impl Fn(K) -> T) -> Result<Vec<T>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = (Api::all(lister.client.clone()), |object| Ok(convert(object)));
    match lister.list(kind, std::iter::once(api), params).await? {
        Answer::Objects(objects) => Ok(objects),
        Answer::Forbidden => bail!("the user may not list {kind} at {}", lister.server),
        Answer::Unserved => bail!("{} has no {kind}; is it the API server of a cluster?", lister.server),
    }
}

fn params(fields: &str, labels: &str) -> ListParams {
    let selector = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ListParams { field_selector: selector(fields), label_selector: selector(labels), ..ListParams::default() }
}
