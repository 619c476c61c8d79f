//! Writes an event about a packet that opens a flow, or that is dropped, while `portmap trace` runs.

use portmap_common::trace::{FORWARDED, PACKET};

use super::{Family, tables::Walk};
use crate::trace;

/// Writes an event about the walk's packet. `service`: the number of the service entry, if the result concerns one.
#[inline(always)]
pub fn packet<A: Family>(walk: &Walk<A>, device: u32, service: u32, result: u8) {
    if trace::is_wanted(result) {
        write(walk, device, service, result);
    }
}

/// Not inlined: it runs only while somebody traces.
#[inline(never)]
fn write<A: Family>(walk: &Walk<A>, device: u32, service: u32, result: u8) {
    trace::write(|event| {
        (event.hook, event.result, event.device) = (PACKET, result, device);
        (event.asked, event.asked_port) = (walk.key.destination.neutral(), walk.key.destination_port);
        (event.client, event.client_port) = (walk.key.source.neutral(), walk.key.source_port);
        event.protocol = walk.key.protocol;
        if result == FORWARDED {
            (event.backend, event.backend_port) = (walk.entry.address.neutral(), walk.entry.port);
        }
        event.id = trace::id_of(service, result);
    });
}
