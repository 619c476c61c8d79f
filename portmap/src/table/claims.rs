//! The desired table: who claims which destination, and who wins it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::collections::HashMap;

use super::{Entry, Family, Frontend, ObjectName, Place, Precedence};

/// A Service's claim on a place.
#[derive(Clone, Debug)]
struct Claim {
    precedence: Precedence,
    entry: Entry,
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
    pub frontends: BTreeSet<Frontend>,
    /// ClusterIPs whose owner may be another.
    pub addresses: BTreeSet<IpAddr>,
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

/// The desired table: for each place the entry of the Service that wins it, and whose each ClusterIP is.
#[derive(Debug, Default)]
pub struct Table {
    claims: BTreeMap<Place, Vec<Claim>>,
    by_service: HashMap<ObjectName, Box<[Place]>>,
    /// ClusterIP → those who have it, in order.
    addresses: HashMap<IpAddr, Vec<(AddressOwner, ObjectName)>>,
    addresses_of: HashMap<(AddressOwner, ObjectName), Box<[IpAddr]>>,
    /// Places that several Services claim.
    contested: BTreeSet<Place>,
    /// Where node ports are served.
    node_addresses: BTreeSet<IpAddr>,
}

impl Table {
    /// Replaces everything that a Service claims, and returns what may have changed.
    pub fn replace(&mut self, precedence: &Precedence, entries: Vec<(Place, Entry)>) -> Changes {
        let mut touched = self.withdraw_all(&precedence.service);
        let mut claimed = Vec::with_capacity(entries.len());
        for (place, entry) in entries {
            // Nearly every place is claimed once.
            let claims = self.claims.entry(place).or_insert_with(|| Vec::with_capacity(1));
            let index = claims.partition_point(|claim| claim.precedence < *precedence);
            claims.insert(index, Claim { precedence: precedence.clone(), entry });
            if claims.len() > 1 {
                self.contested.insert(place);
            }
            claimed.push(place);
        }
        if !claimed.is_empty() {
            touched.extend(&claimed);
            self.by_service.insert(precedence.service.clone(), claimed.into());
        }
        Changes { frontends: self.expand(&touched), addresses: BTreeSet::new() }
    }

