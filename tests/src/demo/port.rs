//! What the manifests ask for, read straightforwardly from Service and Pods: what the demo holds the outcome against.
//!
//! Deliberately not the agent's own code, and only what the examples need: a demo that asked the agent what to expect of the
//! agent would show nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ContainerPort, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::listen::{Listen, Protocol};

/// One port of a Service: the address that clients know, and where they should get to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The Service's name.
    pub service: String,
    /// clusterIP and Service port.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The number or name.
    pub target: String,
    /// The pods that match and are ready, each with its own targetPort; sorted by address.
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
    /// All ports of a Service.
    pub fn all(service: &Service, pods: &[Pod]) -> Result<Vec<Self>> {
        let name = service.metadata.name.clone().unwrap_or_default();
        let spec = service.spec.clone().unwrap_or_default();
        let ip: IpAddr = spec.cluster_ip.as_deref().unwrap_or_default().parse().context("spec.clusterIP is not an address")?;
        let selector = spec.selector.unwrap_or_default();
        let is_member = |pod: &&Pod| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value)) && is_ready(pod)
        };
        let members: Vec<&Pod> = pods.iter().filter(is_member).collect();
        let ports = spec.ports.unwrap_or_default();
        ports.iter().map(|port| Self::one(&name, ip, port, &members)).collect()
    }

    fn one(service: &str, ip: IpAddr, port: &ServicePort, members: &[&Pod]) -> Result<Self> {
        let protocol = protocol(port.protocol.as_deref())?;
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let mut backends = Vec::new();
        for pod in members {
            let Some(number) = number(&target, protocol, pod) else { continue };
            let listen = Listen { protocol, port: u16::try_from(number).context("a targetPort is not a port number")? };
            let address = SocketAddr::new(address(pod)?, listen.port);
            backends.push(Backend { pod: name(pod).to_owned(), address, listen });
        }
        backends.sort_by_key(|backend| backend.address);
        let number = u16::try_from(port.port).context("a Service port is not a port number")?;
        let target = match target {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name,
        };
        Ok(Self { service: service.to_owned(), address: SocketAddr::new(ip, number), protocol, target, backends })
    }

    /// As `portmap services` names it: `10.96.0.10:80/TCP`.
    #[must_use]
    pub fn frontend(&self) -> String {
        format!("{}/{}", self.address, self.protocol)
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

/// `metadata.name`.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `status.podIP`.
pub fn address(pod: &Pod) -> Result<IpAddr> {
    let text = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
    text.parse().with_context(|| format!("Pod {}: status.podIP `{text}` is not an address", name(pod)))
}

/// Everything that the pod's containers listen on.
pub fn listens(pod: &Pod) -> Result<Vec<Listen>> {
    let listen = |port: &ContainerPort| {
        let number = u16::try_from(port.container_port).context("a containerPort is not a port number")?;
        Ok(Listen { protocol: protocol(port.protocol.as_deref())?, port: number })
    };
    container_ports(pod).map(listen).collect::<Result<_>>().with_context(|| format!("Pod {}", name(pod)))
}

fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn number(target: &IntOrString, protocol: Protocol, pod: &Pod) -> Option<i32> {
    let target = match target {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(name) => name.as_str(),
    };
    let is_it = |port: &&ContainerPort| {
        port.name.as_deref() == Some(target) && port.protocol.as_deref().unwrap_or("TCP") == protocol.to_string()
    };
    container_ports(pod).find(is_it).map(|port| port.container_port)
}

fn protocol(text: Option<&str>) -> Result<Protocol> {
    text.unwrap_or("TCP").parse()
}
