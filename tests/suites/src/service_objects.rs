//! Services, their EndpointSlices and the Node, as a manifest has them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::world::Pod;
use serde_json::{Map, Value, json};

/// Where the pods of these tests listen, on both protocols.
pub const TARGET_PORT: u16 = 8080;
/// The port of every Service, on both protocols.
pub const PORT: u16 = 80;

/// What a pod of these tests serves.
pub const LISTENS: [Listen; 2] =
    [Listen { protocol: Protocol::Tcp, port: TARGET_PORT }, Listen { protocol: Protocol::Udp, port: TARGET_PORT }];

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// The IPv4 one.
    pub v4: Ipv4Addr,
    /// The IPv6 one.
    pub v6: Ipv6Addr,
}

impl Both {
    /// The pod's own.
    pub fn of(pod: &Pod) -> Self {
        Self { v4: pod.ipv4(), v6: pod.ipv6() }
    }

    /// IPv4 first.
    pub fn addresses(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The address as that kind of socket takes it.
    pub fn at(self, via: Via, port: u16) -> SocketAddr {
        let address = match via {
            Via::V4 => self.v4.into(),
            Via::V6 => self.v6.into(),
            Via::Mapped => self.v4.to_ipv6_mapped().into(),
        };
        SocketAddr::new(address, port)
    }

    fn texts(self) -> [String; 2] {
        self.addresses().map(|address| address.to_string())
    }
}

/// How a socket speaks to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// IPv4 on `AF_INET`.
    V4,
    /// IPv6 on `AF_INET6`.
    V6,
    /// IPv4 on `AF_INET6`.
    Mapped,
}

impl Via {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];
}

/// The ClusterIPs of the Service of a number.
pub fn cluster_ip(number: u8) -> Both {
    both(Ipv4Addr::new(10, 96, 0, number), [0xfd00, 0x10, 0x96, 0], number)
}

/// Its externalIPs, once it is exposed.
pub fn external_ip(number: u8) -> Both {
    both(Ipv4Addr::new(192, 0, 2, number), [0x2001, 0xdb8, 2, 0], number)
}

/// The addresses of its load balancer, once it is exposed.
pub fn load_balancer_ip(number: u8) -> Both {
    both(Ipv4Addr::new(198, 51, 100, number), [0x2001, 0xdb8, 51, 0], number)
}

/// Its NodePort, once it is exposed, on both protocols.
pub fn node_port(number: u8) -> u16 {
    30_000 + u16::from(number)
}

fn both(v4: Ipv4Addr, [a, b, c, d]: [u16; 4], number: u8) -> Both {
    Both { v4, v6: Ipv6Addr::new(a, b, c, d, 0, 0, 0, number.into()) }
}

/// One endpoint, with an address of each family.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: Both,
    port: u16,
    rest: Map<String, Value>,
}

impl Endpoint {
    /// A ready one, of which no node is known.
    pub fn of(pod: &Pod) -> Self {
        Self { address: Both::of(pod), port: TARGET_PORT, rest: Map::new() }
    }

    /// With this port in place of [`TARGET_PORT`].
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// On the node of this name.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.rest.insert("nodeName".into(), name.into());
        self
    }

    /// It does not take new connections, but still answers.
    #[must_use]
    pub fn terminating(self) -> Self {
        self.conditions(json!({"ready": false, "serving": true, "terminating": true}))
    }

    /// It is still there, but does not answer any more.
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

/// All pods, ready.
pub fn endpoints(pods: &[Pod]) -> Vec<Endpoint> {
    pods.iter().map(Endpoint::of).collect()
}

/// A dual-stack Service with the port 80 on TCP and UDP, and its EndpointSlices.
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
    /// With the ClusterIPs of that number.
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

    /// With `NodePorts`, externalIPs and a load balancer's addresses, all of that number.
    #[must_use]
    pub fn exposed(self, number: u8) -> Self {
        let spec = json!({"type": "LoadBalancer", "externalIPs": external_ip(number).texts()});
        let ingress = load_balancer_ip(number).texts().to_vec();
        Self { node_ports: Some(number), ingress, ..self }.spec(spec)
    }

    /// With these ports in place of the usual ones. All lead to the same ports of the endpoints.
    #[must_use]
    pub fn ports(self, ports: impl IntoIterator<Item = Listen>) -> Self {
        let ports = ports.into_iter().enumerate().map(|(index, listen)| (format!("p{index}"), listen));
        Self { ports: ports.collect(), ..self }
    }

    /// With these fields of the spec too.
    #[must_use]
    pub fn spec(mut self, more: Value) -> Self {
        self.spec.extend(fields(more));
        self
    }

    /// `sessionAffinity: ClientIP`
    #[must_use]
    pub fn sticky(self, seconds: u32) -> Self {
        self.spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
    }

    /// With these labels of the Service.
    #[must_use]
    pub fn labels(self, labels: Value) -> Self {
        Self { labels, ..self }
    }

    /// With these endpoints in place of those it has.
    #[must_use]
    pub fn endpoints(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: endpoints.into_iter().collect(), ..self }
    }

    /// The objects of a manifest: slices have one port number each.
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

/// The Node that the agent runs on, with these `InternalIP`s.
pub fn node(addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": {"addresses": addresses}})
}

fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}
