//! The desired table: who claims which destination, and who wins it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use smallvec::SmallVec;

use crate::{
    collections::{HashMap, HashSet},
    model::{AddressOwner, Entries, Entry, Family, Frontend, Kind, ObjectName, Place, Precedence, Protocol},
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

/// What has a rank.
pub trait Ranked {
    /// The rank.
    fn rank(&self) -> Rank;
}

impl Ranked for Rank {
    fn rank(&self) -> Rank {
        *self
    }
}

impl Ranked for Entry {
    fn rank(&self) -> Rank {
        match self.kind {
            Kind::ClusterIp => Rank::ClusterIp,
            Kind::ExternalIp | Kind::LoadBalancer => Rank::External,
            Kind::NodePort => Rank::NodePort,
        }
    }
}

/// Whose addresses are no node addresses, although an interface of the node has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielding {
    /// ClusterIPs.
    ToClusterIps,
    /// ClusterIPs, external IPs and load balancer addresses.
    ToServices,
}

/// A Service's claim on a place, and what it would do there.
#[derive(Clone, Debug)]
struct Claim<E> {
    precedence: Precedence,
    entry: E,
}

impl<E: Ranked> Claim<E> {
    fn key(&self) -> (Rank, &Precedence) {
        (self.entry.rank(), &self.precedence)
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

/// What may have changed in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Frontends whose entry may be another.
    pub frontends: HashSet<Frontend>,
    /// ClusterIPs whose owner may be another.
    pub addresses: HashSet<IpAddr>,
}

impl Changes {
    /// Whether nothing may have changed.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.addresses.is_empty()
    }

    /// Adds other changes.
    pub fn extend(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.addresses.extend(other.addresses);
    }
}

/// The desired table: for each place the Service that wins it, with what it would do there; and whose each ClusterIP is.
///
/// Who can derive the entries at any time need not keep them: `Table<Rank>`.
///
/// A ClusterIP is its Service's at every port: claims of other ranks at that address are in vain, and it is no node address.
#[derive(Debug)]
pub struct Table<E = Entry> {
    /// In the order of rank and precedence. Nearly every place is claimed once.
    claims: BTreeMap<Place, SmallVec<[Claim<E>; 1]>>,
    /// ClusterIP → those who have it, in order.
    addresses: BTreeMap<IpAddr, SmallVec<[(AddressOwner, ObjectName); 1]>>,
    /// Places that a Service claims in vain.
    contested: BTreeSet<Place>,
    /// Addresses that the node may have, and when they are none of it.
    candidates: BTreeMap<IpAddr, Yielding>,
    /// Where node ports are served: the candidates that are no Service's.
    node_addresses: BTreeSet<IpAddr>,
    /// Candidates that may have become a Service's, or ceased to be one's, since the last call of `settle`.
    moved: BTreeSet<IpAddr>,
    /// Node ports whose claims have changed since then.
    node_ports: BTreeSet<Place>,
    /// Those of them that nobody claimed before.
    new_node_ports: BTreeSet<Place>,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self {
            claims: BTreeMap::new(),
            addresses: BTreeMap::new(),
            contested: BTreeSet::new(),
            candidates: BTreeMap::new(),
            node_addresses: BTreeSet::new(),
            moved: BTreeSet::new(),
            node_ports: BTreeSet::new(),
            new_node_ports: BTreeSet::new(),
        }
    }
}

