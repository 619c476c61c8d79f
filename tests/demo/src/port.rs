//! What the manifests ask for, read straightforwardly from Service and Pods: what the demo holds the outcome against.
//!
//! Deliberately not the agent's own code, and only what the examples need: a demo that asked the agent what to expect of the
//! agent would show nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use portmap::model::Family;
use portmap_common::AddressKind;
use portmap_harness::listen::{Listen, Protocol};

use crate::pod;

/// One port of a Service at one of its addresses: what clients know, and where they should get to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The Service's name.
    pub service: String,
    /// How the address came to the Service.
    pub kind: AddressKind,
    /// Address and port. A node port has it from [`Port::on`]; before, its address is unspecified.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The number or name.
    pub target: String,
    /// The pods that match, are ready and have an address of this family, each with its own targetPort; sorted by address.
    pub backends: Vec<Backend>,
}

/// One pod of a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The pod's name.
    pub pod: String,
    /// The pod's address, and the port that it listens on.
    pub address: SocketAddr,
    /// The same port.
    pub listen: Listen,
}

impl Port {
    /// All ports of a Service, each at all of its addresses; the clusterIP comes first.
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

    /// The same at another address: that of a node, for a node port.
    #[must_use]
    pub fn on(self, ip: IpAddr) -> Self {
        Self { address: SocketAddr::new(ip, self.address.port()), ..self }
    }

    /// As `portmap services` names it: `10.96.0.10:80/TCP`, `*:30080/TCP`.
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

/// Where clients may connect to for a port: at the clusterIPs, at the load balancer's addresses, at the nodes.
fn frontends(service: &Service, port: &ServicePort) -> Result<Vec<(AddressKind, SocketAddr)>> {
    let spec = service.spec.clone().unwrap_or_default();
    let status = service.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
    let cluster = parse(&spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect()), "spec.clusterIPs")?;
    let ingress: Vec<String> = status.ingress.into_iter().flatten().filter_map(|ingress| ingress.ip).collect();
    let balancers = parse(&ingress, "status.loadBalancer.ingress")?;
    let nodes: Vec<IpAddr> = cluster.iter().map(|ip| any(Family::of(*ip))).collect();
    let ways = [
        (AddressKind::ClusterIp, cluster, Some(port.port)),
        (AddressKind::LoadBalancer, balancers, Some(port.port)),
        (AddressKind::NodePort, nodes, port.node_port),
    ];
    let mut frontends = Vec::new();
    for (kind, ips, number) in ways {
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

/// `web: 10.96.0.10:80/TCP → targetPort 8080`
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → targetPort {}", self.service, self.frontend(), self.target)
    }
}

/// As the pod answers: `web-1 8080/TCP`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pod, self.listen)
    }
}
