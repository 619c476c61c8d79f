//! One service port in the maps: the sets of backends that its frontends share, and its entries in ENDPOINTS, MEMBERS and
//! SOURCE_RANGES.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use ipnet::IpNet;
use portmap_common::{AddressKind, Choice, Member, Service};
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

/// The identity of a service port in the maps. Each key has an id of its own; a changed key gets a new id, so that sessions
/// and notes under the old id end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    pub owner: ServicePort,
    pub family: Family,
    pub has_affinity: bool,
}

/// A service port of one address family.
#[derive(Debug)]
pub struct PlannedPort {
    pub key: PortKey,
    /// The frontends by [`Member::external`]. The frontends of a group have the same backends: those for clients on the node,
    /// or for clients outside in the last group.
    groups: [Group; 3],
    /// The sets of backends that service entries of the port use; nearly always one set.
    pub sets: SmallVec<[Set; 1]>,
    /// `None` for a TCP port without session affinity that has not had source ranges, which is the usual case.
    secondary: Option<Box<Secondary>>,
}

/// The contents of ENDPOINTS and `SOURCE_RANGES` for a port that has UDP, session affinity or source ranges, or had source
/// ranges.
#[derive(Debug, Default)]
struct Secondary {
    /// The port's entries of ENDPOINTS: endpoint by number.
    recorded: BTreeMap<u64, Endpoint>,
    serving: Option<Arc<[Endpoint]>>,
    source_ranges: Option<Arc<[IpNet]>>,
}

/// Frontends of a service port that have the same backends for the same clients.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    frontends: u32,
    /// The choice whose endpoints are in MEMBERS, as far as there was room; `None` before a plan has inserted them, and for a
    /// group without frontends.
    members: Option<Choice>,
    /// Whether a member was left out because MEMBERS is full.
    has_shortage: bool,
}

/// A set of backends in consecutive slots of BACKENDS.
#[derive(Debug)]
pub struct Set {
    pub range: Range,
    /// The backends in the order of their slots, sorted by address and port.
    pub backends: Backends,
    pub users: u32,
}

/// The groups of a frontend whose address has this kind.
fn groups_of(kind: u8) -> &'static [u32] {
    if kind == AddressKind::ClusterIp as u8 { &[0] } else { &[1, Member::OUTSIDE] }
}

impl PlannedPort {
    /// A port without frontends.
    pub fn new(key: PortKey) -> Self {
        Self { key, groups: [Group::default(); 3], sets: SmallVec::new(), secondary: None }
    }

    /// Whether the port has a frontend.
    pub fn has_frontends(&self) -> bool {
        self.groups.iter().any(|group| group.frontends > 0)
    }

    /// Adds a frontend; `kind` is an [`portmap_common::AddressKind`] as in SERVICES.
    pub fn add_frontend(&mut self, kind: u8) {
        for group in groups_of(kind) {
            if let Some(group) = self.groups.get_mut(*group as usize) {
                group.frontends += 1;
            }
        }
    }

    /// Removes a frontend whose address has this kind.
    pub fn remove_frontend(&mut self, kind: u8) {
        for group in groups_of(kind) {
            let Some(group) = self.groups.get_mut(*group as usize) else { continue };
            group.frontends -= 1;
            if group.frontends == 0 {
                // [`Self::remove_unused_members`] removes the members of a group without frontends.
                group.members = None;
            }
        }
    }

    /// Inserts a frontend's backends into MEMBERS: those for clients on the node, and those for clients outside. Programs look up
    /// the latter only if they differ, so otherwise they are not inserted.
    pub fn set_members(&mut self, service: &Service, items: &mut Items, steps: &mut Vec<Step>) {
        let Service { id, kind, inside, outside, .. } = *service;
        for &group in groups_of(kind) {
            let is_outside = group == Member::OUTSIDE;
            let choice = if !is_outside {
                inside
            } else if outside == inside {
                Choice::default()
            } else {
                outside
            };
            self.set_group(id, group, choice, items, steps);
        }
    }

