//! From a Service and its EndpointSlices to table entries: what kube-proxy would do. Pure.
//!
//! `resolve` does not fail: what cannot be served is left out and named, with the reason. Next stage: `plan`.

mod endpoints;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::{
    object::{Port, Service, Slice},
    table::{Entry, Family, Frontend, Kind, ObjectName, Precedence, Protocol, ServicePort, Target, Verdict},
};

/// A Service's part of the table.
#[derive(Debug)]
pub struct Resolved {
    /// How it fares against others that claim the same address.
    pub precedence: Precedence,
    /// What it serves.
    pub entries: Vec<(Frontend, Entry)>,
    /// What it asks for and does not get.
    pub skipped: Vec<Skipped>,
}

/// Something that an object asks for and does not get, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The Service.
    pub service: ObjectName,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}: {}", self.service, self.reason)
    }
}

/// Resolves a Service on the node `node`.
pub fn resolve<'a>(service: &Service, slices: &(impl Iterator<Item = &'a Slice> + Clone), node: &str) -> Resolved {
    let precedence = Precedence { created: service.created, service: service.name.clone() };
    let mut resolved = Resolved { precedence, entries: Vec::new(), skipped: Vec::new() };
    if is_handled(service) {
        for family in [Family::V4, Family::V6] {
            resolve_family(service, slices, node, family, &mut resolved);
        }
    }
    resolved
}

/// Headless Services and those that are only a name have no address to translate, whatever else they say.
fn is_handled(service: &Service) -> bool {
    !service.external_name && !matches!(&*service.cluster_ip, "" | "None")
}

fn resolve_family<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    node: &str,
    family: Family,
    resolved: &mut Resolved,
) {
    let address = match cluster_ip(service, family) {
        Ok(Some(address)) => address,
        Ok(None) => return,
        Err(reason) => return resolved.skip(service, reason),
    };
    let mut defined = BTreeSet::new();
    for port in &service.ports {
        let (number, protocol) = match port_and_protocol(port) {
            Ok(valid) => valid,
            Err(reason) => {
                resolved.skip(service, reason);
                continue;
            }
        };
        let frontend = Frontend { address, port: number, protocol };
        if !defined.insert(frontend) {
            resolved.skip(service, format!("port {number}/{protocol} is defined twice; the first counts"));
            continue;
        }
        let owner = ServicePort { service: service.name.clone(), port: port.name.clone(), protocol };
        let target = match endpoints::of_port(slices.clone(), &owner, family, node) {
            backends if backends.is_empty() => Target::Verdict(Verdict::Refuse),
            backends => Target::Backends(backends.into()),
        };
        let entry = Entry { owner, kind: Kind::ClusterIp, inside: target.clone(), outside: target, affinity_timeout: 0 };
        resolved.entries.push((frontend, entry));
    }
}

impl Resolved {
    fn skip(&mut self, service: &Service, reason: String) {
        let skipped = Skipped { service: service.name.clone(), reason };
        // Both families find the same fault with a port.
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}

/// The ClusterIP of a family: `clusterIPs` and `ipFamilies` go together; without the latter only `clusterIP` counts.
fn cluster_ip(service: &Service, family: Family) -> Result<Option<IpAddr>, String> {
    let text = if service.ip_families.is_empty() {
        Some(&service.cluster_ip)
    } else {
        let wanted = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        service.ip_families.iter().position(|name| &**name == wanted).and_then(|index| service.cluster_ips.get(index))
    };
    let Some(text) = text else { return Ok(None) };
    let address: IpAddr =
        text.parse().map_err(|_| format!("clusterIP {text:?} is not an IP address; the Service is left out"))?;
    Ok(Some(address).filter(|address| Family::of(*address) == family))
}

fn port_and_protocol(port: &Port) -> Result<(u16, Protocol), String> {
    let protocol = match &*port.protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => return Err(format!("port {}/SCTP is left out: sockets of this protocol cannot be translated", port.port)),
        other => return Err(format!("port {} has the unknown protocol {other:?} and is left out", port.port)),
    };
    match u16::try_from(port.port) {
        Ok(number @ 1..) => Ok((number, protocol)),
        Ok(0) | Err(_) => Err(format!("port {} is not between 1 and 65535 and is left out", port.port)),
    }
}

#[cfg(test)]
mod tests;
