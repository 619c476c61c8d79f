//! The desired table: who claims which destination, and who wins it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use smallvec::SmallVec;

use super::changes::Changes;
use crate::{
    collections::{HashMap, HashSet},
    model::{AddressOwner, Family, Frontend, FrontendSpec, ObjectName, Precedence, Protocol},
};

/// How a Service came to a place. Of several claims the first of these wins, whatever the age of the Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The address is its ClusterIP. The API server gives each to one Service.
    ClusterIp,
    /// The address is an external IP, or a load balancer's address of a Service of that type.
    External,
    /// The address is in `status.loadBalancer` of a Service that is not of that type any more.
    LeftOver,
    /// A node port, which meets no other rank at its place.
    NodePort,
}

/// Whose addresses are no node addresses, although an interface of the node has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielding {
    /// ClusterIPs.
    ToClusterIps,
    /// ClusterIPs, external IPs and load balancer addresses.
    ToServices,
}

/// A Service's claim on a place.
#[derive(Clone, Debug)]
struct Claim {
    rank: Rank,
    precedence: Precedence,
}

impl Claim {
    fn key(&self) -> (Rank, &Precedence) {
        (self.rank, &self.precedence)
    }
}

/// Whether it is known who else has a ClusterIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// All Services of other proxies are known, and their changes are heard of.
    Known,
    /// They are not: an address may be another proxy's.
    #[default]
    Unknown,
}

/// The desired table without its entries: for each place the Service that wins it, and whose each ClusterIP is.
///
/// A ClusterIP is its Service's at every port: claims of other ranks at that address are in vain, and it is no node address.
#[derive(Debug, Default)]
pub struct Table {
    /// In the order of rank and precedence. Nearly every place is claimed once.
    claims: BTreeMap<FrontendSpec, SmallVec<[Claim; 1]>>,
    /// ClusterIP → those who have it, in order.
    addresses: BTreeMap<IpAddr, SmallVec<[(AddressOwner, ObjectName); 1]>>,
    /// Places that a Service claims in vain.
    contested: BTreeSet<FrontendSpec>,
    /// Addresses that the node may have, and when they are none of it.
    candidates: BTreeMap<IpAddr, Yielding>,
    /// Where node ports are served: the candidates that are no Service's.
    node_addresses: BTreeSet<IpAddr>,
    /// Candidates that may have become a Service's, or ceased to be one's, since the last call of `settle`.
    moved: BTreeSet<IpAddr>,
    /// Node ports whose claims have changed since then.
    node_ports: BTreeSet<FrontendSpec>,
    /// Those of them that nobody claimed before.
    new_node_ports: BTreeSet<FrontendSpec>,
}

impl Table {
    /// Replaces what a Service claims, which was `before`, and returns what may have changed, but for node ports: see
    /// [`Self::settle`].
    pub fn replace(&mut self, precedence: &Precedence, before: &[FrontendSpec], claims: Vec<(FrontendSpec, Rank)>) -> Changes {
        let mut touched = Vec::with_capacity(before.len() + claims.len());
        for place in before {
            self.withdraw(precedence, place);
            touched.push(*place);
            if place.address.is_none() {
                self.node_ports.insert(*place);
            }
        }
        for (place, rank) in claims {
            let others = self.claims.entry(place).or_default();
            if place.address.is_none() && self.node_ports.insert(place) && others.is_empty() {
                self.new_node_ports.insert(place);
            }
            let claim = Claim { rank, precedence: precedence.clone() };
            let index = others.partition_point(|other| other.key() < claim.key());
            others.insert(index, claim);
            touched.push(place);
        }
        for place in &touched {
            self.review(place);
        }
        let frontends = touched.iter().filter_map(|place| place.address.map(|address| place.on(address)));
        Changes { frontends: frontends.collect(), addresses: HashSet::default() }
    }