    /// Inserts the backends of a group into MEMBERS. Does nothing if a frontend of the group has inserted the same backends,
    /// unless some were left out and MEMBERS has room now. If MEMBERS is full, the remaining endpoints are left out: their
    /// clients have no session affinity.
    fn set_group(&mut self, id: u64, external: u32, choice: Choice, items: &mut Items, steps: &mut Vec<Step>) {
        let member = |endpoint| Item::Member(Member { id, endpoint, external, unused: 0 });
        let Some(group) = self.groups.get_mut(external as usize) else { return };
        if group.members == Some(choice) && !(group.has_shortage && items.has_room(&member(0))) {
            return;
        }
        let set = self.sets.iter().find(|set| set.choice() == choice);
        let mut members = set.into_iter().flat_map(|set| set.backends.iter().map(|slot| slot.number));
        group.members = Some(choice);
        group.has_shortage = !members.all(|endpoint| items.insert(member(endpoint), steps));
    }

    /// Removes members that the group's choice does not contain; all members of a port without session
    /// affinity. Members of a group whose members no plan has set yet stay.
    pub fn remove_unused_members(&self, id: u64, items: &mut Items, steps: &mut Vec<Step>) {
        let wanted = self.groups.each_ref().map(|group| {
            let choice = group.members.filter(|_| self.key.has_affinity && group.frontends > 0);
            let set = choice.and_then(|choice| self.sets.get(self.position(choice)?));
            set.into_iter().flat_map(|set| set.backends.iter().map(|slot| slot.number)).collect::<HashSet<u64>>()
        });
        let is_wanted = |item: &Item| match item {
            Item::Member(member) => {
                let group = member.external as usize;
                // The group was read from the maps, and no plan has set its members yet.
                let is_unknown = self.groups.get(group).is_some_and(|it| it.frontends > 0 && it.members.is_none());
                (is_unknown && self.key.has_affinity)
                    || wanted.get(group).is_some_and(|wanted| wanted.contains(&member.endpoint))
            }
            Item::Address(..) | Item::Endpoint(..) | Item::Range(..) => false,
        };
        items.retain(items::members_of(id), is_wanted, steps);
    }

    /// Takes over the serving endpoints and the source ranges of the port's latest entry.
    pub fn set_secondary(&mut self, entry: &Entry) {
        let Entry { serving, source_ranges, .. } = entry;
        if self.secondary.is_some() || serving.is_some() || source_ranges.is_some() {
            let secondary = self.secondary.get_or_insert_default();
            secondary.serving.clone_from(serving);
            secondary.source_ranges.clone_from(source_ranges);
        }
    }

    /// The source ranges of the port's load balancer addresses, sorted.
    pub fn source_ranges(&self) -> &[IpNet] {
        self.secondary.as_ref().and_then(|secondary| secondary.source_ranges.as_deref()).unwrap_or_default()
    }

