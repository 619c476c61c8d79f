//! Conversion of `v1/Service`, by the rules of the API server and kube-proxy.

use std::net::IpAddr;

use arcstr::ArcStr;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};

use super::{Faults, is_label};
use crate::model::{Family, PerFamily, Protocol};

/// The API server's default of `sessionAffinityConfig.clientIP.timeoutSeconds`, in seconds.
const AFFINITY_TIMEOUT: u32 = 10_800;

/// The API server's maximum of `sessionAffinityConfig.clientIP.timeoutSeconds`, in seconds: one day.
const MAX_AFFINITY_TIMEOUT: u32 = 86_400;

/// The fields of a Service, without its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `metadata.creationTimestamp` in seconds since 1970, 0 if absent.
    pub created: i64,
    /// `spec.type`.
    pub kind: ServiceType,
    /// The ClusterIP of each family; `None` for a family without one. A headless Service has none.
    pub cluster_ips: PerFamily<Option<IpAddr>>,
    /// The valid addresses of `spec.externalIPs`, of both families.
    pub external_ips: Box<[IpAddr]>,
    /// The valid addresses of `status.loadBalancer.ingress`, without those with `ipMode: Proxy`.
    pub load_balancer_ips: Box<[IpAddr]>,
    /// `spec.loadBalancerSourceRanges`, merged and sorted; `None` admits every client, an empty list admits no client.
    pub source_ranges: PerFamily<Option<Box<[IpNet]>>>,
    /// `spec.internalTrafficPolicy`; `Cluster` if not given or unknown.
    pub internal_policy: Policy,
    /// `spec.externalTrafficPolicy`; `Cluster` if not given or unknown.
    pub external_policy: Policy,
    /// The timeout of `spec.sessionAffinity: ClientIP` in seconds; 0 without session affinity.
    pub affinity_timeout: u32,
    /// `spec.healthCheckNodePort`; `None` if not given, 0 or invalid.
    pub health_check_node_port: Option<u16>,
    /// `spec.ports`, without invalid and unsupported ports.
    pub ports: Box<[Port]>,
    /// The invalid and unsupported fields of the Service.
    pub faults: Faults,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// `ClusterIP`, and unknown types.
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ExternalName`.
    ExternalName,
}

/// The value of `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// `Cluster`: endpoints on all nodes.
    Cluster,
    /// `Local`: endpoints on this node only. As `externalTrafficPolicy` it applies only to clients outside the node.
    Local,
}

/// An entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// `name`; empty if not given.
    pub name: ArcStr,
    /// `protocol`; `TCP` if not given.
    pub protocol: Protocol,
    /// `port`: the port of the Service's own addresses.
    pub port: u16,
    /// `nodePort`, if the port has one.
    pub node_port: Option<u16>,
}

/// The fields of a Service that another proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherService {
    /// The ClusterIP of each family; `None` for a family without one.
    pub cluster_ips: PerFamily<Option<IpAddr>>,
}

impl OtherService {
    /// The ClusterIPs of both families.
    pub fn addresses(&self) -> Vec<IpAddr> {
        Family::ALL.iter().filter_map(|family| *self.cluster_ips.get(*family)).collect()
    }
}

impl From<core::Service> for OtherService {
    fn from(service: core::Service) -> Self {
        let mut spec = service.spec.unwrap_or_default();
        Self { cluster_ips: cluster_ips(&mut spec, &mut Faults::default()) }
    }
}

impl Service {
    /// Whether the Service has source ranges in any family.
    pub fn has_source_ranges(&self) -> bool {
        self.source_ranges.v4.is_some() || self.source_ranges.v6.is_some()
    }
}

