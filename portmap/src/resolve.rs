//! From a Service and its EndpointSlices to its part of the table: what kube-proxy would do. Pure.
//!
//! [`resolve`] says which places a Service claims, [`entry`] what it does at one of them. Neither fails: what cannot be served is
//! left out and named, with the reason. Next stage: `plan`.

mod endpoints;
pub mod sources;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

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
    /// The addresses by which source ranges tell whether they admit the node.
    pub addresses: Box<[IpAddr]>,
}

impl Node {
    /// A node of this name, and what its Node object says, if there is one.
    pub fn new(name: &str, object: Option<&object::Node>) -> Self {
        let zone = object.and_then(|node| node.zone.clone());
        // As kube-proxy has it, a family in which the Node has no address is told by the loopback address.
        let addresses = object.map(|node| {
            let PerFamily { v4, v6 } = node.addresses;
            [v4.unwrap_or(Ipv4Addr::LOCALHOST.into()), v6.unwrap_or(Ipv6Addr::LOCALHOST.into())]
        });
        Self { name: name.into(), zone, external_ips: None, addresses: addresses.map(Into::into).unwrap_or_default() }
    }

    /// As long as there is no Node object, these are the node's addresses.
    #[must_use]
    pub fn at(self, local: &[IpAddr]) -> Self {
        if !self.addresses.is_empty() {
            return self;
        }
        let addresses: BTreeSet<IpAddr> = local.iter().copied().collect();
        Self { addresses: addresses.into_iter().collect(), ..self }
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

/// What a Service's part of the table follows from, beside the node.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The Service's name.
    pub name: ObjectName,
    /// The Service.
    pub service: Service,
    /// Its slices.
    pub slices: Vec<Slice>,
}

/// A Service's part of the table, but for the entries: [`entry`] has them, one by one.
#[derive(Debug)]
pub struct Resolved {
    /// How it fares against others that claim the same address.
    pub precedence: Precedence,
    /// What it claims.
    pub claims: Claims,
    /// What a load balancer is to be told that asks at its `healthCheckNodePort`, if it has one.
    pub health_check: Option<HealthCheck>,
    /// Service ports that a policy keeps on this node, where there is no endpoint while there are some elsewhere.
    pub lacking: Vec<(Family, Traffic)>,
    /// What it asks for and does not get.
    pub skipped: Vec<Skipped>,
}

/// What a Service claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Each place once.
    pub places: Vec<Place>,
    /// Its ClusterIPs: ports of them that are not among the places are refused.
    pub addresses: Vec<IpAddr>,
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
pub fn resolve(subject: &Subject, node: &Node) -> Resolved {
    let Subject { name, service, slices } = subject;
    let mut resolved = Resolved {
        precedence: Precedence { created: service.created, service: name.clone() },
        claims: Claims::default(),
        health_check: None,
        lacking: Vec::new(),
        skipped: Vec::new(),
    };
    if service.kind == ServiceType::ExternalName {
        return resolved;
    }
    let faults = service.faults.iter().chain(slices.iter().flat_map(|slice| slice.faults.iter()));
    resolved.skipped.extend(faults.map(|fault| Skipped { service: name.clone(), reason: fault.to_owned() }));
    for address in service.external_ips.iter().filter(|address| !node.allows(**address)) {
        resolved.skip(format!("the external IP {address} is in none of --allowed-external-ips, and is left out"));
    }
    resolved.health_check = health_check(subject);
    resolved.claims = claims(service, node, |place| resolved.skip(format!("{place} is defined twice; the first counts")));
    for (family, port, cluster_ip) in ports(service) {
        let places = places(service, port, cluster_ip, node);
        resolved.lacking.extend(Policies::of(service, port, &places).lacking(subject, port, family, node));
    }
    resolved
}

/// What a Service claims on a node. `twice` hears of places that several of its ports would be.
pub fn claims(service: &Service, node: &Node, mut twice: impl FnMut(Place)) -> Claims {
    let mut claims = Claims::default();
    // A Service that is only a name has no address to translate, even if one is left over.
    if service.kind == ServiceType::ExternalName {
        return claims;
    }
    claims.addresses.extend(Family::ALL.iter().filter_map(|family| *service.cluster_ips.get(*family)));
    let mut taken = BTreeSet::new();
    for (_, port, cluster_ip) in ports(service) {
        for (place, _) in places(service, port, cluster_ip, node) {
            if taken.insert(place) { claims.places.push(place) } else { twice(place) }
        }
    }
    claims
}

/// What a Service does at a place that it claims.
pub fn entry(subject: &Subject, node: &Node, place: &Place) -> Option<Entry> {
    let Subject { name, service, slices } = subject;
    let cluster_ip = (*service.cluster_ips.get(place.family))?;
    let may_be = |port: &&Port| {
        let number = if place.address.is_some() { Some(port.port) } else { port.node_port };
        port.protocol == place.protocol && number == Some(place.port)
    };
    let (port, kind, policies) = service.ports.iter().filter(may_be).find_map(|port| {
        let places = places(service, port, cluster_ip, node);
        let (_, kind) = places.iter().find(|(it, _)| it == place)?;
        Some((port, *kind, Policies::of(service, port, &places)))
    })?;
    let owner = ServicePort { service: name.clone(), port: port.name.clone(), protocol: port.protocol };
    let sets = endpoints::of_port(slices.iter(), &owner, place.family, node, policies.uses());
    let (cluster, local) = (target(sets.has_any, sets.cluster), target(sets.has_any, sets.local));
    let (inside, outside) = match kind {
        Kind::ClusterIp if policies.internal == Policy::Local => (local.clone(), local),
        // Clients on this node are not made to depend on where the endpoints run.
        Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancer if policies.external == Policy::Local => (cluster, local),
        Kind::ClusterIp | Kind::NodePort | Kind::ExternalIp | Kind::LoadBalancer => (cluster.clone(), cluster),
    };
    Some(Entry {
        owner,
        kind,
        inside,
        outside,
        affinity_timeout: service.affinity_timeout,
        serving: policies.is_remembered.then(|| sets.serving.into()),
        source_ranges: sources::ranges(service, place.family, node).map(Into::into),
    })
}

/// The ports of a Service in each family that it has, and the ClusterIP there.
fn ports(service: &Service) -> impl Iterator<Item = (Family, &Port, IpAddr)> {
    Family::ALL.into_iter().flat_map(|family| {
        let address = *service.cluster_ips.get(family);
        service.ports.iter().filter_map(move |port| Some((family, port, address?)))
    })
}

/// What decides which endpoints the clients of a port get.
struct Policies {
    internal: Policy,
    /// Of external traffic, if there can be any.
    external: Policy,
    /// Whether clients outside of the cluster may reach it.
    is_accessible: bool,
    /// Whether sockets or session affinity remember endpoints.
    is_remembered: bool,
}

impl Policies {
    fn of(service: &Service, port: &Port, places: &[(Place, Kind)]) -> Self {
        Self {
            internal: service.internal_policy,
            external: if is_external(service) { service.external_policy } else { Policy::Cluster },
            is_accessible: places.len() > 1,
            is_remembered: port.protocol == Protocol::Udp || service.affinity_timeout > 0,
        }
    }