    /// The slots of all sets.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.sets.iter().flat_map(|set| set.backends.iter())
    }

    /// Whether a set contains the endpoint with this number.
    pub fn has(&self, number: u64) -> bool {
        self.slots().any(|slot| slot.number == number)
    }

    /// Whether two models of the port have the same key and the same sets, in any order.
    pub fn has_same_backends(&self, other: &Self) -> bool {
        let is_there = |set: &Set| other.sets.iter().any(|it| it.range == set.range && it.backends == set.backends);
        self.key == other.key && self.sets.len() == other.sets.len() && self.sets.iter().all(is_there)
    }

    /// The index of the set that a choice leads to; `None` if the port has no such set.
    pub fn position(&self, choice: Choice) -> Option<usize> {
        self.sets.iter().position(|set| set.choice() == choice)
    }

    /// Numbers endpoints. An endpoint keeps its number in the sets of the port; a new endpoint gets the next number.
    pub fn number(&self, endpoints: &[Endpoint], next_numbers: &mut NextNumbers) -> Backends {
        let mut new = || {
            next_numbers.endpoint += 1;
            next_numbers.endpoint - 1
        };
        let known = |endpoint: &Endpoint| self.sets.iter().find_map(|set| set.number_of(endpoint));
        let slot = |endpoint: &Endpoint| Slot { endpoint: *endpoint, number: known(endpoint).unwrap_or_else(&mut new) };
        Backends::new(self.key.family, endpoints.iter().map(slot))
    }

    /// Records that an entry of ENDPOINTS, which was read from the maps, belongs to this port.
    pub fn record(&mut self, number: u64, endpoint: Endpoint) {
        self.secondary.get_or_insert_default().recorded.insert(number, endpoint);
    }

    /// Inserts the endpoints of a set into ENDPOINTS, if the port needs them there.
    pub fn insert_endpoints(&mut self, set: usize, items: &mut Items, steps: &mut Vec<Step>) {
        if !self.needs_endpoints() {
            return;
        }
        let secondary = self.secondary.get_or_insert_default();
        for slot in self.sets.get(set).into_iter().flat_map(|set| set.backends.iter()) {
            let Slot { number, endpoint } = slot;
            if !secondary.recorded.contains_key(&number) && items.insert(Item::Endpoint(number, endpoint), steps) {
                secondary.recorded.insert(number, endpoint);
            }
        }
    }

    /// Moves the port's serving endpoints from the unclaimed entries of ENDPOINTS to this port. Returns the port's entries
    /// to remove: their endpoints neither serve nor are backends. Returns all if the latest entry lists no serving endpoints.
    pub fn remove_unused(&mut self, unclaimed_endpoints: &mut BTreeMap<u64, Endpoint>) -> BTreeMap<u64, Endpoint> {
        if self.has_serving() && !unclaimed_endpoints.is_empty() {
            // An endpoint in a set has its number there. An unclaimed entry of the same endpoint has an earlier number, or a
            // number that an agent had not used yet when it crashed.
            let is_claimed = |_: &u64, endpoint: &mut Endpoint| self.serves(endpoint) && !self.chooses(endpoint);
            let claimed: Vec<_> = unclaimed_endpoints.extract_if(.., is_claimed).collect();
            self.secondary.get_or_insert_default().recorded.extend(claimed);
        }
        let Some(secondary) = &mut self.secondary else { return BTreeMap::new() };
        let (recorded, has_serving) = (mem::take(&mut secondary.recorded), secondary.serving.is_some());
        let chosen: BTreeSet<u64> = self.slots().map(|slot| slot.number).collect();
        let is_wanted = |number: &u64, endpoint: &Endpoint| has_serving && (chosen.contains(number) || self.serves(endpoint));
        let (wanted, gone) = recorded.into_iter().partition(|(number, endpoint)| is_wanted(number, endpoint));
        if let Some(secondary) = &mut self.secondary {
            secondary.recorded = wanted;
        }
        gone
    }

    /// The port's entries of ENDPOINTS, for their removal after the port's last frontend.
    pub fn into_recorded(self) -> BTreeMap<u64, Endpoint> {
        self.secondary.map(|secondary| secondary.recorded).unwrap_or_default()
    }

    /// Whether sockets (UDP) or session affinity refer to endpoints by number.
    fn needs_endpoints(&self) -> bool {
        self.key.has_affinity || self.key.owner.protocol == Protocol::Udp
    }

    /// Whether the port's latest entry lists serving endpoints: only then the port needs entries of ENDPOINTS.
    fn has_serving(&self) -> bool {
        self.secondary.as_ref().is_some_and(|secondary| secondary.serving.is_some())
    }

    /// Whether an endpoint still answers its present clients; it may be excluded from new connections.
    fn serves(&self, endpoint: &Endpoint) -> bool {
        let key = |endpoint: &Endpoint| (endpoint.address, endpoint.port);
        let serving = self.secondary.as_ref().and_then(|secondary| secondary.serving.as_deref());
        serving.is_some_and(|serving| serving.binary_search_by_key(&key(endpoint), key).is_ok())
    }

    /// Whether a set contains an endpoint with this address and port.
    fn chooses(&self, endpoint: &Endpoint) -> bool {
        let key = |endpoint: &Endpoint| (endpoint.address, endpoint.port);
        self.slots().any(|slot| key(&slot.endpoint) == key(endpoint))
    }
}

impl Set {
    /// The choice that leads to the set.
    pub fn choice(&self) -> Choice {
        Choice { first: self.range.first, count: self.range.count }
    }

    /// Whether the set has exactly these endpoints, in this order.
    pub fn holds(&self, endpoints: &[Endpoint]) -> bool {
        self.backends.len() == endpoints.len() && self.backends.iter().map(|slot| slot.endpoint).eq(endpoints.iter().copied())
    }

    fn number_of(&self, endpoint: &Endpoint) -> Option<u64> {
        self.backends.find(endpoint.address, endpoint.port).filter(|slot| slot.endpoint == *endpoint).map(|slot| slot.number)
    }
}
