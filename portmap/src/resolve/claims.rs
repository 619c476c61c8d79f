//! The desired table: the claims of all Services on frontends, the winner of each frontend, and the owner of each ClusterIP.
//!
//! A claim is the request of a Service to receive the connections to a frontend. If several Services claim a frontend, at most
//! one of them wins. The table has no entries (endpoints and policies): [`super::ServiceEntries`] derives them when `plan`
//! reads them.

mod node_addresses;
mod plan_order;
mod rank;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use smallvec::SmallVec;

use super::changes::Changes;
use crate::{
    collections::HashSet,
    model::{AddressOwner, Family, Frontend, FrontendSpec, ObjectName, Precedence, Protocol},
};
use node_addresses::NodeAddresses;
use rank::{Claim, position};
pub use rank::{Owners, Rank, Yielding};

/// The desired table: the Service that wins each frontend, and the owner of each ClusterIP.
///
/// A ClusterIP belongs to its Service at every port. Claims of another [`Rank`] on that address are unsuccessful, and the
/// address serves no node ports.
#[derive(Debug, Default)]
pub struct Table {
    /// The claims on each frontend, sorted by rank and precedence. Nearly every frontend has one claim.
    claims: BTreeMap<FrontendSpec, SmallVec<[Claim; 1]>>,
    /// The owners of each ClusterIP, sorted.
    addresses: BTreeMap<IpAddr, SmallVec<[(AddressOwner, ObjectName); 1]>>,
    /// Frontends with at least one unsuccessful claim.
    contested: BTreeSet<FrontendSpec>,
    /// The node's addresses that may serve node ports, and the changes that [`Self::apply_node_ports`] has not applied yet.
    node: NodeAddresses,
}

impl Table {
    /// Removes the claims of a Service on the frontends `before`, adds `claims`, and returns all these frontends. It does not
    /// return node ports: [`Self::apply_node_ports`] returns their changes.
    pub fn replace(&mut self, precedence: &Precedence, before: &[FrontendSpec], claims: Vec<(FrontendSpec, Rank)>) -> Changes {
        let mut changed = Vec::with_capacity(before.len() + claims.len());
        for spec in before {
            self.withdraw(precedence, spec);
            changed.push(*spec);
            if spec.address.is_none() {
                self.node.mark_node_port(*spec, false);
            }
        }
        for (spec, rank) in claims {
            let others = self.claims.entry(spec).or_default();
            if spec.address.is_none() {
                self.node.mark_node_port(spec, others.is_empty());
            }
            let claim = Claim { rank, precedence: precedence.clone() };
            let index = others.partition_point(|other| other.key() < claim.key());
            others.insert(index, claim);
            changed.push(spec);
        }
        for spec in &changed {
            self.update_contested(spec);
        }
        let frontends = changed.iter().filter_map(|spec| spec.address.map(|address| spec.on(address)));
        Changes { frontends: frontends.collect(), addresses: HashSet::default() }
    }

