//! Manifests of Services, their EndpointSlices and the Node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::world::Pod;
use serde_json::{Map, Value, json};

/// The port on which pods of these tests listen, on TCP and UDP.
pub const TARGET_PORT: u16 = 8080;
/// The port of every Service, on TCP and UDP.
pub const PORT: u16 = 80;

/// The listeners of a pod: [`TARGET_PORT`] on TCP and UDP.
pub const LISTENS: [Listen; 2] =
    [Listen { protocol: Protocol::Tcp, port: TARGET_PORT }, Listen { protocol: Protocol::Udp, port: TARGET_PORT }];

/// The ClusterIPs of the Service with this number: `10.96.0.<number>` and an IPv6 address.
pub fn cluster_ip(number: u8) -> Both {
    both(Ipv4Addr::new(10, 96, 0, number), [0xfd00, 0x10, 0x96, 0], number)
}

/// The external IPs that [`Service::exposed`] adds for this number.
pub fn external_ip(number: u8) -> Both {
    both(Ipv4Addr::new(192, 0, 2, number), [0x2001, 0xdb8, 2, 0], number)
}

/// The load balancer addresses that [`Service::exposed`] adds for this number.
pub fn load_balancer_ip(number: u8) -> Both {
    both(Ipv4Addr::new(198, 51, 100, number), [0x2001, 0xdb8, 51, 0], number)
}

/// The node port that [`Service::exposed`] adds for this number, on TCP and UDP.
pub fn node_port(number: u8) -> u16 {
    30_000 + u16::from(number)
}

fn both(v4: Ipv4Addr, [a, b, c, d]: [u16; 4], number: u8) -> Both {
    Both { v4, v6: Ipv6Addr::new(a, b, c, d, 0, 0, 0, number.into()) }
}

/// An endpoint with an address of each family.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: Both,
    port: u16,
    rest: Map<String, Value>,
}

impl Endpoint {
    /// A ready endpoint on [`TARGET_PORT`], without a node name.
    pub fn of(pod: &Pod) -> Self {
        Self::at(Both::of(pod), TARGET_PORT)
    }

    /// A ready endpoint at these addresses, for example those of a node.
    pub fn at(address: Both, port: u16) -> Self {
        Self { address, port, rest: Map::new() }
    }

    /// Sets the port number, instead of [`TARGET_PORT`].
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Sets the name of the endpoint's node.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.rest.insert("nodeName".into(), name.into());
        self
    }

    /// Marks the endpoint as terminating and still serving.
    #[must_use]
    pub fn terminating(self) -> Self {
        self.conditions(json!({"ready": false, "serving": true, "terminating": true}))
    }

    /// Marks the endpoint as terminating and not serving.
    #[must_use]
    pub fn not_serving(self) -> Self {
        self.conditions(json!({"ready": false, "serving": false, "terminating": true}))
    }

    fn conditions(mut self, conditions: Value) -> Self {
        self.rest.insert("conditions".into(), conditions);
        self
    }

    fn object(&self, address: &str) -> Value {
        let mut object = self.rest.clone();
        object.insert("addresses".into(), json!([address]));
        object.into()
    }
}

/// One ready endpoint for each pod.
pub fn endpoints(pods: &[Pod]) -> Vec<Endpoint> {
    pods.iter().map(Endpoint::of).collect()
}

/// A dual-stack Service and its EndpointSlices. It has port 80 on TCP and UDP unless [`Self::ports()`] replaces them.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    labels: Value,
    ports: Vec<(String, Listen)>,
    node_ports: Option<u8>,
    spec: Map<String, Value>,
    ingress: Vec<String>,
    endpoints: Vec<Endpoint>,
}

