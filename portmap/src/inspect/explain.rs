//! Explains one destination: the chain from the address to the backends, with the reason of each step. The rows of
//! `portmap explain`.
//!
//! `resolve` decides and gives the reasons; this module puts them into words. [`kernel`] compares with the kernel's maps.

pub mod client;
mod endpoints;
pub mod kernel;
mod nearest;
mod service;
pub mod target;
#[cfg(test)]
mod tests;
pub mod written;

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::{
    differences::Difference,
    table::{self, External, Row},
};
use crate::{
    model::{AddressKind, Frontend, ObjectName, Protocol, object::Policy},
    resolve::desired::{
        Desired,
        explain::{Served, Unserved},
    },
};
use target::ServiceTarget;
use written::Written;

/// The explanation of one frontend. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Address, port and protocol, `10.96.0.10:80/TCP`, or the Service that was asked for.
    pub frontend: String,
    /// Whether a connection would reach a backend.
    pub connects: bool,
    /// `forward`, `refuse`, `drop`, or `leave`: not translated. By the kernel's tables if they were read, else by the objects.
    /// `none` for a Service without the frontend that was asked for.
    pub action: &'static str,
    /// The Service that has the address, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The kind of address, as in `portmap services`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The Service port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRow>,
    /// The reason why there is no backend, or none for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Why>,
    /// The other Services that claim the frontend, and do not get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_claims: Vec<String>,
    /// The endpoints that were considered, in the order of their addresses.
    pub endpoints: Vec<EndpointRow>,
    /// The other frontends of the Service port in this family, if a Service was asked for: `203.0.113.1:80/TCP`, `*:30080/TCP`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_addresses: Vec<String>,
    /// The backends by the objects, for clients on the node.
    pub backends: Vec<String>,
    /// The treatment of clients outside the node; none if it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Rules for the client: source ranges and session affinity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<String>,
    /// The comparison with the kernel's tables.
    pub kernel: KernelRow,
    /// Settings of the Service that are not in effect, and other remarks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A Service port, with its targetPort as it is written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRow {
    /// The name; empty if it has none.
    pub name: String,
    /// `port` of the Service port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// `targetPort` as it is written; none if the Service is not at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<String>,
    /// `nodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A reason: a code for programs, and a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The code.
    pub code: &'static str,
    /// A sentence.
    pub text: String,
}

/// An endpoint that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// Address and port, `10.244.0.2:8080`.
    pub endpoint: String,
    /// The pod, if its name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whether it is a backend for clients on the node.
    pub taken: bool,
    /// The reason, for clients on the node.
    pub reason: Why,
    /// The reason for clients outside the node, if another policy selects their endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Why>,
}

/// The treatment of clients outside the node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// `forward`, `refuse` or `drop`.
    pub action: &'static str,
    /// The backends.
    pub backends: Vec<String>,
    /// The reason of the difference.
    pub text: String,
}

/// The comparison with the kernel's tables.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRow {
    /// Whether the tables agree with the objects; none if they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
    /// The treatment by the kernel; none if the tables were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// The backends in the kernel, if they were read and there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<String>,
    /// The difference, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// The programs for this frontend that are not attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detached: Vec<&'static str>,
    /// The reason why they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// The objects for explanations.
pub struct Known<'a> {
    /// The desired table.
    pub desired: &'a Desired,
    /// The Services as they are written, as far as they are at hand.
    pub written: &'a BTreeMap<ObjectName, Written>,
    /// The names of pods, by their addresses.
    pub pods: &'a BTreeMap<IpAddr, String>,
}

impl Explanation {
    /// Explains a frontend by the objects.
    pub fn of_frontend(known: &Known<'_>, frontend: &Frontend) -> Self {
        match known.desired.explain(frontend) {
            Ok(served) => Self::served(known, frontend, &served),
            Err(unserved) => Self::unserved(known, frontend, &unserved),
        }
    }

    /// Explains a Service of which no frontend is served, or not the one asked for.
    pub fn of_service(target: &ServiceTarget, service: Option<&ObjectName>, code: &'static str, text: String) -> Self {
        Self {
            frontend: target.to_string(),
            action: "none",
            service: service.map(ToString::to_string),
            reason: Some(Why { code, text }),
            ..Self::default()
        }
    }

