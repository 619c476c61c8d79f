//! The Services of the measurement, as manifests.

use portmap_harness::topology::Node;
use portmap_harness::world::Pod;
use serde_json::{Value, json};

/// The port of the pods, on TCP and UDP.
pub const TARGET_PORT: u16 = 8080;

/// A Service with this node port, and its EndpointSlice.
pub fn service(node_port: u16, pod: &Pod, node: &Node) -> [Value; 2] {
    let name = format!("s{node_port}");
    let slice_port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": TARGET_PORT});
    let slice_ports = ["TCP", "UDP"].map(slice_port);
    let ports = ["TCP", "UDP"].map(|protocol| {
        let name = protocol.to_lowercase();
        json!({"name": name, "protocol": protocol, "port": 80, "targetPort": TARGET_PORT, "nodePort": node_port})
    });
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "clusterIP": format!("10.96.255.{}", node_port - 30_000), "ports": ports},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": slice_ports,
            "endpoints": [{"addresses": [pod.ipv4().to_string()], "nodeName": node.name(), "conditions": {"ready": true}}],
        }),
    ]
}

/// One of the further Services.
pub fn other_service(number: u32) -> Value {
    let [_, _, high, low] = number.to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("other-{number}")},
        "spec": {"clusterIP": format!("10.97.{high}.{low}"), "ports": [{"port": 80}]},
    })
}
