//! Entries of the desired table: a frontend's endpoints, policy and owner.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use portmap_common::{AddressKind, Verdict};

use super::{ObjectName, ServicePort};

/// A pod's address and the port that it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's own targetPort.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Where clients of a frontend go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To one of these, each equally likely. Never empty, sorted, each address and port once.
    Backends(Arc<[Endpoint]>),
    /// Nowhere.
    Verdict(Verdict),
}

/// What a frontend should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service port it belongs to.
    pub owner: ServicePort,
    /// How the address came to the Service.
    pub kind: AddressKind,
    /// What sockets on this node get.
    pub inside: Target,
    /// What clients outside the node get.
    pub outside: Target,
    /// Session affinity in seconds, 0 for none.
    pub affinity_timeout: u32,
    /// The service port's endpoints that answer, whether or not they are to get new clients: for the clients that they have.
    /// Kept where there can be such clients: of UDP, and of session affinity.
    pub serving: Option<Arc<[Endpoint]>>,
    /// Whom the service port's load balancer addresses admit, sorted; none: everybody.
    pub source_ranges: Option<Arc<[IpNet]>>,
}

/// Whose a ClusterIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressOwner {
    /// A Service that is served here: ports that it does not define are refused.
    Served,
    /// A Service that another proxy serves: left alone.
    OtherProxy,
    /// Nobody's: found in the kernel, and not what the agent would write.
    Foreign,
}

/// Who wins a place that several Services claim with the same [`Rank`]: the oldest, then the first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// `metadata.creationTimestamp` in seconds since 1970; a Service without one (a file) counts as the oldest.
    pub created: i64,
    /// The Service.
    pub service: ObjectName,
}
