//! The reasons of endpoints in words, and the reason why a Service port has none.

use std::net::SocketAddr;

use super::{EndpointRow, Known, Why, policy_field};
use crate::{
    model::{
        Endpoint, Family, ObjectName,
        object::{Policy, SlicePort},
    },
    resolve::{Considered, Explained, Hinted, Reason, SlicesSeen, desired::explain::Served},
};

/// The endpoints that were considered, in order.
pub fn rows(known: &Known<'_>, served: &Served) -> Vec<EndpointRow> {
    let explained = &served.explained;
    let row = |considered: &Considered| {
        let Endpoint { address, port, local: _ } = considered.endpoint;
        let reason = reason_for(considered, explained.inside);
        let is_other = explained.inside != explained.outside;
        EndpointRow {
            endpoint: SocketAddr::new(address, port).to_string(),
            pod: known.pods.get(&address).cloned(),
            taken: reason.is_taken(),
            reason: why(reason, considered, explained),
            outside: is_other.then(|| why(reason_for(considered, explained.outside), considered, explained)),
        }
    };
    explained.endpoints.iter().map(row).collect()
}

fn reason_for(considered: &Considered, policy: Policy) -> Reason {
    match policy {
        Policy::Cluster => considered.cluster,
        Policy::Local => considered.local,
    }
}

fn why(reason: Reason, considered: &Considered, explained: &Explained) -> Why {
    let (code, text) = match reason {
        Reason::Ready => (
            "ready",
            format!("ready{}", hint(&explained.hinted).map(|hint| format!(", hinted for {hint}")).unwrap_or_default()),
        ),
        Reason::LastResort => ("lastResort", "terminating and still serving; none is ready".to_owned()),
        Reason::NotReady => ("notReady", "not ready".to_owned()),
        Reason::NotServing => ("notServing", "terminating, and not serving any more".to_owned()),
        Reason::Terminating => ("terminating", "terminating; others are ready".to_owned()),
        Reason::OtherNode => ("otherNode", format!("on another node; {} is Local", policy_field(explained.entry.kind))),
        Reason::HintedElsewhere => ("hintedElsewhere", elsewhere(considered, &explained.hinted)),
    };
    Why { code, text }
}

fn hint(hinted: &Hinted) -> Option<String> {
    match hinted {
        Hinted::Node(name) => Some(format!("node {name}")),
        Hinted::Zone(name) => Some(format!("zone {name}")),
        Hinted::No => None,
    }
}

fn elsewhere(considered: &Considered, hinted: &Hinted) -> String {
    let (kind, names) = match hinted {
        Hinted::Node(_) => ("node", &considered.hints.nodes),
        Hinted::Zone(_) | Hinted::No => ("zone", &considered.hints.zones),
    };
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("hinted for {kind} {}, not for {}", names.join(", "), hint(hinted).unwrap_or_default())
}

/// The reason why clients on the node get no backend; `None` if they get one.
pub fn lack(known: &Known<'_>, family: Family, served: &Served, action: &str) -> Option<Why> {
    let explained = &served.explained;
    let (code, text) = match action {
        "forward" => return None,
        "drop" => (
            "noLocalEndpoint",
            format!("{} is Local, and no usable endpoint is on this node", policy_field(explained.entry.kind)),
        ),
        _ if explained.endpoints.is_empty() => without_endpoints(known, family, &served.service, explained),
        _ => ("noUsableEndpoint", format!("none of its {} endpoints is usable", explained.endpoints.len())),
    };
    Some(Why { code, text })
}

fn without_endpoints(known: &Known<'_>, family: Family, service: &ObjectName, explained: &Explained) -> (&'static str, String) {
    let SlicesSeen { count, endpoints, ports } = &explained.slices;
    let other = family.other();
    let selector = known.written.get(service).map(super::written::Written::selector);
    let total = endpoints.v4 + endpoints.v6;
    if total == 0 {
        let cause = match selector {
            Some(Some(selector)) => format!("no pod matches its selector {selector}"),
            Some(None) => "it has no selector, so its EndpointSlices must be written by somebody".to_owned(),
            None => "usually no pod matches its selector".to_owned(),
        };
        let slices = if *count == 0 { "it has no EndpointSlice" } else { "its EndpointSlices have no endpoints" };
        return ("noEndpoints", format!("{slices}: {cause}"));
    }
    if *endpoints.get(family) == 0 {
        let (name, given) = (family.name(), endpoints.get(other));
        let text = format!("its EndpointSlices have no endpoints of {name}, but {given} of {}", other.name());
        return ("otherFamily", text);
    }
    let port = &explained.port;
    let wanted = format!("{}/{}", quoted(&port.name), port.protocol);
    if ports.is_empty() {
        let target = known.written.get(service).map(|it| it.target_port(&port.name, port.protocol.name()));
        let cause = target.map(|target| format!(": no pod has the targetPort {target}")).unwrap_or_default();
        return ("noSlicePort", format!("its EndpointSlices have endpoints, but no port{cause}"));
    }
    let names: Vec<String> = ports.iter().map(slice_port).collect();
    ("unmatchedPortName", format!("its EndpointSlices have the ports {}, and none is named {wanted}", names.join(", ")))
}

fn slice_port(port: &SlicePort) -> String {
    format!("{}/{} ({})", quoted(&port.name), port.protocol, port.port)
}

fn quoted(name: &str) -> String {
    format!("{name:?}")
}
