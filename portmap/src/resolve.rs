//! From a Service and its EndpointSlices to its part of the table: what kube-proxy would do. Pure.
//!
//! [`resolve`] says which places a Service claims, [`ServiceEntries`] what it does at each of them. Neither fails: what cannot be served is
//! left out and named, with the reason. Next stage: `plan`.

pub mod changes;
pub mod claims;
pub mod desired;
mod endpoints;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod node_ports;
mod service_entries;
pub mod source_ranges;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    collections::HashSet,
    model::{
        AddressKind, Family, Frontend, FrontendSpec, ObjectName, PerFamily, Precedence, Protocol, ServicePort,
        object::{self, Faults, Policy, Port, Service, ServiceType, Slice, SliceEndpoint, SlicePort},
    },
    resolve::claims::Rank,
    store::ServiceObjects,
};
use endpoints::{Index, Slices, Uses};
pub use service_entries::ServiceEntries;

/// The most places that a Service may claim. Each costs some microseconds, during which no other Service is served, and no object
/// may take more than a tenth of a second. A Service of 1 MiB could otherwise claim a hundred million: its addresses times its ports.
pub const MOST_PLACES: usize = 16_384;

/// The node that the table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeContext {
    /// Its name: endpoints that run on it are local.
    pub name: Arc<str>,
    /// Its zone, if it is in one.
    pub zone: Option<Arc<str>>,
    /// The ranges that external IPs are served in; none: wherever they are, but in `service_cidrs`.
    pub external_ips: Option<Arc<[IpNet]>>,
    /// The ranges that ClusterIPs are given from: an address in them may become another Service's at any time.
    pub service_cidrs: Arc<[IpNet]>,
    /// The addresses by which source ranges tell whether they admit the node.
    pub addresses: Box<[IpAddr]>,
}

impl NodeContext {
    /// A node of this name, and what its Node object says, if there is one.
    pub fn new(name: &str, object: Option<&object::Node>) -> Self {
        let zone = object.and_then(|node| node.zone.as_deref().map(Into::into));
        // As kube-proxy has it, a family in which the Node has no address is told by the loopback address.
        let addresses = object.map(|node| {
            let PerFamily { v4, v6 } = node.addresses;
            [v4.unwrap_or(Ipv4Addr::LOCALHOST.into()), v6.unwrap_or(Ipv6Addr::LOCALHOST.into())]
        });
        Self { name: name.into(), zone, addresses: addresses.map(Into::into).unwrap_or_default(), ..Self::default() }
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

    /// Leaves out external IPs in the ranges of ClusterIPs, unless they are allowed.
    #[must_use]
    pub fn reserving(self, service_cidrs: &[IpNet]) -> Self {
        Self { service_cidrs: service_cidrs.into(), ..self }
    }

    fn allows(&self, external_ip: IpAddr) -> bool {
        self.objection(external_ip).is_none()
    }

    /// Why an external IP is left out, if it is.
    fn objection(&self, external_ip: IpAddr) -> Option<String> {
        let holds = |range: &&IpNet| range.contains(&external_ip);
        if let Some(allowed) = &self.external_ips {
            let is_allowed = allowed.iter().any(|range| holds(&range));
            return (!is_allowed)
                .then(|| format!("the external IP {external_ip} is in none of --allowed-external-ips, and is left out"));
        }
        let range = self.service_cidrs.iter().find(holds)?;
        Some(format!(
            "the external IP {external_ip} is in the ServiceCIDR {range}, whose addresses are given to other Services, and is left \
             out; --allowed-external-ips can allow it"
        ))
    }
}

/// A Service's part of the table, but for the entries: [`ServiceEntries`] has them, one by one.
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
    /// Each place once, and how the Service comes to it.
    pub places: Vec<(FrontendSpec, Rank)>,
    /// Its ClusterIPs: ports of them that are not among the places are refused.
    pub addresses: Vec<IpAddr>,
    /// Whether these are all places.
    pub extent: Extent,
}

