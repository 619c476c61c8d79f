//! Fields of a Service that have no effect, with the reasons.

use std::fmt;

use crate::{
    collections::HashSet,
    model::{
        ObjectName, Protocol,
        object::{Faults, Service, Slice, SlicePort},
    },
};

/// Something that an object asks for and does not get, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The Service.
    pub service: ObjectName,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}: {}", self.service, self.reason)
    }
}

/// Notes slices of which no port is one of the Service: the commonest mistake.
pub fn report_unmatched_slices(service: &Service, slices: &[Slice], faults: &mut Faults) {
    let wanted: HashSet<(&str, Protocol)> = service.ports.iter().map(|port| (&*port.name, port.protocol)).collect();
    let joins_nothing = |slice: &&Slice| {
        let has_ports = !wanted.is_empty() && !slice.ports.is_empty() && !slice.endpoints.is_empty();
        has_ports && !slice.ports.iter().any(|port: &SlicePort| wanted.contains(&(&*port.name, port.protocol)))
    };
    for slice in slices.iter().filter(joins_nothing) {
        let given = names(slice.ports.iter().map(|port| (&*port.name, port.protocol)));
        let wanted = names(service.ports.iter().map(|port| (&*port.name, port.protocol)));
        faults.note(format_args!(
            "an EndpointSlice has the ports {given}, and the Service {wanted}: no name and protocol is the same"
        ));
    }
}

/// At most so many ports are named in one sentence.
const NAMED: usize = 10;

fn names<'a>(mut ports: impl ExactSizeIterator<Item = (&'a str, Protocol)>) -> String {
    let rest = ports.len().saturating_sub(NAMED);
    let names: Vec<String> =
        ports.by_ref().take(NAMED).map(|(name, protocol)| format!("{name:?}/{}", protocol.name())).collect();
    if rest > 0 { format!("{} and {rest} more", names.join(", ")) } else { names.join(", ") }
}
