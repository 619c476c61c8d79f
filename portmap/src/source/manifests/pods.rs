//! Makes EndpointSlices from Pods, by the rules of Kubernetes' EndpointSlice controller. So manifest files need only
//! Services and Pods.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::objects::{Objects, service_of};
use crate::{
    collections::{HashMap, HashSet},
    model::{
        Family, ObjectName, Protocol,
        event::{Object, Wanted},
        object::{Faults, Packed, Slice, SliceEndpoint, SliceHead, SlicePort, is_local},
    },
};

/// EndpointSlices for the served Services that have a selector, but no slice in the files.
pub fn slices(objects: &Objects, wanted: &Wanted, warnings: &mut Vec<String>) -> Vec<Object> {
    let has_slice: HashSet<&ObjectName> = objects.slices.values().filter_map(|slice| service_of(&slice.object)).collect();
    let pods = Pods::new(objects);
    let mut made = Vec::new();
    for (name, service) in objects.services.iter().filter(|(name, service)| service.is_ours && !has_slice.contains(name)) {
        made.extend(make_slices(name, &service.spec, &pods, &wanted.node, warnings));
    }
    made
}

/// The selector of a Service; `None` if it is absent or empty.
pub fn selector(spec: &ServiceSpec) -> Option<&BTreeMap<String, String>> {
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Pods by namespace, label key and label value, so that a Service compares few Pods.
struct Pods<'a>(HashMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>);

impl<'a> Pods<'a> {
    fn new(objects: &'a Objects) -> Self {
        let mut pods: HashMap<_, Vec<&Pod>> = HashMap::default();
        for (name, pod) in &objects.pods {
            for (key, value) in pod.metadata.labels.iter().flatten() {
                pods.entry((name.namespace(), key.as_str(), value.as_str())).or_default().push(pod);
            }
        }
        Self(pods)
    }

    /// The selected Pods that have not finished, sorted by name.
    fn selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<&'a Pod> {
        let by_label = selector.iter().map(|(key, value)| self.0.get(&(namespace, key.as_str(), value.as_str())));
        let fewest = by_label.map(|pods| pods.map(Vec::as_slice).unwrap_or_default()).min_by_key(|pods| pods.len());
        let pods = fewest.unwrap_or_default().iter().copied();
        pods.filter(|pod| is_selected(pod, selector) && !is_finished(pod)).collect()
    }
}

/// The properties that all endpoints of one slice share.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    family: Family,
    ports: Vec<SlicePort>,
}

/// Makes one slice per address family and set of port numbers. Pods with different numbers of a named port are in different
/// slices.
fn make_slices(name: &ObjectName, spec: &ServiceSpec, pods: &Pods<'_>, node: &str, warnings: &mut Vec<String>) -> Vec<Object> {
    let Some(selector) = selector(spec) else { return Vec::new() };
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let pods = pods.selected(name.namespace(), selector);
    warnings.extend(spec.ports.iter().flatten().filter_map(|port| fault(name, port, &pods)));
    let mut slices: BTreeMap<Shape, Vec<SliceEndpoint>> = BTreeMap::new();
    for pod in pods {
        let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| resolve_port(port, pod)).collect();
        let mut faults = Faults::default();
        for address in addresses(pod, &mut faults) {
            let shape = Shape { family: Family::of(address), ports: ports.clone() };
            slices.entry(shape).or_default().push(endpoint(pod, address, node, publish));
        }
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        warnings.extend(faults.iter().map(|fault| format!("Service {name}: of Pod {pod} the {fault}")));
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

/// Whether all containers of a Pod have ended.
fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// The valid addresses of a Pod: `status.podIPs`, else `status.podIP`. Invalid addresses become faults.
fn addresses(pod: &Pod, faults: &mut Faults) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let texts: Vec<&String> = match &status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| &ip.ip).collect(),
        Some(_) | None => status.pod_ip.iter().collect(),
    };
    // A Pod that has not started has an empty address.
    texts.into_iter().filter(|text| !text.is_empty()).filter_map(|text| faults.address("podIP", text)).collect()
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

/// A warning about the `targetPort` of a Service port: a number as text, or (except for SCTP) a name that no selected Pod has.
/// `None` otherwise, and for a name if no Pod is selected.
fn fault(service: &ObjectName, port: &ServicePort, pods: &[&Pod]) -> Option<String> {
    let Some(IntOrString::String(name)) = &port.target_port else { return None };
    if let Some(number) = digits(name) {
        return Some(format!(
            "Service {service}: the targetPort {name:?} is a text, which an API server rejects: the number {number} is used; write \
             it without quotes"
        ));
    }
    let is_lacking = !name.is_empty() && !pods.is_empty() && pods.iter().all(|pod| resolve_port(port, pod).is_none());
    (is_lacking && port.protocol.as_deref() != Some("SCTP"))
        .then(|| format!("Service {service}: no Pod that it selects has a container port of the name {name:?}, its targetPort"))
}

/// The number of a text that consists of digits. A valid name of a port has a letter.
fn digits(name: &str) -> Option<i32> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

/// The slice port of a Service port on this Pod. `None` if the Pod lacks the name of the targetPort, the number is invalid,
/// or the protocol is neither TCP nor UDP.
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
        Some(IntOrString::String(name)) => match digits(name) {
            Some(number) => number,
            None => named_port(pod.spec.as_ref()?, name, protocol.name())?,
        },
    };
    let number = u16::try_from(number).ok().filter(|number| *number != 0)?;
    Some(SlicePort { name: port.name.as_deref().unwrap_or_default().into(), protocol, port: number })
}

/// The number of a container port by name and protocol. Sidecars (restartable init containers) are included.
fn named_port(pod: &PodSpec, name: &str, protocol: &str) -> Option<i32> {
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = pod.init_containers.iter().flatten().filter(is_sidecar);
    let mut ports = pod.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let matches = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(matches).map(|port| port.container_port)
}