/// How much of what a Service asks for it claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// All.
    #[default]
    Whole,
    /// [`MOST_PLACES`].
    Cut,
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
pub fn resolve(subject: &ServiceObjects, node: &NodeContext) -> Resolved {
    let ServiceObjects { name, service, slices } = subject;
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
    let (mut faults, mut duplicates) = (Faults::default(), Faults::default());
    resolved.claims =
        claims(service, node, |place| duplicates.note(format_args!("{place} is defined twice; the first counts")));
    if resolved.claims.extent == Extent::Cut {
        faults.note(format_args!(
            "{MOST_PLACES} of its addresses and ports are served, and the rest is left out: divide it into several Services"
        ));
    }
    report_other_names(service, slices, &mut faults);
    service.external_ips.iter().filter_map(|address| node.objection(*address)).for_each(|objection| faults.note(objection));
    let all = service
        .faults
        .iter()
        .chain(slices.iter().flat_map(|slice| slice.faults.iter()))
        .chain(faults.iter())
        .chain(duplicates.iter());
    resolved.skipped = all.map(|fault| Skipped { service: name.clone(), reason: fault.to_owned() }).collect();
    resolved.health_check = health_check(subject);
    let index = Index::of(slices, service.ports.len());
    let slices = Slices::new(slices, &index);
    for (family, cluster_ip) in cluster_ips(service) {
        let has_others = addresses(service, node, cluster_ip).nth(1).is_some();
        for port in &service.ports {
            let policies = Policies::of(service, port, has_others);
            let owner = ServicePort { service: name.clone(), port: port.name.clone(), protocol: port.protocol };
            resolved.lacking.extend(policies.lacking(&slices, &owner, family, node));
        }
    }
    resolved
}

/// Notes slices of which no port is one of the Service: the commonest mistake.
fn report_other_names(service: &Service, slices: &[Slice], faults: &mut Faults) {
    let wanted: HashSet<(&str, Protocol)> = service.ports.iter().map(|port| (&*port.name, port.protocol)).collect();
    let joins_nothing = |slice: &&Slice| {
        let has_ports = !wanted.is_empty() && !slice.ports.is_empty() && !slice.endpoints.is_empty();
        has_ports && !slice.ports.iter().any(|port: &SlicePort| wanted.contains(&(&*port.name, port.protocol)))
    };
    for slice in slices.iter().filter(joins_nothing) {
        let given = names(slice.ports.iter().map(|port| (&*port.name, port.protocol)));
        let wanted = names(service.ports.iter().map(|port| (&*port.name, port.protocol)));
        faults.note(format_args!(
            "an EndpointSlice has the ports {given}, and the Service {wanted}: no name and protocol is the same"
        ));
    }
}

/// At most so many ports are named in one sentence.
const NAMED: usize = 10;

fn names<'a>(mut ports: impl ExactSizeIterator<Item = (&'a str, Protocol)>) -> String {
    let rest = ports.len().saturating_sub(NAMED);
    let names: Vec<String> =
        ports.by_ref().take(NAMED).map(|(name, protocol)| format!("{name:?}/{}", protocol.name())).collect();
    if rest > 0 { format!("{} and {rest} more", names.join(", ")) } else { names.join(", ") }
}

/// What a Service claims on a node. `on_duplicate` is called for each address and port that two ports of the Service define.
pub fn claims(service: &Service, node: &NodeContext, mut on_duplicate: impl FnMut(FrontendSpec)) -> Claims {
    let mut claims = Claims::default();
    // A Service that is only a name has no address to translate, even if one is left over.
    if service.kind == ServiceType::ExternalName {
        return claims;
    }
    claims.addresses.extend(cluster_ips(service).map(|(_, address)| address));
    let own = cluster_ips(service).flat_map(|(family, cluster_ip)| {
        service.ports.iter().flat_map(move |port| {
            let node_port =
                port.node_port.map(|number| (FrontendSpec::node_port(family, number, port.protocol), Rank::NodePort));
            std::iter::once((on(cluster_ip, port), Rank::ClusterIp)).chain(node_port)
        })
    });
    let others = cluster_ips(service).flat_map(|(_, cluster_ip)| {
        let others: Vec<(IpAddr, AddressKind)> = addresses(service, node, cluster_ip).skip(1).collect();
        let rank = |kind| rank(service, kind);
        service.ports.iter().flat_map(move |port| {
            let place = |(address, kind): &(IpAddr, AddressKind)| (on(*address, port), rank(*kind));
            others.iter().map(place).collect::<Vec<_>>()
        })
    });
    let mut taken = HashSet::default();
    let mut all = own.chain(others);
    for (place, rank) in all.by_ref().take(MOST_PLACES) {
        if taken.insert(place) { claims.places.push((place, rank)) } else { on_duplicate(place) }
    }
    if all.next().is_some() {
        claims.extent = Extent::Cut;
    }
    claims
}

