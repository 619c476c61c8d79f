//! Backends in the layout of BACKENDS. The planner keeps backends in this compact form, because a node may have hundreds of
//! thousands.

use std::{net::IpAddr, sync::Arc};

use portmap_common::{Backend, V4, V6};

use super::Slot;
use crate::{
    maps::encode::{self, IpBytes},
    model::Family,
};

/// Values for consecutive slots of `BACKENDS_V4` or `BACKENDS_V6`. Clones share one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Values for `BACKENDS_V4`.
    V4(Arc<[Backend<V4>]>),
    /// Values for `BACKENDS_V6`.
    V6(Arc<[Backend<V6>]>),
}

impl Backends {
    /// The values for these slots. Slots of the other family are dropped.
    pub fn new(family: Family, slots: impl Iterator<Item = Slot>) -> Self {
        match family {
            Family::V4 => Self::V4(slots.filter_map(|slot| encode::backend(&slot)).collect()),
            Family::V6 => Self::V6(slots.filter_map(|slot| encode::backend(&slot)).collect()),
        }
    }

    /// The address family of all backends.
    pub fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        match self {
            Self::V4(backends) => backends.len(),
            Self::V6(backends) => backends.len(),
        }
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The decoded slots, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        let (v4, v6): (&[_], &[_]) = match self {
            Self::V4(backends) => (backends, &[]),
            Self::V6(backends) => (&[], backends),
        };
        v4.iter().map(encode::slot_of).chain(v6.iter().map(encode::slot_of))
    }

    /// The slot with this address and port; `None` if there is no such slot. The slots must be sorted by address and port.
    pub fn find(&self, address: IpAddr, port: u16) -> Option<Slot> {
        match self {
            Self::V4(backends) => find(backends, address, port),
            Self::V6(backends) => find(backends, address, port),
        }
    }
}

fn find<A: IpBytes>(backends: &[Backend<A>], address: IpAddr, port: u16) -> Option<Slot> {
    let key = (A::from_ip(address)?, port);
    let index = backends.binary_search_by_key(&key, |backend| (backend.address, backend.port)).ok()?;
    backends.get(index).map(encode::slot_of)
}
