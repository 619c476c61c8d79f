//! The frontends that a Service claims: each of its addresses with each of its ports, and its node ports.

use std::net::IpAddr;

use super::{NodeContext, claims::Rank};
use crate::{
    collections::HashSet,
    model::{
        AddressKind, Family, Frontend, FrontendSpec,
        object::{Port, Service, ServiceType},
    },
};

/// The largest number of frontends that a Service may claim, including duplicates.
///
/// Each frontend costs some microseconds, in which no other Service is updated. The limit keeps the time for one object below a
/// tenth of a second. Without the limit, a Service object of 1 MiB could claim a hundred million frontends.
pub const MAX_FRONTENDS: usize = 16_384;

/// The frontends and ClusterIPs that a Service claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The frontends, each once, with the rank of the claim.
    pub frontends: Vec<(FrontendSpec, Rank)>,
    /// The Service's ClusterIPs. Connections to ports of these addresses that are not among `frontends` are refused.
    pub addresses: Vec<IpAddr>,
    /// Whether `frontends` is complete.
    pub extent: Extent,
}

/// Whether the claims of a Service are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// All frontends of the Service are claimed.
    #[default]
    Whole,
    /// The Service has more than [`MAX_FRONTENDS`] frontends; at most that many are claimed.
    Cut,
}

/// The claims of a Service on a node. Calls `on_duplicate` for each frontend that an earlier port of the Service defines too;
/// the first port keeps it. Looks only at the first [`MAX_FRONTENDS`] frontends.
pub fn claims(service: &Service, node: &NodeContext, mut on_duplicate: impl FnMut(FrontendSpec)) -> Claims {
    let mut claims = Claims::default();
    // A Service of type ExternalName is only a DNS name; a remaining address from an earlier type is not served.
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
            let spec = |(address, kind): &(IpAddr, AddressKind)| (on(*address, port), rank(*kind));
            others.iter().map(spec).collect::<Vec<_>>()
        })
    });
    let mut taken = HashSet::default();
    let mut all = own.chain(others);
    for (spec, rank) in all.by_ref().take(MAX_FRONTENDS) {
        if taken.insert(spec) { claims.frontends.push((spec, rank)) } else { on_duplicate(spec) }
    }
    if all.next().is_some() {
        claims.extent = Extent::Cut;
    }
    claims
}

/// The external IPs of a Service that the ranges of a node allow, of both families.
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

/// The address families in which a Service has a ClusterIP, each with that ClusterIP.
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = (Family, IpAddr)> {
    Family::ALL.into_iter().filter_map(|family| Some((family, (*service.cluster_ips.get(family))?)))
}

/// The addresses of a Service that are served on a node, in the family of this ClusterIP, each once with its kind. The
/// ClusterIP is the first.
pub fn addresses(service: &Service, node: &NodeContext, cluster_ip: IpAddr) -> impl Iterator<Item = (IpAddr, AddressKind)> {
    let load_balancers = service.load_balancer_ips.iter().map(|address| (*address, AddressKind::LoadBalancer));
    let others = load_balancers.chain(external_ips(service, node).map(|address| (address, AddressKind::ExternalIp)));
    // An address may be listed twice, or as two kinds; the first kind is used.
    let mut known = HashSet::default();
    let is_new = move |(address, _): &(IpAddr, AddressKind)| {
        Family::of(*address) == Family::of(cluster_ip) && *address != cluster_ip && known.insert(*address)
    };
    std::iter::once((cluster_ip, AddressKind::ClusterIp)).chain(others.filter(is_new))
}
