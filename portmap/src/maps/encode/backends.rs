//! Values of BACKENDS and ENDPOINTS, and the choices in values of SERVICES.

use anyhow::Result;
use portmap_common::{Backend, Choice, EndpointEntry, LOCAL, Verdict};

use super::{IpBytes, address};
use crate::{maps::Slot, model::Endpoint};

/// Encodes a slot as a value of BACKENDS; `None` if it is of the other family.
pub fn backend<A: IpBytes>(slot: &Slot) -> Option<Backend<A>> {
    let Endpoint { address, port, local } = slot.endpoint;
    Some(Backend { address: A::from_ip(address)?, port, flags: flags(local), endpoint: slot.number.into() })
}

fn flags(local: bool) -> u16 {
    if local { LOCAL } else { 0 }
}

/// Decodes a value of BACKENDS.
pub fn slot_of<A: IpBytes>(backend: &Backend<A>) -> Slot {
    let Backend { address, port, flags, endpoint } = *backend;
    Slot { endpoint: Endpoint { address: address.to_ip(), port, local: flags & LOCAL != 0 }, number: endpoint.get() }
}

/// Decodes the verdict of a choice; `None` if the choice has backends. Programs, too, take an unknown verdict for `Leave`.
pub fn verdict_of(choice: Choice) -> Option<Verdict> {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    match choice {
        Choice { count: 0, first: REFUSE } => Some(Verdict::Refuse),
        Choice { count: 0, first: DROP } => Some(Verdict::Drop),
        Choice { count: 0, first: _ } => Some(Verdict::Leave),
        Choice { .. } => None,
    }
}

/// Encodes an endpoint with this number as a value of ENDPOINTS.
pub(in crate::maps) fn endpoint_entry<A: IpBytes>(number: u64, endpoint: &Endpoint) -> Result<EndpointEntry<A>> {
    Ok(EndpointEntry::new(number, address(endpoint.address)?, endpoint.port, flags(endpoint.local)))
}

/// Decodes a value of ENDPOINTS under this number.
pub(in crate::maps) fn endpoint_of<A: IpBytes>(number: u64, entry: &EndpointEntry<A>) -> Endpoint {
    // A value with a wrong digest was not written by an agent: it becomes the unspecified address, which no backend has.
    let entry = if entry.belongs_to(number) { *entry } else { EndpointEntry::new(number, A::default(), 0, 0) };
    Endpoint { address: entry.address.to_ip(), port: entry.port, local: entry.flags & LOCAL != 0 }
}
