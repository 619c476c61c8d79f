//! The keys of the set-like maps (ENDPOINTS, MEMBERS, SOURCE_RANGES, ClusterIPs in FRONTENDS): a key is present or absent,
//! and its value never changes. Counts the entries of each map, and remembers the keys that had no room.

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

/// The model of the set-like maps.
#[derive(Debug)]
pub struct Items {
    present: BTreeSet<Item>,
    counts: HashMap<(Discriminant<Item>, Family), u32>,
    capacity: Capacity,
    /// The capacity of each of `ENDPOINTS_V4`, `ENDPOINTS_V6` and MEMBERS, in entries.
    room_each: u32,
    /// Desired keys that are left out, because their map is full.
    without_room: BTreeSet<Item>,
    /// Whether a key had no room since the last call of [`Self::take_shortage`].
    had_shortage: bool,
    /// Whether a key was removed while other keys had no room.
    has_new_room: bool,
}

impl Items {
    /// A model of maps with these keys.
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
            had_shortage: false,
            has_new_room: false,
        }
    }

    /// Empty maps; ENDPOINTS and MEMBERS have room for `room_each` entries each.
    #[cfg(test)]
    pub fn of_room(capacity: Capacity, room_each: u32) -> Self {
        Self { room_each, ..Self::new(capacity, BTreeSet::new()) }
    }

    /// The number of keys without room.
    pub fn without_room(&self) -> usize {
        self.without_room.len()
    }

    /// Whether a key had no room since the last call.
    pub fn take_shortage(&mut self) -> bool {
        mem::take(&mut self.had_shortage)
    }

    /// Whether keys without room may have room now: a key was removed since the last call.
    pub fn take_room(&mut self) -> bool {
        mem::take(&mut self.has_new_room)
    }

    /// The ClusterIPs without room.
    pub fn addresses_without_room(&self) -> impl Iterator<Item = IpAddr> {
        self.without_room.iter().filter_map(|item| match item {
            Item::Address(address, _) => Some(*address),
            Item::Endpoint(..) | Item::Member(_) | Item::Range(..) => None,
        })
    }

    /// All keys in the maps, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.present.iter()
    }

    /// The number of entries in each map. FRONTENDS holds ClusterIPs beside `frontends`, the number of frontends of each
    /// family.
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

    /// Whether SOURCE_RANGES has an entry, of any family.
    pub fn has_ranges(&self) -> bool {
        let any = Item::Range(0, IpNet::V4(Ipv4Net::default()));
        Family::ALL.iter().any(|family| self.counts.get(&(discriminant(&any), *family)).is_some_and(|count| *count > 0))
    }

    /// The capacity of an item's map, in entries.
    fn room(&self, item: &Item) -> u32 {
        match item {
            // The other entries of FRONTENDS are kept for frontends.
            Item::Address(..) => self.capacity.frontends() - self.capacity.services,
            Item::Range(..) => self.capacity.services,
            Item::Endpoint(..) | Item::Member(_) => self.room_each,
        }
    }

    /// Whether an item's map has room for another entry.
    pub fn has_room(&self, item: &Item) -> bool {
        self.counts.get(&kind(item)).copied().unwrap_or_default() < self.room(item)
    }

    /// Plans to insert an item, unless it is present. Returns false if it is absent and its map is full.
    pub fn insert(&mut self, item: Item, steps: &mut Vec<Step>) -> bool {
        let room = self.room(&item);
        let count = self.counts.entry(kind(&item)).or_default();
        if *count >= room {
            let is_present = self.present.contains(&item);
            if !is_present {
                self.without_room.insert(item);
                self.had_shortage = true;
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

    /// Plans to remove an item, if it is present.
    pub fn remove(&mut self, item: Item, steps: &mut Vec<Step>) {
        self.without_room.remove(&item);
        if self.present.remove(&item) {
            if let Some(count) = self.counts.get_mut(&kind(&item)) {
                *count -= 1;
            }
            self.has_new_room |= !self.without_room.is_empty();
            steps.push(Step::Remove(item));
        }
    }

    /// Plans to remove the items in `range` for which `is_wanted` is false. Forgets such items among the keys without room.
    pub fn retain(&mut self, range: RangeInclusive<Item>, is_wanted: impl Fn(&Item) -> bool, steps: &mut Vec<Step>) {
        let lacking = self.without_room.range(range.clone());
        let unwanted: Vec<Item> = self.present.range(range).chain(lacking).filter(|item| !is_wanted(item)).copied().collect();
        for item in unwanted {
            self.remove(item, steps);
        }
    }

    /// The owner of a ClusterIP in the maps; `None` if the maps do not have the address.
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

/// The last source range in the order of [`IpNet`].
const LAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::MAX), 128);

/// The map of an item: the variant, and the family. Always V4 for members, because MEMBERS is one map for both families.
fn kind(item: &Item) -> (Discriminant<Item>, Family) {
    let family = match item {
        Item::Address(address, _) | Item::Endpoint(_, Endpoint { address, .. }) => Family::of(*address),
        Item::Range(_, range) => Family::of(range.addr()),
        Item::Member(_) => Family::V4,
    };
    (discriminant(item), family)
}
