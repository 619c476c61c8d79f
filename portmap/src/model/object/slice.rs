//! `discovery.k8s.io/v1/EndpointSlice`.

use std::net::IpAddr;

use arcstr::ArcStr;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::{Deserialize, Serialize};

use super::{
    Faults, SERVICE_NAME_LABEL, object_name,
    shared::{self, shared},
};
use crate::model::{Family, ObjectName, Protocol};

/// Says when the change of a pod or Service happened that made the controller write the slice, in RFC 3339.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What of an EndpointSlice is asked for before it is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceHead {
    /// Its name.
    pub name: ObjectName,
    /// The Service it belongs to; none if the label is missing or empty.
    pub service: Option<ObjectName>,
    /// When the change happened that the controller last wrote it for, if it says so.
    pub triggered: Option<Timestamp>,
}

/// An EndpointSlice, seen from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The family of its addresses; none for types that are ignored.
    pub family: Option<Family>,
    /// The ports that count: those with a number, of a protocol that is served.
    pub ports: Box<[SlicePort]>,
    /// The endpoints that have an address of the family.
    pub endpoints: Box<[SliceEndpoint]>,
    /// What is wrong with it.
    pub faults: Faults,
}

/// An entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlicePort {
    /// The name of the Service port.
    #[serde(deserialize_with = "shared::deserialize")]
    pub name: ArcStr,
    /// `TCP` if not given.
    pub protocol: Protocol,
    /// The number that the pods of this slice listen on.
    pub port: u16,
}

/// An entry of a slice's `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the API, and any may go with any other")]
pub struct SliceEndpoint {
    /// The first address.
    pub address: IpAddr,
    /// Whether new connections are wanted: `conditions.ready`, true if not given.
    pub ready: bool,
    /// Whether the pod answers: `conditions.serving`, true if not given.
    pub serving: bool,
    /// Whether the pod is being deleted: `conditions.terminating`, false if not given.
    pub terminating: bool,
    /// Whether it is known to run on the node.
    pub local: bool,
    /// For whom it is meant, if the controller says so.
    pub hints: Option<Box<Hints>>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// `forZones`
    pub zones: Box<[Box<str>]>,
    /// `forNodes`
    pub nodes: Box<[Box<str>]>,
}

impl From<&discovery::EndpointSlice> for SliceHead {
    fn from(slice: &discovery::EndpointSlice) -> Self {
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
    /// What a slice says to the node of this name, which is empty if it is not known.
    pub fn seen_from(node: &str, slice: discovery::EndpointSlice) -> Self {
        let mut faults = Faults::default();
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            // Names are nothing to translate to.
            "FQDN" => None,
            unknown => {
                let name = object_name(&slice.metadata);
                faults.add(format_args!("EndpointSlice {name} has the unknown addressType {unknown:?}, and is left out"));
                None
            }
        };
        let field = format!("the endpoint of EndpointSlice {},", object_name(&slice.metadata));
        Self {
            family,
            endpoints: match family {
                Some(family) => endpoints(slice.endpoints.unwrap_or_default(), family, node, &field, &mut faults),
                None => Box::default(),
            },
            ports: slice.ports.unwrap_or_default().into_iter().filter_map(|port| slice_port(port, &mut faults)).collect(),
            faults,
        }
    }
}

/// Whether an endpoint is known to run on the node of this name.
pub fn is_local(endpoint_node: Option<&str>, node: &str) -> bool {
    !node.is_empty() && endpoint_node == Some(node)
}

/// A port without a name has the empty one, as the API server completes it. Without a number it stands for "all ports", which
/// no Service port joins.
fn slice_port(port: discovery::EndpointPort, faults: &mut Faults) -> Option<SlicePort> {
    let port_number = faults.port("the port of an EndpointSlice", port.port)?;
    let protocol = match port.protocol.as_deref() {
        Some("TCP" | "") | None => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return None,
    };
    Some(SlicePort { name: shared(&port.name.unwrap_or_default()), protocol, port: port_number })
}

fn endpoints(
    endpoints: Vec<discovery::Endpoint>,
    family: Family,
    node: &str,
    field: &str,
    faults: &mut Faults,
) -> Box<[SliceEndpoint]> {
    endpoints
        .into_iter()
        .filter_map(|endpoint| {
            let address = faults.address(field, endpoint.addresses.first()?)?;
            if Family::of(address) != family {
                faults.add(format_args!("{field} {address} is no {} address, and is left out", family.name()));
                return None;
            }
            Some(slice_endpoint(address, node, endpoint))
        })
        .collect()
}

fn slice_endpoint(address: IpAddr, node: &str, endpoint: discovery::Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
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
