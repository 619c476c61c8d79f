//! What programs know of the clients on this node, for the source ranges of load balancers: NAMESPACES and SOURCES.

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

/// Which address the kernel chooses for calls of a namespace, given by its cookie, to a destination.
pub type Sources = BTreeMap<(u64, IpAddr), IpAddr>;

/// The maps.
pub struct SourceMaps {
    namespaces: HashMap<MapData, u64, Namespace>,
    v4: FamilySources<V4>,
    v6: FamilySources<V6>,
    room: SourcesCapacity,
}

/// How many entries the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcesCapacity {
    /// Network namespaces.
    pub namespaces: usize,
    /// Sources, of each family.
    pub sources: usize,
}

/// SOURCES of one address family.
struct FamilySources<A: IpBytes + Pod>(HashMap<MapData, Way<A>, A>)
where
    Way<A>: Pod;

impl SourceMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        let namespaces = open(pins, "NAMESPACES")?;
        let v4 = open(pins, "SOURCES_V4")?;
        let room = SourcesCapacity {
            namespaces: namespaces.info()?.max_entries().try_into()?,
            sources: v4.info()?.max_entries().try_into()?,
        };
        Ok(Self {
            namespaces: HashMap::try_from(Map::HashMap(namespaces))?,
            v4: FamilySources(HashMap::try_from(Map::HashMap(v4))?),
            v6: FamilySources(HashMap::try_from(Map::HashMap(open(pins, "SOURCES_V6")?))?),
            room,
        })
    }

    /// How many entries the maps hold.
    pub fn room(&self) -> SourcesCapacity {
        self.room
    }

    /// The cookies of the namespaces that are in the map.
    pub fn namespaces(&self) -> Result<BTreeSet<u64>> {
        Ok(self.namespaces.keys().collect::<Result<_, _>>()?)
    }

    /// The destinations that sources are known for.
    pub fn destinations(&self) -> Result<BTreeSet<IpAddr>> {
        Ok(self.v4.keys()?.into_iter().chain(self.v6.keys()?).map(|(_, destination)| destination).collect())
    }

    /// Makes these the only namespaces and the only sources. What is gone goes first, so that there is room.
    pub fn set(&mut self, namespaces: &BTreeMap<u64, &[IpAddr]>, sources: &Sources) -> Result<()> {
        for gone in self.namespaces()?.iter().filter(|cookie| !namespaces.contains_key(cookie)) {
            self.namespaces.remove(gone)?;
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
        for ((namespace, destination), source) in sources.iter().filter(|((_, it), _)| Family::of(*it) == family) {
            let (way, source) = (encode::way(*namespace, *destination)?, encode::address(*source)?);
            if self.0.get(&way, 0).ok() != Some(source) {
                self.0.insert(way, source, 0).context("failed to write SOURCES")?;
            }
        }
        Ok(())
    }
}
