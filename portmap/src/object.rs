//! The Kubernetes objects as the agent keeps them: only the fields that decide something.

use std::sync::Arc;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::table::ObjectName;

/// The label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The label of a Service that another proxy serves.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The label of what belongs to a headless Service.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether an object carries a label.
pub fn is_labelled(metadata: &ObjectMeta, label: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 if absent.
    pub created: i64,
    /// Whether `type` is `ExternalName`.
    pub external_name: bool,
    /// `spec.clusterIP`, as written.
    pub cluster_ip: Box<str>,
    /// `spec.clusterIPs`, as written.
    pub cluster_ips: Vec<Box<str>>,
    /// `spec.ipFamilies`, as written.
    pub ip_families: Vec<Box<str>>,
    /// `spec.ports`.
    pub ports: Vec<Port>,
}

/// An entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port's name, empty if it has none.
    pub name: Arc<str>,
    /// `TCP` if not given.
    pub protocol: Box<str>,
    /// The Service port, as written.
    pub port: i32,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: ObjectName,
    /// The Service it belongs to; none if the label is missing or empty.
    pub service: Option<ObjectName>,
    /// `IPv4`, `IPv6` or another type that is ignored.
    pub address_type: Box<str>,
    /// The ports that count: named (if only by the empty name) and numbered.
    pub ports: Vec<SlicePort>,
    /// The endpoints that have an address.
    pub endpoints: Vec<SliceEndpoint>,
}

/// An entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The name of the Service port.
    pub name: Arc<str>,
    /// `TCP` if not given.
    pub protocol: Box<str>,
    /// The number that the pods of this slice listen on.
    pub port: u16,
}

/// An entry of a slice's `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The first address, as written.
    pub address: Box<str>,
    /// Whether new connections are wanted: `conditions.ready`, true if not given.
    pub ready: bool,
    /// Whether the pod answers: `conditions.serving`, true if not given.
    pub serving: bool,
    /// Whether the pod is being deleted: `conditions.terminating`, false if not given.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
}

impl From<core::Service> for Service {
    /// Takes the fields as the API server would complete them: one of `clusterIP` and `clusterIPs` implies the other.
    fn from(service: core::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let mut cluster_ips: Vec<Box<str>> = spec.cluster_ips.unwrap_or_default().into_iter().map(Into::into).collect();
        let first = cluster_ips.first().cloned();
        let cluster_ip = spec.cluster_ip.map(Into::into).or(first).unwrap_or_default();
        if cluster_ips.is_empty() && !cluster_ip.is_empty() {
            cluster_ips.push(cluster_ip.clone());
        }
        Self {
            created: service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            name: object_name(service.metadata),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            cluster_ip,
            cluster_ips,
            ip_families: spec.ip_families.unwrap_or_default().into_iter().map(Into::into).collect(),
            ports: spec.ports.unwrap_or_default().into_iter().map(Into::into).collect(),
        }
    }
}

impl From<core::ServicePort> for Port {
    fn from(port: core::ServicePort) -> Self {
        Self { name: port.name.unwrap_or_default().into(), protocol: protocol(port.protocol), port: port.port }
    }
}

impl From<discovery::EndpointSlice> for Slice {
    fn from(slice: discovery::EndpointSlice) -> Self {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL)).cloned();
        let name = object_name(slice.metadata);
        Self {
            service: service
                .filter(|service| !service.is_empty())
                .map(|service| ObjectName { namespace: name.namespace.clone(), name: service.into() }),
            name,
            address_type: slice.address_type.into(),
            ports: slice.ports.unwrap_or_default().into_iter().filter_map(slice_port).collect(),
            endpoints: slice.endpoints.unwrap_or_default().into_iter().filter_map(slice_endpoint).collect(),
        }
    }
}

/// A port without a name or number stands for "all ports", which no Service port joins.
fn slice_port(port: discovery::EndpointPort) -> Option<SlicePort> {
    let number = u16::try_from(port.port?).ok().filter(|number| *number != 0)?;
    Some(SlicePort { name: port.name?.into(), protocol: protocol(port.protocol), port: number })
}

fn slice_endpoint(endpoint: discovery::Endpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    Some(SliceEndpoint {
        address: endpoint.addresses.into_iter().next()?.into(),
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.map(Into::into),
    })
}

fn protocol(protocol: Option<String>) -> Box<str> {
    protocol.filter(|protocol| !protocol.is_empty()).map_or_else(|| "TCP".into(), Into::into)
}

/// An object's name; without a namespace, as kubectl has it, in `default`.
pub fn object_name(metadata: ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: metadata.namespace.map_or_else(|| "default".into(), Into::into),
        name: metadata.name.unwrap_or_default().into(),
    }
}
