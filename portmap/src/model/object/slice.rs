//! Conversion of `discovery.k8s.io/v1/EndpointSlice`.

use std::net::IpAddr;

use arcstr::ArcStr;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointPort;
use serde::{Deserialize, Serialize};

use super::{Endpoint, EndpointSlice, Faults, SERVICE_NAME_LABEL, object_name};
use crate::model::{Family, ObjectName, Protocol};

/// The annotation with the time of the pod or Service change for which the controller wrote the slice, in RFC 3339.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The fields of an EndpointSlice that `store` needs without unpacking the slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceHead {
    /// The name of the EndpointSlice.
    pub name: ObjectName,
    /// The Service of the slice; `None` if the label is missing or empty.
    pub service: Option<ObjectName>,
    /// The time of the pod or Service change for which the controller last wrote the slice; `None` if the annotation is absent
    /// or invalid.
    pub triggered: Option<Timestamp>,
}

/// The fields of an EndpointSlice, converted for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The family of the addresses; `None` for `FQDN` and unknown types, whose endpoints are left out.
    pub family: Option<Family>,
    /// The ports with a number and a supported protocol.
    pub ports: Box<[SlicePort]>,
    /// The endpoints with a valid address of the family.
    pub endpoints: Box<[SliceEndpoint]>,
    /// The invalid fields of the EndpointSlice. Ports without a number or with an unsupported protocol are not recorded.
    pub faults: Faults,
}

/// An entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlicePort {
    /// `name`, which is also the name of the Service port; empty if not given.
    pub name: ArcStr,
    /// `protocol`; `TCP` if not given.
    pub protocol: Protocol,
    /// The port number that the endpoints of this slice listen on.
    pub port: u16,
}

/// An entry of a slice's `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the API, and any may go with any other")]
pub struct SliceEndpoint {
    /// The first of `addresses`. The others are ignored, as in kube-proxy.
    pub address: IpAddr,
    /// `conditions.ready`: whether the endpoint gets new connections; true if not given.
    pub ready: bool,
    /// `conditions.serving`: whether the pod answers; true if not given.
    pub serving: bool,
    /// `conditions.terminating`: whether the pod is being deleted; false if not given.
    pub terminating: bool,
    /// Whether `nodeName` is the node of the agent.
    pub local: bool,
    /// `hints`; `None` if there are none for zones and none for nodes.
    pub hints: Option<Box<Hints>>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// The zones of `forZones`.
    pub zones: Box<[Box<str>]>,
    /// The Node names of `forNodes`.
    pub nodes: Box<[Box<str>]>,
}

impl From<&EndpointSlice> for SliceHead {
    fn from(slice: &EndpointSlice) -> Self {
        let name = object_name(&slice.metadata);
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let annotations = slice.metadata.annotations.as_ref();
        Self {
            service: service.filter(|service| !service.is_empty()).map(|service| ObjectName::new(name.namespace(), service)),
            triggered: annotations.and_then(|annotations| annotations.get(TRIGGER_ANNOTATION)?.parse().ok()),
            name,
        }
    }
}

impl Slice {
    /// Converts the slice of this name. Endpoints whose `nodeName` is `node` are local; if `node` is empty, no endpoint is local.
    pub fn seen_from(node: &str, name: &ObjectName, slice: EndpointSlice) -> Self {
        let mut faults = Faults::default();
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            // DNS names cannot be targets of a translation.
            "FQDN" => None,
            unknown => {
                faults.add(format_args!("EndpointSlice {name} has the unknown addressType {unknown:?}, and is left out"));
                None
            }
        };
        Self {
            family,
            endpoints: match family {
                Some(family) => endpoints(slice.endpoints, family, node, name, &mut faults),
                None => Box::default(),
            },
            ports: slice.ports.into_iter().filter_map(|port| slice_port(port, &mut faults)).collect(),
            faults,
        }
    }
}

/// The pods behind the endpoints of a slice, by each of their addresses.
pub fn pods_of(slice: &EndpointSlice) -> impl Iterator<Item = (IpAddr, ObjectName)> {
    slice.endpoints.iter().flat_map(|endpoint| {
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let name = pod.and_then(|pod| Some(ObjectName::new(pod.namespace.as_ref()?, pod.name.as_ref()?)));
        endpoint.addresses.iter().filter_map(move |address| Some((address.parse().ok()?, name.clone()?)))
    })
}

/// Whether an endpoint with this `nodeName` runs on `node`. False if either name is unknown (`None` or empty).
pub fn is_local(endpoint_node: Option<&str>, node: &str) -> bool {
    !node.is_empty() && endpoint_node == Some(node)
}

/// Converts a port; `None` for an invalid number or an unsupported protocol. A missing name is the empty name, the default of
/// the API server. A port without a number means "all ports" in the API; it is left out, as in kube-proxy.
fn slice_port(port: EndpointPort, faults: &mut Faults) -> Option<SlicePort> {
    let port_number = faults.port("the port of an EndpointSlice", port.port)?;
    let protocol = match port.protocol.as_deref() {
        Some("TCP" | "") | None => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    Some(SlicePort { name: ArcStr::from(&port.name.unwrap_or_default()), protocol, port: port_number })
}

fn endpoints(
    endpoints: Vec<Endpoint>,
    family: Family,
    node: &str,
    name: &ObjectName,
    faults: &mut Faults,
) -> Box<[SliceEndpoint]> {
    endpoints
        .into_iter()
        .filter_map(|endpoint| {
            let text = endpoint.addresses.first()?;
            let address = faults.address(format_args!("the endpoint of EndpointSlice {name},"), text)?;
            if Family::of(address) != family {
                let wanted = family.name();
                faults.add(format_args!(
                    "the endpoint of EndpointSlice {name}, {address} is not an {wanted} address, and is left out"
                ));
                return None;
            }
            Some(slice_endpoint(address, node, endpoint))
        })
        .collect()
}

fn slice_endpoint(address: IpAddr, node: &str, endpoint: Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions;
    let hints = endpoint.hints.map(|hints| Hints {
        zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name.into()).collect(),
        nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name.into()).collect(),
    });
    SliceEndpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        local: is_local(endpoint.node_name.as_deref(), node),
        hints: hints.filter(|hints| *hints != Hints::default()).map(Box::new),
    }
}
