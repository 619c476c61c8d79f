//! Converts between the types of the model and the plain data of the maps. The only module that changes the representation.
//!
//! A function with a name that ends with `_of` decodes a key or value; the other functions encode.

mod address;
mod backends;
mod devices;
mod flows;
mod frontends;
mod names;
mod prefixes;
mod sources;
mod trace;

use std::net::SocketAddr;

use portmap_common::{Address as _, Destination, Numbers, TCP, UDP, V6};

pub use address::IpBytes;
pub(super) use address::{OTHER_FAMILY, address};
pub use backends::{backend, slot_of, verdict_of};
pub(super) use backends::{endpoint_entry, endpoint_of};
pub(super) use devices::{device, device_of};
pub(super) use flows::{address_of_flow, answer_key, client_of, frontend_of_flow, hiding_key, is_of_client};
pub(super) use frontends::{address_key, address_owner_of, owner_number};
pub use frontends::{frontend, frontend_of, kind_of};
pub use names::{name, owner_of, text, text_of};
pub(super) use prefixes::{fill_inactive_half, prefixes_of};
pub use sources::namespace;
pub(super) use sources::{partial_range_key, range_key, range_of, way, way_of};
pub(super) use trace::traced_of;

use crate::{
    maps::NextNumbers,
    model::{Frontend, Protocol, event::ObjectKind},
};

/// Decodes a destination that a program stored on a socket. A port above 65,535 becomes 0.
pub fn destination_of(destination: &Destination) -> SocketAddr {
    let Destination { address, port } = *destination;
    let address = V6::from_neutral(address).to_ip().to_canonical();
    SocketAddr::new(address, u16::try_from(port).unwrap_or_default())
}

/// Decodes a destination that a program stored on a UDP socket, as a frontend.
pub(crate) fn udp_frontend_of(destination: &Destination) -> Frontend {
    let destination = destination_of(destination);
    Frontend { address: destination.ip(), port: destination.port(), protocol: Protocol::Udp }
}

/// Encodes the value of NUMBERS.
pub(in crate::maps) fn numbers(next: NextNumbers) -> Numbers {
    let NextNumbers { id, endpoint } = next;
    Numbers { next_id: id, next_endpoint: endpoint }
}

/// Decodes the value of NUMBERS.
pub(in crate::maps) fn next_numbers_of(numbers: &Numbers) -> NextNumbers {
    let Numbers { next_id, next_endpoint } = *numbers;
    NextNumbers { id: next_id, endpoint: next_endpoint }
}

/// Encodes kinds of objects, one bit each, for `State::silent_on`.
pub fn kinds(kinds: &[ObjectKind]) -> u32 {
    kinds.iter().fold(0, |bits, kind| bits | bit(*kind))
}

/// Decodes kinds of objects. Unknown bits are ignored.
pub fn kinds_of(bits: u32) -> Vec<ObjectKind> {
    ObjectKind::ALL.into_iter().filter(|kind| bits & bit(*kind) != 0).collect()
}

fn bit(kind: ObjectKind) -> u32 {
    match kind {
        ObjectKind::Service => 1,
        ObjectKind::Slice => 2,
        ObjectKind::OtherService => 4,
        ObjectKind::Node => 8,
        ObjectKind::ServiceCidr => 16,
    }
}

pub(in crate::maps) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}
