//! Entries of the desired table: the endpoints, policies and owner of a frontend.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use portmap_common::{AddressKind, Verdict};

use super::{ObjectName, ServicePort};

/// A destination of translated connections: usually the address of a pod, and the port that the pod listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The first address of the endpoint in its EndpointSlice.
    pub address: IpAddr,
    /// The number of the targetPort at this endpoint.
    pub port: u16,
    /// Whether the endpoint's `nodeName` is the node of the agent.
    pub local: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// The result of a connection to a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Translation to one of these endpoints. Sorted, each address and port once, never empty.
    Backends(Arc<[Endpoint]>),
    /// No endpoint is available: connections are refused or dropped.
    Verdict(Verdict),
}

/// The desired translation of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The Service port that the frontend belongs to.
    pub owner: ServicePort,
    /// The field of the Service that gives the frontend's address, or its port for a node port.
    pub kind: AddressKind,
    /// The target for clients on this node.
    pub inside: Target,
    /// The target for clients outside the node.
    pub outside: Target,
    /// The timeout of session affinity in seconds; 0 without session affinity.
    pub affinity_timeout: u32,
    /// The serving endpoints of the Service port, including endpoints without new clients. Existing clients may keep these
    /// endpoints. `None` for TCP without session affinity, which has no such clients.
    pub serving: Option<Arc<[Endpoint]>>,
    /// The Service's source ranges of this family, sorted; `None` admits every client. Applied only if `kind` is
    /// [`AddressKind::LoadBalancer`].
    pub source_ranges: Option<Arc<[IpNet]>>,
}

/// The owner of a ClusterIP. If a ClusterIP has several owners, the first variant in this order applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressOwner {
    /// A Service that portmap serves. Connections to undefined ports are refused.
    Served,
    /// A Service of another proxy. Connections are not translated.
    OtherProxy,
    /// No Service: a value in the map that the agent would not write.
    Foreign,
}

/// The precedence between claims of the same [`Rank`](crate::resolve::claims::Rank): the oldest Service wins, then the first by
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// `metadata.creationTimestamp` in seconds since 1970. A Service without it, as usually in files, has 0 and is the oldest.
    pub created: i64,
    /// The Service that makes the claim.
    pub service: ObjectName,
}
