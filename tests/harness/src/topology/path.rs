//! The MTU of a part of the network, and the path MTUs that hosts have learnt.

use anyhow::Result;

use super::{OUTSIDE, Topology, addresses};
use crate::dual_stack::Both;
use crate::world::{Machine, Pod};

/// A part of the network with a smaller MTU. A packet that exceeds it meets an ICMP error, or is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From the router to the client. The router sends the errors.
    ToClient,
    /// From each node to the pods of the other, as through a tunnel. The nodes send the errors.
    BetweenNodes,
}

impl Topology {
    /// Sets the MTU of a path. `None` restores the MTU of the interfaces, 1500.
    pub fn set_mtu(&self, path: Path, mtu: Option<u32>) -> Result<()> {
        // Without `lock`, kernels before 5.12 do not apply the MTU of a route to forwarded packets.
        let option = mtu.map(|mtu| format!(" mtu lock {mtu}")).unwrap_or_default();
        match path {
            Path::ToClient => {
                let hosts = [addresses::CLIENT, addresses::SECOND_CLIENT].into_iter().flat_map(Both::texts);
                let routes: Vec<String> = hosts.map(|host| format!("route replace {host} dev {OUTSIDE}{option}")).collect();
                self.router().ip(&routes.join("\n"))
            }
            Path::BetweenNodes => {
                let [one, two] = &self.nodes;
                [(one, two), (two, one)].into_iter().try_for_each(|(node, other)| {
                    let ranges = addresses::pods(other.number()).into_iter().zip(other.addresses().texts());
                    let routes: Vec<String> =
                        ranges.map(|(range, via)| format!("route replace {range} via {via}{option}")).collect();
                    node.ip(&routes.join("\n"))
                })
            }
        }
    }

    /// Removes the path MTUs that the router, the nodes and the clients have learnt, but not those of pods.
    pub fn forget_path_mtus(&self) -> Result<()> {
        let machines = [self.router(), &self.nodes[0], &self.nodes[1]];
        machines.into_iter().try_for_each(Machine::forget_path_mtus)?;
        [&self.client, &self.neighbour].into_iter().try_for_each(Pod::forget_path_mtus)
    }
}
