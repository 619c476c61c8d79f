//! The kernel's maps, opened from their pins.

use std::{collections::BTreeMap, mem::offset_of, path::Path, sync::atomic::Ordering};

use anyhow::{Context, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use portmap_common::{Backend, Choice, Counters, Name, Service, ServiceRef, State, V4, V6};

use super::{Capacity, Found, Maps, Marks, Side, Slot, Snapshot, mapped::Mapped};
use crate::{
    encode::{self, IpBytes},
    table::{Family, Frontend, ServicePort},
};

/// `BPF_NOEXIST`: a frontend is never updated in place.
const NEW_ONLY: u64 = 1;

/// How often a reader starts again when the agent changes an entry under its eyes.
const TRIES: usize = 100;

/// Opens a pinned map.
pub fn open(pins: &Path, name: &str) -> Result<MapData> {
    let path = pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("failed to open the pinned map {}", path.display()))
}

/// The tables.
pub struct BpfMaps {
    v4: FamilyMaps<V4>,
    v6: FamilyMaps<V6>,
    services: Mapped<Service>,
    counters: PerCpuArray<MapData, Counters>,
    names: HashMap<MapData, u32, Name>,
    state: Mapped<State>,
}

/// The maps of one address family.
#[derive(Debug)]
struct FamilyMaps<A: IpBytes>
where
    portmap_common::Frontend<A>: Pod,
    Backend<A>: Pod,
{
    frontends: HashMap<MapData, portmap_common::Frontend<A>, ServiceRef>,
    backends: Mapped<Backend<A>>,
}

impl BpfMaps {
    /// Opens the maps under the pins' directory.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            v4: FamilyMaps::open(pins, "FRONTENDS_V4", "BACKENDS_V4")?,
            v6: FamilyMaps::open(pins, "FRONTENDS_V6", "BACKENDS_V6")?,
            services: mapped(pins, "SERVICES")?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(pins, "COUNTERS")?))?,
            names: HashMap::try_from(Map::HashMap(open(pins, "NAMES")?))?,
            state: mapped(pins, "STATE")?,
        })
    }

    /// The sizes that the maps were created with.
    pub fn capacity(&self) -> Capacity {
        Capacity { services: self.services.len(), backends: self.v4.backends.len() }
    }

    /// What the agent last said of itself.
    pub fn state(&self) -> Result<State> {
        self.state.read(0)
    }

    /// Says something new of the agent.
    pub fn set_state(&mut self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.read(0)?;
        change(&mut state);
        self.state.write(0, state)
    }

    /// A service's counters, summed over all CPUs.
    pub fn counters(&self, number: u32) -> Result<Counters> {
        let per_cpu = self.counters.get(&number, 0)?;
        Ok(per_cpu.iter().fold(Counters::default(), |sum, counters| Counters {
            forwarded: sum.forwarded + counters.forwarded,
            refused: sum.refused + counters.refused,
            dropped: sum.dropped + counters.dropped,
        }))
    }

    /// Follows a service entry to its backends. The agent may be at work meanwhile: a choice that changed under the reader's
    /// eyes, so that the slots may have been another's, is followed anew.
    fn follow(&self, family: Family, number: u32) -> Result<Found> {
        for _ in 0..TRIES {
            let service = self.services.read(number)?;
            let (inside, outside) = (self.range(family, service.inside)?, self.range(family, service.outside)?);
            if self.choice(number, Side::Inside)? == service.inside && self.choice(number, Side::Outside)? == service.outside {
                return Ok(Found { number, service: Some(service), inside, outside });
            }
        }
        bail!("service {number} changes faster than it can be read")
    }

    fn choice(&self, number: u32, side: Side) -> Result<Choice> {
        Ok(Choice::from_word(self.services.word(number, offset(side))?.load(Ordering::Acquire)))
    }

    fn range(&self, family: Family, choice: Choice) -> Result<Option<Vec<Slot>>> {
        match family {
            Family::V4 => self.v4.range(choice),
            Family::V6 => self.v6.range(choice),
        }
    }
}

