//! What is in the maps that things are in or not: compared with what should be, and changed by the difference.

use std::{
    collections::BTreeSet,
    mem::{self, Discriminant, discriminant},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portmap_common::Member;

use super::Step;
use crate::{
    collections::HashMap,
    maps::{Capacity, Fullness, Item},
    model::{AddressOwner, Endpoint, Family, PerFamily},
};

/// The model of those maps.
#[derive(Debug)]
pub struct Items {
    present: BTreeSet<Item>,
    counts: HashMap<(Discriminant<Item>, Family), u32>,
    capacity: Capacity,
    /// Entries of each of the maps of endpoints and members.
    room_each: u32,
    /// What found no room. What is remembered of clients, or refused, is less than it should be then.
    without_room: BTreeSet<Item>,
    /// Whether something found no room since this was last asked.
    lacked: bool,
    /// Whether something was taken away while others had no room.
    room_came: bool,
}

impl Items {
    /// A model of the maps as they are.
    pub fn new(capacity: Capacity, present: BTreeSet<Item>) -> Self {
        let mut counts = HashMap::default();
        for item in &present {
            *counts.entry(kind(item)).or_default() += 1;
        }
        Self {
            present,
            counts,
            capacity,
            room_each: capacity.items(),
            without_room: BTreeSet::new(),
            lacked: false,
            room_came: false,
        }
    }

    /// Empty maps, those of endpoints and members with room for so many.
    #[cfg(test)]
    pub fn of_room(capacity: Capacity, room_each: u32) -> Self {
        Self { room_each, ..Self::new(capacity, BTreeSet::new()) }
    }

    /// How much found no room.
    pub fn without_room(&self) -> usize {
        self.without_room.len()
    }

    /// Whether something found no room since the last call.
    pub fn take_lack(&mut self) -> bool {
        mem::take(&mut self.lacked)
    }

    /// Whether what found no room may find some now: since the last call something was taken away.
    pub fn take_room(&mut self) -> bool {
        mem::take(&mut self.room_came)
    }

    /// The ClusterIPs that found no room.
    pub fn addresses_without_room(&self) -> impl Iterator<Item = IpAddr> {
        self.without_room.iter().filter_map(|item| match item {
            Item::Address(address, _) => Some(*address),
            Item::Endpoint(..) | Item::Member(_) | Item::Range(..) => None,
        })
    }

    /// Everything that is there.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.present.iter()
    }

    /// How full the maps of items are. ClusterIPs as such share FRONTENDS with so many frontends.
    pub fn fullness(&self, frontends: PerFamily<u32>) -> impl Iterator<Item = Fullness> {
        let [v4, v6] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let address = |address| Item::Address(address, AddressOwner::Served);
        let endpoint = |address| Item::Endpoint(0, Endpoint { address, port: 0, local: false });
        let of = [
            ("FRONTENDS_V4", address(v4), frontends.v4),
            ("FRONTENDS_V6", address(v6), frontends.v6),
            ("ENDPOINTS_V4", endpoint(v4), 0),
            ("ENDPOINTS_V6", endpoint(v6), 0),
            ("MEMBERS", Item::Member(Member::new(0, 0, 0)), 0),
            ("SOURCE_RANGES_V4", Item::Range(0, IpNet::V4(Ipv4Net::default())), 0),
            ("SOURCE_RANGES_V6", Item::Range(0, IpNet::V6(Ipv6Net::default())), 0),
        ];
        of.into_iter().map(|(name, item, beside)| {
            let used = self.counts.get(&kind(&item)).copied().unwrap_or_default() + beside;
            let capacity = if matches!(item, Item::Address(..)) { self.capacity.frontends() } else { self.room(&item) };
            Fullness { name, used, capacity }
        })
    }

    /// Whether any source range is there.
    pub fn has_ranges(&self) -> bool {
        let any = Item::Range(0, IpNet::V4(Ipv4Net::default()));
        Family::ALL.iter().any(|family| self.counts.get(&(discriminant(&any), *family)).is_some_and(|count| *count > 0))
    }

    /// How many entries the map of an item has.
    fn room(&self, item: &Item) -> u32 {
        match item {
            // The rest of FRONTENDS is for frontends.
            Item::Address(..) => self.capacity.frontends() - self.capacity.services,
            Item::Range(..) => self.capacity.services,
            Item::Endpoint(..) | Item::Member(_) => self.room_each,
        }
    }

    /// Whether the map of an item has room for one more.
    pub fn has_room(&self, item: &Item) -> bool {
        self.counts.get(&kind(item)).copied().unwrap_or_default() < self.room(item)
    }

    /// Plans to add an item, unless it is there. False if there is no room.
    pub fn insert(&mut self, item: Item, steps: &mut Vec<Step>) -> bool {
        let room = self.room(&item);
        let count = self.counts.entry(kind(&item)).or_default();
        if *count >= room {
            let is_present = self.present.contains(&item);
            if !is_present {
                self.without_room.insert(item);
                self.lacked = true;
            }
            return is_present;
        }
        if !self.present.insert(item) {
            return true;
        }
        *count += 1;
        if !self.without_room.is_empty() {
            self.without_room.remove(&item);
        }
        steps.push(Step::Insert(item));
        true
    }

    /// Plans to take an item away, if it is there.
    pub fn remove(&mut self, item: Item, steps: &mut Vec<Step>) {
        self.without_room.remove(&item);
        if self.present.remove(&item) {
            if let Some(count) = self.counts.get_mut(&kind(&item)) {
                *count -= 1;
            }
            self.room_came |= !self.without_room.is_empty();
            steps.push(Step::Remove(item));
        }
    }

    /// Plans to take away what lies in a range of items and is not wanted.
    pub fn retain(&mut self, range: RangeInclusive<Item>, is_wanted: impl Fn(&Item) -> bool, steps: &mut Vec<Step>) {
        let lacking = self.without_room.range(range.clone());
        let unwanted: Vec<Item> = self.present.range(range).chain(lacking).filter(|item| !is_wanted(item)).copied().collect();
        for item in unwanted {
            self.remove(item, steps);
        }
    }

    /// Whose an address is, by what is there.
    pub fn owner(&self, address: IpAddr) -> Option<AddressOwner> {
        let owners = [AddressOwner::Served, AddressOwner::OtherProxy, AddressOwner::Foreign];
        owners.into_iter().find(|owner| self.present.contains(&Item::Address(address, *owner)))
    }
}

/// All members of a service port.
pub fn members_of(id: u64) -> RangeInclusive<Item> {
    let member = |endpoint, rest| Item::Member(Member { id, endpoint, external: rest, unused: rest });
    member(u64::MIN, u32::MIN)..=member(u64::MAX, u32::MAX)
}

/// All source ranges of a service port.
pub fn ranges_of(id: u64) -> RangeInclusive<Item> {
    Item::Range(id, IpNet::V4(Ipv4Net::default()))..=Item::Range(id, IpNet::V6(LAST))
}

/// No range comes after this one in order.
const LAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::MAX), 128);

/// The map that an item is in.
fn kind(item: &Item) -> (Discriminant<Item>, Family) {
    let family = match item {
        Item::Address(address, _) | Item::Endpoint(_, Endpoint { address, .. }) => Family::of(*address),
        Item::Range(_, range) => Family::of(range.addr()),
        Item::Member(_) => Family::V4,
    };
    (discriminant(item), family)
}
