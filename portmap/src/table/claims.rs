//! The desired table: who claims which destination, and who wins it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use smallvec::SmallVec;

use crate::collections::HashSet;

use super::{Entries, Entry, Family, Frontend, ObjectName, Place, Precedence};

/// A Service's claim on a place, and what it would do there.
#[derive(Clone, Debug)]
struct Claim<E> {
    precedence: Precedence,
    entry: E,
}

/// Whose a ClusterIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressOwner {
    /// A Service that is served here: ports that it does not define are refused.
    Served,
    /// A Service that another proxy serves: left alone.
    OtherProxy,
    /// Nobody's: found in the kernel, and not what the agent would write.
    Foreign,
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
/// Who can derive the entries at any time need not keep them: `Table<()>`.
#[derive(Debug)]
pub struct Table<E = Entry> {
    /// In the order of precedence. Nearly every place is claimed once.
    claims: BTreeMap<Place, SmallVec<[Claim<E>; 1]>>,
    /// ClusterIP → those who have it, in order.
    addresses: BTreeMap<IpAddr, SmallVec<[(AddressOwner, ObjectName); 1]>>,
    /// Places that several Services claim.
    contested: BTreeSet<Place>,
    /// Where node ports are served.
    node_addresses: BTreeSet<IpAddr>,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self {
            claims: BTreeMap::new(),
            addresses: BTreeMap::new(),
            contested: BTreeSet::new(),
            node_addresses: BTreeSet::new(),
        }
    }
}

impl<E> Table<E> {
    /// Replaces what a Service claims, which was `before`, and returns what may have changed.
    pub fn replace(&mut self, precedence: &Precedence, before: &[Place], entries: Vec<(Place, E)>) -> Changes {
        self.withdraw(&precedence.service, before);
        let mut touched = before.to_vec();
        for (place, entry) in entries {
            let claims = self.claims.entry(place).or_default();
            let index = claims.partition_point(|claim| claim.precedence < *precedence);
            claims.insert(index, Claim { precedence: precedence.clone(), entry });
            if claims.len() > 1 {
                self.contested.insert(place);
            }
            touched.push(place);
        }
        Changes { frontends: self.expand(&touched), addresses: HashSet::default() }
    }

    /// Replaces the ClusterIPs of a Service that is served here, or by another proxy, and returns what may have changed.
    pub fn set_addresses(
        &mut self,
        owner: AddressOwner,
        service: &ObjectName,
        before: &[IpAddr],
        addresses: &[IpAddr],
    ) -> Changes {
        let key = (owner, service.clone());
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
        Changes { frontends: HashSet::default(), addresses: before.iter().chain(addresses).copied().collect() }
    }

    /// Serves node ports on these addresses, and returns what may have changed.
    pub fn set_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> Changes {
        let touched: Vec<IpAddr> = self.node_addresses.symmetric_difference(&addresses).copied().collect();
        self.node_addresses = addresses;
        let node_ports = self.claims.keys().filter(|place| place.address.is_none());
        let frontends = node_ports.flat_map(|place| {
            touched.iter().filter(|address| Family::of(**address) == place.family).map(|address| place.on(*address))
        });
        Changes { frontends: frontends.collect(), addresses: HashSet::default() }
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

    /// How many places several Services claim.
    pub fn contested(&self) -> usize {
        self.contested.len()
    }

    /// All places, and what their winners would do there, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &ObjectName, &E)> {
        self.claims.iter().filter_map(|(place, claims)| {
            let Claim { precedence, entry } = claims.first()?;
            Some((place, &precedence.service, entry))
        })
    }

    /// Everything that is in the table.
    pub fn everything(&self) -> Changes {
        let all: Vec<Place> = self.claims.keys().copied().collect();
        Changes { frontends: self.expand(&all), addresses: self.addresses.keys().copied().collect() }
    }

    /// The Services that claim a place in vain, with the one that has it.
    pub fn losers(&self, place: &Place) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(place).map(SmallVec::as_slice).unwrap_or_default();
        let winner = claims.first().map(|claim| &claim.precedence.service);
        claims.iter().skip(1).filter_map(move |claim| Some((&claim.precedence.service, winner?)))
    }

    fn claim(&self, frontend: &Frontend) -> Option<(Place, &Claim<E>)> {
        let first = |place| Some((place, self.claims.get(&place)?.first()?));
        first(Place::from(*frontend)).or_else(|| {
            let Frontend { address, port, protocol } = *frontend;
            let node_port = Place::node_port(frontend.family(), port, protocol);
            self.node_addresses.contains(&address).then(|| first(node_port)).flatten()
        })
    }

    /// The frontends of places: node ports on every address that they are served on.
    fn expand(&self, places: &[Place]) -> HashSet<Frontend> {
        let mut frontends = HashSet::default();
        for place in places {
            match place.address {
                Some(address) => drop(frontends.insert(place.on(address))),
                None => {
                    let nodes = self.node_addresses.iter().filter(|address| Family::of(**address) == place.family);
                    frontends.extend(nodes.map(|address| place.on(*address)));
                }
            }
        }
        frontends
    }

    fn withdraw(&mut self, service: &ObjectName, places: &[Place]) {
        for place in places {
            if let Some(claims) = self.claims.get_mut(place) {
                claims.retain(|claim| claim.precedence.service != *service);
                if claims.len() < 2 {
                    self.contested.remove(place);
                }
                if claims.is_empty() {
                    self.claims.remove(place);
                }
            }
        }
    }
}

impl Entries for Table {
    fn entry(&self, frontend: &Frontend) -> Option<Cow<'_, Entry>> {
        self.claim(frontend).map(|(_, claim)| Cow::Borrowed(&claim.entry))
    }

    fn owner(&self, address: &IpAddr) -> Option<AddressOwner> {
        self.owner(address)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Protocol, *};

    fn precedence(created: i64, name: &str) -> Precedence {
        Precedence { created, service: ObjectName::new("default", name) }
    }

    fn place() -> Place {
        frontend().into()
    }

    fn frontend() -> Frontend {
        Frontend { address: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn winner(table: &Table<()>) -> Option<&str> {
        table.winner(&frontend()).map(|(_, service)| service.name())
    }

    #[test]
    fn the_oldest_claim_wins_and_the_next_takes_over() {
        let (old, new) = (precedence(1, "z"), precedence(2, "a"));
        let mut table = Table::default();
        table.replace(&new, &[], vec![(place(), ())]);
        assert_eq!(winner(&table), Some("a"));
        table.replace(&old, &[], vec![(place(), ())]);
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
        table.replace(&b, &[], vec![(place(), ())]);
        table.replace(&a, &[], vec![(place(), ())]);
        assert_eq!(winner(&table), Some("a"));
    }
}