    fn uses(&self) -> Uses {
        let Self { internal, external, is_accessible, is_remembered } = *self;
        Uses {
            cluster: internal == Policy::Cluster || is_accessible,
            local: internal == Policy::Local || (external == Policy::Local && is_accessible),
            serving: is_remembered,
        }
    }

    /// Whose traffic is kept on this node although there are endpoints only elsewhere.
    fn lacking(&self, subject: &Subject, port: &Port, family: Family, node: &Node) -> Vec<(Family, Traffic)> {
        let uses = self.uses();
        if !uses.local {
            return Vec::new();
        }
        let owner = ServicePort { service: subject.name.clone(), port: port.name.clone(), protocol: port.protocol };
        let sets = endpoints::of_port(subject.slices.iter(), &owner, family, node, Uses { cluster: false, ..uses });
        if !sets.has_any || !sets.local.is_empty() {
            return Vec::new();
        }
        let is_external_kept = self.external == Policy::Local && self.is_accessible;
        let kept = [(self.internal == Policy::Local, Traffic::Internal), (is_external_kept, Traffic::External)];
        kept.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, traffic)| (family, traffic)).collect()
    }
}

/// Only load balancers that keep clients on the node ask; what terminates does not count, even if it still serves.
fn health_check(subject: &Subject) -> Option<HealthCheck> {
    let Subject { name: _, service, slices } = subject;
    let is_asked = service.kind == ServiceType::LoadBalancer && service.external_policy == Policy::Local;
    let port = service.health_check_node_port.filter(|_| is_asked)?;
    let ready = PerFamily::of(|family| {
        service.cluster_ips.get(family).as_ref()?;
        let endpoints = slices.iter().filter(|slice| slice.family == Some(family)).flat_map(|slice| &slice.endpoints);
        let is_ready = |endpoint: &&SliceEndpoint| endpoint.ready && endpoint.local;
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
    fn skip(&mut self, reason: String) {
        let skipped = Skipped { service: self.precedence.service.clone(), reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}

#[cfg(test)]
mod tests;
