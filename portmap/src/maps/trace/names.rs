//! The Services of traced destinations.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::maps::{HashMap as BpfHashMap, Map, MapError};
use portmap_common::Name;

use super::{Effect, Traced};
use crate::{
    maps::{
        Maps as _, Snapshot,
        bpf::{BpfMaps, open},
        encode,
        pin::Pins,
    },
    model::ServicePort,
};

/// The shortest time between two readings of all frontends.
const PAUSE: Duration = Duration::from_secs(1);

/// The Services of destinations. A Service that is deleted keeps its name.
#[derive(Debug)]
pub struct ServiceNames {
    pins: Pins,
    by_id: HashMap<u64, Option<ServicePort>>,
    by_address: HashMap<IpAddr, ServicePort>,
    read: Option<Instant>,
}

impl ServiceNames {
    /// Reads nothing yet.
    pub fn new(pins: &Pins) -> Self {
        Self { pins: pins.clone(), by_id: HashMap::new(), by_address: HashMap::new(), read: None }
    }

    /// The Service port of a destination. For [`Effect::NoSuchPort`], any port of the Service that has the address.
    pub fn of(&mut self, traced: &Traced) -> Result<Option<&ServicePort>> {
        match (traced.id, traced.effect) {
            (Some(id), _) => self.of_id(id),
            (None, Effect::NoSuchPort) => self.of_address(traced.asked.address),
            (None, _) => Ok(None),
        }
    }

    fn of_id(&mut self, id: u64) -> Result<Option<&ServicePort>> {
        if !self.by_id.contains_key(&id) {
            let owner = self.look_up(id)?;
            self.by_id.insert(id, owner);
        }
        Ok(self.by_id.get(&id).and_then(Option::as_ref))
    }

    /// Opens NAMES for each look-up, because an agent may have replaced the set of maps.
    fn look_up(&self, id: u64) -> Result<Option<ServicePort>> {
        let pins = self.pins.in_use();
        let names = BpfHashMap::<_, u64, Name>::try_from(Map::HashMap(open(&pins, "NAMES")?))?;
        match names.get(&id, 0) {
            Ok(name) => Ok(encode::owner_of(&name)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn of_address(&mut self, address: IpAddr) -> Result<Option<&ServicePort>> {
        if !self.by_address.contains_key(&address) && self.read.is_none_or(|read| read.elapsed() >= PAUSE) {
            self.read = Some(Instant::now());
            self.by_address.extend(owners(&BpfMaps::open(&self.pins.in_use())?.read()?));
        }
        Ok(self.by_address.get(&address))
    }
}

/// One owner of each address that has a frontend.
fn owners(tables: &Snapshot) -> impl Iterator<Item = (IpAddr, ServicePort)> {
    let owners = tables.owners();
    tables.frontends.iter().filter_map(move |(frontend, found)| {
        let owner = *owners.get(&found.service?.id)?;
        Some((frontend.address, owner.clone()))
    })
}
