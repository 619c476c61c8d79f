//! The maps that things are in or not, and the prefixes.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
};
use portmap_common::{Choice, Endpoint, Member, OTHER_PROXY, PREFIXES, Prefixes, ServiceRef, SourceRange, UNDEFINED_PORT};

use super::{mapped, open};
use crate::{
    datapath::pin::Pins,
    encode::{self, IpBytes},
    maps::{Item, Prefix, mapped::Mapped},
    table::AddressOwner,
};

/// `BPF_NOEXIST`: nothing is updated in place.
const NEW_ONLY: u64 = 1;

/// The maps of one address family.
pub struct FamilyItems<A: IpBytes>
where
    Endpoint<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    endpoints: HashMap<MapData, u64, Endpoint<A>>,
    ranges: LpmTrie<MapData, SourceRange<A>, u8>,
    prefixes: Mapped<Prefixes<A>>,
}

impl<A: IpBytes> FamilyItems<A>
where
    Endpoint<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    /// Opens the pinned maps; `family` is the end of their names.
    pub fn open(pins: &Pins, family: &str) -> Result<Self> {
        let open_one = |name: &str| open(pins, &format!("{name}_{family}"));
        Ok(Self {
            endpoints: HashMap::try_from(Map::HashMap(open_one("ENDPOINTS")?))?,
            ranges: LpmTrie::try_from(Map::LpmTrie(open_one("SOURCE_RANGES")?))?,
            prefixes: mapped(pins, &format!("PREFIXES_{family}"))?,
        })
    }

    pub fn insert_endpoint(&mut self, number: u64, endpoint: &crate::table::Endpoint) -> Result<()> {
        let address = A::from_ip(endpoint.address).context("it is of the other family")?;
        Ok(self.endpoints.insert(number, Endpoint::new(number, address, endpoint.port), NEW_ONLY)?)
    }

    pub fn remove_endpoint(&mut self, number: u64) -> Result<()> {
        Ok(self.endpoints.remove(&number)?)
    }

    pub fn insert_range(&mut self, id: u64, range: &ipnet::IpNet) -> Result<()> {
        Ok(self.ranges.insert(&range_key::<A>(id, range)?, 1, NEW_ONLY)?)
    }

    pub fn remove_range(&mut self, id: u64, range: &ipnet::IpNet) -> Result<()> {
        Ok(self.ranges.remove(&range_key::<A>(id, range)?)?)
    }

    /// Everything in the maps of the family.
    pub fn read(&self, items: &mut BTreeSet<Item>) -> Result<()> {
        for element in &self.endpoints {
            let (number, endpoint) = element?;
            // One that somebody else changed is no endpoint of any set, whatever it says.
            let endpoint = if endpoint.belongs_to(number) { endpoint } else { Endpoint::new(number, A::default(), 0) };
            let endpoint = crate::table::Endpoint { address: endpoint.address.to_ip(), port: endpoint.port, local: false };
            items.insert(Item::Endpoint(number, endpoint));
        }
        for key in self.ranges.keys() {
            let key = key?;
            let SourceRange { id, address } = key.data();
            let bits = u8::try_from(key.prefix_len().saturating_sub(u64::BITS))?;
            items.insert(Item::Range(u64::from_be_bytes(id), ipnet::IpNet::new(address.to_ip(), bits)?));
        }
        Ok(())
    }

    /// The prefixes in force.
    pub fn prefixes(&self) -> Result<Vec<Prefix>> {
        let Prefixes { active, prefixes } = self.prefixes.read(0)?;
        let first = active.first as usize;
        let active = prefixes.iter().skip(first).take(active.count as usize);
        active.map(encode::prefix_of).collect::<Option<_>>().context("PREFIXES holds what the agent would not write")
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
        Ok(self.0.insert(member, 1, NEW_ONLY)?)
    }

    pub fn remove(&mut self, member: Member) -> Result<()> {
        Ok(self.0.remove(&member)?)
    }

    pub fn read(&self, items: &mut BTreeSet<Item>) -> Result<()> {
        for member in self.0.keys() {
            items.insert(Item::Member(member?));
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
