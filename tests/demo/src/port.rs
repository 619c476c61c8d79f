//! Computes the expected frontends and backends from Services and Pods. The steps of the demo compare their results with these.
//!
//! The code is independent of the agent's code on purpose, because the demo verifies the agent. It supports only the fields
//! that the examples use. External IPs are not among them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use portmap::model::Family;
use portmap_common::AddressKind;
use portmap_harness::listen::{Listen, Protocol};

use crate::pod;

/// One port of a Service at one of its addresses, and its expected backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The Service's name.
    pub service: String,
    /// The kind of the address: clusterIP, load balancer or node port, never external IP.
    pub kind: AddressKind,
    /// The address and port for clients. The address of a node port is unspecified until [`Port::on`] sets it.
    pub address: SocketAddr,
    /// The protocol of the Service port.
    pub protocol: Protocol,
    /// The targetPort: a number or a name.
    pub target: String,
    /// One backend for each address of this family of the ready pods that the selector matches; sorted by address. Pods without
    /// the named targetPort are left out.
    pub backends: Vec<Backend>,
}

/// One backend of a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The pod's name.
    pub pod: String,
    /// The pod's address, with the port number of the targetPort on this pod.
    pub address: SocketAddr,
    /// Port number and protocol of the targetPort on this pod.
    pub listen: Listen,
}

impl Port {
    /// All ports of a Service: each at its clusterIPs, then at its load balancer addresses and at its node port. External IPs
    /// are left out, because the examples have none.
    pub fn all(service: &Service, pods: &[Pod]) -> Result<Vec<Self>> {
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        let is_member = |pod: &&Pod| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value)) && pod::is_ready(pod)
        };
        let members: Vec<&Pod> = pods.iter().filter(is_member).collect();
        let mut all = Vec::new();
        for port in spec.ports.iter().flatten() {
            for (kind, address) in frontends(service, port)? {
                all.push(Self::one(service, port, kind, address, &members)?);
            }
        }
        Ok(all)
    }

    fn one(service: &Service, port: &ServicePort, kind: AddressKind, address: SocketAddr, members: &[&Pod]) -> Result<Self> {
        let protocol = pod::protocol(port.protocol.as_deref())?;
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let mut backends = Vec::new();
        for pod in members {
            let Some(number) = pod::number(&target, protocol, pod) else { continue };
            let listen = Listen { protocol, port: u16::try_from(number).context("a targetPort is not a port number")? };
            let ips = pod::addresses(pod)?.into_iter().filter(|ip| Family::of(*ip) == Family::of(address.ip()));
            let backend = |ip| Backend { pod: pod::name(pod).to_owned(), address: SocketAddr::new(ip, listen.port), listen };
            backends.extend(ips.map(backend));
        }
        backends.sort_by_key(|backend| backend.address);
        let target = match target {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name,
        };
        let service = service.metadata.name.clone().unwrap_or_default();
        Ok(Self { service, kind, address, protocol, target, backends })
    }

    /// The same port at another address, for example a node port at a node's address. The backends stay the same.
    #[must_use]
    pub fn on(self, ip: IpAddr) -> Self {
        Self { address: SocketAddr::new(ip, self.address.port()), ..self }
    }

    /// The frontend in the notation of `portmap services`: `10.96.0.10:80/TCP`, or `*:30080/TCP` for a node port.
    #[must_use]
    pub fn frontend(&self) -> String {
        match self.kind {
            AddressKind::NodePort => format!("*:{}/{}", self.address.port(), self.protocol),
            AddressKind::ClusterIp | AddressKind::ExternalIp | AddressKind::LoadBalancer => {
                format!("{}/{}", self.address, self.protocol)
            }
        }
    }
}

/// The addresses and ports for clients of a Service port: at clusterIPs, at load balancer addresses, and node ports at
/// unspecified addresses. External IPs are left out.
fn frontends(service: &Service, port: &ServicePort) -> Result<Vec<(AddressKind, SocketAddr)>> {
    let spec = service.spec.clone().unwrap_or_default();
    let status = service.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
    let cluster = parse(&spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect()), "spec.clusterIPs")?;
    let ingress: Vec<String> = status.ingress.into_iter().flatten().filter_map(|ingress| ingress.ip).collect();
    let balancers = parse(&ingress, "status.loadBalancer.ingress")?;
    let nodes: Vec<IpAddr> = cluster.iter().map(|ip| any(Family::of(*ip))).collect();
    let groups = [
        (AddressKind::ClusterIp, cluster, Some(port.port)),
        (AddressKind::LoadBalancer, balancers, Some(port.port)),
        (AddressKind::NodePort, nodes, port.node_port),
    ];
    let mut frontends = Vec::new();
    for (kind, ips, number) in groups {
        let Some(number) = number else { continue };
        let number = u16::try_from(number).context("a Service port is not a port number")?;
        frontends.extend(ips.into_iter().map(|ip| (kind, SocketAddr::new(ip, number))));
    }
    Ok(frontends)
}

fn parse(texts: &[String], field: &str) -> Result<Vec<IpAddr>> {
    texts.iter().map(|text| text.parse().with_context(|| format!("`{text}` in {field} is not an address"))).collect()
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Format: `web: 10.96.0.10:80/TCP → targetPort 8080`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → targetPort {}", self.service, self.frontend(), self.target)
    }
}

/// Format of the pods' replies: `web-1 8080/TCP`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pod, self.listen)
    }
}
