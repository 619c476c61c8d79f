//! From a Service and its EndpointSlices to table entries: what kube-proxy would do. Pure.
//!
//! `resolve` does not fail: what cannot be served is left out and named, with the reason. Next stage: `plan`.

mod endpoints;

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    object::{self, Policy, Port, Service, ServiceType, Slice, SliceEndpoint},
    table::{
        Endpoint, Entry, Family, Frontend, Kind, ObjectName, PerFamily, Place, Precedence, Protocol, ServicePort, Target,
        Verdict,
    },
};
use endpoints::Uses;

/// The node that the table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name: endpoints that run on it are local.
    pub name: Box<str>,
    /// Its zone, if it is in one.
    pub zone: Option<Box<str>>,
    /// The ranges that external IPs are served in; none: wherever they are.
    pub external_ips: Option<Arc<[IpNet]>>,
}

impl Node {
    /// A node of this name, and what its Node object says, if there is one.
    pub fn new(name: &str, object: Option<&object::Node>) -> Self {
        Self { name: name.into(), zone: object.and_then(|node| node.zone.clone()), external_ips: None }
    }

    /// Serves external IPs in these ranges only, if any are given.
    #[must_use]
    pub fn allowing(self, external_ips: Option<Arc<[IpNet]>>) -> Self {
        Self { external_ips, ..self }
    }

    fn allows(&self, external_ip: IpAddr) -> bool {
        self.external_ips.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&external_ip)))
    }
}

/// A Service's part of the table.
#[derive(Debug)]
pub struct Resolved {
    /// How it fares against others that claim the same address.
    pub precedence: Precedence,
    /// What it serves.
    pub entries: Vec<(Place, Entry)>,
    /// Its ClusterIPs: ports of them that are not among the entries are refused.
    pub addresses: Vec<IpAddr>,
    /// What a load balancer is to be told that asks at its `healthCheckNodePort`, if it has one.
    pub health_check: Option<HealthCheck>,
    /// Service ports that a policy keeps on this node, where there is no endpoint while there are some elsewhere.
    pub lacking: Vec<(Family, Traffic)>,
    /// What it asks for and does not get.
    pub skipped: Vec<Skipped>,
}

/// Whose traffic a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

/// The answer at a `healthCheckNodePort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// How many addresses on this node are ready, over all ports of the Service; of each family that it has.
    pub ready: PerFamily<Option<usize>>,
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

/// Resolves a Service on a node.
pub fn resolve<'a>(service: &Service, slices: &(impl Iterator<Item = &'a Slice> + Clone), node: &Node) -> Resolved {
    let mut resolved = Resolved {
        precedence: Precedence { created: service.created, service: service.name.clone() },
        entries: Vec::new(),
        addresses: Vec::new(),
        health_check: None,
        lacking: Vec::new(),
        skipped: Vec::new(),
    };
    // A Service that is only a name has no address to translate, even if one is left over.
    if service.kind == ServiceType::ExternalName {
        return resolved;
    }
    let faults = service.faults.iter().chain(slices.clone().flat_map(|slice| slice.faults.iter()));
    resolved.skipped.extend(faults.map(|fault| Skipped { service: service.name.clone(), reason: fault.to_owned() }));
    for address in service.external_ips.iter().filter(|address| !node.allows(**address)) {
        resolved.skip(service, format!("the external IP {address} is in none of --allowed-external-ips, and is left out"));
    }
    resolved.health_check = health_check(service, slices, node);
    for family in Family::ALL {
        if let Some(address) = *service.cluster_ips.get(family) {
            resolved.addresses.push(address);
            for port in &service.ports {
                resolve_port(service, port, address, slices, node, &mut resolved);
            }
        }
    }
    resolved
}

