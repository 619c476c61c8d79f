//! The events that a source sends, and the objects in them.

use std::{fmt, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery, networking::v1::ServiceCIDRSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    ObjectName,
    object::{self, Node, OtherService, PROXY_NAME_LABEL, Packed, Service, Slice, SliceHead, object_name},
};

/// The kinds of objects that decide the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    Slice,
    /// `v1/Service` that another proxy serves.
    OtherService,
    /// `v1/Node`: the own one.
    Node,
    /// `networking.k8s.io/v1/ServiceCIDR`.
    ServiceCidr,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Service, Self::Slice, Self::OtherService, Self::Node, Self::ServiceCidr];

    /// Whether a cluster may be without it.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ServiceCidr)
    }
}

/// In the plural.
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

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(ObjectName, Packed<Service>),
    /// An EndpointSlice.
    Slice(SliceHead, Packed<Slice>),
    /// A Service that another proxy serves.
    OtherService(ObjectName, OtherService),
    /// The own Node.
    Node(ObjectName, Node),
    /// The ranges of a ServiceCIDR.
    ServiceCidr(ObjectName, Vec<IpNet>),
}

impl Object {
    /// A Service that is served here.
    pub fn service(service: core::Service) -> Self {
        Self::Service(object_name(&service.metadata), Packed::new(&service.into()))
    }

    /// A Service that another proxy serves.
    pub fn other_service(service: core::Service) -> Self {
        Self::OtherService(object_name(&service.metadata), service.into())
    }

    /// An EndpointSlice, as it is seen from the node of this name.
    pub fn slice(slice: discovery::EndpointSlice, node: &str) -> Self {
        Self::Slice(SliceHead::from(&slice), Packed::new(&Slice::seen_from(node, slice)))
    }

    /// The own Node.
    pub fn node(node: core::Node) -> Self {
        Self::Node(object_name(&node.metadata), node.into())
    }

    /// A ServiceCIDR, and what of it cannot be meant.
    pub fn service_cidr(metadata: &ObjectMeta, spec: ServiceCIDRSpec) -> (Self, Vec<String>) {
        let name = object_name(metadata);
        let (ranges, faults) = object::cidrs(spec);
        let faults = faults.into_iter().map(|fault| format!("ServiceCIDR {}: {fault}, and is left out", name.name())).collect();
        (Self::ServiceCidr(name, ranges), faults)
    }

    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Service(..) => ObjectKind::Service,
            Self::Slice(..) => ObjectKind::Slice,
            Self::OtherService(..) => ObjectKind::OtherService,
            Self::Node(..) => ObjectKind::Node,
            Self::ServiceCidr(..) => ObjectKind::ServiceCidr,
        }
    }

    /// Its name.
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Service(name, _) | Self::OtherService(name, _) | Self::Node(name, _) | Self::ServiceCidr(name, _) => name,
            Self::Slice(head, _) => &head.name,
        }
    }
}

/// Which objects a source is to send.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The name of the own Node.
    pub node: Arc<str>,
    /// Only Services whose proxy-name label is this; without it, only those that have no such label.
    pub proxy_name: Option<String>,
    /// The ranges that external IPs are served in; none: wherever they are.
    pub external_ips: Option<Arc<[IpNet]>>,
}

impl Wanted {
    /// Whether a Service is to be served here.
    pub fn is_ours(&self, service: &ObjectMeta) -> bool {
        let label = service.labels.as_ref().and_then(|labels| labels.get(PROXY_NAME_LABEL));
        label == self.proxy_name.as_ref()
    }
}

/// What a source has to say.
#[derive(Clone, Debug)]
pub enum Event {
    /// This object exists and looks like this.
    Changed(Object),
    /// This object is gone.
    Removed(ObjectKind, ObjectName),
    /// These are all the objects of a kind: whatever else was known of it is gone.
    Listed(ObjectKind, Vec<Object>),
}

impl Event {
    /// The kind that it is about.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Changed(object) => object.kind(),
            Self::Removed(kind, _) | Self::Listed(kind, _) => *kind,
        }
    }
}