/// The external IPs of a Service that are served on a node.
pub fn external_ips(service: &Service, node: &NodeContext) -> impl Iterator<Item = IpAddr> {
    service.external_ips.iter().copied().filter(|address| node.allows(*address))
}

fn on(address: IpAddr, port: &Port) -> FrontendSpec {
    Frontend { address, port: port.port, protocol: port.protocol }.into()
}

fn rank(service: &Service, kind: AddressKind) -> Rank {
    match kind {
        AddressKind::ClusterIp => Rank::ClusterIp,
        AddressKind::LoadBalancer if service.kind != ServiceType::LoadBalancer => Rank::LeftOver,
        AddressKind::LoadBalancer | AddressKind::ExternalIp => Rank::External,
        AddressKind::NodePort => Rank::NodePort,
    }
}

/// The families that a Service has, and its ClusterIP in each.
fn cluster_ips(service: &Service) -> impl Iterator<Item = (Family, IpAddr)> {
    Family::ALL.into_iter().filter_map(|family| Some((family, (*service.cluster_ips.get(family))?)))
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
    fn of(service: &Service, port: &Port, has_other_addresses: bool) -> Self {
        Self {
            internal: service.internal_policy,
            external: if is_external(service) { service.external_policy } else { Policy::Cluster },
            is_accessible: has_other_addresses || port.node_port.is_some(),
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
    fn lacking(&self, slices: &Slices<'_>, owner: &ServicePort, family: Family, node: &NodeContext) -> Vec<(Family, Traffic)> {
        let uses = self.uses();
        if !uses.local {
            return Vec::new();
        }
        let sets = endpoints::of_port(slices, owner, family, node, Uses { cluster: false, ..uses });
        if !sets.has_any || !sets.local.is_empty() {
            return Vec::new();
        }
        let is_external_kept = self.external == Policy::Local && self.is_accessible;
        let kept = [(self.internal == Policy::Local, Traffic::Internal), (is_external_kept, Traffic::External)];
        kept.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, traffic)| (family, traffic)).collect()
    }
}

/// Only load balancers that keep clients on the node ask; what terminates does not count, even if it still serves.
fn health_check(subject: &ServiceObjects) -> Option<HealthCheck> {
    let ServiceObjects { name: _, service, slices } = subject;
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

/// The addresses of a Service of one family, each once, and how they came to it: the ClusterIP first.
fn addresses(service: &Service, node: &NodeContext, cluster_ip: IpAddr) -> impl Iterator<Item = (IpAddr, AddressKind)> {
    let load_balancers = service.load_balancer_ips.iter().map(|address| (*address, AddressKind::LoadBalancer));
    let others = load_balancers.chain(external_ips(service, node).map(|address| (address, AddressKind::ExternalIp)));
    // An address that is given twice, or as two kinds, is one.
    let mut known = HashSet::default();
    let is_new = move |(address, _): &(IpAddr, AddressKind)| {
        Family::of(*address) == Family::of(cluster_ip) && *address != cluster_ip && known.insert(*address)
    };
    std::iter::once((cluster_ip, AddressKind::ClusterIp)).chain(others.filter(is_new))
}

/// Whether the type makes it one that clients outside the cluster may use.
fn is_external(service: &Service) -> bool {
    match service.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    }
}

#[cfg(test)]
mod tests;
