//! FRONTENDS and BACKENDS of one address family, and `FRONTEND_PORTS` of both.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use portmap_common::{Backend, Choice, FrontendKey, FrontendPorts, ServiceRef, V4, V6};

use super::{NEW_ONLY, batch::Batch, mapped, one::present, open};
use crate::{
    maps::{
        ForeignKey, Slot,
        encode::{self, IpBytes, OTHER_FAMILY},
        mapped::Mapped,
        pin::Pins,
    },
    model::{AddressOwner, Frontend},
};

/// The maps FRONTENDS and BACKENDS of one address family.
pub struct FamilyMaps<A: IpBytes>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
{
    frontends: HashMap<MapData, FrontendKey<A>, ServiceRef>,
    frontends_batch: Batch,
    backends: Mapped<Backend<A>>,
}

/// The map `FRONTEND_PORTS`, which both families share.
pub struct Ports(Mapped<FrontendPorts>);

impl Ports {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self> {
        mapped(pins, "FRONTEND_PORTS").map(Self)
    }

    /// Adds the port of a frontend, before the frontend is inserted. It stays when the frontend is removed: another one may have
    /// the same port.
    pub fn add(&mut self, frontend: &Frontend) -> Result<()> {
        let (offset, bit) = Self::place(frontend);
        let word = self.0.load_word(0, offset)?;
        if word & bit == 0 { self.0.store_word(0, offset, word | bit) } else { Ok(()) }
    }

    /// Whether programs look up a frontend with this port.
    pub fn has(&self, frontend: &Frontend) -> Result<bool> {
        let (offset, bit) = Self::place(frontend);
        Ok(self.0.load_word(0, offset)? & bit != 0)
    }

    /// The offset of a frontend's word in bytes, and its bit.
    fn place(frontend: &Frontend) -> (usize, u64) {
        let (index, bit) = FrontendPorts::place(frontend.port, encode::protocol_number(frontend.protocol));
        (index * size_of::<u64>(), bit)
    }
}

/// An element of FRONTENDS.
pub enum FrontendElement {
    /// A frontend and its service number; `None` if the digest in the value is wrong: no agent wrote the value.
    Frontend(Frontend, Option<u32>),
    /// A ClusterIP as a whole, for all ports without a frontend.
    Address(IpAddr, AddressOwner),
    /// A key that no agent writes.
    Foreign(ForeignKey),
}

impl<A: ForeignFrontend> FamilyMaps<A>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
{
    /// Opens the pinned maps with these names.
    pub fn open(pins: &Pins, frontends: &str, backends: &str) -> Result<Self> {
        let frontends = open(pins, frontends)?;
        let frontends_batch = Batch::of(&frontends)?;
        let frontends = HashMap::try_from(Map::HashMap(frontends))?;
        Ok(Self { frontends, frontends_batch, backends: mapped(pins, backends)? })
    }

    /// Number of slots in BACKENDS.
    pub fn slots(&self) -> u32 {
        self.backends.len()
    }

    /// Writes consecutive slots, from slot `first` on.
    pub fn write_backends(&mut self, first: u32, backends: &[Backend<A>]) -> Result<()> {
        (first..).zip(backends).try_for_each(|(index, backend)| self.backends.write(index, *backend))
    }

    /// Reads the slots of a choice; `None` if the choice reaches beyond BACKENDS.
    pub fn range(&self, choice: Choice) -> Result<Option<Vec<Slot>>> {
        let end = match choice.first.checked_add(choice.count) {
            _ if choice.count == 0 => return Ok(Some(Vec::new())),
            Some(end) if end <= self.backends.len() => end,
            Some(_) | None => return Ok(None),
        };
        (choice.first..end).map(|slot| Ok(encode::slot_of(&self.backends.read(slot)?))).collect::<Result<_>>().map(Some)
    }

    pub fn insert(&mut self, frontend: &Frontend, number: u32) -> Result<()> {
        let key = encode::frontend(frontend).context(OTHER_FAMILY)?;
        Ok(self.frontends.insert(key, ServiceRef::new(&key, number), NEW_ONLY)?)
    }

    pub fn remove(&mut self, frontend: &Frontend) -> Result<()> {
        Ok(self.frontends.remove(&encode::frontend(frontend).context(OTHER_FAMILY)?)?)
    }

    /// Inserts ClusterIPs, each with its owner. A present ClusterIP gets the new owner.
    pub fn insert_addresses(&mut self, addresses: &[(IpAddr, AddressOwner)]) -> Result<()> {
        let element = |(address, owner): &(IpAddr, AddressOwner)| {
            let key = encode::address_key(*address)?;
            let number = encode::owner_number(*owner).context("no agent writes this owner of a ClusterIP")?;
            Ok((key, ServiceRef::new(&key, number)))
        };
        let (keys, values): (Vec<_>, Vec<_>) = addresses.iter().map(element).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let Self { frontends, frontends_batch, .. } = self;
        frontends_batch.insert(&keys, &values, |key, value| Ok(frontends.insert(key, value, 0)?))
    }

    pub fn remove_address(&mut self, address: IpAddr) -> Result<()> {
        Ok(self.frontends.remove(&encode::address_key(address)?)?)
    }

    pub fn remove_foreign(&mut self, key: &FrontendKey<A>) -> Result<()> {
        Ok(self.frontends.remove(key)?)
    }

    /// Looks up a frontend.
    pub fn find(&self, frontend: &Frontend) -> Result<Option<FrontendElement>> {
        self.element(encode::frontend(frontend).context(OTHER_FAMILY)?)
    }

    /// Looks up a ClusterIP as a whole.
    pub fn find_address(&self, address: IpAddr) -> Result<Option<FrontendElement>> {
        self.element(encode::address_key(address)?)
    }

    fn element(&self, key: FrontendKey<A>) -> Result<Option<FrontendElement>> {
        Ok(present(self.frontends.get(&key, 0))?.map(|value| FrontendElement::new(key, value)))
    }

    /// Decodes all elements of FRONTENDS, in the kernel's order.
    pub fn for_each(&self, mut take: impl FnMut(FrontendElement) -> Result<()>) -> Result<()> {
        self.frontends_batch.for_each(|key: &FrontendKey<A>, value: &ServiceRef| take(FrontendElement::new(*key, *value)))
    }
}

impl FrontendElement {
    fn new<A: ForeignFrontend>(key: FrontendKey<A>, value: ServiceRef) -> Self {
        let is_own = value.belongs_to(&key);
        if key.unused != 0 {
            Self::Foreign(A::foreign(key))
        } else if key == key.of_address() {
            let owner = if is_own { encode::address_owner_of(value) } else { AddressOwner::Foreign };
            Self::Address(key.address.to_ip(), owner)
        } else if let Some(frontend) = encode::frontend_of(&key) {
            Self::Frontend(frontend, is_own.then_some(value.service))
        } else {
            Self::Foreign(A::foreign(key))
        }
    }
}

/// An address family with its variant of [`ForeignKey`].
pub trait ForeignFrontend: IpBytes {
    /// Wraps a key of FRONTENDS that no agent writes.
    fn foreign(key: FrontendKey<Self>) -> ForeignKey;
}

impl ForeignFrontend for V4 {
    fn foreign(key: FrontendKey<V4>) -> ForeignKey {
        ForeignKey::FrontendV4(key)
    }
}

impl ForeignFrontend for V6 {
    fn foreign(key: FrontendKey<V6>) -> ForeignKey {
        ForeignKey::FrontendV6(key)
    }
}
