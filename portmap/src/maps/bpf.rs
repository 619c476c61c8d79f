//! The pinned maps in the kernel: the [`Maps`] that the agent writes and the subcommands read.
//!
//! `datapath::load` creates and pins the maps. `batch` inserts many entries at a time. `frontends` and `items` hold the maps of
//! one address family; `items` also holds MEMBERS.

pub(super) mod batch;
mod counters;
mod frontends;
mod items;
mod one;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
};

use anyhow::{Context, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use aya_obj::generated::BPF_NOEXIST;
use portmap_common::{Choice, Counters, Name, Numbers, Service, State, Totals, V4, V6};

use super::{
    Backends, Capacity, ClientLocation, FollowedFrontend, ForeignKey, Item, Maps, NextNumbers, Prefix, Slot, Snapshot,
    grace::Grace, mapped::Mapped,
};
use crate::{
    maps::{encode, pin::Pins},
    model::{Endpoint, Family, Frontend, PerFamily, ServicePort},
};
use batch::Batch;
use counters::CounterMap;
use frontends::{FamilyMaps, FrontendElement, Ports};
use items::{FamilyItems, Members};
pub use one::Session;

/// Flag of a map update: fail if the key is present. Frontends, endpoints and members are never updated in place.
const NEW_ONLY: u64 = BPF_NOEXIST as u64;

/// Maximum number of attempts to read a service entry that an agent changes at the same time.
const TRIES: usize = 100;

/// Opens a pinned map by its name.
pub fn open(pins: &Pins, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("failed to open the pinned map {}", path.display()))
}

/// The maps that the agent writes or the subcommands read, except those of [`super::sources`] and GRACE.
pub struct BpfMaps {
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    ports: Ports,
    services: Mapped<Service>,
    counters: CounterMap,
    names: HashMap<MapData, u64, Name>,
    names_batch: Batch,
    state: Mapped<State>,
    numbers: Mapped<Numbers>,
    totals: PerCpuArray<MapData, Totals>,
    items_v4: FamilyItems<V4>,
    items_v6: FamilyItems<V6>,
    members: Members,
    affinity: MapData,
    affinity_clients: u32,
    flows: u32,
    /// Service numbers from this one on have never been in use, so their counters are 0. It is `u32::MAX` if an earlier
    /// agent has used the maps.
    unused_from: u32,
    pins: Pins,
}

