//! Backends in BACKENDS, serving endpoints in ENDPOINTS, and choices of backends in SERVICES.

use anyhow::Result;
use portmap_common::{Backend, Choice, EndpointEntry, LOCAL, Verdict};

use super::{IpBytes, address};
use crate::{maps::Slot, model::Endpoint};

/// A slot as a value of BACKENDS; `None` if it is of the other family.
pub fn backend<A: IpBytes>(slot: &Slot) -> Option<Backend<A>> {
    let Endpoint { address, port, local } = slot.endpoint;
    Some(Backend { address: A::from_ip(address)?, port, flags: if local { LOCAL } else { 0 }, endpoint: slot.number.into() })
}

/// A value of BACKENDS as a slot.
pub fn slot_of<A: IpBytes>(backend: &Backend<A>) -> Slot {
    let Backend { address, port, flags, endpoint } = *backend;
    Slot { endpoint: Endpoint { address: address.to_ip(), port, local: flags & LOCAL != 0 }, number: endpoint.get() }
}

/// The verdict of a choice without backends; `None` if the choice has backends.
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

/// An endpoint with this number as a value of ENDPOINTS.
pub(in crate::maps) fn endpoint_entry<A: IpBytes>(number: u64, endpoint: &Endpoint) -> Result<EndpointEntry<A>> {
    Ok(EndpointEntry::new(number, address(endpoint.address)?, endpoint.port))
}

/// A value of ENDPOINTS under this number as an endpoint.
pub(in crate::maps) fn endpoint_of<A: IpBytes>(number: u64, entry: &EndpointEntry<A>) -> Endpoint {
    // One that somebody else changed is no endpoint of any set, whatever it says.
    let entry = if entry.belongs_to(number) { *entry } else { EndpointEntry::new(number, A::default(), 0) };
    Endpoint { address: entry.address.to_ip(), port: entry.port, local: false }
}