    /// Replaces the ClusterIPs of a Service that is served here, or by another proxy, and returns what may have changed.
    pub fn set_addresses(&mut self, owner: AddressOwner, service: &ObjectName, addresses: Vec<IpAddr>) -> Changes {
        let key = (owner, service.clone());
        if addresses.is_empty() && !self.addresses_of.contains_key(&key) {
            return Changes::default();
        }
        let before = self.addresses_of.remove(&key).unwrap_or_default();
        for address in &before {
            if let Some(owners) = self.addresses.get_mut(address) {
                owners.retain(|owner| *owner != key);
                if owners.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
        for address in &addresses {
            let owners = self.addresses.entry(*address).or_insert_with(|| Vec::with_capacity(1));
            let index = owners.partition_point(|owner| *owner < key);
            owners.insert(index, key.clone());
        }
        let touched = before.iter().chain(&addresses).copied().collect();
        if !addresses.is_empty() {
            self.addresses_of.insert(key, addresses.into());
        }
        Changes { frontends: BTreeSet::new(), addresses: touched }
    }

    /// Takes away everything that a Service claims, and returns what may have changed.
    pub fn remove(&mut self, service: &ObjectName) -> Changes {
        let touched = self.withdraw_all(service);
        let mut changes = self.set_addresses(AddressOwner::Served, service, Vec::new());
        changes.frontends = self.expand(&touched);
        changes
    }

    /// Serves node ports on these addresses, and returns what may have changed.
    pub fn set_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> Changes {
        let touched: Vec<IpAddr> = self.node_addresses.symmetric_difference(&addresses).copied().collect();
        self.node_addresses = addresses;
        let node_ports = self.claims.keys().filter(|place| place.address.is_none());
        let frontends = node_ports.flat_map(|place| {
            touched.iter().filter(|address| Family::of(**address) == place.family).map(|address| place.on(*address))
        });
        Changes { frontends: frontends.collect(), addresses: BTreeSet::new() }
    }

    /// The entry that a frontend should have. A claim on the address itself goes before a node port.
    pub fn get(&self, frontend: &Frontend) -> Option<&Entry> {
        self.winner(&Place::from(*frontend)).or_else(|| {
            let Frontend { address, port, protocol } = *frontend;
            let node_port = Place::node_port(frontend.family(), port, protocol);
            self.node_addresses.contains(&address).then(|| self.winner(&node_port)).flatten()
        })
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

    /// The places that a Service claims, in vain or not.
    pub fn places_of(&self, service: &ObjectName) -> &[Place] {
        self.by_service.get(service).map(AsRef::as_ref).unwrap_or_default()
    }

    /// All places and their entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Entry)> {
        self.claims.iter().filter_map(|(place, claims)| Some((place, &claims.first()?.entry)))
    }

    /// Everything that is in the table.
    pub fn everything(&self) -> Changes {
        let all: Vec<Place> = self.claims.keys().copied().collect();
        Changes { frontends: self.expand(&all), addresses: self.addresses.keys().copied().collect() }
    }

    /// The Services that claim a place in vain, with the one that has it.
    pub fn losers(&self, place: &Place) -> impl Iterator<Item = (&ObjectName, &ObjectName)> {
        let claims = self.claims.get(place).map(Vec::as_slice).unwrap_or_default();
        let winner = claims.first().map(|claim| &claim.precedence.service);
        claims.iter().skip(1).filter_map(move |claim| Some((&claim.precedence.service, winner?)))
    }

    fn winner(&self, place: &Place) -> Option<&Entry> {
        self.claims.get(place).and_then(|claims| claims.first()).map(|claim| &claim.entry)
    }

    /// The frontends of places: node ports on every address that they are served on.
    fn expand(&self, places: &[Place]) -> BTreeSet<Frontend> {
        let mut frontends = BTreeSet::new();
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

    fn withdraw_all(&mut self, service: &ObjectName) -> Vec<Place> {
        let claimed = self.by_service.remove(service).unwrap_or_default();
        for place in &claimed {
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
        claimed.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Kind, Protocol, ServicePort, Target, Verdict},
        *,
    };

    fn precedence(created: i64, name: &str) -> Precedence {
        Precedence { created, service: ObjectName { namespace: "default".into(), name: name.into() } }
    }

    fn claim(precedence: &Precedence) -> Vec<(Place, Entry)> {
        let owner = ServicePort { service: precedence.service.clone(), port: "".into(), protocol: Protocol::Tcp };
        let refuse = Target::Verdict(Verdict::Refuse);
        let entry = Entry {
            owner,
            kind: Kind::ClusterIp,
            inside: refuse.clone(),
            outside: refuse,
            affinity_timeout: 0,
            serving: None,
            source_ranges: None,
        };
        vec![(frontend().into(), entry)]
    }

    fn frontend() -> Frontend {
        Frontend { address: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Tcp }
    }

    fn owner(table: &Table) -> Option<&str> {
        table.get(&frontend()).map(|entry| &*entry.owner.service.name)
    }

    #[test]
    fn the_oldest_claim_wins_and_the_next_takes_over() {
        let (old, new) = (precedence(1, "z"), precedence(2, "a"));
        let mut table = Table::default();
        table.replace(&new, claim(&new));
        assert_eq!(owner(&table), Some("a"));
        table.replace(&old, claim(&old));
        assert_eq!(owner(&table), Some("z"));
        assert_eq!(table.losers(&frontend().into()).count(), 1);
        assert_eq!(table.replace(&old, Vec::new()).frontends.len(), 1);
        assert_eq!(owner(&table), Some("a"));
        table.replace(&new, Vec::new());
        assert_eq!(owner(&table), None);
    }

    #[test]
    fn of_one_age_the_first_name_wins() {
        let (a, b) = (precedence(1, "a"), precedence(1, "b"));
        let mut table = Table::default();
        table.replace(&b, claim(&b));
        table.replace(&a, claim(&a));
        assert_eq!(owner(&table), Some("a"));
    }
}