impl<E: Ranked> Table<E> {
    /// Replaces what a Service claims, which was `before`, and returns what may have changed, but for node ports: see
    /// [`Self::settle`].
    pub fn replace(&mut self, precedence: &Precedence, before: &[Place], entries: Vec<(Place, E)>) -> Changes {
        let mut touched = Vec::with_capacity(before.len() + entries.len());
        for place in before {
            self.withdraw(precedence, place);
            touched.push(*place);
            if place.address.is_none() {
                self.node_ports.insert(*place);
            }
        }
        for (place, entry) in entries {
            let claims = self.claims.entry(place).or_default();
            if place.address.is_none() && self.node_ports.insert(place) && claims.is_empty() {
                self.new_node_ports.insert(place);
            }
            let claim = Claim { precedence: precedence.clone(), entry };
            let index = claims.partition_point(|other| other.key() < claim.key());
            claims.insert(index, claim);
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
                let places: Vec<Place> = self.at(address).map(|(place, _)| *place).collect();
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
        let mut before: Option<Vec<Place>> = None;
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
    pub fn winner(&self, frontend: &Frontend) -> Option<(Place, &ObjectName)> {
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
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.claims.keys()
    }

    /// All places, and what their winners would do there, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &ObjectName, &E)> {
        self.claims.iter().filter_map(|(place, claims)| {
            let Claim { precedence, entry } = claims.first().filter(|claim| !self.is_in_vain(place, claim))?;
            Some((place, &precedence.service, entry))
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
    pub fn holder(&self, place: &Place) -> Option<&ObjectName> {
        let first = self.claims.get(place)?.first()?;
        Some(if self.is_in_vain(place, first) { self.first_owner(place)? } else { &first.precedence.service })
    }

    /// The Services that claim a place in vain, with the one that has it.
    pub fn losers(&self, place: &Place) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(place).map(SmallVec::as_slice).unwrap_or_default();
        let is_first_in_vain = claims.first().is_some_and(|claim| self.is_in_vain(place, claim));
        let holder = self.holder(place);
        let in_vain = claims.iter().skip(usize::from(!is_first_in_vain));
        in_vain.filter_map(move |claim| Some((&claim.precedence.service, holder?)))
    }

    /// Whether a Service claims a place that it does not have.
    pub fn claims_in_vain(&self, place: &Place, claimant: &Precedence) -> bool {
        self.holder(place).is_some_and(|holder| *holder != claimant.service)
            && self.claims.get(place).is_some_and(|claims| position(claims, claimant).is_some())
    }

    /// See [`Entries::arrange`].
    pub fn arrange<'a>(&self, frontends: Vec<&'a Frontend>) -> Vec<&'a Frontend> {
        let mut groups: HashMap<&ObjectName, usize> = HashMap::default();
        let key = |frontend: &'a Frontend| {
            let Some((_, claim)) = self.claim(frontend) else { return (None, 0, frontend) };
            let next = groups.len();
            let group = *groups.entry(&claim.precedence.service).or_insert(next);
            (Some(claim.entry.rank()), group, frontend)
        };
        let mut all: Vec<_> = frontends.into_iter().map(key).collect();
        all.sort_by_key(|(rank, group, frontend)| (*rank, *group, frontend.family(), frontend.port, frontend.protocol));
        all.into_iter().map(|(_, _, frontend)| frontend).collect()
    }

    fn claim(&self, frontend: &Frontend) -> Option<(Place, &Claim<E>)> {
        let first =
            |place| self.claims.get(&place)?.first().filter(|claim| !self.is_in_vain(&place, claim)).map(|it| (place, it));
        first(Place::from(*frontend)).or_else(|| {
            let Frontend { address, port, protocol } = *frontend;
            let node_port = Place::node_port(frontend.family(), port, protocol);
            self.node_addresses.contains(&address).then(|| first(node_port)).flatten()
        })
    }

    /// Whether the first claim on a place is, because the address is another Service's ClusterIP.
    fn is_in_vain(&self, place: &Place, first: &Claim<E>) -> bool {
        first.entry.rank() != Rank::ClusterIp && self.first_owner(place).is_some()
    }

    fn first_owner(&self, place: &Place) -> Option<&ObjectName> {
        self.addresses.get(&place.address?)?.first().map(|(_, service)| service)
    }

    /// The places on an address.
    fn at(&self, address: IpAddr) -> impl Iterator<Item = (&Place, &SmallVec<[Claim<E>; 1]>)> {
        let place = |port, protocol| Place::from(Frontend { address, port, protocol });
        self.claims.range(place(u16::MIN, Protocol::Tcp)..=place(u16::MAX, Protocol::Udp))
    }

