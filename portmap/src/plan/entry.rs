//! The service entry of a frontend: its flags, and the stores that change an entry in use.

use portmap_common::{HOST_ONLY, SOURCE_RANGES, Service};

use super::Step;
use crate::{
    maps::ClientLocation,
    model::{AddressKind, Entry, Frontend},
};

/// The flags of a frontend's service entry, which restrict the frontend to clients on the host or in source ranges.
pub fn flags(frontend: &Frontend, entry: &Entry) -> u8 {
    let is_of_host = frontend.address.is_loopback() || frontend.address.is_unspecified();
    let is_filtered = entry.kind == AddressKind::LoadBalancer && entry.source_ranges.is_some();
    (if is_of_host { HOST_ONLY } else { 0 }) | (if is_filtered { SOURCE_RANGES } else { 0 })
}

/// Plans the stores for the differing fields of a service entry in use.
pub fn update(number: u32, before: &Service, service: &Service, steps: &mut Vec<Step>) {
    if before.inside != service.inside {
        steps.push(Step::StoreChoice(number, ClientLocation::Inside, service.inside));
    }
    if before.outside != service.outside {
        steps.push(Step::StoreChoice(number, ClientLocation::Outside, service.outside));
    }
    if (Service { inside: service.inside, outside: service.outside, ..*before }) != *service {
        steps.push(Step::DescribeService(number, *service));
    }
}
