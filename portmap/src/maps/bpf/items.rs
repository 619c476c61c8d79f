//! The maps that things are in or not, and the prefixes.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
};
use portmap_common::{Choice, EndpointEntry, Member, OTHER_PROXY, PREFIXES, Prefixes, ServiceRef, SourceRange, UNDEFINED_PORT};

use super::{mapped, open};
use crate::{
    kernel::bpf,
    maps::{
        ForeignKey, Item, Prefix,
        encode::{self, IpBytes},
        mapped::Mapped,
        pin::Pins,
    },
    model::{AddressOwner, Family},
};

/// `BPF_NOEXIST`: nothing is updated in place.
const NEW_ONLY: u64 = 1;

/// The value of what is only there or not.
const PRESENT: u8 = 1;

/// Where the halves of the prefixes begin.
const HALVES: [usize; 2] = [0, PREFIXES];

/// The maps of one address family.
pub struct FamilyItems<A: IpBytes>
where
    EndpointEntry<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    endpoints: HashMap<MapData, u64, EndpointEntry<A>>,
    ranges: LpmTrie<MapData, SourceRange<A>, u8>,
    /// The same map, for calls that `LpmTrie` has not.
    ranges_fd: OwnedFd,
    prefixes: Mapped<Prefixes<A>>,
}

impl<A: IpBytes> FamilyItems<A>
where
    EndpointEntry<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    /// Opens the pinned maps; `family` is the end of their names.
    pub fn open(pins: &Pins, family: &str) -> Result<Self> {
        let open_one = |name: &str| open(pins, &format!("{name}_{family}"));
        let ranges = open_one("SOURCE_RANGES")?;
        Ok(Self {
            endpoints: HashMap::try_from(Map::HashMap(open_one("ENDPOINTS")?))?,
            ranges_fd: ranges.fd().as_fd().try_clone_to_owned()?,
            ranges: LpmTrie::try_from(Map::LpmTrie(ranges))?,
            prefixes: mapped(pins, &format!("PREFIXES_{family}"))?,
        })
    }

    pub fn insert_endpoint(&mut self, number: u64, endpoint: &crate::model::Endpoint) -> Result<()> {
        let address = A::from_ip(endpoint.address).context("it is of the other family")?;
        Ok(self.endpoints.insert(number, EndpointEntry::new(number, address, endpoint.port), NEW_ONLY)?)
    }

    pub fn remove_endpoint(&mut self, number: u64) -> Result<()> {
        Ok(self.endpoints.remove(&number)?)
    }

    /// Adds source ranges: by one call where the kernel has it.
    pub fn insert_ranges<'a>(&mut self, ranges: impl Iterator<Item = &'a (u64, ipnet::IpNet)>) -> Result<()> {
        let keys = ranges.map(|(id, range)| range_key::<A>(*id, range)).collect::<Result<Vec<_>>>()?;
        match bpf::update_entries(self.ranges_fd.as_fd(), &keys, &vec![PRESENT; keys.len()]) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                keys.iter().try_for_each(|key| Ok(self.ranges.insert(key, PRESENT, 0)?))
            }
            other => Ok(other?),
        }
    }

    pub fn remove_range(&mut self, id: u64, range: &ipnet::IpNet) -> Result<()> {
        Ok(self.ranges.remove(&range_key::<A>(id, range)?)?)
    }

    pub fn remove_partial_range(&mut self, bits: u32, id: u64) -> Result<()> {
        Ok(self.ranges.remove(&Key::new(bits, SourceRange { id: id.to_be_bytes(), address: A::default() }))?)
    }

    /// Everything in the maps of the family; apart, what has a value or a key that the agent would not write.
    pub fn read(
        &self,
        items: &mut BTreeSet<Item>,
        spoiled: &mut BTreeSet<Item>,
        foreign: &mut BTreeSet<ForeignKey>,
    ) -> Result<()> {
        for element in &self.endpoints {
            let (number, endpoint) = element?;
            // One that somebody else changed is no endpoint of any set, whatever it says.
            let endpoint = if endpoint.belongs_to(number) { endpoint } else { EndpointEntry::new(number, A::default(), 0) };
            let endpoint = crate::model::Endpoint { address: endpoint.address.to_ip(), port: endpoint.port, local: false };
            items.insert(Item::Endpoint(number, endpoint));
        }
        for element in &self.ranges {
            let (key, value) = element?;
            let SourceRange { id, address } = key.data();
            let (id, address) = (u64::from_be_bytes(id), address.to_ip());
            let Some(bits) = key.prefix_len().checked_sub(u64::BITS) else {
                foreign.insert(ForeignKey::SourceRange(Family::of(address), key.prefix_len(), id));
                continue;
            };
            let item = Item::Range(id, ipnet::IpNet::new(address, u8::try_from(bits)?)?.trunc());
            items.insert(item);
            if value != PRESENT {
                spoiled.insert(item);
            }
        }
        Ok(())
    }

    /// The prefixes in force; `None` if they are not what the agent would write.
    pub fn prefixes(&self) -> Result<Option<Vec<Prefix>>> {
        let Prefixes { active, prefixes } = self.prefixes.read(0)?;
        let (first, count) = (active.first as usize, active.count as usize);
        if !HALVES.contains(&first) || count > PREFIXES {
            return Ok(None);
        }
        Ok(prefixes.iter().skip(first).take(count).map(encode::prefix_of).collect())
    }

    /// Writes the prefixes into the half that is not in force, then switches over.
    pub fn set_prefixes(&mut self, prefixes: &[Prefix]) -> Result<()> {
        let mut table = self.prefixes.read(0)?;
        let first = if table.active.first == 0 { PREFIXES } else { 0 };
        for (place, prefix) in table.prefixes.iter_mut().skip(first).zip(prefixes) {
            *place = encode::prefix(prefix).context("it is of the other family")?;
        }
        self.prefixes.write(0, table)?;
        let active = Choice { first: u32::try_from(first)?, count: u32::try_from(prefixes.len())? };
        self.prefixes.store_word(0, 0, active.to_word())
    }
}

