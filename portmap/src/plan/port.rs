//! A service port in the tables: the sets of backends that its frontends share, and which of its endpoints are remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use ipnet::IpNet;
use portmap_common::{Choice, Member, Service};
use smallvec::SmallVec;

use super::{
    Step,
    items::{self, Items},
    slots::Range,
};
use crate::{
    collections::HashSet,
    maps::{Backends, Item, NextNumbers, Slot},
    model::{Endpoint, Entry, Family, Protocol, ServicePort},
};

/// What an id stands for. Another key is another id: whoever is remembered under the old one is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    pub owner: ServicePort,
    pub family: Family,
    pub has_affinity: bool,
}

/// A service port in one family.
#[derive(Debug)]
pub struct PlannedPort {
    pub key: PortKey,
    /// Its frontends by [`Member::external`]: those of each group have one inside choice.
    groups: [Group; 2],
    /// Nearly always one.
    pub sets: SmallVec<[Set; 1]>,
    /// Most ports need none.
    terms: Option<Box<Terms>>,
}

/// What else there is to know of a port: of UDP, with session affinity, or with source ranges.
#[derive(Debug, Default)]
struct Terms {
    /// The numbers of its endpoints that are in ENDPOINTS.
    remembered: BTreeMap<u64, Endpoint>,
    serving: Option<Arc<[Endpoint]>>,
    source_ranges: Option<Arc<[IpNet]>>,
}

/// Frontends of a service port whose inside choice is the same.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    frontends: u32,
    /// The choice whose endpoints are in MEMBERS, once it was planned.
    members: Option<Choice>,
    /// Whether some of them found no room.
    lacks: bool,
}

/// Backends in consecutive slots.
#[derive(Debug)]
pub struct Set {
    pub range: Range,
    /// Sorted by address and port.
    pub backends: Backends,
    pub users: u32,
}

impl PlannedPort {
    /// One without a frontend.
    pub fn new(key: PortKey) -> Self {
        Self { key, groups: [Group::default(); 2], sets: SmallVec::new(), terms: None }
    }

    /// Whether it has a frontend.
    pub fn has_frontends(&self) -> bool {
        self.groups.iter().any(|group| group.frontends > 0)
    }

    /// Adds a frontend of a kind, as in SERVICES.
    pub fn add_frontend(&mut self, kind: u8) {
        if let Some(group) = self.groups.get_mut(Member::external(kind) as usize) {
            group.frontends += 1;
        }
    }

    /// Takes a frontend of a kind away.
    pub fn remove_frontend(&mut self, kind: u8) {
        if let Some(group) = self.groups.get_mut(Member::external(kind) as usize) {
            group.frontends -= 1;
            if group.frontends == 0 {
                // They go from MEMBERS with the last frontend that needs them.
                group.members = None;
            }
        }
    }

    /// With session affinity, puts the endpoints of a frontend's inside choice into MEMBERS, unless another frontend of its group has.
    /// Where one finds no room the rest is left out, too: affinity does not hold for them.
    pub fn set_members(&mut self, service: &Service, items: &mut Items, steps: &mut Vec<Step>) {
        let Service { id, kind, inside, .. } = *service;
        let Some(group) = self.groups.get_mut(Member::external(kind) as usize) else { return };
        if group.members == Some(inside) && !(group.lacks && items.has_room(&Item::Member(Member::new(id, kind, 0)))) {
            return;
        }
        let set = self.sets.iter().find(|set| set.choice() == inside);
        let mut members = set.into_iter().flat_map(|set| set.backends.iter().map(|slot| slot.number));
        group.members = Some(inside);
        group.lacks = !members.all(|endpoint| items.insert(Item::Member(Member::new(id, kind, endpoint)), steps));
    }

    /// Takes those out of MEMBERS that are in no choice any more.
    pub fn settle_members(&self, id: u64, items: &mut Items, steps: &mut Vec<Step>) {
        let wanted = self.groups.each_ref().map(|group| {
            let choice = group.members.filter(|_| self.key.has_affinity && group.frontends > 0);
            let set = choice.and_then(|choice| self.sets.get(self.position(choice)?));
            set.into_iter().flat_map(|set| set.backends.iter().map(|slot| slot.number)).collect::<HashSet<u64>>()
        });
        let is_wanted = |item: &Item| match item {
            Item::Member(member) => {
                let group = member.external as usize;
                // Not planned yet: it is as it was found.
                let is_unknown = self.groups.get(group).is_some_and(|it| it.frontends > 0 && it.members.is_none());
                (is_unknown && self.key.has_affinity)
                    || wanted.get(group).is_some_and(|wanted| wanted.contains(&member.endpoint))
            }
            Item::Address(..) | Item::Endpoint(..) | Item::Range(..) => false,
        };
        items.retain(items::members_of(id), is_wanted, steps);
    }

    /// Takes over what a table entry says.
    pub fn set_terms(&mut self, entry: &Entry) {
        let Entry { serving, source_ranges, .. } = entry;
        if self.terms.is_some() || serving.is_some() || source_ranges.is_some() {
            let terms = self.terms.get_or_insert_default();
            terms.serving.clone_from(serving);
            terms.source_ranges.clone_from(source_ranges);
        }
    }

    /// Whom its load balancer addresses admit, sorted.
    pub fn source_ranges(&self) -> &[IpNet] {
        self.terms.as_ref().and_then(|terms| terms.source_ranges.as_deref()).unwrap_or_default()
    }

