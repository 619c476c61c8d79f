//! The frontends that a Service asks for: its addresses times its ports.

use std::net::IpAddr;

use super::{NodeContext, claims::Rank};
use crate::{
    collections::HashSet,
    model::{
        AddressKind, Family, Frontend, FrontendSpec,
        object::{Port, Service, ServiceType},
    },
};

/// The most places that a Service may claim. Each costs some microseconds, during which no other Service is served, and no object
/// may take more than a tenth of a second. A Service of 1 MiB could otherwise claim a hundred million: its addresses times its ports.
pub const MAX_FRONTENDS: usize = 16_384;

/// What a Service claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Each place once, and how the Service comes to it.
    pub frontends: Vec<(FrontendSpec, Rank)>,
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
    /// [`MAX_FRONTENDS`].
    Cut,
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
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = (Family, IpAddr)> {
    Family::ALL.into_iter().filter_map(|family| Some((family, (*service.cluster_ips.get(family))?)))
}

/// The addresses of a Service of one family, each once, and how they came to it: the ClusterIP first.
pub fn addresses(service: &Service, node: &NodeContext, cluster_ip: IpAddr) -> impl Iterator<Item = (IpAddr, AddressKind)> {
    let load_balancers = service.load_balancer_ips.iter().map(|address| (*address, AddressKind::LoadBalancer));
    let others = load_balancers.chain(external_ips(service, node).map(|address| (address, AddressKind::ExternalIp)));
    // An address that is given twice, or as two kinds, is one.
    let mut known = HashSet::default();
    let is_new = move |(address, _): &(IpAddr, AddressKind)| {
        Family::of(*address) == Family::of(cluster_ip) && *address != cluster_ip && known.insert(*address)
    };
    std::iter::once((cluster_ip, AddressKind::ClusterIp)).chain(others.filter(is_new))
}
