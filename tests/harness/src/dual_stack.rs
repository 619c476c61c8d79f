//! An address of each IP family, and the kinds of sockets that reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::world::Pod;

/// One address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Both {
    /// The addresses of a pod in the network of pods.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        Self { v4: pod.ipv4(), v6: pod.ipv6() }
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn addresses(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The socket address of this port for a socket of this kind. For [`Via::Mapped`] it has the IPv4-mapped address.
    #[must_use]
    pub fn at(self, via: Via, port: u16) -> SocketAddr {
        let address = match via {
            Via::V4 => self.v4.into(),
            Via::V6 => self.v6.into(),
            Via::Mapped => self.v4.to_ipv6_mapped().into(),
        };
        SocketAddr::new(address, port)
    }

    /// Both addresses as text, IPv4 first.
    #[must_use]
    pub fn texts(self) -> [String; 2] {
        self.addresses().map(|address| address.to_string())
    }
}

/// The family of a socket and of the address that it connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// An IPv4 address on an `AF_INET` socket.
    V4,
    /// An IPv6 address on an `AF_INET6` socket.
    V6,
    /// An IPv4-mapped address on an `AF_INET6` socket.
    Mapped,
}

impl Via {
    /// All three kinds of sockets and addresses.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];
}
