//! The addresses of clients on this node, for the source ranges of load balancers: the maps NAMESPACES and SOURCES.
//!
//! `agent::clients` collects the addresses and sources, and calls [`SourceMaps::set`]. Not part of the plan: these maps depend
//! on the network namespaces of the node. Of the Services, they depend only on the load balancer addresses with source ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use portmap_common::{Namespace, V4, V6, Way};

use super::bpf::open;
use crate::{
    maps::{
        encode::{self, IpBytes},
        pin::Pins,
    },
    model::Family,
};

/// The source address that the kernel chooses for a call, by the cookie of the client's network namespace and by the
/// destination.
pub type Sources = BTreeMap<(u64, IpAddr), IpAddr>;

/// The maps NAMESPACES, `SOURCES_V4` and `SOURCES_V6`.
pub struct SourceMaps {
    namespaces: HashMap<MapData, u64, Namespace>,
    v4: FamilySources<V4>,
    v6: FamilySources<V6>,
    capacity: SourcesCapacity,
}

/// The capacity of the maps, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcesCapacity {
    /// Entries of NAMESPACES: one per network namespace.
    pub namespaces: usize,
    /// Entries of SOURCES, of each family: one per network namespace and destination.
    pub sources: usize,
}

/// The map `SOURCES_V4` or `SOURCES_V6`.
struct FamilySources<A: IpBytes + Pod>(HashMap<MapData, Way<A>, A>)
where
    Way<A>: Pod;

impl SourceMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        let namespaces = open(pins, "NAMESPACES")?;
        let v4 = open(pins, "SOURCES_V4")?;
        let capacity = SourcesCapacity {
            namespaces: namespaces.info()?.max_entries().try_into()?,
            sources: v4.info()?.max_entries().try_into()?,
        };
        Ok(Self {
            namespaces: HashMap::try_from(Map::HashMap(namespaces))?,
            v4: FamilySources(HashMap::try_from(Map::HashMap(v4))?),
            v6: FamilySources(HashMap::try_from(Map::HashMap(open(pins, "SOURCES_V6")?))?),
            capacity,
        })
    }

    /// The capacity that the maps were created with.
    pub fn room(&self) -> SourcesCapacity {
        self.capacity
    }

    /// The cookies of the network namespaces in NAMESPACES.
    pub fn namespaces(&self) -> Result<BTreeSet<u64>> {
        Ok(self.namespaces.keys().collect::<Result<_, _>>()?)
    }

    /// The destinations in SOURCES, of both families.
    pub fn destinations(&self) -> Result<BTreeSet<IpAddr>> {
        Ok(self.v4.keys()?.into_iter().chain(self.v6.keys()?).map(|(_, destination)| destination).collect())
    }

    /// Replaces the contents of all three maps. `namespaces` has the addresses of each network namespace, by its cookie.
    ///
    /// Entries are written one by one. In each map, old entries are removed first, so that there is room for the new ones.
    pub fn set(&mut self, namespaces: &BTreeMap<u64, &[IpAddr]>, sources: &Sources) -> Result<()> {
        for removed in self.namespaces()?.iter().filter(|cookie| !namespaces.contains_key(cookie)) {
            self.namespaces.remove(removed)?;
        }
        for (cookie, addresses) in namespaces {
            let namespace = encode::namespace(addresses);
            if self.namespaces.get(cookie, 0).ok() != Some(namespace) {
                self.namespaces.insert(cookie, namespace, 0).context("failed to write NAMESPACES")?;
            }
        }
        self.v4.set(Family::V4, sources)?;
        self.v6.set(Family::V6, sources)
    }
}

impl<A: IpBytes + Pod> FamilySources<A>
where
    Way<A>: Pod,
{
    fn keys(&self) -> Result<BTreeSet<(u64, IpAddr)>> {
        Ok(self.0.keys().map(|way| way.map(encode::way_of)).collect::<Result<_, _>>()?)
    }

    fn set(&mut self, family: Family, sources: &Sources) -> Result<()> {
        for (namespace, destination) in self.keys()?.iter().filter(|key| !sources.contains_key(key)) {
            self.0.remove(&encode::way(*namespace, *destination)?)?;
        }
        for ((namespace, destination), source) in
            sources.iter().filter(|((_, destination), _)| Family::of(*destination) == family)
        {
            let (way, source) = (encode::way(*namespace, *destination)?, encode::address(*source)?);
            if self.0.get(&way, 0).ok() != Some(source) {
                self.0.insert(way, source, 0).context("failed to write SOURCES")?;
            }
        }
        Ok(())
    }
}