fn range_key<A: IpBytes>(id: u64, range: &ipnet::IpNet) -> Result<Key<SourceRange<A>>>
where
    SourceRange<A>: Pod,
{
    let address = A::from_ip(range.addr()).context("it is of the other family")?;
    Ok(Key::new(u64::BITS + u32::from(range.prefix_len()), SourceRange { id: id.to_be_bytes(), address }))
}

/// MEMBERS, which has no family.
pub struct Members(HashMap<MapData, Member, u8>);

impl Members {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(HashMap::try_from(Map::HashMap(open(pins, "MEMBERS")?))?))
    }

    pub fn insert(&mut self, member: Member) -> Result<()> {
        Ok(self.0.insert(member, PRESENT, NEW_ONLY)?)
    }

    pub fn remove(&mut self, member: Member) -> Result<()> {
        Ok(self.0.remove(&member)?)
    }

    pub fn read(&self, items: &mut BTreeSet<Item>, spoiled: &mut BTreeSet<Item>) -> Result<()> {
        for element in &self.0 {
            let (member, value) = element?;
            items.insert(Item::Member(member));
            if value != PRESENT {
                spoiled.insert(Item::Member(member));
            }
        }
        Ok(())
    }
}

/// The service number that stands for the owner of a ClusterIP.
pub fn owner_number(owner: AddressOwner) -> Option<u32> {
    match owner {
        AddressOwner::Served => Some(UNDEFINED_PORT),
        AddressOwner::OtherProxy => Some(OTHER_PROXY),
        AddressOwner::Foreign => None,
    }
}

/// The owner that a value stands for.
pub fn owner_of(value: ServiceRef) -> AddressOwner {
    match value.service {
        UNDEFINED_PORT => AddressOwner::Served,
        OTHER_PROXY => AddressOwner::OtherProxy,
        _ => AddressOwner::Foreign,
    }
}
