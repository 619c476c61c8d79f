//! Reads names, addresses, ports and readiness from Pod manifests.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use portmap_harness::listen::{Listen, Protocol};

/// The pod's name, from `metadata.name`; empty if it is not set.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's addresses: `status.podIPs`, or else `status.podIP`. Fails if the pod has neither, or an invalid address.
pub fn addresses(pod: &Pod) -> Result<Vec<IpAddr>> {
    let PodStatus { pod_ip, pod_ips, .. } = pod.status.clone().unwrap_or_default();
    let listed: Vec<String> = pod_ips.into_iter().flatten().map(|entry| entry.ip).collect();
    let texts = if listed.is_empty() { vec![pod_ip.unwrap_or_default()] } else { listed };
    let parse =
        |text: &String| text.parse().with_context(|| format!("Pod {}: status.podIP `{text}` is not an address", name(pod)));
    texts.iter().map(parse).collect()
}

/// The ports that the pod's containers declare.
pub fn listens(pod: &Pod) -> Result<Vec<Listen>> {
    let listen = |port: &ContainerPort| {
        let number = u16::try_from(port.container_port).context("a containerPort is not a port number")?;
        Ok(Listen { protocol: protocol(port.protocol.as_deref())?, port: number })
    };
    container_ports(pod).map(listen).collect::<Result<_>>().with_context(|| format!("Pod {}", name(pod)))
}

/// Whether the pod's condition `Ready` is `True`.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The port number of a targetPort on this pod. A numeric targetPort is returned unchanged. `None` if the pod has no port of
/// this name and protocol.
#[must_use]
pub fn number(target: &IntOrString, protocol: Protocol, pod: &Pod) -> Option<i32> {
    let target = match target {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(name) => name.as_str(),
    };
    let is_target = |port: &&ContainerPort| {
        port.name.as_deref() == Some(target) && port.protocol.as_deref().unwrap_or("TCP") == protocol.to_string()
    };
    container_ports(pod).find(is_target).map(|port| port.container_port)
}

/// Parses the protocol of a port; the default is TCP.
pub fn protocol(text: Option<&str>) -> Result<Protocol> {
    text.unwrap_or("TCP").parse()
}

fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten())
}
