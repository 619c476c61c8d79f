//! Makes EndpointSlices from Endpoints, by the rules of Kubernetes' EndpointSlice mirroring controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1 as core,
        discovery::v1::{EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    objects::{Objects, service_of},
    pods::selector,
};
use crate::model::{
    Family, ObjectName,
    event::{Object, Wanted},
    object::{Endpoint, EndpointSlice, HEADLESS_LABEL, SERVICE_NAME_LABEL, is_labelled},
};

/// The label of Endpoints that are not mirrored, if its value is `true`.
const SKIP_LABEL: &str = "endpoints.kubernetes.io/skip-mirror";

/// The annotation of Endpoints that are used only for leader election.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// Name, protocol and number of a port.
type Port = (String, Option<String>, i32);

/// EndpointSlices for the Endpoints of served Services without a selector, unless the files have the slices that the controller
/// mirrored. Warns about Endpoints of Services that have a selector, but no slice from the files or from Pods. `from_pods`: the
/// slices that are derived from Pods.
pub fn slices(objects: &Objects, wanted: &Wanted, from_pods: &[Object], warnings: &mut Vec<String>) -> Vec<Object> {
    if objects.endpoints.is_empty() {
        return Vec::new();
    }
    let has_pods: BTreeSet<&ObjectName> = from_pods.iter().filter_map(service_of).collect();
    let has_slice: BTreeSet<&ObjectName> = objects.slices.values().filter_map(|slice| service_of(&slice.object)).collect();
    let mirrored: BTreeSet<&ObjectName> =
        objects.slices.values().filter(|slice| slice.is_mirrored).filter_map(|slice| service_of(&slice.object)).collect();
    let mut made = Vec::new();
    for (name, endpoints) in objects.endpoints.iter().filter(|(_, endpoints)| is_mirrored(&endpoints.metadata)) {
        let Some(service) = objects.services.get(name).filter(|service| service.is_ours) else { continue };
        if mirrored.contains(name) {
            continue;
        }
        if selector(&service.spec).is_none() {
            made.extend(mirror(name, endpoints).map(|slice| Object::slice(slice, &wanted.node)));
        } else if !has_slice.contains(name) && !has_pods.contains(name) {
            warnings.push(format!(
                "Endpoints {name} are left out: the Service has a selector, and its endpoints come from EndpointSlices or Pods"
            ));
        }
    }
    made
}

/// Whether the controller mirrors Endpoints with these labels and annotations, to slices that portmap uses.
fn is_mirrored(metadata: &ObjectMeta) -> bool {
    let ObjectMeta { labels, annotations, .. } = metadata;
    let is_skipped = labels.as_ref().and_then(|labels| labels.get(SKIP_LABEL)).is_some_and(|value| value == "true");
    // The controller copies this label to the slice, and portmap ignores slices with it.
    let is_seen = !is_skipped && !is_labelled(metadata, HEADLESS_LABEL);
    is_seen && !annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER_ANNOTATION))
}

/// Makes one EndpointSlice per address family and set of ports.
fn mirror(name: &ObjectName, endpoints: &core::Endpoints) -> impl Iterator<Item = EndpointSlice> {
    let mut slices: BTreeMap<(Family, Vec<Port>), Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<Port> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(unready) {
            let family = address.ip.parse().map_or(Family::V4, |ip: IpAddr| Family::of(ip));
            slices.entry((family, ports.clone())).or_default().push(endpoint(address, is_ready));
        }
    }
    let (namespace, service) = (name.namespace().to_owned(), name.name().to_owned());
    slices.into_iter().enumerate().map(move |(index, ((family, ports), endpoints))| EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{service}-from-endpoints-{index}")),
            namespace: Some(namespace.clone()),
            labels: Some([(SERVICE_NAME_LABEL.to_owned(), service.clone())].into()),
            ..ObjectMeta::default()
        },
        address_type: family.name().to_owned(),
        ports: ports.into_iter().map(slice_port).collect(),
        endpoints,
    })
}

fn port(port: &core::EndpointPort) -> Port {
    (port.name.clone().unwrap_or_default(), port.protocol.clone(), port.port)
}

fn slice_port((name, protocol, number): Port) -> EndpointPort {
    EndpointPort { name: Some(name), protocol, port: Some(number), ..EndpointPort::default() }
}

fn endpoint(address: &core::EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() },
        node_name: address.node_name.clone(),
        ..Endpoint::default()
    }
}