    /// Replaces the ClusterIPs `before` of a Service with `addresses`. Returns both, and the frontends on addresses that gained
    /// a first owner or lost the last one. [`Self::apply_node_ports`] returns the changes of node ports.
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
                let specs: Vec<FrontendSpec> = self.at(address).map(|(spec, _)| *spec).collect();
                changes.frontends.extend(specs.iter().map(|spec| spec.on(address)));
                for spec in &specs {
                    self.update_contested(spec);
                }
                self.node.mark_address(address);
            }
        }
        changes
    }

    /// The Service that wins a frontend, and its claim. A claim on exactly this address wins over a claim on the node port.
    /// `None` if no claim is successful.
    pub fn winner(&self, frontend: &Frontend) -> Option<(FrontendSpec, &ObjectName)> {
        let (spec, claim) = self.first_claim(frontend)?;
        Some((spec, &claim.precedence.service))
    }

    /// The owner of a ClusterIP; `None` if no Service has this ClusterIP.
    pub fn owner(&self, address: &IpAddr) -> Option<AddressOwner> {
        // Owners are sorted: if several proxies serve Services with this ClusterIP, `AddressOwner::Served` is the first.
        self.addresses.get(address)?.first().map(|(owner, _)| *owner)
    }

    /// The owner of a ClusterIP, and its Service. `None` if no Service has this ClusterIP.
    pub fn service_of_address(&self, address: &IpAddr) -> Option<(AddressOwner, &ObjectName)> {
        self.addresses.get(address)?.first().map(|(owner, service)| (*owner, service))
    }

    /// The frontends of this address that Services claim, and the claiming Services, in order. Node ports are not included.
    pub fn claims_at(&self, address: IpAddr) -> impl Iterator<Item = (&FrontendSpec, &ObjectName)> {
        self.at(address).flat_map(|(spec, claims)| claims.iter().map(move |claim| (spec, &claim.precedence.service)))
    }

    /// The addresses that serve node ports, in order.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.node.serving().iter().copied()
    }

    /// The number of frontends with at least one unsuccessful claim.
    pub fn contested(&self) -> usize {
        self.contested.len()
    }

    /// All claimed frontends and node ports in order, including those with unsuccessful claims only.
    pub fn frontend_specs(&self) -> impl Iterator<Item = &FrontendSpec> {
        self.claims.keys()
    }

    /// All frontends and node ports with their winning Service, in order. Those without a successful claim are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&FrontendSpec, &ObjectName)> {
        self.claims.iter().filter_map(|(spec, claims)| {
            let winner = claims.first().filter(|claim| !self.is_blocked(spec, claim))?;
            Some((spec, &winner.precedence.service))
        })
    }

    /// All claimed frontends and all ClusterIPs of the table, as changes. Node ports are included on each address that serves
    /// them.
    pub fn everything(&self) -> Changes {
        let mut frontends: HashSet<Frontend> =
            self.claims.keys().filter_map(|spec| spec.address.map(|address| spec.on(address))).collect();
        for address in self.node.serving() {
            frontends.extend(self.node_ports_of(Family::of(*address)).map(|spec| spec.on(*address)));
        }
        Changes { frontends, addresses: self.addresses.keys().copied().collect() }
    }

    /// The Service that holds a frontend: the winner or, if the address is another Service's ClusterIP, that Service. `None`
    /// without any claim.
    pub fn holder(&self, spec: &FrontendSpec) -> Option<&ObjectName> {
        let first = self.claims.get(spec)?.first()?;
        Some(if self.is_blocked(spec, first) { self.first_owner(spec)? } else { &first.precedence.service })
    }

    /// The unsuccessful claims on a frontend, as (claiming Service, holder).
    pub fn conflicts(&self, spec: &FrontendSpec) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(spec).map(SmallVec::as_slice).unwrap_or_default();
        let is_first_blocked = claims.first().is_some_and(|claim| self.is_blocked(spec, claim));
        let holder = self.holder(spec);
        let unsuccessful = claims.iter().skip(usize::from(!is_first_blocked));
        unsuccessful.filter_map(move |claim| Some((&claim.precedence.service, holder?)))
    }

    /// Whether a Service claims a frontend that another Service holds.
    pub fn has_unsuccessful_claim(&self, spec: &FrontendSpec, claimant: &Precedence) -> bool {
        self.holder(spec).is_some_and(|holder| *holder != claimant.service)
            && self.claims.get(spec).is_some_and(|claims| position(claims, claimant).is_some())
    }

    fn first_claim(&self, frontend: &Frontend) -> Option<(FrontendSpec, &Claim)> {
        let first = |spec| self.claims.get(&spec)?.first().filter(|claim| !self.is_blocked(&spec, claim)).map(|it| (spec, it));
        first(FrontendSpec::from(*frontend)).or_else(|| {
            let Frontend { address, port, protocol } = *frontend;
            let node_port = FrontendSpec::node_port(frontend.family(), port, protocol);
            self.node.serving().contains(&address).then(|| first(node_port)).flatten()
        })
    }

    /// Whether the first claim on a frontend is unsuccessful, because the address is the ClusterIP of another Service.
    fn is_blocked(&self, spec: &FrontendSpec, first: &Claim) -> bool {
        first.rank != Rank::ClusterIp && self.first_owner(spec).is_some()
    }

    fn first_owner(&self, spec: &FrontendSpec) -> Option<&ObjectName> {
        self.addresses.get(&spec.address?)?.first().map(|(_, service)| service)
    }

    /// The claims on all frontends of an address.
    fn at(&self, address: IpAddr) -> impl Iterator<Item = (&FrontendSpec, &SmallVec<[Claim; 1]>)> {
        let spec = |port, protocol| FrontendSpec::from(Frontend { address, port, protocol });
        self.claims.range(spec(u16::MIN, Protocol::Tcp)..=spec(u16::MAX, Protocol::Udp))
    }

    /// Updates `contested` after a change of the frontend's claims or of the owners of its address. Records the address for
    /// [`Self::apply_node_ports`].
    fn update_contested(&mut self, spec: &FrontendSpec) {
        if self.conflicts(spec).next().is_some() {
            self.contested.insert(*spec);
        } else {
            self.contested.remove(spec);
        }
        if let Some(address) = spec.address {
            self.node.mark_address(address);
        }
    }

    fn withdraw(&mut self, precedence: &Precedence, spec: &FrontendSpec) {
        let Some(claims) = self.claims.get_mut(spec) else { return };
        let is_own = |claim: &Claim| claim.precedence.service == precedence.service;
        // A Service that was deleted and created again has another creation time.
        if let Some(index) = position(claims, precedence).or_else(|| claims.iter().position(is_own)) {
            claims.remove(index);
        }
        if claims.is_empty() {
            self.claims.remove(spec);
        }
    }
}
