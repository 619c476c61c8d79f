//! The addresses of the cluster. They exist only inside its network namespaces.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The control plane, which is also the network outside of the nodes.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The IPv6 address of the control plane.
pub const CONTROL_PLANE_V6: Ipv6Addr = node_v6(1);
/// The port of the API server.
pub const API_PORT: u16 = 6443;
/// The `ClusterIP` of the cluster's DNS.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Ranges of `ClusterIP`s.
pub const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Ranges of pods' addresses.
pub const PODS: &str = "10.244.0.0/16,fd00:10:244::/48";

/// The largest number of a node.
pub const MOST_NODES: u8 = 99;

/// A node by its number, from 1 to [`MOST_NODES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u8);

const fn node_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number)
}

impl Node {
    /// The nodes from 1 to `count`.
    pub fn first(count: u8) -> Vec<Self> {
        (1..=count.min(MOST_NODES)).map(Self).collect()
    }

    /// The name of the Node object, of the host, and of the network device on the bridge.
    pub fn name(self) -> String {
        format!("node-{}", self.0)
    }

    /// The IPv4 address in the network of the nodes.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 100 + self.0)
    }

    /// The IPv6 address in the network of the nodes.
    pub fn v6(self) -> Ipv6Addr {
        node_v6(0x100 + u16::from(self.0))
    }

    /// The range of the IPv4 addresses of the node's pods.
    pub fn pods_v4(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    /// The range of the IPv6 addresses of the node's pods.
    pub fn pods_v6(self) -> String {
        format!("fd00:10:244:{:x}::/64", self.0)
    }

    /// The node's zone. Each node of the first three has its own.
    pub fn zone(self) -> String {
        format!("zone-{}", (self.0 - 1) % 3 + 1)
    }
}