    fn served(known: &Known<'_>, frontend: &Frontend, served: &Served) -> Self {
        let Served { spec: _, service, others, explained } = served;
        let written = known.written.get(service);
        let row = table::of_frontend(frontend, &explained.entry);
        let port = &explained.port;
        let protocol = port.protocol.name();
        Self {
            frontend: frontend.to_string(),
            connects: row.action == "forward",
            action: row.action,
            service: Some(service.to_string()),
            kind: Some(row.kind),
            port: Some(PortRow {
                name: port.name.to_string(),
                port: port.port,
                protocol,
                target_port: written.map(|written| written.target_port(&port.name, protocol)),
                node_port: port.node_port,
            }),
            reason: endpoints::lack(known, frontend.family(), served, row.action),
            other_addresses: Vec::new(),
            other_claims: others.iter().map(ToString::to_string).collect(),
            endpoints: endpoints::rows(known, served),
            outside: outside(&row, served),
            client: client_rules(&row),
            notes: notes(known, service, frontend),
            backends: row.backends,
            kernel: KernelRow::default(),
        }
    }

    fn unserved(known: &Known<'_>, frontend: &Frontend, unserved: &Unserved) -> Self {
        let (service, reason) = nearest::reason(known, frontend, unserved);
        let mut remarks: Vec<String> = service.map(|service| notes(known, service, frontend)).unwrap_or_default();
        if frontend.protocol == Protocol::Udp && matches!(unserved, Unserved::UndefinedPort(_)) {
            remarks.push("a connect() of a UDP socket to an undefined port succeeds, and leads nowhere".to_owned());
        }
        Self {
            frontend: frontend.to_string(),
            action: table::action_name(unserved.verdict(known.desired.owners())),
            service: service.map(ToString::to_string),
            reason: Some(reason),
            notes: remarks,
            ..Self::default()
        }
    }
}

/// The treatment of clients outside, if it differs.
fn outside(row: &Row, served: &Served) -> Option<Outside> {
    let external = row.external_backends.as_ref()?;
    let text = match served.explained.outside {
        Policy::Local => "externalTrafficPolicy is Local: only endpoints on this node",
        Policy::Cluster => "endpoints on all nodes",
    };
    Some(match external {
        External::Backends(backends) => Outside { action: "forward", backends: backends.clone(), text: text.to_owned() },
        External::Action(action) => Outside { action, backends: Vec::new(), text: format!("{text}, and none is usable") },
    })
}

/// The rules that depend on the client, as sentences.
fn client_rules(row: &Row) -> Vec<String> {
    let mut rules = Vec::new();
    if let Some(ranges) = &row.source_ranges {
        let admitted = if ranges.is_empty() { "nobody, because all ranges are invalid".to_owned() } else { ranges.join(", ") };
        rules.push(format!("source ranges admit {admitted}; other clients are dropped"));
    }
    if let Some(seconds) = row.affinity_seconds {
        rules.push(format!("session affinity: a client keeps its backend until {seconds} s after its last connection"));
    }
    rules
}

impl Known<'_> {
    /// The settings of a Service that are not in effect.
    fn skipped(&self, service: &ObjectName) -> Vec<String> {
        let own = self.desired.skipped().filter(|skipped| skipped.service == *service);
        own.map(|skipped| skipped.reason.clone()).collect()
    }
}

/// The settings of a Service that are not in effect, its lost claims, and remarks about the node.
fn notes(known: &Known<'_>, service: &ObjectName, frontend: &Frontend) -> Vec<String> {
    let mut notes = known.skipped(service);
    notes.extend(known.lost(service));
    if frontend.address.is_loopback() || frontend.address.is_unspecified() {
        notes.push("only clients in the host's network namespace use the node ports of loopback addresses".to_owned());
    }
    notes
}

/// The name of the traffic policy for an address of this kind.
fn policy_field(kind: AddressKind) -> &'static str {
    match kind {
        AddressKind::ClusterIp => "internalTrafficPolicy",
        AddressKind::NodePort | AddressKind::ExternalIp | AddressKind::LoadBalancer => "externalTrafficPolicy",
    }
}
