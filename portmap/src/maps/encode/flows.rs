//! Keys and values of FLOWS and OPENING.

use std::net::SocketAddr;

use portmap_common::{EGRESS, FlowEntry, FlowKey, INGRESS, TOWARDS_CLIENT};

use super::{IpBytes, protocol_of};
use crate::model::Frontend;

/// Whether this is the entry of a flow's packets from the client to the frontend. Each flow has one such entry.
pub(in crate::maps) fn is_of_client<A>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> bool {
    key.hook == INGRESS && entry.state & TOWARDS_CLIENT == 0
}

/// Decodes the client of a flow, from the key of its packets to the frontend.
pub(in crate::maps) fn client_of<A: IpBytes>(key: &FlowKey<A>) -> SocketAddr {
    SocketAddr::new(key.source.to_ip(), key.source_port)
}

/// Decodes the frontend of a flow, from the key of its packets to the frontend; `None` for an unknown protocol.
pub(in crate::maps) fn frontend_of_flow<A: IpBytes>(key: &FlowKey<A>) -> Option<Frontend> {
    let protocol = protocol_of(key.protocol)?;
    Some(Frontend { address: key.destination.to_ip(), port: key.destination_port, protocol })
}

/// Decodes the address that an entry puts into its packets: at ingress the new destination, at egress the new source.
pub(in crate::maps) fn address_of_flow<A: IpBytes>(entry: &FlowEntry<A>) -> SocketAddr {
    SocketAddr::new(entry.address.to_ip(), entry.port)
}

/// The key under which the address is that hides the client of a flow from its backend. `key` and `entry` are those of its
/// packets to the frontend.
pub(in crate::maps) fn hiding_key<A: IpBytes>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> FlowKey<A> {
    FlowKey { destination: entry.address, source_port: entry.other_port, destination_port: entry.port, hook: EGRESS, ..*key }
}

/// The key of the packets with which a backend answers packets with this key, at the same hook.
pub(in crate::maps) fn answer_key<A: IpBytes>(key: &FlowKey<A>) -> FlowKey<A> {
    FlowKey {
        source: key.destination,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        ..*key
    }
}
