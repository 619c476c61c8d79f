//! The flows of clients outside the node: the maps FLOWS and OPENING, which all sets share.
//!
//! The programs write both maps. The agent only deletes: [`sweep`] deletes entries that have expired, and [`ended`] deletes UDP
//! flows whose endpoint no longer serves. Before another proxy takes over, [`answered`] deletes UDP flows. [`list`] reads the flows for people. Not part of the plan: these maps depend on
//! packets.
//!
//! OPENING has the flows that were opened while too many flows were half open. An entry may be in both maps: then that of FLOWS
//! is valid, unless it has expired.

mod answered;
pub mod ended;
mod entries;
pub mod list;
pub mod sweep;

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use portmap_common::{EndpointEntry, FlowEntry, FlowKey, V4, V6, clock};

use entries::Located;

use super::{
    bpf::{batch::Batch, open},
    encode::IpBytes,
    pin::Pins,
};
use crate::{kernel::uptime, model::PerFamily};

/// The maps FLOWS and OPENING of both families.
#[derive(Debug)]
pub struct FlowMaps {
    v4: FamilyFlows<V4>,
    v6: FamilyFlows<V6>,
}

/// The maps of one address family.
#[derive(Debug)]
struct FamilyFlows<A: IpBytes>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    /// FLOWS, then OPENING.
    tables: [FlowTable<A>; 2],
    /// ENDPOINTS of this set.
    endpoints: HashMap<MapData, u64, EndpointEntry<A>>,
}

/// One map of flows.
#[derive(Debug)]
struct FlowTable<A: IpBytes>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
{
    name: &'static str,
    map: HashMap<MapData, FlowKey<A>, FlowEntry<A>>,
    batch: Batch,
    capacity: u32,
}

/// The present time in the clock of flows: see [`portmap_common::clock`].
pub fn now() -> u32 {
    clock(u64::try_from(uptime::monotonic().as_nanos()).unwrap_or(u64::MAX))
}

impl FlowMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        let names = PerFamily { v4: ["FLOWS_V4", "OPENING_V4"], v6: ["FLOWS_V6", "OPENING_V6"] };
        Ok(Self {
            v4: FamilyFlows::open(pins, names.v4, "ENDPOINTS_V4")?,
            v6: FamilyFlows::open(pins, names.v6, "ENDPOINTS_V6")?,
        })
    }
}

impl<A: IpBytes> FamilyFlows<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    fn open(pins: &Pins, [flows, opening]: [&'static str; 2], endpoints: &str) -> Result<Self> {
        Ok(Self {
            tables: [FlowTable::open(pins, flows)?, FlowTable::open(pins, opening)?],
            endpoints: HashMap::try_from(Map::HashMap(open(pins, endpoints)?))?,
        })
    }

    /// The entry under a key of FLOWS, or else of OPENING.
    fn get(&self, key: &FlowKey<A>) -> Result<Option<Located<A>>> {
        let entry = self.get_in(0, key)?;
        if entry.is_some() { Ok(entry) } else { self.get_in(1, key) }
    }

    /// The entry under a key of a table.
    fn get_in(&self, index: usize, key: &FlowKey<A>) -> Result<Option<Located<A>>> {
        let entry = self.tables.get(index).map_or(Ok(None), |table| table.get(key))?;
        Ok(entry.map(|entry| Located { table: index, key: *key, entry }))
    }

    /// Whether a live entry of FLOWS replaces this one of OPENING. Programs copy the entries of a flow to FLOWS when they know
    /// that its client exists, and leave the old ones.
    fn is_superseded(&self, found: &Located<A>, now: u32) -> Result<bool> {
        let newer = if found.table == 0 { None } else { self.get_in(0, &found.key)? };
        Ok(newer.is_some_and(|newer| newer.entry.is_alive(newer.key.protocol, now)))
    }

    /// Calls `visit` with each entry of both tables. See [`crate::kernel::bpf::Entries`] for changes meanwhile.
    fn for_each(&self, mut visit: impl FnMut(Located<A>) -> Result<()>) -> Result<()> {
        for (index, table) in self.tables.iter().enumerate() {
            let mut entries = table.batch.entries();
            while let Some((keys, values)) = entries.next_batch().with_context(|| format!("failed to read {}", table.name))? {
                for (key, entry) in keys.iter().zip(values) {
                    visit(Located { table: index, key: *key, entry: *entry })?;
                }
            }
        }
        Ok(())
    }

    /// Deletes entries in their order, all of one table with one system call. Returns the number of those that were present.
    fn delete(&self, entries: &[Located<A>]) -> Result<usize> {
        let mut deleted = 0;
        for (index, table) in self.tables.iter().enumerate() {
            let of_table = entries.iter().filter(|entry| entry.table == index);
            deleted += table.delete(&of_table.map(|entry| entry.key).collect::<Vec<_>>())?;
        }
        Ok(deleted)
    }
}

impl<A: IpBytes> FlowTable<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
{
    fn open(pins: &Pins, name: &'static str) -> Result<Self> {
        let map = open(pins, name)?;
        let (batch, capacity) = (Batch::of(&map)?, map.info()?.max_entries());
        // aya compares the sizes of keys and values.
        let map = HashMap::try_from(Map::LruHashMap(map)).with_context(|| format!("failed to use the pinned map {name}"))?;
        Ok(Self { name, map, batch, capacity })
    }

    /// The entry under a key. The kernel does not count this as a use of the entry.
    fn get(&self, key: &FlowKey<A>) -> Result<Option<FlowEntry<A>>> {
        match self.map.get(key, 0) {
            // The kernel may reuse the memory of a deleted entry while it copies the entry.
            Ok(entry) => Ok(Some(entry).filter(|entry| entry.belongs_to(key))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", self.name)),
        }
    }

    /// Counts the entries.
    fn count(&self) -> Result<u32> {
        let count = self.batch.count::<FlowKey<A>, FlowEntry<A>>();
        count.with_context(|| format!("failed to count the entries of {}", self.name))
    }

    /// Deletes keys, and returns the number of those that were present.
    fn delete(&self, keys: &[FlowKey<A>]) -> Result<usize> {
        self.batch.delete(keys).with_context(|| format!("failed to delete entries of {}", self.name))
    }
}
