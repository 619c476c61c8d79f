//! One look after the other at the network namespaces: what is known of each, and which of it is in the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use anyhow::Result;
use netlink_sys::Socket;

use crate::{
    kernel::{
        descriptors,
        namespaces::{self, Id, NamespaceHolder, Traveller},
        routes::{self, Routes},
    },
    maps::pin::Pins,
    maps::sources::{SourceMaps, Sources, SourcesCapacity},
    model::Family,
};

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurveyScope {
    /// All but those that are watched and have not changed.
    All,
    /// Those that are new; all if none is.
    Unknown,
    /// These, as far as they are known.
    These(BTreeSet<Id>),
}

impl fmt::Display for SurveyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Unknown => f.write_str("one is not known"),
            Self::These(ids) => write!(f, "{} of them", ids.len()),
        }
    }
}

/// What a look is for.
#[derive(Debug)]
pub struct Request {
    pub scope: SurveyScope,
    /// The addresses of load balancers that have source ranges; those of the maps where they are not known yet.
    pub destinations: Option<Arc<BTreeSet<IpAddr>>>,
    /// The namespaces that cannot be watched any more.
    pub lost: BTreeSet<Id>,
}

/// What a look has found.
pub struct Findings {
    /// Whether anything is other than before.
    pub is_new: bool,
    /// How many namespaces are left out: there was no room, or they could not be looked at.
    pub left_out: u32,
    /// Why one could not be looked at.
    pub failure: Option<anyhow::Error>,
    /// The namespaces that are to be watched.
    pub watched: BTreeSet<Id>,
    /// The sockets for those that were not watched before.
    pub opened: Vec<(Id, Socket)>,
}

/// What is known of the namespaces.
pub struct Survey {
    maps: SourceMaps,
    destinations: Arc<BTreeSet<IpAddr>>,
    known: BTreeMap<Id, Known>,
}

/// What is known of a namespace.
#[derive(Debug)]
struct Known {
    place: NamespaceHolder,
    facts: Facts,
    is_watched: bool,
}

/// What decides what programs are told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    cookie: u64,
    rank: ClientRank,
    addresses: Vec<IpAddr>,
    /// By destination, as far as there is a route.
    sources: BTreeMap<IpAddr, IpAddr>,
    /// Whether the sources are for want of room not asked for.
    is_unasked: bool,
}

/// Who finds room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ClientRank {
    /// The node's own namespace.
    Own,
    /// Made by who is privileged on the node, as those of pods are.
    Privileged,
    /// Made in a user namespace, which anybody may.
    Anybody,
}

/// What is in the maps, of all that is known.
struct Placed<'a> {
    namespaces: BTreeMap<u64, &'a [IpAddr]>,
    sources: Sources,
    left_out: usize,
}

impl Survey {
    /// Of nothing but what the maps hold.
    pub fn open(pins: &Pins) -> Result<Self> {
        let maps = SourceMaps::open(pins)?;
        Ok(Self { destinations: Arc::new(maps.destinations()?), maps, known: BTreeMap::new() })
    }

    /// The namespaces whose sources depend on the destination.
    pub fn asking(&self) -> BTreeSet<Id> {
        self.known.iter().filter(|(_, known)| known.facts.asks()).map(|(id, _)| *id).collect()
    }

    /// Looks at namespaces, and writes what is new of them.
    pub fn look(&mut self, request: &Request, traveller: &Traveller) -> Result<Findings> {
        let mut tour = Tour { own: namespaces::own()?, traveller, is_new: false, failed: 0, failure: None, opened: Vec::new() };
        if let Some(destinations) = &request.destinations {
            self.destinations.clone_from(destinations);
        }
        for known in self.known.iter_mut().filter(|(id, _)| request.lost.contains(id)).map(|(_, known)| known) {
            known.is_watched = false;
        }
        tracing::debug!("looked at network namespaces: {}", request.scope);
        for places in self.places(request)? {
            for place in places {
                self.visit(place, &mut tour);
            }
            if tour.is_new {
                break;
            }
        }
        let present = self.maps.namespaces()?;
        let facts: Vec<&Facts> = self.known.values().map(|known| &known.facts).collect();
        let Placed { namespaces, sources, left_out } = place(facts, &present, self.maps.room());
        self.maps.set(&namespaces, &sources)?;
        let Tour { is_new, failed, failure, opened, .. } = tour;
        let left_out = u32::try_from(left_out + failed).unwrap_or(u32::MAX);
        let watched = self.known.iter().filter(|(_, known)| known.is_watched).map(|(id, _)| *id).collect();
        Ok(Findings { is_new, left_out, failure, watched, opened })
    }

