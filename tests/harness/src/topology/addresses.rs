//! The addresses of a topology.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dual_stack::Both;

/// A range of each IP family, IPv4 first.
pub type Ranges = [String; 2];

/// The client behind the router.
pub const CLIENT: Both = outside(2);

/// The second addresses of the client behind the router.
pub const SECOND_CLIENT: Both = outside(3);

/// The router, seen from the client.
pub const ROUTER_OUTSIDE: Both = outside(1);

/// The Ethernet address of the router on the client's link.
pub const ROUTER_HARDWARE: &str = "02:00:00:00:02:01";

/// The router, seen from the nodes.
pub const ROUTER: Both = segment(1);

/// The client on the nodes' segment.
pub const NEIGHBOUR: Both = segment(100);

/// The addresses of the node with this number on the segment: the `InternalIP`s of its Node object.
#[must_use]
pub const fn node(number: u8) -> Both {
    segment(10 + number)
}

/// The address with this host part in the pods' ranges of a node. The node itself has 1.
#[must_use]
pub const fn pod(node: u8, host: u8) -> Both {
    Both { v4: Ipv4Addr::new(10, 244, node, host), v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, node as u16, 0, 0, 0, host as u16) }
}

/// The ranges of the pods of a node.
#[must_use]
pub fn pods(node: u8) -> Ranges {
    let Both { v4, v6 } = pod(node, 0);
    [format!("{v4}/24"), format!("{v6}/64")]
}

/// The ranges of externalIPs and of load balancer addresses. No interface has them. The router sends their packets to node 1.
#[must_use]
pub fn external() -> [Ranges; 2] {
    [["192.0.2.0/24", "2001:db8:2::/64"], ["198.51.100.0/24", "2001:db8:33::/64"]].map(|ranges| ranges.map(str::to_owned))
}

/// The ranges of addresses that no host has. The router sends their packets to the client, which drops them. So the client can
/// pretend to be many clients.
#[must_use]
pub fn nobody() -> Ranges {
    ["198.19.0.0/16", "2001:db8:13::/64"].map(str::to_owned)
}

const fn outside(host: u8) -> Both {
    Both { v4: Ipv4Addr::new(198, 18, 0, host), v6: Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, 0, host as u16) }
}

const fn segment(host: u8) -> Both {
    Both { v4: Ipv4Addr::new(192, 168, 50, host), v6: Ipv6Addr::new(0x2001, 0xdb8, 50, 0, 0, 0, 0, host as u16) }
}
