//! The set-like maps ENDPOINTS, MEMBERS and SOURCE_RANGES, in which a key is present or absent, and PREFIXES.

use std::collections::BTreeSet;

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData},
};
use ipnet::IpNet;
use portmap_common::{EndpointEntry, Member, Prefixes, SourceRange};

use super::{NEW_ONLY, batch::Batch, mapped, one::present, open};
use crate::{
    maps::{
        ForeignKey, Item, Prefix,
        encode::{self, IpBytes},
        mapped::Mapped,
        pin::Pins,
    },
    model::Endpoint,
};

/// The value under every key of MEMBERS and SOURCE_RANGES.
const PRESENT: u8 = 1;

/// The maps ENDPOINTS, SOURCE_RANGES and PREFIXES of one address family.
pub struct FamilyItems<A: IpBytes>
where
    EndpointEntry<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    endpoints: HashMap<MapData, u64, EndpointEntry<A>>,
    endpoints_batch: Batch,
    ranges: LpmTrie<MapData, SourceRange<A>, u8>,
    ranges_batch: Batch,
    prefixes: Mapped<Prefixes<A>>,
}

impl<A: IpBytes> FamilyItems<A>
where
    EndpointEntry<A>: Pod,
    SourceRange<A>: Pod,
    Prefixes<A>: Pod,
{
    /// Opens the pinned maps. `family` is the suffix of their names: `V4` or `V6`.
    pub fn open(pins: &Pins, family: &str) -> Result<Self> {
        let open_one = |name: &str| open(pins, &format!("{name}_{family}"));
        let (endpoints, ranges) = (open_one("ENDPOINTS")?, open_one("SOURCE_RANGES")?);
        Ok(Self {
            endpoints_batch: Batch::of(&endpoints)?,
            endpoints: HashMap::try_from(Map::HashMap(endpoints))?,
            ranges_batch: Batch::of(&ranges)?,
            ranges: LpmTrie::try_from(Map::LpmTrie(ranges))?,
            prefixes: mapped(pins, &format!("PREFIXES_{family}"))?,
        })
    }

    pub fn insert_endpoint(&mut self, number: u64, endpoint: &Endpoint) -> Result<()> {
        Ok(self.endpoints.insert(number, encode::endpoint_entry(number, endpoint)?, NEW_ONLY)?)
    }

    pub fn remove_endpoint(&mut self, number: u64) -> Result<()> {
        Ok(self.endpoints.remove(&number)?)
    }

    /// Inserts source ranges. A present range is accepted.
    pub fn insert_ranges(&mut self, ranges: &[(u64, IpNet)]) -> Result<()> {
        let keys = ranges.iter().map(|(id, range)| encode::range_key::<A>(*id, range)).collect::<Result<Vec<_>>>()?;
        let Self { ranges, ranges_batch, .. } = self;
        ranges_batch.insert(&keys, &vec![PRESENT; keys.len()], |key, value| Ok(ranges.insert(key, *value, 0)?))
    }

    pub fn remove_range(&mut self, id: u64, range: &IpNet) -> Result<()> {
        Ok(self.ranges.remove(&encode::range_key(id, range)?)?)
    }

    pub fn remove_partial_range(&mut self, bits: u32, id: u64) -> Result<()> {
        Ok(self.ranges.remove(&encode::partial_range_key(bits, id))?)
    }

    /// Reads ENDPOINTS and SOURCE_RANGES. Adds all items to `items`, ranges with a value that no agent writes to `spoiled` as
    /// well, and keys that no agent writes to `foreign`.
    pub fn read(
        &self,
        items: &mut BTreeSet<Item>,
        spoiled: &mut BTreeSet<Item>,
        foreign: &mut BTreeSet<ForeignKey>,
    ) -> Result<()> {
        self.endpoints_batch.for_each(|number: &u64, endpoint: &EndpointEntry<A>| {
            items.insert(Item::Endpoint(*number, encode::endpoint_of(*number, endpoint)));
            Ok(())
        })?;
        for element in &self.ranges {
            let (key, value) = element?;
            let item = match encode::range_of(&key)? {
                Ok(item) => item,
                Err(key) => {
                    foreign.insert(key);
                    continue;
                }
            };
            items.insert(item);
            if value != PRESENT {
                spoiled.insert(item);
            }
        }
        Ok(())
    }

    /// The source ranges of the service port with this id. Reads all ranges, because a trie finds only the longest one.
    pub fn ranges_of(&self, id: u64) -> Result<Vec<Item>> {
        let mut ranges = Vec::new();
        for element in &self.ranges {
            if let Ok(Item::Range(of, range)) = encode::range_of(&element?.0)?
                && of == id
            {
                ranges.push(Item::Range(of, range));
            }
        }
        Ok(ranges)
    }

    /// The endpoint with this number, if it serves.
    pub fn endpoint(&self, number: u64) -> Result<Option<Endpoint>> {
        Ok(present(self.endpoints.get(&number, 0))?.map(|entry| encode::endpoint_of(number, &entry)))
    }

    /// Reads the active prefixes; `None` if they are not prefixes that an agent writes.
    pub fn prefixes(&self) -> Result<Option<Vec<Prefix>>> {
        Ok(encode::prefixes_of(&self.prefixes.read(0)?))
    }

    /// Writes prefixes into the inactive half, then makes this half the active one by one atomic store.
    pub fn set_prefixes(&mut self, prefixes: &[Prefix]) -> Result<()> {
        let mut table = self.prefixes.read(0)?;
        let active = encode::fill_inactive_half(&mut table, prefixes)?;
        self.prefixes.write(0, table)?;
        self.prefixes.store_word(0, 0, active.to_word())
    }
}

/// The map MEMBERS, for both address families.
pub struct Members {
    members: HashMap<MapData, Member, u8>,
    batch: Batch,
}

impl Members {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self> {
        let members = open(pins, "MEMBERS")?;
        Ok(Self { batch: Batch::of(&members)?, members: HashMap::try_from(Map::HashMap(members))? })
    }

    pub fn insert(&mut self, member: Member) -> Result<()> {
        Ok(self.members.insert(member, PRESENT, NEW_ONLY)?)
    }

    pub fn remove(&mut self, member: Member) -> Result<()> {
        Ok(self.members.remove(&member)?)
    }

    pub fn has(&self, member: Member) -> Result<bool> {
        Ok(present(self.members.get(&member, 0))?.is_some())
    }

    /// Reads MEMBERS. Adds all items to `items`, and those with a value that no agent writes to `spoiled` as well.
    pub fn read(&self, items: &mut BTreeSet<Item>, spoiled: &mut BTreeSet<Item>) -> Result<()> {
        self.batch.for_each(|member: &Member, value: &u8| {
            items.insert(Item::Member(*member));
            if *value != PRESENT {
                spoiled.insert(Item::Member(*member));
            }
            Ok(())
        })
    }
}
