//! Two nodes of a cluster and clients outside of them, as network namespaces on one Linux machine.
//!
//! ```text
//!              client
//!                 │ 198.18.0.2, 198.18.0.3
//!              router
//!                 │ 192.168.50.1
//!   ┌─────────────┼───────────────┬────────────────────┐  one Ethernet segment, a bridge in the router's namespace
//!   neighbour     node-1          node-2
//!   .50.100       .50.11          .50.12
//!                 │ 10.244.1.1    │ 10.244.2.1
//!                 pods            pods                     a link of its own for each pod
//! ```
//!
//! Each of them has an IPv6 address too ([`addresses`]). The router sends packets for load balancer addresses and externalIPs
//! to node 1. It also has routes to the pods, so that tests can compare a Service with plain routing.
//!
//! All namespaces check the reverse path (`rp_filter=1`). No packet leaves the machine. The processes run in cgroups of the
//! test; [`Machine`] has the rules.

pub mod addresses;
mod firewall;
mod node;
mod path;

use std::sync::Arc;

use anyhow::Result;

use crate::dual_stack::Both;
use crate::world::{Families, Machine, Pod};

pub use firewall::Firewall;
pub use node::{HOST_PORT, Node};
pub use path::Path;

/// The bridge of the router that is the Ethernet segment of the nodes.
const SEGMENT: &str = "segment";

/// The router's interface towards the client.
const OUTSIDE: &str = "outside";

/// Two nodes, a router, and clients on both sides of it. Dropping this removes everything. The fields are dropped in this
/// order.
pub struct Topology {
    /// The client behind the router. It has two addresses of each family.
    pub client: Pod,
    /// The client on the Ethernet segment of the nodes. It reaches the nodes without the router.
    pub neighbour: Pod,
    /// The nodes `node-1` and `node-2`.
    pub nodes: [Node; 2],
    router: Arc<Machine>,
    name: String,
}

impl Topology {
    /// Makes nodes without pods. `name` becomes part of all names, as a help for debugging.
    pub fn new(name: &str, firewall: Firewall) -> Result<Self> {
        let router = Arc::new(Machine::new(name, "router", Families::Both)?);
        router.write_sysctls(&REVERSE_PATH, "1")?;
        router.write_sysctls(&ERROR_LIMITS, "0")?;
        if std::path::Path::new("/proc/sys/net").join(BRIDGED[0]).exists() {
            router.write_sysctls(&BRIDGED, "0")?;
        }
        let Both { v4, v6 } = addresses::ROUTER;
        router.ip(&format!(
            "link add {SEGMENT} type bridge mcast_snooping 0\n\
             addr add {v4}/24 dev {SEGMENT}\n\
             addr add {v6}/64 dev {SEGMENT} nodad\n\
             link set {SEGMENT} up"
        ))?;
        let nodes = [Node::new(name, 1, &router)?, Node::new(name, 2, &router)?];
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            node.ip(&routes(&[(addresses::pods(other.number()), other.addresses())]))?;
            node.raise(firewall)?;
        }
        let topology = Self { client: client(&router)?, neighbour: neighbour(&router)?, nodes, router, name: name.to_owned() };
        let to_nodes = routes(&topology.routes());
        topology.router.ip(&to_nodes)?;
        topology.neighbour.ip(&to_nodes)?;
        Ok(topology)
    }

    /// Makes a further node, with routes to the pods of the others. Only the router has a route to its pods.
    pub fn add_node(&self, number: u8, firewall: Firewall) -> Result<Node> {
        let node = Node::new(&self.name, number, &self.router)?;
        node.ip(&routes(&self.nodes.each_ref().map(|other| (addresses::pods(other.number()), other.addresses()))))?;
        self.router.ip(&routes(&[(addresses::pods(number), node.addresses())]))?;
        node.raise(firewall)?;
        Ok(node)
    }

    /// The ranges behind the nodes, each with the node that its packets are sent to.
    fn routes(&self) -> Vec<(addresses::Ranges, Both)> {
        let [one, two] = [&self.nodes[0], &self.nodes[1]].map(|node| (addresses::pods(node.number()), node.addresses()));
        let first = one.1;
        [one, two].into_iter().chain(addresses::external().map(|ranges| (ranges, first))).collect()
    }

    /// The router, which runs no portmap.
    #[must_use]
    pub fn router(&self) -> &Machine {
        &self.router
    }
}

/// Sysctls of the reverse path check. The kernel uses the greater value of `all` and the interface.
const REVERSE_PATH: [&str; 2] = ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"];

/// Sysctls of the limits of ICMP errors to one destination. Tests would meet the limits: they cause many errors.
const ERROR_LIMITS: [&str; 2] = ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"];

/// Sysctls of netfilter in bridges. It would cut a frame to the length of its packet, and put fragments together. Kernels
/// without the module `br_netfilter` have no such sysctls.
const BRIDGED: [&str; 2] = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"];

/// `ip` commands that add routes to ranges through these addresses.
fn routes(ranges: &[(addresses::Ranges, Both)]) -> String {
    let pairs = ranges.iter().flat_map(|(ranges, via)| ranges.iter().zip(via.texts()));
    pairs.map(|(range, via)| format!("route add {range} via {via}")).collect::<Vec<_>>().join("\n")
}

/// The client behind the router, with its second addresses.
fn client(router: &Arc<Machine>) -> Result<Pod> {
    let client = Pod::new(Arc::clone(router), "client", addresses::CLIENT, addresses::ROUTER_OUTSIDE)?;
    client.join_subnet(OUTSIDE)?;
    let Both { v4, v6 } = addresses::ROUTER_OUTSIDE;
    router.ip(&format!(
        "link set {OUTSIDE} address {}\naddr add {v4}/24 dev {OUTSIDE}\naddr add {v6}/64 dev {OUTSIDE} nodad\n{}",
        addresses::ROUTER_HARDWARE,
        routes(&[(addresses::nobody(), addresses::CLIENT)])
    ))?;
    let Both { v4, v6 } = addresses::SECOND_CLIENT;
    client.ip(&format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad preferred_lft 0"))?;
    client.route_through_node()?;
    Ok(client)
}

/// The client on the nodes' segment.
fn neighbour(router: &Arc<Machine>) -> Result<Pod> {
    let neighbour = Pod::new(Arc::clone(router), "neighbour", addresses::NEIGHBOUR, addresses::ROUTER)?;
    neighbour.join_subnet("neighbour")?;
    router.ip(&format!("link set neighbour master {SEGMENT}"))?;
    neighbour.route_through_node()?;
    Ok(neighbour)
}
