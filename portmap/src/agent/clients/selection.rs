//! Chooses the network namespaces that get entries in NAMESPACES and SOURCES, if not all of them fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    maps::sources::{Sources, SourcesCapacity},
    model::Family,
};

/// The clients of a network namespace: their addresses, and the source addresses of their calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNamespace {
    /// The namespace's cookie, its key in the maps.
    pub cookie: u64,
    /// The priority of the namespace, if not all namespaces fit into the maps.
    pub rank: ClientRank,
    /// The addresses without loopback and link-local addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// The source address of a call to each load balancer address. Only for addresses where the source depends on routes,
    /// and a route exists.
    pub sources: BTreeMap<IpAddr, IpAddr>,
    /// Whether `sources` is empty because SOURCES has no room for them.
    pub lacks_sources: bool,
}

/// The priority with which a namespace gets entries in the maps. The first variant has the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientRank {
    /// The agent's own namespace: the node's, as the agent runs in the host's network.
    Own,
    /// A namespace of the agent's user namespace: only privileged processes create such namespaces, as for pods.
    Privileged,
    /// A namespace of another user namespace, which any process can create, or of an unknown one.
    Anybody,
}

/// The content of NAMESPACES and SOURCES.
pub struct Selection<'a> {
    /// The addresses of each namespace, by cookie.
    pub namespaces: BTreeMap<u64, &'a [IpAddr]>,
    /// The sources of each namespace and destination.
    pub sources: Sources,
    /// The number of namespaces that got no room for their addresses or sources.
    pub left_out: usize,
}

impl ClientNamespace {
    /// Whether the source of a call depends on the destination, in any family.
    pub fn needs_sources(&self) -> bool {
        Family::ALL.iter().any(|family| self.needs_sources_of(*family))
    }

    /// Whether the source of a call to this destination depends on the routes.
    pub fn needs_source_for(&self, destination: IpAddr) -> bool {
        self.needs_sources_of(Family::of(destination))
    }

    /// With several addresses, routes decide. In the node's own namespace they decide even with one: a local route for a
    /// load balancer's address makes that address the source.
    fn needs_sources_of(&self, family: Family) -> bool {
        let count = self.addresses.iter().filter(|address| Family::of(**address) == family).count();
        count > 1 || (count == 1 && self.rank == ClientRank::Own)
    }
}

/// Chooses namespaces by rank. Of equal rank, namespaces whose cookie is in `present` come first: NAMESPACES has them already.
pub fn select<'a>(mut namespaces: Vec<&'a ClientNamespace>, present: &BTreeSet<u64>, room: SourcesCapacity) -> Selection<'a> {
    // A namespace without an address (except loopback and link-local addresses), such as one that is being set up, needs no
    // entry: source ranges could admit none of its clients.
    namespaces.retain(|namespace| !namespace.addresses.is_empty());
    namespaces.sort_by_key(|namespace| (namespace.rank, !present.contains(&namespace.cookie), namespace.cookie));
    let mut selection = Selection { namespaces: BTreeMap::new(), sources: Sources::new(), left_out: 0 };
    for ClientNamespace { cookie, rank: _, addresses, sources, lacks_sources } in namespaces {
        if selection.namespaces.len() >= room.namespaces {
            selection.left_out += 1;
            continue;
        }
        selection.namespaces.insert(*cookie, addresses);
        if *lacks_sources || selection.sources.len() + sources.len() > room.sources {
            selection.left_out += 1;
            continue;
        }
        selection.sources.extend(sources.iter().map(|(destination, source)| ((*cookie, *destination), *source)));
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: SourcesCapacity = SourcesCapacity { namespaces: 3, sources: 4 };

    fn namespace(cookie: u64, rank: ClientRank, sources: u8) -> ClientNamespace {
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let sources = (0..sources).map(|number| (address(100 + number), address(1))).collect();
        ClientNamespace { cookie, rank, addresses: vec![address(1), address(2)], sources, lacks_sources: false }
    }

    fn cookies(selection: &Selection<'_>) -> Vec<u64> {
        selection.namespaces.keys().copied().collect()
    }

    #[test]
    fn unprivileged_namespaces_leave_room_for_pods() {
        let all = [
            namespace(1, ClientRank::Anybody, 0),
            namespace(2, ClientRank::Anybody, 0),
            namespace(3, ClientRank::Privileged, 0),
            namespace(4, ClientRank::Own, 0),
        ];
        let selection = select(all.iter().collect(), &BTreeSet::from([1, 2]), ROOM);
        assert_eq!((cookies(&selection), selection.left_out), (vec![1, 3, 4], 1));
    }

    #[test]
    fn present_namespaces_stay_when_there_is_no_room() {
        let all: Vec<ClientNamespace> = (1..=5).map(|cookie| namespace(cookie, ClientRank::Privileged, 0)).collect();
        let selection = select(all.iter().collect(), &BTreeSet::from([2, 4, 5]), ROOM);
        assert_eq!((cookies(&selection), selection.left_out), (vec![2, 4, 5], 2));
    }

    #[test]
    fn sources_without_room_are_counted() {
        let all = [
            namespace(1, ClientRank::Own, 3),
            namespace(2, ClientRank::Privileged, 2),
            namespace(3, ClientRank::Privileged, 1),
        ];
        let selection = select(all.iter().collect(), &BTreeSet::new(), ROOM);
        let with_sources: BTreeSet<u64> = selection.sources.keys().map(|(cookie, _)| *cookie).collect();
        assert_eq!((cookies(&selection), with_sources, selection.left_out), (vec![1, 2, 3], BTreeSet::from([1, 3]), 1));
    }

    #[test]
    fn a_namespace_without_an_address_takes_no_room() {
        let empty = ClientNamespace { addresses: Vec::new(), ..namespace(1, ClientRank::Privileged, 0) };
        let selection = select(vec![&empty], &BTreeSet::new(), ROOM);
        assert_eq!((selection.namespaces.len(), selection.left_out), (0, 0));
    }
}