impl From<core::Service> for Service {
    fn from(service: core::Service) -> Self {
        let mut faults = Faults::default();
        let mut spec = service.spec.unwrap_or_default();
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        let kind = service_type(spec.type_.as_deref(), &mut faults);
        Self {
            created: service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            kind,
            cluster_ips: cluster_ips(&mut spec, &mut faults),
            external_ips: external_ips(&spec.external_ips.unwrap_or_default(), &mut faults),
            load_balancer_ips: load_balancer_ips(ingress.unwrap_or_default(), &mut faults),
            source_ranges: source_ranges(&spec.load_balancer_source_ranges.unwrap_or_default(), &mut faults),
            internal_policy: policy("internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), &mut faults),
            external_policy: policy("externalTrafficPolicy", spec.external_traffic_policy.as_deref(), &mut faults),
            affinity_timeout: affinity(spec.session_affinity.as_deref(), spec.session_affinity_config, &mut faults),
            health_check_node_port: faults.port("healthCheckNodePort", spec.health_check_node_port),
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(|port| service_port(port, &mut faults)).collect(),
            faults,
        }
    }
}

fn service_type(name: Option<&str>, faults: &mut Faults) -> ServiceType {
    match name {
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some("ClusterIP" | "") | None => ServiceType::ClusterIp,
        Some(unknown) => {
            faults.add(format_args!("the type {unknown:?} is unknown; ClusterIP is used instead"));
            ServiceType::ClusterIp
        }
    }
}

/// The ClusterIPs with the defaults of the API server: `clusterIP` and `clusterIPs` default to each other. Without
/// `ipFamilies`, only the first ClusterIP is used.
fn cluster_ips(spec: &mut core::ServiceSpec, faults: &mut Faults) -> PerFamily<Option<IpAddr>> {
    let mut all = std::mem::take(&mut spec.cluster_ips).unwrap_or_default();
    let first = spec.cluster_ip.take().or_else(|| all.first().cloned()).unwrap_or_default();
    if all.is_empty() {
        all.push(first.clone());
    }
    let mut found = PerFamily::default();
    if matches!(first.as_str(), "" | "None") {
        return found;
    }
    let families = spec.ip_families.take().unwrap_or_default();
    let wanted: Vec<(Option<&str>, &str)> = if families.is_empty() {
        vec![(None, &first)]
    } else {
        families.iter().map(|family| Some(family.as_str())).zip(all.iter().map(String::as_str)).collect()
    };
    for (family, text) in wanted {
        let Some(address) = faults.address("clusterIP", text) else { continue };
        let slot = found.get_mut(Family::of(address));
        if slot.is_none() && family.is_none_or(|name| name == Family::of(address).name()) {
            *slot = Some(address);
        }
    }
    found
}

fn external_ips(texts: &[String], faults: &mut Faults) -> Box<[IpAddr]> {
    texts.iter().filter_map(|text| faults.routed_address("externalIP", text)).collect()
}

fn load_balancer_ips(ingress: Vec<core::LoadBalancerIngress>, faults: &mut Faults) -> Box<[IpAddr]> {
    let mut addresses = Vec::new();
    for entry in ingress {
        let Some(text) = entry.ip.filter(|ip| !ip.is_empty()) else { continue };
        match entry.ip_mode.as_deref() {
            Some("Proxy") => continue,
            Some("VIP" | "") | None => {}
            Some(unknown) => faults.add(format_args!("the ipMode {unknown:?} is unknown; VIP is used instead")),
        }
        addresses.extend(faults.routed_address("load balancer IP", &text));
    }
    addresses.into()
}

/// The source ranges of each family. A family without ranges, or with a range of prefix length 0, admits every client. If all
/// given ranges are invalid, no client is admitted, because a filter was intended.
fn source_ranges(texts: &[String], faults: &mut Faults) -> PerFamily<Option<Box<[IpNet]>>> {
    let ranges: Vec<IpNet> = texts.iter().filter_map(|text| faults.range("loadBalancerSourceRange", text)).collect();
    if ranges.is_empty() && !texts.is_empty() {
        return PerFamily { v4: Some([].into()), v6: Some([].into()) };
    }
    PerFamily::of(|family| {
        let of_family: Vec<IpNet> = ranges.iter().filter(|range| Family::of(range.addr()) == family).copied().collect();
        let is_filter = !of_family.is_empty() && of_family.iter().all(|range| range.prefix_len() > 0);
        is_filter.then(|| {
            let mut collapsed = IpNet::aggregate(&of_family);
            collapsed.sort();
            collapsed.into()
        })
    })
}

fn policy(field: &str, name: Option<&str>, faults: &mut Faults) -> Policy {
    match name {
        Some("Local") => Policy::Local,
        Some("Cluster" | "") | None => Policy::Cluster,
        Some(unknown) => {
            faults.add(format_args!("the {field} {unknown:?} is unknown; Cluster is used instead"));
            Policy::Cluster
        }
    }
}

fn affinity(name: Option<&str>, config: Option<core::SessionAffinityConfig>, faults: &mut Faults) -> u32 {
    match name {
        Some("ClientIP") => {}
        Some("None" | "") | None => return 0,
        Some(unknown) => {
            faults.add(format_args!("the sessionAffinity {unknown:?} is unknown; None is used instead"));
            return 0;
        }
    }
    let Some(seconds) = config.and_then(|config| config.client_ip).and_then(|client| client.timeout_seconds) else {
        return AFFINITY_TIMEOUT;
    };
    match u32::try_from(seconds) {
        Ok(seconds @ 1..=MAX_AFFINITY_TIMEOUT) => seconds,
        Ok(_) | Err(_) => {
            faults.add(format_args!(
                "the timeoutSeconds {seconds} are not between 1 and {MAX_AFFINITY_TIMEOUT}; {AFFINITY_TIMEOUT} are used instead"
            ));
            AFFINITY_TIMEOUT
        }
    }
}

fn service_port(port: core::ServicePort, faults: &mut Faults) -> Option<Port> {
    let number = port.port;
    let protocol = match port.protocol.as_deref() {
        Some("TCP" | "") | None => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => {
            faults.record(format_args!("port {number}/SCTP is left out: sockets of this protocol cannot be translated"));
            return None;
        }
        Some(unknown) => {
            faults.add(format_args!("port {number} has the unknown protocol {unknown:?} and is left out"));
            return None;
        }
    };
    let Some(valid) = u16::try_from(number).ok().filter(|number| *number != 0) else {
        faults.add(format_args!("port {number} is not between 1 and 65535 and is left out"));
        return None;
    };
    let name = port.name.unwrap_or_default();
    if !is_label(&name) {
        faults.add(format_args!("port {number} is left out: the name {name:?} is invalid"));
        return None;
    }
    let node_port = faults.port("nodePort", port.node_port);
    Some(Port { name: ArcStr::from(&name), protocol, port: valid, node_port })
}