    /// The slots of all its sets.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.sets.iter().flat_map(|set| set.backends.iter())
    }

    /// Whether the endpoint of a number is in one of its sets.
    pub fn has(&self, number: u64) -> bool {
        self.slots().any(|slot| slot.number == number)
    }

    /// Whether it is the same port with the same sets, in whatever order.
    pub fn has_same_backends(&self, other: &Self) -> bool {
        let is_there = |set: &Set| other.sets.iter().any(|it| it.range == set.range && it.backends == set.backends);
        self.key == other.key && self.sets.len() == other.sets.len() && self.sets.iter().all(is_there)
    }

    /// The set that a choice leads to.
    pub fn position(&self, choice: Choice) -> Option<usize> {
        self.sets.iter().position(|set| set.choice() == choice)
    }

    /// Endpoints with their numbers: the one an endpoint has in a set of the port, else a new one.
    pub fn number(&self, endpoints: &[Endpoint], marks: &mut NextNumbers) -> Backends {
        let mut new = || {
            marks.endpoint += 1;
            marks.endpoint - 1
        };
        let known = |endpoint: &Endpoint| self.sets.iter().find_map(|set| set.number_of(endpoint));
        let slot = |endpoint: &Endpoint| Slot { endpoint: *endpoint, number: known(endpoint).unwrap_or_else(&mut new) };
        Backends::new(self.key.family, endpoints.iter().map(slot))
    }

    /// Notes that an endpoint is in ENDPOINTS.
    pub fn remember(&mut self, number: u64, endpoint: Endpoint) {
        self.terms.get_or_insert_default().remembered.insert(number, endpoint);
    }

    /// Puts the endpoints of a set where they are remembered.
    pub fn remember_set(&mut self, set: usize, items: &mut Items, steps: &mut Vec<Step>) {
        if !self.has_memory() {
            return;
        }
        let terms = self.terms.get_or_insert_default();
        for slot in self.sets.get(set).into_iter().flat_map(|set| set.backends.iter()) {
            // Whether it is local does not count there.
            let endpoint = Endpoint { local: false, ..slot.endpoint };
            if !terms.remembered.contains_key(&slot.number) && items.insert(Item::Endpoint(slot.number, endpoint), steps) {
                terms.remembered.insert(slot.number, endpoint);
            }
        }
    }

    /// Takes its own from the endpoints that nobody has claimed yet, and gives up those that serve no more.
    pub fn settle(&mut self, unclaimed: &mut BTreeMap<u64, Endpoint>) -> BTreeMap<u64, Endpoint> {
        if self.is_memorable() && !unclaimed.is_empty() {
            // One that has another number by now was left by an agent that ended before it put the endpoint to use.
            let is_claimed = |_: &u64, endpoint: &mut Endpoint| self.serves(endpoint) && !self.chooses(endpoint);
            let claimed: Vec<_> = unclaimed.extract_if(.., is_claimed).collect();
            self.terms.get_or_insert_default().remembered.extend(claimed);
        }
        let Some(terms) = &mut self.terms else { return BTreeMap::new() };
        let (remembered, is_memorable) = (mem::take(&mut terms.remembered), terms.serving.is_some());
        let chosen: BTreeSet<u64> = self.slots().map(|slot| slot.number).collect();
        let is_wanted = |number: &u64, endpoint: &Endpoint| is_memorable && (chosen.contains(number) || self.serves(endpoint));
        let (wanted, gone) = remembered.into_iter().partition(|(number, endpoint)| is_wanted(number, endpoint));
        if let Some(terms) = &mut self.terms {
            terms.remembered = wanted;
        }
        gone
    }

    /// Ends the port, and returns its endpoints that are in ENDPOINTS.
    pub fn into_remembered(self) -> BTreeMap<u64, Endpoint> {
        self.terms.map(|terms| terms.remembered).unwrap_or_default()
    }

    /// Whether sockets or session affinity may remember its endpoints.
    fn has_memory(&self) -> bool {
        self.key.has_affinity || self.key.owner.protocol == Protocol::Udp
    }

    /// Whether the table says that they do.
    fn is_memorable(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.serving.is_some())
    }

    /// Whether an endpoint, chosen or not, still answers the clients that it has.
    fn serves(&self, endpoint: &Endpoint) -> bool {
        let key = |endpoint: &Endpoint| (endpoint.address, endpoint.port);
        let serving = self.terms.as_ref().and_then(|terms| terms.serving.as_deref());
        serving.is_some_and(|serving| serving.binary_search_by_key(&key(endpoint), key).is_ok())
    }

    /// Whether an endpoint is in one of its sets.
    fn chooses(&self, endpoint: &Endpoint) -> bool {
        let key = |endpoint: &Endpoint| (endpoint.address, endpoint.port);
        self.slots().any(|slot| key(&slot.endpoint) == key(endpoint))
    }
}

impl Set {
    /// What leads to it.
    pub fn choice(&self) -> Choice {
        Choice { first: self.range.first, count: self.range.count }
    }

    /// Whether these are its backends.
    pub fn holds(&self, endpoints: &[Endpoint]) -> bool {
        self.backends.len() == endpoints.len() && self.backends.iter().map(|slot| slot.endpoint).eq(endpoints.iter().copied())
    }

    fn number_of(&self, endpoint: &Endpoint) -> Option<u64> {
        self.backends.find(endpoint.address, endpoint.port).map(|slot| slot.number)
    }
}
