//! The table as people and other programs see it: the JSON contract of `resolve` and `services`, and the same as a table.

use std::net::SocketAddr;

use portmap_common::{Choice, Kind, Verdict};
use serde::Serialize;

use crate::{
    maps::{Found, Slot, Snapshot},
    table::{Endpoint, Entry, Frontend, ServicePort, Table, Target},
};

/// One frontend. The names and texts of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `10.96.0.10:80/TCP`, `[fd00::1]:80/TCP`.
    pub frontend: String,
    /// `namespace/name`.
    pub service: String,
    /// The name of the Service port, empty if it has none.
    pub port: String,
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: &'static str,
    /// `forward`, `refuse` or `drop`: what sockets on this node get.
    pub action: &'static str,
    /// Where to, sorted; empty on refuse and drop.
    pub backends: Vec<String>,
    /// Session affinity in seconds, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// What clients outside the node get, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_backends: Option<External>,
}

/// What clients outside the node get: backends, or `refuse` or `drop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum External {
    /// One of these.
    Backends(Vec<String>),
    /// This.
    Action(&'static str),
}

/// The rows of a desired table, in order.
pub fn of_table(table: &Table) -> Vec<Row> {
    table.iter().map(|(frontend, entry)| of_entry(frontend, entry)).collect()
}

fn of_entry(frontend: &Frontend, entry: &Entry) -> Row {
    let Entry { owner, kind, inside, outside, affinity_timeout } = entry;
    row(frontend, owner, kind_name(*kind as u8), side_of_target(inside), side_of_target(outside), *affinity_timeout)
}

/// The rows of what the kernel's maps hold, in order. Entries that the agent would not write are left out: it repairs them.
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Row> {
    let names: std::collections::BTreeMap<_, _> = snapshot.names.iter().map(|(id, owner)| (*id, owner)).collect();
    let rows = snapshot.frontends.iter().filter_map(|(frontend, found)| {
        let Found { number: _, service, inside, outside } = found;
        let service = (*service)?;
        let owner = names.get(&service.id)?.as_ref()?;
        let inside = side_of_choice(service.inside, inside.as_deref()?);
        let outside = side_of_choice(service.outside, outside.as_deref()?);
        Some(row(frontend, owner, kind_name(service.kind), inside, outside, service.affinity_timeout))
    });
    rows.collect()
}

type SideView = (&'static str, Vec<String>);

fn row(
    frontend: &Frontend,
    owner: &ServicePort,
    kind: &'static str,
    inside: SideView,
    outside: SideView,
    affinity: u32,
) -> Row {
    let external_backends = (inside != outside).then_some(match outside {
        ("forward", backends) => External::Backends(backends),
        (action, _) => External::Action(action),
    });
    let (action, backends) = inside;
    Row {
        frontend: frontend.to_string(),
        service: owner.service.to_string(),
        port: owner.port.to_string(),
        kind,
        action,
        backends,
        affinity_seconds: Some(affinity).filter(|seconds| *seconds > 0),
        external_backends,
    }
}

fn side_of_target(target: &Target) -> SideView {
    match target {
        Target::Backends(backends) => ("forward", backend_texts(backends.iter())),
        Target::Verdict(verdict) => (action_name(*verdict as u32), Vec::new()),
    }
}

fn side_of_choice(choice: Choice, slots: &[Slot]) -> SideView {
    if choice.count == 0 {
        (action_name(choice.first), Vec::new())
    } else {
        ("forward", backend_texts(slots.iter().map(|slot| &slot.endpoint)))
    }
}

/// Sorted as kube-proxy sorts them: by their texts.
fn backend_texts<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<String> {
    let mut texts: Vec<String> =
        endpoints.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port).to_string()).collect();
    texts.sort();
    texts
}

fn action_name(verdict: u32) -> &'static str {
    const REFUSE: u32 = Verdict::Refuse as u32;
    const DROP: u32 = Verdict::Drop as u32;
    match verdict {
        REFUSE => "refuse",
        DROP => "drop",
        _ => "leave",
    }
}

fn kind_name(kind: u8) -> &'static str {
    const NODE_PORT: u8 = Kind::NodePort as u8;
    const EXTERNAL_IP: u8 = Kind::ExternalIp as u8;
    const LOAD_BALANCER: u8 = Kind::LoadBalancer as u8;
    match kind {
        NODE_PORT => "NodePort",
        EXTERNAL_IP => "ExternalIP",
        LOAD_BALANCER => "LoadBalancer",
        _ => "ClusterIP",
    }
}
