//! The table as people and other programs see it: the JSON contract of `resolve` and `services`, and the same as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use portmap_common::{AddressKind, Choice, Verdict};
use serde::Serialize;

use crate::{
    maps::{FollowedFrontend, Item, Slot, Snapshot},
    model::{Endpoint, Entry, Family, FrontendSpec, ServicePort, Target},
    resolve::desired::Desired,
};

/// One frontend. The names and texts of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `10.96.0.10:80/TCP`, `[fd00::1]:80/TCP`, `*:30080/TCP` for a node port.
    pub frontend: String,
    /// `IPv4` or `IPv6`, of a node port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
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
    /// Whom a load balancer's address admits, if not everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
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

/// The rows of what should be done, in order.
pub fn of_desired(desired: &Desired) -> Vec<Row> {
    desired.entries().map(|(place, entry)| of_entry(&place, &entry)).collect()
}

fn of_entry(place: &FrontendSpec, entry: &Entry) -> Row {
    let Entry { owner, kind, inside, outside, affinity_timeout, serving: _, source_ranges } = entry;
    let ranges = source_ranges.as_ref().filter(|_| *kind == AddressKind::LoadBalancer);
    Sides { inside: side_of_target(inside), outside: side_of_target(outside) }.row(
        place,
        owner,
        *kind as u8,
        *affinity_timeout,
        ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect()),
    )
}

/// The rows of what the kernel's maps hold, in order. A node port is one row, on however many addresses it is served. Entries
/// that the agent would not write are left out: it repairs them.
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Row> {
    let names: BTreeMap<_, _> = snapshot.names.iter().map(|(id, owner)| (*id, owner)).collect();
    let mut rows = BTreeMap::new();
    for (frontend, found) in &snapshot.frontends {
        let FollowedFrontend { number: _, service: Some(service), inside: Some(inside), outside: Some(outside) } = found else {
            continue;
        };
        let Some(Some(owner)) = names.get(&service.id) else { continue };
        let place = match service.kind {
            NODE_PORT => FrontendSpec::node_port(frontend.family(), frontend.port, frontend.protocol),
            _ => FrontendSpec::from(*frontend),
        };
        let sides = Sides { inside: side_of_choice(service.inside, inside), outside: side_of_choice(service.outside, outside) };
        let is_filtered = service.flags & portmap_common::SOURCE_RANGES != 0;
        let ranges = is_filtered.then(|| ranges_of(service.id, &snapshot.items));
        rows.insert(place, sides.row(&place, owner, service.kind, service.affinity_timeout, ranges));
    }
    rows.into_values().collect()
}

fn ranges_of(id: u64, items: &BTreeSet<Item>) -> Vec<String> {
    let ranges = items.iter().filter_map(|item| match item {
        Item::Range(of, range) if *of == id => Some(range.to_string()),
        Item::Range(..) | Item::Address(..) | Item::Endpoint(..) | Item::Member(_) => None,
    });
    ranges.collect()
}

type SideView = (&'static str, Vec<String>);

/// What clients inside and outside get.
struct Sides {
    inside: SideView,
    outside: SideView,
}

impl Sides {
    fn row(
        self,
        place: &FrontendSpec,
        owner: &ServicePort,
        kind: u8,
        affinity: u32,
        source_ranges: Option<Vec<String>>,
    ) -> Row {
        let Self { inside, outside } = self;
        let external_backends = (inside != outside).then_some(match outside {
            ("forward", backends) => External::Backends(backends),
            (action, _) => External::Action(action),
        });
        let (action, backends) = inside;
        Row {
            frontend: place.to_string(),
            family: place.address.is_none().then(|| Family::name(place.family)),
            service: owner.service.to_string(),
            port: owner.port.to_string(),
            kind: kind_name(kind),
            action,
            backends,
            affinity_seconds: Some(affinity).filter(|seconds| *seconds > 0),
            source_ranges,
            external_backends,
        }
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

const NODE_PORT: u8 = AddressKind::NodePort as u8;
const EXTERNAL_IP: u8 = AddressKind::ExternalIp as u8;
const LOAD_BALANCER: u8 = AddressKind::LoadBalancer as u8;

fn kind_name(kind: u8) -> &'static str {
    match kind {
        NODE_PORT => "NodePort",
        EXTERNAL_IP => "ExternalIP",
        LOAD_BALANCER => "LoadBalancer",
        _ => "ClusterIP",
    }
}
