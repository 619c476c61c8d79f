//! From EndpointSlices to the backends of one service port.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    object::{Slice, SliceEndpoint, SlicePort},
    table::{Endpoint, Family, ServicePort},
};

/// An endpoint of the port, and the slice entry that speaks for it.
struct Candidate<'a> {
    endpoint: Endpoint,
    entry: &'a SliceEndpoint,
}

/// The backends that clients of a service port are spread over: the ready endpoints; if none is ready, those that still
/// answer while they terminate. Sorted, each address and port once; empty if there are none.
pub fn of_port<'a>(slices: impl Iterator<Item = &'a Slice>, port: &ServicePort, family: Family, node: &str) -> Vec<Endpoint> {
    let candidates = join(slices, port, family, node);
    let ready = select(&candidates, |entry| entry.ready);
    if ready.is_empty() { select(&candidates, |entry| entry.serving && entry.terminating) } else { ready }
}

fn select(candidates: &BTreeMap<(IpAddr, u16), Candidate<'_>>, is_wanted: impl Fn(&SliceEndpoint) -> bool) -> Vec<Endpoint> {
    candidates.values().filter(|candidate| is_wanted(candidate.entry)).map(|candidate| candidate.endpoint).collect()
}

/// Joins slices to the service port by (port name, protocol): the targetPort is already resolved in them, per slice.
///
/// Of entries with one address and port the first counts, unless a later one is not terminating: so an endpoint may move
/// between slices, and a pod may take over the address of one that terminates.
fn join<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    node: &str,
) -> BTreeMap<(IpAddr, u16), Candidate<'a>> {
    let mut candidates = BTreeMap::new();
    for slice in slices.filter(|slice| is_of_family(slice, family)) {
        for slice_port in slice.ports.iter().filter(|slice_port| matches(slice_port, port)) {
            for entry in &slice.endpoints {
                let Ok(address) = entry.address.parse::<IpAddr>() else { continue };
                if Family::of(address) != family {
                    continue;
                }
                let key = (address, slice_port.port);
                if entry.terminating && candidates.contains_key(&key) {
                    continue;
                }
                let local = !node.is_empty() && entry.node.as_deref() == Some(node);
                let endpoint = Endpoint { address, port: slice_port.port, local };
                candidates.insert(key, Candidate { endpoint, entry });
            }
        }
    }
    candidates
}

fn is_of_family(slice: &Slice, family: Family) -> bool {
    match family {
        Family::V4 => &*slice.address_type == "IPv4",
        Family::V6 => &*slice.address_type == "IPv6",
    }
}

fn matches(slice_port: &SlicePort, port: &ServicePort) -> bool {
    slice_port.name == port.port && *slice_port.protocol == *port.protocol.name()
}
