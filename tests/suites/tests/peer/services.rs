//! Random Services: every type and field, with unusual ones often enough.

use serde_json::{Value, json};

use crate::objects::{Service, ServicePort};
use crate::random::Random;

const NAMES: [&str; 3] = ["http", "dns", "web"];
/// A few port numbers, so that TCP and UDP often share one.
const NUMBERS: [u16; 3] = [53, 80, 443];
pub const PROTOCOLS: [(usize, &str); 3] = [(6, "TCP"), (5, "UDP"), (1, "SCTP")];
const KINDS: [(usize, &str); 4] = [(4, "ClusterIP"), (3, "NodePort"), (4, "LoadBalancer"), (1, "ExternalName")];
/// The first family of a Service cannot be changed. A Service stays in one of these rows.
const FAMILIES: [[&[&str]; 2]; 2] = [[&["IPv4"], &["IPv4", "IPv6"]], [&["IPv6"], &["IPv6", "IPv4"]]];
/// Ranges; some contain the node's address, are adjacent, overlap, have the prefix length 0, or have blanks.
const SOURCE_RANGES: [&str; 10] = [
    "10.244.0.0/16",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "192.0.2.0/25",
    "192.0.2.64/26",
    " 192.0.2.192/26 ",
    "0.0.0.0/0",
    "2001:db8:a::/48",
    "fd00:10:244::1/128",
    "::/0",
];

impl Random {
    /// A random Service. Mostly its number determines its addresses and node port, so that they are unique.
    pub fn service(&mut self, number: usize) -> Service {
        let kind = self.weigh(&KINDS);
        Service {
            labels: self.labels(),
            kind,
            families: self.pick(&FAMILIES[number % 2]),
            ports: self.ports(number),
            external_ips: self.external_ips(number),
            ingress: self.ingress(number),
            source_ranges: if self.chance(70) { self.some(25, &SOURCE_RANGES) } else { Vec::new() },
            internal_policy: self.weigh(&[(2, "Cluster"), (1, "Local")]),
            external_policy: self.weigh(&[(1, "Cluster"), (1, "Local")]),
            allocates_node_ports: self.chance(80),
            has_selector: self.chance(30),
            affinity: self.weigh(&[(3, None), (1, Some(0)), (1, Some(10)), (1, Some(3_600))]),
            is_headless: self.chance(5),
        }
    }

    fn labels(&mut self) -> Value {
        match self.below(25) {
            0 => json!({"service.kubernetes.io/service-proxy-name": "another"}),
            1 => json!({"service.kubernetes.io/headless": ""}),
            2 => json!({"app": "anything"}),
            _ => json!({}),
        }
    }

    /// One port without a name, or one to three with names. At most one node port of each protocol is requested.
    fn ports(&mut self, number: usize) -> Vec<ServicePort> {
        let names = if self.chance(30) { vec![""] } else { self.some(60, &NAMES) };
        let names = if names.is_empty() { vec!["http"] } else { names };
        let mut ports: Vec<ServicePort> = Vec::new();
        for name in names {
            let port = ServicePort { name, number: self.pick(&NUMBERS), protocol: self.weigh(&PROTOCOLS), node_port: None };
            let is_taken = |other: &ServicePort| other.number == port.number && other.protocol == port.protocol;
            if !ports.iter().any(is_taken) {
                let is_first = ports.iter().all(|other| other.protocol != port.protocol);
                let node_port = u16::try_from(30_000 + number).ok().filter(|_| is_first && self.chance(50));
                ports.push(ServicePort { node_port, ..port });
            }
        }
        ports
    }

    fn external_ips(&mut self, number: usize) -> Vec<String> {
        let own = [format!("198.51.100.{}", number + 1), format!("2001:db8:1::{:x}", number + 1)];
        let mut addresses: Vec<_> = own.into_iter().filter(|_| self.chance(35)).collect();
        if self.chance(6) {
            addresses.push("198.51.100.250".to_owned());
        }
        addresses
    }

    fn ingress(&mut self, number: usize) -> Vec<Value> {
        // The third address may also be an external IP of this Service. The last may belong to several Services.
        let addresses = [
            (60, format!("203.0.113.{}", number + 1)),
            (60, format!("2001:db8:2::{:x}", number + 1)),
            (15, format!("198.51.100.{}", number + 1)),
            (5, "203.0.113.250".to_owned()),
        ];
        let mut ingress = Vec::new();
        for (percent, address) in addresses {
            let mode = self.weigh(&[(3, "VIP"), (1, "Proxy")]);
            if self.chance(percent) {
                ingress.push(json!({"ip": address, "ipMode": mode}));
            }
        }
        if self.chance(10) {
            ingress.push(json!({"hostname": "balancer.example"}));
        }
        ingress
    }
}