impl<A: IpBytes> FamilyMaps<A>
where
    portmap_common::Frontend<A>: Pod,
    Backend<A>: Pod,
{
    fn open(pins: &Path, frontends: &str, backends: &str) -> Result<Self> {
        let frontends = HashMap::try_from(Map::HashMap(open(pins, frontends)?))?;
        Ok(Self { frontends, backends: mapped(pins, backends)? })
    }

    fn write_backends(&mut self, first: u32, slots: &[Slot]) -> Result<()> {
        for (index, slot) in (first..).zip(slots) {
            self.backends.write(index, encode::backend(slot).context("it is of the other family")?)?;
        }
        Ok(())
    }

    /// The slots of a choice; `None` if it leaves the map.
    fn range(&self, choice: Choice) -> Result<Option<Vec<Slot>>> {
        let end = match choice.first.checked_add(choice.count) {
            _ if choice.count == 0 => return Ok(Some(Vec::new())),
            Some(end) if end <= self.backends.len() => end,
            Some(_) | None => return Ok(None),
        };
        (choice.first..end).map(|slot| Ok(encode::slot_of(&self.backends.read(slot)?))).collect::<Result<_>>().map(Some)
    }

    fn insert(&mut self, frontend: &Frontend, number: u32) -> Result<()> {
        let key = encode::frontend(frontend).context("it is of the other family")?;
        Ok(self.frontends.insert(key, ServiceRef::new(&key, number), NEW_ONLY)?)
    }

    fn remove(&mut self, frontend: &Frontend) -> Result<()> {
        Ok(self.frontends.remove(&encode::frontend(frontend).context("it is of the other family")?)?)
    }

    /// All frontends, and the service number of each; `None` where the value was inserted under another key.
    fn list(&self) -> Result<Vec<(Frontend, Option<u32>)>> {
        let mut list = Vec::new();
        for element in &self.frontends {
            let (key, value) = element?;
            if let Some(frontend) = encode::frontend_of(&key) {
                list.push((frontend, value.belongs_to(&key).then_some(value.service)));
            }
        }
        Ok(list)
    }
}

impl Maps for BpfMaps {
    fn write_backends(&mut self, family: Family, first: u32, slots: &[Slot]) -> Result<()> {
        match family {
            Family::V4 => self.v4.write_backends(first, slots),
            Family::V6 => self.v6.write_backends(first, slots),
        }
    }

    fn write_service(&mut self, number: u32, service: &Service) -> Result<()> {
        if self.counters(number)? != Counters::default() {
            let zero = PerCpuValues::try_from(vec![Counters::default(); nr_cpus().map_err(|(_, error)| error)?])?;
            self.counters.set(number, zero, 0)?;
        }
        self.services.write(number, *service)
    }

    fn store_choice(&mut self, number: u32, side: Side, choice: Choice) -> Result<()> {
        self.services.store_word(number, offset(side), choice.to_word())
    }

    fn describe_service(&mut self, number: u32, service: &Service) -> Result<()> {
        let [first, second] = service.description();
        self.services.store_word(number, offset_of!(Service, id), first)?;
        self.services.store_word(number, offset_of!(Service, kind), second)
    }

    fn insert_name(&mut self, id: u32, owner: &ServicePort) -> Result<()> {
        Ok(self.names.insert(id, encode::name(owner)?, 0)?)
    }

    fn remove_name(&mut self, id: u32) -> Result<()> {
        Ok(self.names.remove(&id)?)
    }

    fn insert_frontend(&mut self, frontend: &Frontend, number: u32) -> Result<()> {
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

    fn set_marks(&mut self, marks: Marks) -> Result<()> {
        self.set_state(|state| (state.next_id, state.next_endpoint) = (marks.id, marks.endpoint))
    }

    fn read(&self) -> Result<Snapshot> {
        let mut frontends = BTreeMap::new();
        for (frontend, number) in self.v4.list()?.into_iter().chain(self.v6.list()?) {
            let found = match number.filter(|number| *number < self.services.len()) {
                Some(number) => self.follow(frontend.family(), number)?,
                None => Found { number: 0, service: None, inside: None, outside: None },
            };
            frontends.insert(frontend, found);
        }
        let mut names = BTreeMap::new();
        for element in &self.names {
            let (id, name) = element?;
            names.insert(id, encode::owner_of(&name));
        }
        let State { next_id, next_endpoint, .. } = self.state()?;
        Ok(Snapshot {
            frontends: frontends.into_iter().collect(),
            names: names.into_iter().collect(),
            marks: Marks { id: next_id, endpoint: next_endpoint },
        })
    }
}

fn mapped<T: Pod>(pins: &Path, name: &str) -> Result<Mapped<T>> {
    Mapped::new(&open(pins, name)?).with_context(|| format!("failed to map {name} into memory"))
}

fn offset(side: Side) -> usize {
    match side {
        Side::Inside => offset_of!(Service, inside),
        Side::Outside => offset_of!(Service, outside),
    }
}
