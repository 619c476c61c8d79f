//! Connects a node to the network of the nodes, and writes the configuration of its pods' network.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::addresses::{CONTROL_PLANE, CONTROL_PLANE_V6, Node};
use crate::cluster::enclosure::BRIDGE;
use crate::cluster::network;

/// Makes the device `eth0` of a node in this network namespace, with its addresses and routes. Its peer goes to the network
/// namespace of the init process of this PID namespace.
pub fn connect(node: Node, nodes: u8) -> Result<()> {
    let (name, v4, v6) = (node.name(), node.v4(), node.v6());
    network::configure(&format!(
        "link set lo up\n\
         link add eth0 type veth peer name {name} netns 1\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {CONTROL_PLANE}\n\
         route add ::/0 via {CONTROL_PLANE_V6}\n"
    ))?;
    let others = Node::first(nodes).into_iter().filter(|other| *other != node);
    network::configure(&others.map(routes_to_pods).collect::<String>())?;
    network::configure_outer(&format!("link set {name} master {BRIDGE} up\n{}", routes_to_pods(node)))?;
    network::forward()
}

fn routes_to_pods(node: Node) -> String {
    format!("route add {} via {}\nroute add {} via {}\n", node.pods_v4(), node.v4(), node.pods_v6(), node.v6())
}

/// The configuration of the CNI plugins of a node.
///
/// Each pod has its own link (`ptp`). On a bridge, the packets between pods of a node would not pass netfilter.
pub fn plugins(node: Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni/addresses",
                    "ranges": [[{"subnet": node.pods_v4()}], [{"subnet": node.pods_v6()}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"},
        ],
    })
}
