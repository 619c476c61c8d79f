//! Lists the objects that an agent watches, with the selectors of [`super::super::run`].

use std::fmt::Debug;

use anyhow::{Result, bail};
use k8s_openapi::api::{core::v1::Node, core::v1::Service, discovery::v1::EndpointSlice, networking::v1::ServiceCIDRSpec};
use kube::{
    Api, Resource,
    api::{ApiResource, ListParams, NotUsed},
    core::{GroupVersionKind, object::Object as Manifest},
};
use serde::de::DeserializeOwned;

use super::{Answer, Lister};
use crate::{
    model::event::{Object, ObjectKind, Wanted},
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

async fn of_kind<K>(
    lister: &Lister,
    kind: ObjectKind,
    params: &ListParams,
    convert: impl Fn(K) -> Object,
) -> Result<Vec<Object>>
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
