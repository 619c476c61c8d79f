//! The domain types: what the tables should say, in Kubernetes' own terms and independent of how the kernel stores it.

pub mod event;
pub mod object;

use std::{
    cmp::Ordering,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arcstr::ArcStr;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use portmap_common::{AddressKind, Verdict};

/// A namespaced object's name, `namespace/name`. All copies share one text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectName(ArcStr);

impl ObjectName {
    /// A name within a namespace, which has no slash in it.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(arcstr::format!("{namespace}/{name}"))
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name within it.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The same name with a text of its own.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(ArcStr::from(self.0.as_str()))
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

/// By namespace, then by name.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The protocols that a socket hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name in Kubernetes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The address families, each with its own maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Its name in Kubernetes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One of a thing for each address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Makes one for each family.
    pub fn of(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// The one of a family.
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The one of a family.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A destination that clients connect to. Ordered as the command line lists them: family, address as a number, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The Service port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Frontend {
    /// The family of its address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// A destination that a Service asks for: a frontend, or a node port, which is one on every eligible address of the node.
/// Ordered as the command line lists them: family, node ports first, address as a number, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendSpec {
    /// The address family.
    pub family: Family,
    /// The address; none for a node port.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl FrontendSpec {
    /// A node port.
    pub fn node_port(family: Family, port: u16, protocol: Protocol) -> Self {
        Self { family, address: None, port, protocol }
    }

    /// The frontend that the place is, on this address if it is a node port.
    pub fn on(self, node: IpAddr) -> Frontend {
        let Self { family: _, address, port, protocol } = self;
        Frontend { address: address.unwrap_or(node), port, protocol }
    }
}

impl From<Frontend> for FrontendSpec {
    fn from(frontend: Frontend) -> Self {
        let Frontend { address, port, protocol } = frontend;
        Self { family: frontend.family(), address: Some(address), port, protocol }
    }
}

impl fmt::Display for FrontendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => self.on(address).fmt(f),
            None => write!(f, "*:{}/{}", self.port, self.protocol),
        }
    }
}

/// One port of a Service: what kube-proxy calls a service port name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, empty if it has none.
    pub port: ArcStr,
    /// The port's protocol.
    pub protocol: Protocol,
}

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