    /// Replaces the ClusterIPs of a Service that is served here, or by another proxy, and returns what may have changed, but for
    /// node ports: see [`Self::settle`].
    pub fn set_addresses(
        &mut self,
        owner: AddressOwner,
        service: &ObjectName,
        before: &[IpAddr],
        addresses: &[IpAddr],
    ) -> Changes {
        if before == addresses {
            return Changes { frontends: HashSet::default(), addresses: addresses.iter().copied().collect() };
        }
        let key = (owner, service.clone());
        let had_owner: Vec<(IpAddr, bool)> =
            before.iter().chain(addresses).map(|address| (*address, self.addresses.contains_key(address))).collect();
        for address in before {
            if let Some(owners) = self.addresses.get_mut(address) {
                owners.retain(|owner| *owner != key);
                if owners.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
        for address in addresses {
            let owners = self.addresses.entry(*address).or_default();
            let index = owners.partition_point(|owner| *owner < key);
            owners.insert(index, key.clone());
        }
        let mut changes = Changes::default();
        for (address, had_owner) in had_owner {
            changes.addresses.insert(address);
            if self.addresses.contains_key(&address) != had_owner {
                let places: Vec<FrontendSpec> = self.at(address).map(|(place, _)| *place).collect();
                changes.frontends.extend(places.iter().map(|place| place.on(address)));
                for place in &places {
                    self.review(place);
                }
                self.note_moved(address);
            }
        }
        changes
    }

    /// Serves node ports on those of these addresses that are no Service's, and returns what may have changed.
    pub fn set_node_addresses(&mut self, addresses: BTreeMap<IpAddr, Yielding>) -> Changes {
        let is_other = |(address, yielding): (&IpAddr, &Yielding), map: &BTreeMap<_, _>| {
            (map.get(address) != Some(yielding)).then_some(*address)
        };
        self.moved.extend(self.candidates.iter().filter_map(|candidate| is_other(candidate, &addresses)));
        self.moved.extend(addresses.iter().filter_map(|candidate| is_other(candidate, &self.candidates)));
        self.candidates = addresses;
        self.settle()
    }

    /// Places node ports by all that was replaced and set since the last call, and returns what may have changed by that.
    ///
    /// At the end of a batch: addresses of the node may be the ClusterIPs of Services that are only now becoming known, with
    /// thousands of node ports on each.
    pub fn settle(&mut self) -> Changes {
        let (touched, new) = (mem::take(&mut self.node_ports), mem::take(&mut self.new_node_ports));
        let mut frontends = HashSet::default();
        // Those that were there before: of a batch with many Services they are few.
        let mut before: Option<Vec<FrontendSpec>> = None;
        for address in mem::take(&mut self.moved) {
            let family = Family::of(address);
            let is_nodes = self.candidates.get(&address).is_some_and(|yielding| !self.is_services(address, *yielding));
            if is_nodes && self.node_addresses.insert(address) {
                frontends.extend(self.node_ports_of(family).map(|place| place.on(address)));
            } else if !is_nodes && self.node_addresses.remove(&address) {
                let before = before.get_or_insert_with(|| {
                    let all = Family::ALL.into_iter().flat_map(|family| self.node_ports_of(family));
                    all.chain(&touched).filter(|place| !new.contains(place)).copied().collect()
                });
                let of_family = before.iter().filter(|place| place.family == family);
                frontends.extend(of_family.map(|place| place.on(address)));
            }
        }
        for place in touched {
            let addresses = self.node_addresses.iter().filter(|address| Family::of(**address) == place.family);
            frontends.extend(addresses.map(|address| place.on(*address)));
        }
        Changes { frontends, addresses: HashSet::default() }
    }

    /// The place that a frontend is, and the Service that wins it. A claim on the address itself goes before a node port.
    pub fn winner(&self, frontend: &Frontend) -> Option<(FrontendSpec, &ObjectName)> {
        let (place, claim) = self.claim(frontend)?;
        Some((place, &claim.precedence.service))
    }

    /// Whose a ClusterIP is.
    pub fn owner(&self, address: &IpAddr) -> Option<AddressOwner> {
        // The first in order: of one that is served here and elsewhere, what is served counts.
        self.addresses.get(address)?.first().map(|(owner, _)| *owner)
    }

    /// How many places a Service claims in vain.
    pub fn contested(&self) -> usize {
        self.contested.len()
    }

    /// All places that somebody claims, if only in vain, in order.
    pub fn places(&self) -> impl Iterator<Item = &FrontendSpec> {
        self.claims.keys()
    }

    /// All places that a Service has, with their Services, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&FrontendSpec, &ObjectName)> {
        self.claims.iter().filter_map(|(place, claims)| {
            let winner = claims.first().filter(|claim| !self.is_in_vain(place, claim))?;
            Some((place, &winner.precedence.service))
        })
    }

    /// Everything that is in the table.
    pub fn everything(&self) -> Changes {
        let mut frontends: HashSet<Frontend> =
            self.claims.keys().filter_map(|place| place.address.map(|address| place.on(address))).collect();
        for address in &self.node_addresses {
            frontends.extend(self.node_ports_of(Family::of(*address)).map(|place| place.on(*address)));
        }
        Changes { frontends, addresses: self.addresses.keys().copied().collect() }
    }

    /// The Service that has a place: the one that wins it, or whose ClusterIP the address is.
    pub fn holder(&self, place: &FrontendSpec) -> Option<&ObjectName> {
        let first = self.claims.get(place)?.first()?;
        Some(if self.is_in_vain(place, first) { self.first_owner(place)? } else { &first.precedence.service })
    }

    /// The Services that claim a place in vain, with the one that has it.
    pub fn losers(&self, place: &FrontendSpec) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(place).map(SmallVec::as_slice).unwrap_or_default();
        let is_first_in_vain = claims.first().is_some_and(|claim| self.is_in_vain(place, claim));
        let holder = self.holder(place);
        let in_vain = claims.iter().skip(usize::from(!is_first_in_vain));
        in_vain.filter_map(move |claim| Some((&claim.precedence.service, holder?)))
    }

