//! Reports the fields of a Service and its EndpointSlices that are ignored, cut or replaced by a default, with the reasons.

use std::fmt;

use super::{Extent, MAX_FRONTENDS, NodeContext};
use crate::{
    collections::HashSet,
    model::{
        ObjectName, Protocol,
        object::{Faults, Service, Slice, SlicePort},
    },
    store::ServiceObjects,
};

/// A field of a Service or of one of its EndpointSlices that is ignored, cut or replaced by a default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The Service that the field belongs to.
    pub service: ObjectName,
    /// A sentence for users with the field, the reason and, where possible, the remedy.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}: {}", self.service, self.reason)
    }
}

/// The skipped fields of a Service and its EndpointSlices: faults of the objects, then too many frontends, unused slices,
/// rejected external IPs and duplicates. `duplicates` are the frontends that two ports of the Service define.
pub fn skipped(objects: &ServiceObjects, node: &NodeContext, extent: Extent, duplicates: &Faults) -> Vec<Skipped> {
    let ServiceObjects { name, service, slices } = objects;
    let mut faults = Faults::default();
    if extent == Extent::Cut {
        faults.record(format_args!(
            "only {MAX_FRONTENDS} combinations of its addresses and ports are served, and the rest is left out: divide it into \
             several Services"
        ));
    }
    report_unmatched_slices(service, slices, &mut faults);
    service.external_ips.iter().filter_map(|address| node.rejection(*address)).for_each(|rejection| faults.record(rejection));
    let of_slices = slices.iter().flat_map(|slice| slice.faults.iter());
    let all = service.faults.iter().chain(of_slices).chain(faults.iter()).chain(duplicates.iter());
    all.map(|fault| Skipped { service: name.clone(), reason: fault.to_owned() }).collect()
}

/// Reports EndpointSlices of which no port has the name and protocol of a Service port, so that their endpoints are not used.
/// Skips slices without valid ports or endpoints, and Services without ports.
fn report_unmatched_slices(service: &Service, slices: &[Slice], faults: &mut Faults) {
    let wanted: HashSet<(&str, Protocol)> = service.ports.iter().map(|port| (&*port.name, port.protocol)).collect();
    let has_no_port_of_service = |slice: &&Slice| {
        let has_ports = !wanted.is_empty() && !slice.ports.is_empty() && !slice.endpoints.is_empty();
        has_ports && !slice.ports.iter().any(|port: &SlicePort| wanted.contains(&(&*port.name, port.protocol)))
    };
    for slice in slices.iter().filter(has_no_port_of_service) {
        let given = names(slice.ports.iter().map(|port| (&*port.name, port.protocol)));
        let wanted = names(service.ports.iter().map(|port| (&*port.name, port.protocol)));
        faults.record(format_args!(
            "an EndpointSlice has the ports {given}, and the Service has the ports {wanted}: none has the same name and protocol"
        ));
    }
}

/// Number of ports that one sentence lists; further ports are counted.
const NAMED: usize = 10;

fn names<'a>(mut ports: impl ExactSizeIterator<Item = (&'a str, Protocol)>) -> String {
    let rest = ports.len().saturating_sub(NAMED);
    let names: Vec<String> =
        ports.by_ref().take(NAMED).map(|(name, protocol)| format!("{name:?}/{}", protocol.name())).collect();
    if rest > 0 { format!("{} and {rest} more", names.join(", ")) } else { names.join(", ") }
}