    /// What is to be visited: later places only if earlier ones have nothing new.
    fn places(&mut self, request: &Request) -> Result<Vec<Vec<NamespaceHolder>>> {
        if let SurveyScope::These(ids) = &request.scope {
            let these = self.known.iter().filter(|(id, _)| ids.contains(id));
            return Ok(vec![these.map(|(_, known)| known.place.clone()).collect()]);
        }
        let places = namespaces::places()?;
        let found: BTreeSet<Id> = places.iter().map(|place| place.id).collect();
        self.known.retain(|id, _| found.contains(id));
        for place in &places {
            if let Some(known) = self.known.get_mut(&place.id) {
                known.place.clone_from(place);
            }
        }
        let (known, new): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| self.known.contains_key(&place.id));
        let unwatched = known.into_iter().filter(|place| self.known.get(&place.id).is_none_or(|known| !known.is_watched));
        Ok(match request.scope {
            SurveyScope::All => vec![unwatched.chain(new).collect()],
            SurveyScope::Unknown | SurveyScope::These(_) => vec![new, unwatched.collect()],
        })
    }

    fn visit(&mut self, place: NamespaceHolder, tour: &mut Tour<'_>) {
        let id = place.id;
        match self.describe(&place, tour) {
            Ok(Some((facts, is_watched))) => {
                tour.is_new |= self.known.get(&id).is_none_or(|known| known.facts != facts);
                self.known.insert(id, Known { place, facts, is_watched });
            }
            // It is gone; or it is on its way in or out, and has no clients.
            Ok(None) => drop(self.known.remove(&id)),
            Err(error) => {
                // What is known of it stays: it is more than nothing.
                tour.failed += usize::from(!self.known.contains_key(&id));
                tour.failure.get_or_insert(error);
            }
        }
    }

    /// What is to be known of a namespace, and whether it is watched from now on.
    fn describe(&self, place: &NamespaceHolder, tour: &mut Tour<'_>) -> Result<Option<(Facts, bool)>> {
        let Some(namespace) = place.open()? else { return Ok(None) };
        let rank = match place.id {
            id if id == tour.own => ClientRank::Own,
            _ if namespace.is_of_own_users() => ClientRank::Privileged,
            _ => ClientRank::Anybody,
        };
        tour.traveller.enter(&namespace)?;
        // It is known by its socket from here on.
        drop(namespace);
        let cookie = namespaces::cookie()?;
        let before = self.known.get(&place.id).filter(|known| known.facts.cookie == cookie);
        let mut is_watched = before.is_some_and(|known| known.is_watched);
        let mut facts = Facts { cookie, rank, addresses: Vec::new(), sources: BTreeMap::new(), is_unasked: false };
        // In this order, so that no change is missed between the two.
        facts.addresses = namespaces::global_addresses()?;
        if facts.asks() && !is_watched && self.has_room_to_watch(tour) {
            // Without a watch it is looked at from time to time.
            if let Ok(socket) = routes::changes() {
                tour.opened.push((place.id, socket));
                is_watched = true;
                facts.addresses = namespaces::global_addresses()?;
            }
        }
        is_watched &= facts.asks();
        facts.addresses.sort_unstable();
        self.ask(place.id, &mut facts)?;
        Ok(Some((facts, is_watched)))
    }

    fn has_room_to_watch(&self, tour: &Tour<'_>) -> bool {
        let watched = self.known.values().filter(|known| known.is_watched).count();
        watched + tour.opened.len() < descriptors::watched_namespaces()
    }

    /// Asks the kernel for the sources of calls from the thread's namespace.
    fn ask(&self, id: Id, facts: &mut Facts) -> Result<()> {
        let destinations: Vec<IpAddr> = self.destinations.iter().copied().filter(|it| facts.asks_about(*it)).collect();
        if destinations.is_empty() {
            return Ok(());
        }
        let others = self.known.iter().filter(|(other, known)| **other != id && known.facts.rank <= facts.rank);
        let asked: usize = others.map(|(_, known)| known.facts.sources.len()).sum();
        if asked + destinations.len() > self.maps.room().sources {
            facts.is_unasked = true;
            return Ok(());
        }
        let routes = Routes::open()?;
        for destination in destinations {
            if let Some(source) = routes.source(destination)? {
                facts.sources.insert(destination, source);
            }
        }
        Ok(())
    }
}

