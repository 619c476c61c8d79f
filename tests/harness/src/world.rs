//! A "world" simulates a part of a cluster: a node, pods and clients as network namespaces on one Linux machine. It has cgroups
//! to which tests attach portmap.
//!
//! ```text
//!  pod-a                pod-b               client            network namespaces, one address of each family
//!  10.244.0.2           10.244.0.3          10.244.0.4
//!     └────────────────────┼───────────────────┘
//!                  node: bridge 10.244.0.1                    a network namespace
//! ```
//!
//! A world has no route off the machine, and at first pods have routes to each other and to the node only. So a connection to
//! an address that portmap should have translated fails at once with `ENETUNREACH`. The host's network namespace, routes,
//! sysctls and existing cgroups are not changed: the processes run in new child cgroups ([`Group`]). Dropping the last handle
//! removes the world. [`World::sweep`] removes the worlds of killed processes. The names of its namespaces, its parent cgroup
//! and its directories begin with `portmap-<pid>-`.

mod bpffs;
mod cgroup;
mod families;
mod identity;
mod machine;
mod namespace;
mod pod;
pub mod program;
mod server;
mod sweep;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};

use crate::dual_stack::Both;

pub use cgroup::Group;
pub use families::Families;
pub use machine::Machine;
pub use pod::{Client, Pod};
pub use server::Server;

const BRIDGE: &str = "pods";

/// A node with addresses for 253 pods and clients. Clones, pods and clients share it. Dropping the last of them removes
/// everything. It is a [`Machine`] with a bridge.
#[derive(Clone)]
pub struct World {
    machine: Arc<Machine>,
    last_address: Arc<AtomicU16>,
}

impl Deref for World {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl World {
    /// Makes a node without pods, with addresses of the families that the kernel supports. `name` becomes part of all names, as
    /// a help for debugging.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(name, Families::here())
    }

    /// As [`Self::new`], with addresses of these families only.
    pub fn of(name: &str, families: Families) -> Result<Self> {
        let machine = Machine::new(name, "node", families)?;
        add_bridge(&machine, families)?;
        Ok(Self { machine: Arc::new(machine), last_address: Arc::new(AtomicU16::new(NODE.into())) })
    }

    /// Removes each [`World`] whose process no longer runs. Prints a warning for each failure.
    pub fn sweep() {
        sweep::sweep();
    }

    /// Makes a pod with the next free address. It has no server yet.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.last_address.fetch_add(1, Ordering::Relaxed) + 1;
        let host = u8::try_from(host)
            .ok()
            .filter(|host| *host < u8::MAX)
            .context("the world has no free address for another pod: 253 are the most")?;
        let pod = Pod::new(Arc::clone(&self.machine), name, addresses(host), addresses(NODE))?;
        let port = format!("pod{host}");
        pod.join_subnet(&port)?;
        self.ip(&format!("link set {port} master {BRIDGE}"))?;
        Ok(pod)
    }

    /// Makes a client, which is a pod without a server.
    pub fn client(&self, name: &str) -> Result<Client> {
        self.pod(name)
    }

    /// Makes a client outside the node, with an address of its own network behind the node's interface [`OUTSIDE`]. It has routes
    /// through the node. The pods `answering` get a route back.
    pub fn outside_client<'a>(&self, name: &str, answering: impl IntoIterator<Item = &'a Pod>) -> Result<Client> {
        let client = Pod::new(Arc::clone(&self.machine), name, outside(2), outside(1))?;
        client.join_subnet(OUTSIDE)?;
        let Both { v4, v6 } = outside(1);
        let [v4, v6] = [format!("addr add {v4}/24 dev {OUTSIDE}"), format!("addr add {v6}/64 dev {OUTSIDE} nodad")];
        self.ip(&self.families().script(v4, v6))?;
        client.route_through_node()?;
        for pod in answering {
            let ([v4, v6], [node4, node6]) = (outside(0).texts(), addresses(NODE).texts());
            let [v4, v6] = [format!("route add {v4}/24 via {node4}"), format!("route add {v6}/64 via {node6}")];
            pod.ip(&self.families().script(v4, v6))?;
        }
        Ok(client)
    }

    /// The node's IPv4 address in the pods' network, 10.244.0.1. It exists unless the node has IPv6 only.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        addresses(NODE).v4
    }

    /// The node's IPv6 address in the pods' network, `fd00:10:244::1`. It exists unless the node has IPv4 only.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        addresses(NODE).v6
    }
}

/// The interface of the node towards a client outside of it.
pub const OUTSIDE: &str = "outside";

/// The addresses with this host part in the network of a client outside the node.
fn outside(host: u8) -> Both {
    Both { v4: Ipv4Addr::new(198, 18, 0, host), v6: Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, 0, host.into()) }
}

/// The host part of the node's addresses.
const NODE: u8 = 1;

/// The addresses with this host part in 10.244.0.0/24 and `fd00:10:244::/64`.
fn addresses(host: u8) -> Both {
    Both { v4: Ipv4Addr::new(10, 244, 0, host), v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, host.into()) }
}

fn add_bridge(node: &Machine, families: Families) -> Result<()> {
    let Both { v4, v6 } = addresses(NODE);
    let v4 = format!("addr add {v4}/24 dev {BRIDGE}");
    let v6 = format!("addr add {v6}/64 dev {BRIDGE} nodad");
    // With multicast snooping the bridge first learns the group members, and neighbour discovery waits for that.
    node.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0\n{}\nlink set {BRIDGE} up", families.script(v4, v6)))
}