impl Service {
    /// A Service of type `ClusterIP` with the ClusterIPs of this number and without endpoints.
    pub fn new(name: &str, number: u8) -> Self {
        let ips = cluster_ip(number).texts();
        let spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"], "type": "ClusterIP"});
        Self {
            name: name.into(),
            labels: json!({}),
            ports: vec![("tcp".into(), Listen::tcp(PORT)), ("udp".into(), Listen::udp(PORT))],
            node_ports: None,
            spec: fields(spec),
            ingress: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Sets the type `LoadBalancer`, and adds the node ports, external IPs and load balancer addresses of this number.
    #[must_use]
    pub fn exposed(self, number: u8) -> Self {
        let spec = json!({"type": "LoadBalancer", "externalIPs": external_ip(number).texts()});
        let ingress = load_balancer_ip(number).texts().to_vec();
        Self { node_ports: Some(number), ingress, ..self }.spec(spec)
    }

    /// Replaces the ports of the Service. Each of them leads to the port number of the endpoint.
    #[must_use]
    pub fn ports(self, ports: impl IntoIterator<Item = Listen>) -> Self {
        let ports = ports.into_iter().enumerate().map(|(index, listen)| (format!("p{index}"), listen));
        Self { ports: ports.collect(), ..self }
    }

    /// Sets these fields of the spec; existing fields of the same name are replaced.
    #[must_use]
    pub fn spec(mut self, more: Value) -> Self {
        self.spec.extend(fields(more));
        self
    }

    /// Sets `sessionAffinity: ClientIP` with this timeout in seconds.
    #[must_use]
    pub fn sticky(self, seconds: u32) -> Self {
        self.spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
    }

    /// Sets the labels of the Service.
    #[must_use]
    pub fn labels(self, labels: Value) -> Self {
        Self { labels, ..self }
    }

    /// Replaces the endpoints.
    #[must_use]
    pub fn endpoints(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: endpoints.into_iter().collect(), ..self }
    }

    /// The Service and its EndpointSlices: one slice for each family and each port number of the endpoints. No slice without
    /// endpoints.
    pub fn objects(&self) -> Vec<Value> {
        let mut by_port: BTreeMap<u16, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in &self.endpoints {
            by_port.entry(endpoint.port).or_default().push(endpoint);
        }
        let slices = by_port.iter().flat_map(|(port, endpoints)| {
            ["IPv4", "IPv6"].into_iter().enumerate().map(|(family, name)| self.slice(family, name, *port, endpoints))
        });
        [self.service()].into_iter().chain(slices).collect()
    }

    fn service(&self) -> Value {
        let ports = self.ports.iter().map(|(name, Listen { protocol, port })| {
            let mut fields = json!({"name": name, "protocol": protocol, "port": port});
            if let Some(number) = self.node_ports {
                fields["nodePort"] = node_port(number).into();
            }
            fields
        });
        let mut spec = self.spec.clone();
        spec.insert("ports".into(), ports.collect());
        let ingress: Vec<Value> = self.ingress.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name, "labels": self.labels},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
        })
    }

    fn slice(&self, family: usize, name: &str, port: u16, endpoints: &[&Endpoint]) -> Value {
        let ports = self.ports.iter().map(|(name, listen)| json!({"name": name, "protocol": listen.protocol, "port": port}));
        let endpoints = endpoints.iter().filter_map(|endpoint| Some(endpoint.object(endpoint.address.texts().get(family)?)));
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{port}-{}", self.name, name.to_lowercase()),
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": name, "ports": ports.collect::<Vec<_>>(), "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }
}

/// The Node of an agent of a world, with these addresses of type `InternalIP`.
pub fn node(addresses: &[IpAddr]) -> Value {
    node_named("node", addresses)
}

/// A Node with these addresses of type `InternalIP`.
pub fn node_named(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}})
}

/// The marker of a change: a Service without endpoints, whose frontend is new with each change. Returns the Service with these
/// labels, and the frontend as `portmap services` prints it.
///
/// An agent applies a change in several steps. If a change is written twice, each time with the next marker, the second marker in
/// the maps shows that all steps of the first change are complete.
pub fn marker(change: u16, labels: &Value) -> (Value, String) {
    let [high, low] = change.to_be_bytes();
    let address = format!("10.97.{high}.{low}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "mark", "labels": labels},
        "spec": {"clusterIP": address, "ports": [{"port": 1}]},
    });
    (service, format!("{address}:1/TCP"))
}

fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}