    fn node_ports_of(&self, family: Family) -> impl Iterator<Item = &Place> {
        let place = |port, protocol| Place::node_port(family, port, protocol);
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
    fn review(&mut self, place: &Place) {
        if self.losers(place).next().is_some() {
            self.contested.insert(*place);
        } else {
            self.contested.remove(place);
        }
        if let Some(address) = place.address {
            self.note_moved(address);
        }
    }

    fn withdraw(&mut self, precedence: &Precedence, place: &Place) {
        let Some(claims) = self.claims.get_mut(place) else { return };
        let is_its = |claim: &Claim<E>| claim.precedence.service == precedence.service;
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
fn position<E: Ranked>(claims: &[Claim<E>], claimant: &Precedence) -> Option<usize> {
    let ranks = [Rank::ClusterIp, Rank::External, Rank::LeftOver, Rank::NodePort];
    ranks.iter().find_map(|rank| claims.binary_search_by(|claim| claim.key().cmp(&(*rank, claimant))).ok())
}

impl Entries for Table {
    fn entry(&self, frontend: &Frontend) -> Option<Cow<'_, Entry>> {
        self.claim(frontend).map(|(_, claim)| Cow::Borrowed(&claim.entry))
    }

    fn owner(&self, address: &IpAddr) -> Option<AddressOwner> {
        self.owner(address)
    }

    fn arrange<'a>(&self, frontends: Vec<&'a Frontend>) -> Vec<&'a Frontend> {
        self.arrange(frontends)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    fn precedence(created: i64, name: &str) -> Precedence {
        Precedence { created, service: ObjectName::new("default", name) }
    }

    fn place() -> Place {
        frontend().into()
    }

    fn frontend() -> Frontend {
        Frontend { address: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn winner(table: &Table<Rank>) -> Option<&str> {
        table.winner(&frontend()).map(|(_, service)| service.name())
    }

    #[test]
    fn the_oldest_claim_wins_and_the_next_takes_over() {
        let (old, new) = (precedence(1, "z"), precedence(2, "a"));
        let mut table = Table::default();
        table.replace(&new, &[], vec![(place(), Rank::External)]);
        assert_eq!(winner(&table), Some("a"));
        table.replace(&old, &[], vec![(place(), Rank::External)]);
        assert_eq!(winner(&table), Some("z"));
        assert_eq!(table.losers(&place()).count(), 1);
        assert_eq!(table.replace(&old, &[place()], Vec::new()).frontends.len(), 1);
        assert_eq!(winner(&table), Some("a"));
        table.replace(&new, &[place()], Vec::new());
        assert_eq!(winner(&table), None);
    }

    #[test]
    fn of_one_age_the_first_name_wins() {
        let (a, b) = (precedence(1, "a"), precedence(1, "b"));
        let mut table = Table::default();
        table.replace(&b, &[], vec![(place(), Rank::External)]);
        table.replace(&a, &[], vec![(place(), Rank::External)]);
        assert_eq!(winner(&table), Some("a"));
    }

    #[test]
    fn a_cluster_ip_wins_whatever_its_age() {
        let (old, new) = (precedence(1, "squatter"), precedence(2, "owner"));
        let mut table = Table::default();
        table.replace(&old, &[], vec![(place(), Rank::External)]);
        table.replace(&new, &[], vec![(place(), Rank::ClusterIp)]);
        assert_eq!(winner(&table), Some("owner"));
        assert_eq!(table.losers(&place()).count(), 1);
    }

    #[test]
    fn what_is_left_over_loses_to_what_is_in_use() {
        let (old, new) = (precedence(1, "was"), precedence(2, "is"));
        let mut table = Table::default();
        table.replace(&old, &[], vec![(place(), Rank::LeftOver)]);
        assert_eq!(winner(&table), Some("was"));
        table.replace(&new, &[], vec![(place(), Rank::External)]);
        assert_eq!(winner(&table), Some("is"));
    }

    /// Also at ports that its Service does not define.
    #[test]
    fn a_cluster_ip_is_nobody_elses_at_any_port() {
        for owner in [AddressOwner::Served, AddressOwner::OtherProxy] {
            let squatter = precedence(1, "squatter");
            let (mut table, address) = (Table::default(), frontend().address);
            table.replace(&squatter, &[], vec![(place(), Rank::External)]);
            assert_eq!((winner(&table), table.contested()), (Some("squatter"), 0));
            let name = ObjectName::new("default", "owner");
            let changes = table.set_addresses(owner, &name, &[], &[address]);
            assert!(changes.frontends.contains(&frontend()), "{changes:?}");
            assert_eq!((winner(&table), table.contested(), table.iter().count()), (None, 1, 0));
            assert_eq!(table.losers(&place()).next(), Some((&squatter.service, &name)));
            let changes = table.set_addresses(owner, &name, &[address], &[]);
            assert!(changes.frontends.contains(&frontend()), "{changes:?}");
            assert_eq!((winner(&table), table.contested()), (Some("squatter"), 0));
        }
    }

    /// As on kube-ipvs0, which has the ClusterIPs of all Services.
    #[test]
    fn an_address_that_is_a_services_is_none_of_the_nodes() {
        let node_port = Place::node_port(Family::V4, 30_080, Protocol::Tcp);
        let on = |last: u8| node_port.on([10, 96, 0, last].into());
        let mut table = Table::default();
        let addresses = [(1, Yielding::ToClusterIps), (2, Yielding::ToClusterIps), (3, Yielding::ToServices)];
        table.set_node_addresses(addresses.map(|(last, yielding)| (on(last).address, yielding)).into());
        let service = precedence(1, "web");
        let external = |last: u8| Place::from(Frontend { port: 80, ..on(last) });
        let claims = [2, 3].map(|last| (external(last), Rank::External));
        table.replace(&service, &[], claims.into_iter().chain([(node_port, Rank::NodePort)]).collect());
        table.set_addresses(AddressOwner::Served, &service.service, &[], &[on(1).address]);
        assert_eq!(table.settle().frontends, [on(2)].into_iter().collect(), "none was on the address before");
        let served = |table: &Table<Rank>| [1, 2, 3].map(|last| table.winner(&on(last)).is_some());
        assert_eq!(served(&table), [false, true, false]);
        table.set_addresses(AddressOwner::Served, &service.service, &[on(1).address], &[]);
        assert!(table.settle().frontends.contains(&on(1)));
        assert_eq!(served(&table), [true, true, false]);
    }

    #[test]
    fn node_ports_come_last_and_services_stand_together() {
        let mut table = Table::default();
        let at = |last: u8, port| Frontend { address: [10, 96, 0, last].into(), port, protocol: Protocol::Tcp };
        table.set_node_addresses([(at(0, 0).address, Yielding::ToClusterIps)].into());
        let node_port = Place::node_port(Family::V4, 30_080, Protocol::Tcp);
        for (number, name) in [(1, "a"), (2, "b")] {
            let frontends = [at(number, 80), at(number + 2, 80), at(number, 81)];
            let claims = frontends.map(|frontend| (Place::from(frontend), Rank::ClusterIp));
            table.replace(&precedence(1, name), &[], claims.into_iter().chain([(node_port, Rank::NodePort)]).collect());
        }
        table.settle();
        let mut all: Vec<Frontend> = table.everything().frontends.into_iter().chain([at(9, 9)]).collect();
        all.sort_unstable();
        let arranged: Vec<Frontend> = table.arrange(all.iter().collect()).into_iter().copied().collect();
        let (a, b) = ([at(1, 80), at(3, 80), at(1, 81)], [at(2, 80), at(4, 80), at(2, 81)]);
        assert_eq!(arranged, [vec![at(9, 9)], a.to_vec(), b.to_vec(), vec![at(0, 30_080)]].concat());
    }
}