    /// Whether a Service claims a place that it does not have.
    pub fn claims_in_vain(&self, place: &FrontendSpec, claimant: &Precedence) -> bool {
        self.holder(place).is_some_and(|holder| *holder != claimant.service)
            && self.claims.get(place).is_some_and(|claims| position(claims, claimant).is_some())
    }

    /// Puts frontends into the order in which they are planned: frontends to remove, then by [`Rank`], so that node ports are the
    /// first to lack room. Within a rank the frontends of a service port stand together: they share much of their entries.
    pub fn arrange(&self, frontends: Vec<Frontend>) -> Vec<Frontend> {
        let mut groups: HashMap<&ObjectName, usize> = HashMap::default();
        let key = |frontend: Frontend| {
            let Some((_, claim)) = self.claim(&frontend) else { return (None, 0, frontend) };
            let next = groups.len();
            let group = *groups.entry(&claim.precedence.service).or_insert(next);
            (Some(claim.rank), group, frontend)
        };
        let mut all: Vec<_> = frontends.into_iter().map(key).collect();
        all.sort_by_key(|(rank, group, frontend)| (*rank, *group, frontend.family(), frontend.port, frontend.protocol));
        all.into_iter().map(|(_, _, frontend)| frontend).collect()
    }

    fn claim(&self, frontend: &Frontend) -> Option<(FrontendSpec, &Claim)> {
        let first =
            |place| self.claims.get(&place)?.first().filter(|claim| !self.is_in_vain(&place, claim)).map(|it| (place, it));
        first(FrontendSpec::from(*frontend)).or_else(|| {
            let Frontend { address, port, protocol } = *frontend;
            let node_port = FrontendSpec::node_port(frontend.family(), port, protocol);
            self.node_addresses.contains(&address).then(|| first(node_port)).flatten()
        })
    }

    /// Whether the first claim on a place is, because the address is another Service's ClusterIP.
    fn is_in_vain(&self, place: &FrontendSpec, first: &Claim) -> bool {
        first.rank != Rank::ClusterIp && self.first_owner(place).is_some()
    }

    fn first_owner(&self, place: &FrontendSpec) -> Option<&ObjectName> {
        self.addresses.get(&place.address?)?.first().map(|(_, service)| service)
    }

    /// The places on an address.
    fn at(&self, address: IpAddr) -> impl Iterator<Item = (&FrontendSpec, &SmallVec<[Claim; 1]>)> {
        let place = |port, protocol| FrontendSpec::from(Frontend { address, port, protocol });
        self.claims.range(place(u16::MIN, Protocol::Tcp)..=place(u16::MAX, Protocol::Udp))
    }

    fn node_ports_of(&self, family: Family) -> impl Iterator<Item = &FrontendSpec> {
        let place = |port, protocol| FrontendSpec::node_port(family, port, protocol);
        self.claims.range(place(u16::MIN, Protocol::Tcp)..=place(u16::MAX, Protocol::Udp)).map(|(place, _)| place)
    }

    /// Whether an address is a Service's to which a node address yields.
    fn is_services(&self, address: IpAddr, yielding: Yielding) -> bool {
        let is_external = || self.at(address).next().is_some();
        self.addresses.contains_key(&address) || (yielding == Yielding::ToServices && is_external())
    }

    fn note_moved(&mut self, address: IpAddr) {
        if self.candidates.contains_key(&address) {
            self.moved.insert(address);
        }
    }

    /// Notes whether a place is claimed in vain by anybody, after its claims or the owners of its address have changed.
    fn review(&mut self, place: &FrontendSpec) {
        if self.losers(place).next().is_some() {
            self.contested.insert(*place);
        } else {
            self.contested.remove(place);
        }
        if let Some(address) = place.address {
            self.note_moved(address);
        }
    }

    fn withdraw(&mut self, precedence: &Precedence, place: &FrontendSpec) {
        let Some(claims) = self.claims.get_mut(place) else { return };
        let is_its = |claim: &Claim| claim.precedence.service == precedence.service;
        // One that was deleted and made again has another age.
        if let Some(index) = position(claims, precedence).or_else(|| claims.iter().position(is_its)) {
            claims.remove(index);
        }
        if claims.is_empty() {
            self.claims.remove(place);
        }
    }
}

/// Where the claim of a Service stands among those on a place. There may be as many as there are Services.
fn position(claims: &[Claim], claimant: &Precedence) -> Option<usize> {
    let ranks = [Rank::ClusterIp, Rank::External, Rank::LeftOver, Rank::NodePort];
    ranks.iter().find_map(|rank| claims.binary_search_by(|claim| claim.key().cmp(&(*rank, claimant))).ok())
}

#[cfg(test)]
mod tests;
