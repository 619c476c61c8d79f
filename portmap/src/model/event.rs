//! The events that a source sends to the agent's loop, and the objects in them.

use std::{fmt, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::{
    api::{core::v1 as core, networking::v1::ServiceCIDRSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    ObjectName,
    object::{self, EndpointSlice, Node, OtherService, PROXY_NAME_LABEL, Packed, Service, Slice, SliceHead, object_name},
};

/// The kinds of objects that the desired table depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1/Service` that portmap serves.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    Slice,
    /// `v1/Service` that another proxy serves, by its proxy-name label, see [`Wanted::proxy_name`].
    OtherService,
    /// `v1/Node`: only the Node of the agent.
    Node,
    /// `networking.k8s.io/v1/ServiceCIDR`.
    ServiceCidr,
}

impl ObjectKind {
    /// All kinds in order.
    pub const ALL: [Self; 5] = [Self::Service, Self::Slice, Self::OtherService, Self::Node, Self::ServiceCidr];

    /// Whether the agent works without objects of this kind: the API server may not have the kind, or may forbid its list.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ServiceCidr)
    }
}

/// Writes the plural of the kind for log lines and metrics, for example `EndpointSlices`.
impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Services",
            Self::Slice => "EndpointSlices",
            Self::OtherService => "Services of other proxies",
            Self::Node => "Nodes",
            Self::ServiceCidr => "ServiceCIDRs",
        })
    }
}

/// A Kubernetes object, converted to the types of [`super::object`], with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service that portmap serves.
    Service(ObjectName, Packed<Service>),
    /// An EndpointSlice. Its endpoints on the agent's node are marked as local.
    Slice(SliceHead, Packed<Slice>),
    /// A Service that another proxy serves, reduced to its ClusterIPs.
    OtherService(ObjectName, OtherService),
    /// The Node of the agent.
    Node(ObjectName, Node),
    /// The valid ranges of a ServiceCIDR.
    ServiceCidr(ObjectName, Vec<IpNet>),
}

impl Object {
    /// Converts a Service that portmap serves.
    pub fn service(service: core::Service) -> Self {
        Self::Service(object_name(&service.metadata), Packed::new(&service.into()))
    }

    /// Converts a Service that another proxy serves.
    pub fn other_service(service: core::Service) -> Self {
        Self::OtherService(object_name(&service.metadata), service.into())
    }

    /// Converts an EndpointSlice. Endpoints whose `nodeName` is `node` are local.
    pub fn slice(slice: EndpointSlice, node: &str) -> Self {
        let head = SliceHead::from(&slice);
        let slice = Packed::new(&Slice::seen_from(node, &head.name, slice));
        Self::Slice(head, slice)
    }

    /// Converts the Node of the agent.
    pub fn node(node: core::Node) -> Self {
        Self::Node(object_name(&node.metadata), node.into())
    }

    /// Converts a ServiceCIDR. Returns also one text for users per invalid range.
    pub fn service_cidr(metadata: &ObjectMeta, spec: ServiceCIDRSpec) -> (Self, Vec<String>) {
        let name = object_name(metadata);
        let (ranges, faults) = object::cidrs(spec);
        let faults = faults.into_iter().map(|fault| format!("ServiceCIDR {}: {fault}, and is left out", name.name())).collect();
        (Self::ServiceCidr(name, ranges), faults)
    }

    /// The kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Service(..) => ObjectKind::Service,
            Self::Slice(..) => ObjectKind::Slice,
            Self::OtherService(..) => ObjectKind::OtherService,
            Self::Node(..) => ObjectKind::Node,
            Self::ServiceCidr(..) => ObjectKind::ServiceCidr,
        }
    }

    /// The name of the object; the namespace is `default` for a kind without namespaces.
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Service(name, _) | Self::OtherService(name, _) | Self::Node(name, _) | Self::ServiceCidr(name, _) => name,
            Self::Slice(head, _) => &head.name,
        }
    }
}

/// The selection of objects that a source sends.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The name of the agent's Node.
    pub node: Arc<str>,
    /// The proxy-name label of the Services to serve; `None` serves the Services without that label.
    pub proxy_name: Option<String>,
    /// `--allowed-external-ips`; `None` allows all external IPs outside the ranges of ClusterIPs.
    pub external_ips: Option<Arc<[IpNet]>>,
}

impl Wanted {
    /// Whether portmap serves the Service, by its proxy-name label.
    pub fn is_ours(&self, service: &ObjectMeta) -> bool {
        let label = service.labels.as_ref().and_then(|labels| labels.get(PROXY_NAME_LABEL));
        label == self.proxy_name.as_ref()
    }
}

/// A change of the objects. For each kind, a source sends `Listed` before other events.
#[derive(Clone, Debug)]
pub enum Event {
    /// The object was created or changed.
    Changed(Object),
    /// The object was deleted, or is no longer selected.
    Removed(ObjectKind, ObjectName),
    /// The complete list of a kind. All other objects of this kind are removed.
    Listed(ObjectKind, Vec<Object>),
}

impl Event {
    /// The kind of the event's objects.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Changed(object) => object.kind(),
            Self::Removed(kind, _) | Self::Listed(kind, _) => *kind,
        }
    }
}