impl BpfMaps {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        let state: Mapped<State> = mapped(pins, "STATE")?;
        // No service entry was in use before the first agent started.
        let unused_from = if state.read(0)?.started == 0 { 0 } else { u32::MAX };
        let (affinity, names) = (open(pins, "AFFINITY")?, open(pins, "NAMES")?);
        Ok(Self {
            v4: FamilyMaps::open(pins, "FRONTENDS_V4", "BACKENDS_V4")?,
            v6: FamilyMaps::open(pins, "FRONTENDS_V6", "BACKENDS_V6")?,
            ports: Ports::open(pins)?,
            services: mapped(pins, "SERVICES")?,
            counters: CounterMap::new(open(pins, "COUNTERS")?)?,
            names_batch: Batch::of(&names)?,
            names: HashMap::try_from(Map::HashMap(names))?,
            state,
            numbers: mapped(pins, "NUMBERS")?,
            unused_from,
            totals: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "TOTALS")?))?,
            items_v4: FamilyItems::open(pins, "V4")?,
            items_v6: FamilyItems::open(pins, "V6")?,
            members: Members::open(pins)?,
            affinity_clients: affinity.info()?.max_entries(),
            affinity,
            flows: open(pins, "FLOWS_V4")?.info()?.max_entries(),
            pins: pins.clone(),
        })
    }

    /// The capacity that the maps were created with.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            services: self.services.len(),
            backends: self.v4.slots(),
            affinity_clients: self.affinity_clients,
            flows: self.flows,
        }
    }

    /// The value of STATE: the state of the agent that runs, or ran last.
    pub fn state(&self) -> Result<State> {
        self.state.read(0)
    }

    /// Changes fields of STATE. A subcommand that reads at the same time may see a part of the change.
    pub fn set_state(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.read(0)?;
        change(&mut state);
        self.state.write(0, state)
    }

    /// Reads a service entry and its backends. An agent may write at the same time: if a choice changed since it was read, its
    /// slots may hold other backends already. Then the entry and its backends are read again; after [`TRIES`] reads in all, the
    /// call fails.
    fn follow(&self, family: Family, number: u32) -> Result<FollowedFrontend> {
        for _ in 0..TRIES {
            let service = self.services.read(number)?;
            let (inside, outside) = (self.range(family, service.inside)?, self.range(family, service.outside)?);
            if self.choice(number, ClientLocation::Inside)? == service.inside
                && self.choice(number, ClientLocation::Outside)? == service.outside
            {
                return Ok(FollowedFrontend { number, service: Some(service), inside, outside });
            }
        }
        bail!("failed to read service {number}: the agent changed it during each of {TRIES} attempts; try again")
    }

    /// Reads FRONTENDS of both families, and the service entry and backends of each frontend. Adds ClusterIPs to `items`, and
    /// keys that no agent writes to `foreign`.
    fn read_frontends(
        &self,
        items: &mut BTreeSet<Item>,
        foreign: &mut BTreeSet<ForeignKey>,
    ) -> Result<BTreeMap<Frontend, FollowedFrontend>> {
        let mut numbers = Vec::new();
        let mut take = |element| {
            match element {
                FrontendElement::Foreign(key) => drop(foreign.insert(key)),
                FrontendElement::Address(address, owner) => drop(items.insert(Item::Address(address, owner))),
                FrontendElement::Frontend(frontend, number) => numbers.push((number, frontend)),
            }
            Ok(())
        };
        self.v4.for_each(&mut take)?;
        self.v6.for_each(&mut take)?;
        // In the order of SERVICES, a window of its memory is mapped once.
        numbers.sort_unstable();
        let follow = |(number, frontend): (Option<u32>, Frontend)| {
            Ok((
                frontend,
                match self.valid(&frontend, number)? {
                    Some(number) => self.follow(frontend.family(), number)?,
                    None => FollowedFrontend { number: 0, service: None, inside: None, outside: None },
                },
            ))
        };
        numbers.into_iter().map(follow).collect()
    }

    /// The service number of a frontend, if programs follow it: its entry is within SERVICES, and its port in `FRONTEND_PORTS`.
    fn valid(&self, frontend: &Frontend, number: Option<u32>) -> Result<Option<u32>> {
        let has_port = self.ports.has(frontend)?;
        Ok(number.filter(|number| has_port && *number < self.services.len()))
    }

    /// Loads one choice of a service entry.
    fn choice(&self, number: u32, location: ClientLocation) -> Result<Choice> {
        Ok(Choice::from_word(self.services.load_word(number, offset(location))?))
    }

    /// Reads the backends of a choice; `None` if the choice reaches beyond BACKENDS.
    fn range(&self, family: Family, choice: Choice) -> Result<Option<Vec<Slot>>> {
        match family {
            Family::V4 => self.v4.range(choice),
            Family::V6 => self.v6.range(choice),
        }
    }
}

impl Maps for BpfMaps {
    fn write_backends(&mut self, first: u32, backends: &Backends) -> Result<()> {
        match backends {
            Backends::V4(backends) => self.v4.write_backends(first, backends),
            Backends::V6(backends) => self.v6.write_backends(first, backends),
        }
    }

    fn write_service(&mut self, number: u32, service: &Service) -> Result<()> {
        if number < self.unused_from && self.counters(number)? != Counters::default() {
            self.counters.clear(number)?;
        }
        self.unused_from = self.unused_from.max(number + 1);
        self.services.write(number, *service)
    }

    fn store_choice(&mut self, number: u32, location: ClientLocation, choice: Choice) -> Result<()> {
        self.services.store_word(number, offset(location), choice.to_word())
    }

    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()> {
        let [first, second] = service.description();
        self.services.store_word(number, offset_of!(Service, id), first)?;
        self.services.store_word(number, offset_of!(Service, affinity_timeout), second)
    }

    fn insert_names(&mut self, names: &[(u64, ServicePort)]) -> Result<()> {
        let ids: Vec<u64> = names.iter().map(|(id, _)| *id).collect();
        let values = names.iter().map(|(_, owner)| encode::name(owner)).collect::<Result<Vec<_>>>()?;
        let Self { names, names_batch, .. } = self;
        names_batch.insert(&ids, &values, |id, name| Ok(names.insert(id, name, 0)?))
    }

    fn remove_name(&mut self, id: u64) -> Result<()> {
        Ok(self.names.remove(&id)?)
    }

    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()> {
        self.ports.add(frontend)?;
        match frontend.family() {
            Family::V4 => self.v4.insert(frontend, number),
            Family::V6 => self.v6.insert(frontend, number),
        }
    }