/// The entries of one port in the family of the ClusterIP.
fn resolve_port<'a>(
    service: &Service,
    port: &Port,
    cluster_ip: IpAddr,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    node: &Node,
    resolved: &mut Resolved,
) {
    let family = Family::of(cluster_ip);
    let places = places(service, port, cluster_ip, node);
    let owner = ServicePort { service: service.name.clone(), port: port.name.clone(), protocol: port.protocol };
    let is_internal_local = service.internal_policy == Policy::Local;
    let is_external_local = service.external_policy == Policy::Local && is_external(service);
    let is_accessible = places.len() > 1;
    let is_remembered = port.protocol == Protocol::Udp || service.affinity_timeout > 0;
    let uses = Uses {
        cluster: !is_internal_local || is_accessible,
        local: is_internal_local || (is_external_local && is_accessible),
        serving: is_remembered,
    };
    let sets = endpoints::of_port(slices.clone(), &owner, family, node, uses);
    if sets.has_any && uses.local && sets.local.is_empty() {
        let policies = [(is_internal_local, Traffic::Internal), (is_external_local && is_accessible, Traffic::External)];
        resolved.lacking.extend(policies.iter().filter(|(applies, _)| *applies).map(|(_, traffic)| (family, *traffic)));
    }
    let (cluster, local) = (target(sets.has_any, sets.cluster), target(sets.has_any, sets.local));
    let serving: Option<Arc<[Endpoint]>> = is_remembered.then(|| sets.serving.into());
    for (place, kind) in places {
        let (inside, outside) = match kind {
            Kind::ClusterIp if is_internal_local => (&local, &local),
            // Clients on this node are not made to depend on where the endpoints run.
            Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancer if is_external_local => (&cluster, &local),
            Kind::ClusterIp | Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancer => (&cluster, &cluster),
        };
        let entry = Entry {
            owner: owner.clone(),
            kind,
            inside: inside.clone(),
            outside: outside.clone(),
            affinity_timeout: service.affinity_timeout,
            serving: serving.clone(),
            source_ranges: service.source_ranges.get(family).clone(),
        };
        if resolved.entries.iter().any(|(taken, _)| *taken == place) {
            resolved.skip(service, format!("{place} is defined twice; the first counts"));
        } else {
            resolved.entries.push((place, entry));
        }
    }
}

/// Only load balancers that keep clients on the node ask; what terminates does not count, even if it still serves.
fn health_check<'a>(service: &Service, slices: &(impl Iterator<Item = &'a Slice> + Clone), node: &Node) -> Option<HealthCheck> {
    let is_asked = service.kind == ServiceType::LoadBalancer && service.external_policy == Policy::Local;
    let port = service.health_check_node_port.filter(|_| is_asked)?;
    let ready = PerFamily::of(|family| {
        service.cluster_ips.get(family).as_ref()?;
        let endpoints = slices.clone().filter(|slice| slice.family == Some(family)).flat_map(|slice| &slice.endpoints);
        let is_ready = |endpoint: &&SliceEndpoint| endpoint.ready && endpoints::is_local(endpoint, node);
        let addresses: BTreeSet<IpAddr> = endpoints.filter(is_ready).map(|endpoint| endpoint.address).collect();
        Some(addresses.len())
    });
    Some(HealthCheck { port, ready })
}

/// All places of a port: the ClusterIP first, then its other addresses of the family, and the node port.
fn places(service: &Service, port: &Port, cluster_ip: IpAddr, node: &Node) -> Vec<(Place, Kind)> {
    let family = Family::of(cluster_ip);
    let mut places: Vec<(Place, Kind)> = Vec::with_capacity(1);
    let mut add = |place: Place, kind| {
        // An address that is given twice, or as two kinds, is one.
        if !places.iter().any(|(known, _)| *known == place) {
            places.push((place, kind));
        }
    };
    let on = |address: IpAddr| Frontend { address, port: port.port, protocol: port.protocol }.into();
    add(on(cluster_ip), Kind::ClusterIp);
    let load_balancers = service.load_balancer_ips.iter().map(|address| (*address, Kind::LoadBalancer));
    let allowed = service.external_ips.iter().filter(|address| node.allows(**address));
    let external = load_balancers.chain(allowed.map(|address| (*address, Kind::ExternalIp)));
    for (address, kind) in external.filter(|(address, _)| Family::of(*address) == family) {
        add(on(address), kind);
    }
    if let Some(node_port) = port.node_port {
        add(Place::node_port(family, node_port, port.protocol), Kind::NodePort);
    }
    places
}

/// Whether the type makes it one that clients outside the cluster may use.
fn is_external(service: &Service) -> bool {
    match service.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}

/// Without an endpoint anywhere clients are refused; with some elsewhere only, a policy keeps them away, and they are dropped.
fn target(has_any: bool, set: Vec<Endpoint>) -> Target {
    if !has_any {
        Target::Verdict(Verdict::Refuse)
    } else if set.is_empty() {
        Target::Verdict(Verdict::Drop)
    } else {
        Target::Backends(set.into())
    }
}

impl Resolved {
    fn skip(&mut self, service: &Service, reason: String) {
        let skipped = Skipped { service: service.name.clone(), reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}

#[cfg(test)]
mod tests;
