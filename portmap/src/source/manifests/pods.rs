//! EndpointSlices from Pods, by the rules of Kubernetes' EndpointSlice controller: so that plain Service and Pod files work
//! where no controller runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Object, parse::Objects};
use crate::{
    object::{Faults, Packed, Slice, SliceEndpoint, SliceHead, SlicePort, is_local},
    table::{Family, ObjectName, Protocol},
};

/// The slices for Services that have a selector and no slice.
pub fn slices(services: &BTreeMap<ObjectName, Service>, objects: &Objects, node: &str) -> Vec<Object> {
    let has_slice: BTreeSet<ObjectName> = objects.slices.values().filter_map(|slice| SliceHead::from(slice).service).collect();
    let lacking = services.iter().filter(|(name, _)| !has_slice.contains(name));
    lacking.flat_map(|(name, service)| make_slices(name, service, &objects.pods, node)).collect()
}

/// What the endpoints of one slice have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    family: Family,
    ports: Vec<SlicePort>,
}

/// One slice per address family and set of port numbers: pods whose named port differs come to lie in different slices.
fn make_slices(name: &ObjectName, service: &Service, pods: &BTreeMap<ObjectName, Pod>, node: &str) -> Vec<Object> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else { return Vec::new() };
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut slices: BTreeMap<Shape, Vec<SliceEndpoint>> = BTreeMap::new();
    for (pod_name, pod) in pods {
        if pod_name.namespace() != name.namespace() || !is_selected(pod, selector) || is_finished(pod) {
            continue;
        }
        let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| resolve_port(port, pod)).collect();
        for address in addresses(pod) {
            let shape = Shape { family: Family::of(address), ports: ports.clone() };
            slices.entry(shape).or_default().push(endpoint(pod, address, node, publish));
        }
    }
    let slice = |(index, (shape, endpoints)): (usize, (Shape, Vec<SliceEndpoint>))| {
        let Shape { family, ports } = shape;
        let head = SliceHead {
            name: ObjectName::new(name.namespace(), &format!("{}-from-pods-{index}", name.name())),
            service: Some(name.clone()),
            triggered: None,
        };
        let faults = Faults::default();
        let slice = Slice { family: Some(family), ports: ports.into(), endpoints: endpoints.into(), faults };
        Object::Slice(head, Packed::new(&slice))
    };
    slices.into_iter().enumerate().map(slice).collect()
}

fn is_selected(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// `status.podIPs`, else `status.podIP`.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let texts: Vec<&String> = match &status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| &ip.ip).collect(),
        Some(_) | None => status.pod_ip.iter().collect(),
    };
    texts.into_iter().filter_map(|text| Faults::default().address("podIP", text)).collect()
}

fn endpoint(pod: &Pod, address: IpAddr, node: &str, publish_not_ready: bool) -> SliceEndpoint {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let serving = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    SliceEndpoint {
        address,
        ready: publish_not_ready || (serving && !terminating),
        serving,
        terminating,
        local: is_local(pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()), node),
        hints: None,
    }
}

/// A Service port's name and protocol, and its number on this pod; none if the pod has no port of the name it targets.
fn resolve_port(port: &ServicePort, pod: &Pod) -> Option<SlicePort> {
    let protocol = match port.protocol.as_deref() {
        Some("TCP" | "") | None => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod.spec.as_ref()?, name, protocol.name())?,
    };
    let number = u16::try_from(number).ok().filter(|number| *number != 0)?;
    Some(SlicePort { name: port.name.as_deref().unwrap_or_default().into(), protocol, port: number })
}

/// The number of a container port by name and protocol; sidecars (restartable init containers) are containers too.
fn named_port(pod: &PodSpec, name: &str, protocol: &str) -> Option<i32> {
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = pod.init_containers.iter().flatten().filter(is_sidecar);
    let mut ports = pod.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let matches = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(matches).map(|port| port.container_port)
}