    fn remove_frontend(&mut self, frontend: &Frontend) -> Result<()> {
        match frontend.family() {
            Family::V4 => self.v4.remove(frontend),
            Family::V6 => self.v6.remove(frontend),
        }
    }

    fn insert(&mut self, items: &[Item]) -> Result<()> {
        let (mut addresses, mut ranges) = (PerFamily::<Vec<_>>::default(), PerFamily::<Vec<_>>::default());
        for item in items {
            match *item {
                Item::Address(address, owner) => addresses.get_mut(Family::of(address)).push((address, owner)),
                Item::Range(id, range) => ranges.get_mut(Family::of(range.addr())).push((id, range)),
                Item::Endpoint(number, endpoint) => match Family::of(endpoint.address) {
                    Family::V4 => self.items_v4.insert_endpoint(number, &endpoint)?,
                    Family::V6 => self.items_v6.insert_endpoint(number, &endpoint)?,
                },
                Item::Member(member) => self.members.insert(member)?,
            }
        }
        self.v4.insert_addresses(&addresses.v4)?;
        self.v6.insert_addresses(&addresses.v6)?;
        self.items_v4.insert_ranges(&ranges.v4)?;
        self.items_v6.insert_ranges(&ranges.v6)
    }

    fn remove(&mut self, item: &Item) -> Result<()> {
        match *item {
            Item::Address(address, _) => match Family::of(address) {
                Family::V4 => self.v4.remove_address(address),
                Family::V6 => self.v6.remove_address(address),
            },
            Item::Endpoint(number, Endpoint { address, .. }) => match Family::of(address) {
                Family::V4 => self.items_v4.remove_endpoint(number),
                Family::V6 => self.items_v6.remove_endpoint(number),
            },
            Item::Member(member) => self.members.remove(member),
            Item::Range(id, range) => match Family::of(range.addr()) {
                Family::V4 => self.items_v4.remove_range(id, &range),
                Family::V6 => self.items_v6.remove_range(id, &range),
            },
        }
    }

    /// Waits for a grace period first: a program that began before the last change may still read the half that is inactive
    /// now. Changes are rare, so the wait costs little.
    fn set_prefixes(&mut self, family: Family, prefixes: &[Prefix]) -> Result<()> {
        Grace::open(&self.pins)?.wait()?;
        match family {
            Family::V4 => self.items_v4.set_prefixes(prefixes),
            Family::V6 => self.items_v6.set_prefixes(prefixes),
        }
    }

    fn remove_foreign(&mut self, key: &ForeignKey) -> Result<()> {
        match key {
            ForeignKey::FrontendV4(key) => self.v4.remove_foreign(key),
            ForeignKey::FrontendV6(key) => self.v6.remove_foreign(key),
            ForeignKey::SourceRange(Family::V4, bits, id) => self.items_v4.remove_partial_range(*bits, *id),
            ForeignKey::SourceRange(Family::V6, bits, id) => self.items_v6.remove_partial_range(*bits, *id),
        }
    }

    fn set_next_numbers(&mut self, next: NextNumbers) -> Result<()> {
        self.numbers.write(0, encode::numbers(next))
    }

    fn read(&self) -> Result<Snapshot> {
        let (mut items, mut spoiled, mut foreign) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let frontends = self.read_frontends(&mut items, &mut foreign)?;
        self.items_v4.read(&mut items, &mut spoiled, &mut foreign)?;
        self.items_v6.read(&mut items, &mut spoiled, &mut foreign)?;
        self.members.read(&mut items, &mut spoiled)?;
        let mut names = BTreeMap::new();
        self.names_batch.for_each(|id: &u64, name: &Name| {
            names.insert(*id, encode::owner_of(name));
            Ok(())
        })?;
        Ok(Snapshot {
            frontends: frontends.into_iter().collect(),
            names: names.into_iter().collect(),
            items,
            spoiled,
            foreign,
            prefixes: PerFamily { v4: self.items_v4.prefixes()?, v6: self.items_v6.prefixes()? },
            next_numbers: encode::next_numbers_of(&self.numbers.read(0)?),
        })
    }
}

/// Opens a pinned array by its name, and maps it into memory.
fn mapped<T: Pod>(pins: &Pins, name: &str) -> Result<Mapped<T>> {
    Mapped::new(&open(pins, name)?).with_context(|| format!("failed to map {name} into memory"))
}

/// Offset of a choice in a value of SERVICES, in bytes.
fn offset(location: ClientLocation) -> usize {
    match location {
        ClientLocation::Inside => offset_of!(Service, inside),
        ClientLocation::Outside => offset_of!(Service, outside),
    }
}
