//! The nearest reason for which no Service has a frontend, in words.

use super::{Known, Why};
use crate::{
    model::{Frontend, ObjectName},
    resolve::{claims::Owners, desired::explain::Unserved},
};

/// The Service that the reason names, and the reason.
pub fn reason<'a>(known: &Known<'_>, frontend: &Frontend, unserved: &'a Unserved) -> (Option<&'a ObjectName>, Why) {
    let Frontend { address, port, protocol } = frontend;
    let (service, code, text) = match unserved {
        Unserved::UndefinedPort(service) => (Some(service), "undefinedPort", undefined_port(known, frontend, service)),
        Unserved::OtherProxy(service) => (
            Some(service),
            "otherProxy",
            format!("the address is the ClusterIP of Service {service}, which another proxy serves"),
        ),
        Unserved::UndefinedExternalPort(services) => {
            let names: Vec<String> = services.iter().map(|service| format!("{service} ({})", ports(known, service))).collect();
            (
                services.first(),
                "undefinedPort",
                format!("the address belongs to these Services, and none has the port {port}/{protocol}: {}", names.join("; ")),
            )
        }
        Unserved::NodePortElsewhere(service) => (Some(service), "otherAddress", elsewhere(known, frontend, service)),
        Unserved::NodePortOfOtherFamily(service) => (
            Some(service),
            "otherFamily",
            format!(
                "{port}/{protocol} is a node port of Service {service}, which has {} addresses only",
                frontend.family().other().name()
            ),
        ),
        Unserved::UndefinedNodePort => (
            None,
            "undefinedNodePort",
            format!("{address} is an address of this node, and no Service has the node port {port}/{protocol}"),
        ),
        Unserved::Unallocated(range) => (None, "unallocated", unallocated(known, &range.to_string())),
        Unserved::UnknownAddress => {
            (None, "unknownAddress", format!("no Service has the address {address}, so portmap does not translate the call"))
        }
    };
    (service, Why { code, text })
}

fn undefined_port(known: &Known<'_>, frontend: &Frontend, service: &ObjectName) -> String {
    let Frontend { port, protocol, .. } = frontend;
    let written = known.written.get(service);
    let hint = match written.and_then(|written| written.other_protocol(*port, protocol.name())) {
        Some(other) => format!("; {port} is a port of {other}: append /{} to the address", other.to_lowercase()),
        None => written.map(|written| written.meant_by(*port)).unwrap_or_default(),
    };
    format!("Service {service} has the address, but no port {port}/{protocol}; its ports are {}{hint}", ports(known, service))
}

fn ports(known: &Known<'_>, service: &ObjectName) -> String {
    known.written.get(service).map_or_else(|| "not at hand".to_owned(), super::written::Written::ports)
}

fn elsewhere(known: &Known<'_>, frontend: &Frontend, service: &ObjectName) -> String {
    let Frontend { address, port, protocol } = frontend;
    let served: Vec<String> = known
        .desired
        .table()
        .node_addresses()
        .filter(|other| other.is_ipv4() == address.is_ipv4())
        .map(|address| address.to_string())
        .collect();
    let place = if served.is_empty() {
        "no address of this node is known: its Node object or its agent would tell".to_owned()
    } else {
        format!("this node serves node ports on {}, not on {address}", served.join(", "))
    };
    format!("{port}/{protocol} is a node port of Service {service}, but {place}")
}

fn unallocated(known: &Known<'_>, range: &str) -> String {
    let text = format!("the address is in the range of ClusterIPs {range}, and no Service has it");
    match known.desired.owners() {
        Owners::Known => text,
        Owners::Unknown => format!("{text}; it is left alone while the Services of other proxies are unknown"),
    }
}