/// What happens during a look.
struct Tour<'a> {
    own: Id,
    traveller: &'a Traveller,
    is_new: bool,
    /// How many namespaces could not be looked at of which nothing is known.
    failed: usize,
    failure: Option<anyhow::Error>,
    opened: Vec<(Id, Socket)>,
}

impl Facts {
    /// Whether the kernel has to be asked which address is the source of a call.
    fn asks(&self) -> bool {
        Family::ALL.iter().any(|family| self.asks_in(*family))
    }

    fn asks_about(&self, destination: IpAddr) -> bool {
        self.asks_in(Family::of(destination))
    }

    /// The node may have a route of its own for a load balancer's address, which makes that address the source.
    fn asks_in(&self, family: Family) -> bool {
        let count = self.addresses.iter().filter(|address| Family::of(**address) == family).count();
        count > 1 || (count == 1 && self.rank == ClientRank::Own)
    }
}

/// Chooses what is in the maps: by rank, and then what is there already.
fn place<'a>(mut facts: Vec<&'a Facts>, present: &BTreeSet<u64>, room: SourcesCapacity) -> Placed<'a> {
    // One on its way in has no address yet, and no clients.
    facts.retain(|facts| !facts.addresses.is_empty());
    facts.sort_by_key(|facts| (facts.rank, !present.contains(&facts.cookie), facts.cookie));
    let mut placed = Placed { namespaces: BTreeMap::new(), sources: Sources::new(), left_out: 0 };
    for Facts { cookie, rank: _, addresses, sources, is_unasked } in facts {
        if placed.namespaces.len() >= room.namespaces {
            placed.left_out += 1;
            continue;
        }
        placed.namespaces.insert(*cookie, addresses);
        if *is_unasked || placed.sources.len() + sources.len() > room.sources {
            placed.left_out += 1;
            continue;
        }
        placed.sources.extend(sources.iter().map(|(destination, source)| ((*cookie, *destination), *source)));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: SourcesCapacity = SourcesCapacity { namespaces: 3, sources: 4 };

    fn facts(cookie: u64, rank: ClientRank, sources: u8) -> Facts {
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let sources = (0..sources).map(|number| (address(100 + number), address(1))).collect();
        Facts { cookie, rank, addresses: vec![address(1), address(2)], sources, is_unasked: false }
    }

    fn cookies(placed: &Placed<'_>) -> Vec<u64> {
        placed.namespaces.keys().copied().collect()
    }

    #[test]
    fn what_anybody_may_make_leaves_room_for_pods() {
        let all = [
            facts(1, ClientRank::Anybody, 0),
            facts(2, ClientRank::Anybody, 0),
            facts(3, ClientRank::Privileged, 0),
            facts(4, ClientRank::Own, 0),
        ];
        let placed = place(all.iter().collect(), &BTreeSet::from([1, 2]), ROOM);
        assert_eq!((cookies(&placed), placed.left_out), (vec![1, 3, 4], 1));
    }

    #[test]
    fn what_is_there_stays_when_there_is_no_room() {
        let all: Vec<Facts> = (1..=5).map(|cookie| facts(cookie, ClientRank::Privileged, 0)).collect();
        let placed = place(all.iter().collect(), &BTreeSet::from([2, 4, 5]), ROOM);
        assert_eq!((cookies(&placed), placed.left_out), (vec![2, 4, 5], 2));
    }

    #[test]
    fn sources_without_room_are_counted() {
        let all = [facts(1, ClientRank::Own, 3), facts(2, ClientRank::Privileged, 2), facts(3, ClientRank::Privileged, 1)];
        let placed = place(all.iter().collect(), &BTreeSet::new(), ROOM);
        let known: BTreeSet<u64> = placed.sources.keys().map(|(cookie, _)| *cookie).collect();
        assert_eq!((cookies(&placed), known, placed.left_out), (vec![1, 2, 3], BTreeSet::from([1, 3]), 1));
    }

    #[test]
    fn a_namespace_without_an_address_takes_no_room() {
        let empty = Facts { addresses: Vec::new(), ..facts(1, ClientRank::Privileged, 0) };
        let placed = place(vec![&empty], &BTreeSet::new(), ROOM);
        assert_eq!((placed.namespaces.len(), placed.left_out), (0, 0));
    }
}
