//! Frontends: the destinations that clients connect to, and the protocols and address families that distinguish them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// The protocols that are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// `TCP`.
    Tcp,
    /// `UDP`.
    Udp,
}

impl Protocol {
    /// The value of the field `protocol` in Kubernetes objects.
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

/// The address families. Maps with addresses exist once per family, for example FRONTENDS and BACKENDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// Both families in order.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The value of `ipFamilies` and `addressType` in Kubernetes objects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The other family.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The family of an address. An IPv4-mapped IPv6 address is IPv6.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A value for each address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Calls `make` once for each family, and keeps the results.
    pub fn of(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// The value for a family.
    pub fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value for a family, which the caller may change.
    pub fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A destination that clients connect to. Ordered by family, address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address that clients connect to.
    pub address: IpAddr,
    /// The port that clients connect to: `port` or `nodePort` of the Service port.
    pub port: u16,
    /// The protocol of the Service port.
    pub protocol: Protocol,
}

impl Frontend {
    /// The address family of the frontend.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.protocol)
    }
}

/// A destination that a Service claims: one frontend, or a node port. A node port is a frontend on each node address of its
/// family that serves node ports. Ordered by family, address, port and protocol; node ports come first in their family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendSpec {
    /// The family of the address or node port.
    pub family: Family,
    /// The address that clients connect to; `None` for a node port.
    pub address: Option<IpAddr>,
    /// `port` of the Service port; for a node port its `nodePort`.
    pub port: u16,
    /// The protocol of the Service port.
    pub protocol: Protocol,
}

impl FrontendSpec {
    /// A node port of one family.
    pub fn node_port(family: Family, port: u16, protocol: Protocol) -> Self {
        Self { family, address: None, port, protocol }
    }

    /// The frontend with its own address, or with the address `node` if it is a node port.
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
