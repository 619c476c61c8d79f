//! Reads the entries of one frontend, by look-ups instead of a reading of whole maps.

use anyhow::{Result, bail};
use aya::maps::{HashMap, MapError};
use portmap_common::{Affinity, Client, Member, SOURCE_RANGES, Service};

use super::{BpfMaps, TRIES, encode, frontends::FrontendElement, open};
use crate::{
    maps::{FollowedFrontend, Item, Snapshot},
    model::{Endpoint, Family, Frontend, PerFamily},
};

/// The valid session of a client with a service port, see [`BpfMaps::session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The endpoint that the client keeps.
    pub endpoint: Endpoint,
    /// The time of the client's last call, in nanoseconds of the monotonic clock.
    pub last_used: u64,
}

/// The service number of a frontend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    /// There is no such frontend.
    Absent,
    /// The value is not one that an agent writes.
    Invalid,
    /// The number.
    Of(u32),
}

impl BpfMaps {
    /// Reads the frontend with its service entry, backends, name and source ranges, the owner of its address, and the prefixes.
    /// The snapshot has no other entries. An agent may write at the same time, as for [`crate::maps::Maps::read`].
    pub fn read_one(&self, frontend: &Frontend) -> Result<Snapshot> {
        let mut snapshot = Snapshot {
            prefixes: PerFamily { v4: self.items_v4.prefixes()?, v6: self.items_v6.prefixes()? },
            ..Snapshot::default()
        };
        if let Some(FrontendElement::Address(address, owner)) = self.find_address(frontend)? {
            snapshot.items.insert(Item::Address(address, owner));
        }
        let Some(found) = self.find_one(frontend)? else { return Ok(snapshot) };
        if let Some(Service { id, flags, .. }) = found.service {
            let name = present(self.names.get(&id, 0))?;
            snapshot.names.extend(name.map(|name| (id, encode::owner_of(&name))));
            if flags & SOURCE_RANGES != 0 {
                snapshot.items.extend(match frontend.family() {
                    Family::V4 => self.items_v4.ranges_of(id)?,
                    Family::V6 => self.items_v6.ranges_of(id)?,
                });
            }
        }
        snapshot.frontends.push((*frontend, found));
        Ok(snapshot)
    }

    /// The session of a network namespace with the service port of a frontend, if it is valid at `now`, in nanoseconds of the
    /// monotonic clock.
    pub fn session(&self, namespace: u64, frontend: &Frontend, now: u64) -> Result<Option<Session>> {
        let found = self.find_one(frontend)?.and_then(|found| found.service);
        let Some(service) = found.filter(|service| service.affinity_timeout > 0) else { return Ok(None) };
        let sessions: HashMap<_, Client, Affinity> =
            HashMap::try_from(aya::maps::Map::LruHashMap(open(&self.pins, "AFFINITY")?))?;
        let Some(affinity) = present(sessions.get(&Client { namespace, id: service.id }, 0))? else { return Ok(None) };
        let is_member = self.members.has(Member::new(service.id, service.kind, affinity.endpoint))?;
        if !is_member || !affinity.holds(now, service.affinity_timeout) {
            return Ok(None);
        }
        let endpoint = match frontend.family() {
            Family::V4 => self.items_v4.endpoint(affinity.endpoint)?,
            Family::V6 => self.items_v6.endpoint(affinity.endpoint)?,
        };
        Ok(endpoint.map(|endpoint| Session { endpoint, last_used: affinity.last_used }))
    }

    /// Follows a frontend to its backends. Its service number may belong to another frontend after it was looked up. So it is
    /// looked up again after the reading.
    fn find_one(&self, frontend: &Frontend) -> Result<Option<FollowedFrontend>> {
        for _ in 0..TRIES {
            let number = self.number_of(frontend)?;
            let found = match number {
                Number::Absent => return Ok(None),
                Number::Of(number) => self.follow(frontend.family(), number)?,
                Number::Invalid => FollowedFrontend { number: 0, service: None, inside: None, outside: None },
            };
            if self.number_of(frontend)? == number {
                return Ok(Some(found));
            }
        }
        bail!("failed to read the frontend {frontend}: the agent changed it during each of {TRIES} attempts; try again")
    }

    fn number_of(&self, frontend: &Frontend) -> Result<Number> {
        let element = match frontend.family() {
            Family::V4 => self.v4.find(frontend)?,
            Family::V6 => self.v6.find(frontend)?,
        };
        Ok(match element {
            None => Number::Absent,
            Some(FrontendElement::Frontend(_, number)) => self.valid(frontend, number)?.map_or(Number::Invalid, Number::Of),
            Some(FrontendElement::Address(..) | FrontendElement::Foreign(_)) => Number::Invalid,
        })
    }

    fn find_address(&self, frontend: &Frontend) -> Result<Option<FrontendElement>> {
        match frontend.family() {
            Family::V4 => self.v4.find_address(frontend.address),
            Family::V6 => self.v6.find_address(frontend.address),
        }
    }
}

/// The value of a look-up; `None` if the key is absent.
pub fn present<T>(found: Result<T, MapError>) -> Result<Option<T>> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
