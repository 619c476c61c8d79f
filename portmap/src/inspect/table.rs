//! The rows of `portmap resolve` and `portmap services`. Their JSON is a stable contract; `cli/output.rs` also prints them
//! as a table.

use std::{collections::BTreeMap, net::SocketAddr};

use portmap_common::{AddressKind, Choice, Verdict};
use serde::Serialize;

use crate::{
    maps::{FollowedFrontend, Item, Slot, Snapshot, encode},
    model::{Endpoint, Entry, Family, Frontend, FrontendSpec, ServicePort, Target},
    resolve::desired::Desired,
};

/// One frontend. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Address, port and protocol: `10.96.0.10:80/TCP`, `[fd00::1]:80/TCP`, or `*:30080/TCP` for a node port.
    pub frontend: String,
    /// The address family of a node port: `IPv4` or `IPv6`; none for other frontends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    /// The Service, as `namespace/name`.
    pub service: String,
    /// The name of the Service port; empty if it has none.
    pub port: String,
    /// The kind of address: `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: &'static str,
    /// The treatment of calls from this node: `forward`, `refuse` or `drop`. `leave` only for an entry that another program
    /// changed.
    pub action: &'static str,
    /// The backends for clients on this node, sorted as texts; empty unless `action` is `forward`.
    pub backends: Vec<String>,
    /// The timeout of session affinity in seconds; none without session affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// The source ranges of a load balancer's address; none for other kinds of addresses, and if all clients are admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
    /// The backends or the treatment for clients outside the node; none if equal to the treatment of clients on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_backends: Option<External>,
}

/// The treatment of clients outside the node. JSON: a list of backends, or the string of the action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum External {
    /// Forward to one of these backends.
    Backends(Vec<String>),
    /// Another action than `forward`, with the values of [`Row::action`].
    Action(&'static str),
}

impl Row {
    /// The treatment of clients outside the node.
    pub fn outside(&self) -> External {
        match &self.external_backends {
            Some(external) => external.clone(),
            None if self.action == "forward" => External::Backends(self.backends.clone()),
            None => External::Action(self.action),
        }
    }
}

/// The rows of the desired table, in the order of the frontends.
pub fn of_desired(desired: &Desired) -> Vec<Row> {
    desired.entries().map(|(spec, entry)| of_entry(&spec, &entry)).collect()
}

fn of_entry(spec: &FrontendSpec, entry: &Entry) -> Row {
    let Entry { owner, kind, inside, outside, affinity_timeout, serving: _, source_ranges } = entry;
    let ranges = source_ranges.as_ref().filter(|_| *kind == AddressKind::LoadBalancer);
    Treatments { inside: Treatment::of_target(inside), outside: Treatment::of_target(outside) }.row(
        spec,
        owner,
        *kind,
        *affinity_timeout,
        ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect()),
    )
}

/// The row of one frontend of the desired table. A node port has the address of the node.
pub fn of_frontend(frontend: &Frontend, entry: &Entry) -> Row {
    of_entry(&FrontendSpec::from(*frontend), entry)
}

/// The rows of the kernel's maps, in the order of the frontends. A node port is one row per address family, for all its
/// addresses. Frontends without a service entry, a name or valid backends are left out, because a running agent repairs them.
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<Row> {
    let reader = RowReader::new(snapshot);
    let mut rows = BTreeMap::new();
    for (frontend, found) in &snapshot.frontends {
        let is_node_port = found.service.is_some_and(|service| encode::kind_of(service.kind) == AddressKind::NodePort);
        let spec = if is_node_port {
            FrontendSpec::node_port(frontend.family(), frontend.port, frontend.protocol)
        } else {
            FrontendSpec::from(*frontend)
        };
        rows.extend(reader.row(&spec, found).map(|row| (spec, row)));
    }
    rows.into_values().collect()
}

/// Reads the rows of single frontends from the kernel's maps.
pub struct RowReader<'a> {
    names: BTreeMap<u64, &'a ServicePort>,
    ranges: BTreeMap<u64, Vec<String>>,
}

impl<'a> RowReader<'a> {
    /// Prepares the look-ups of names and source ranges.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut ranges = BTreeMap::<_, Vec<_>>::new();
        for item in &snapshot.items {
            match item {
                Item::Range(id, range) => ranges.entry(*id).or_default().push(range.to_string()),
                Item::Address(..) | Item::Endpoint(..) | Item::Member(_) => {}
            }
        }
        Self { names: snapshot.owners(), ranges }
    }

    /// The row of a frontend; `None` without a service entry, a name or valid backends.
    pub fn row(&self, spec: &FrontendSpec, found: &FollowedFrontend) -> Option<Row> {
        let FollowedFrontend { number: _, service: Some(service), inside: Some(inside), outside: Some(outside) } = found else {
            return None;
        };
        let treatments = Treatments {
            inside: Treatment::of_choice(service.inside, inside),
            outside: Treatment::of_choice(service.outside, outside),
        };
        let is_filtered = service.flags & portmap_common::SOURCE_RANGES != 0;
        let ranges = is_filtered.then(|| self.ranges.get(&service.id).cloned().unwrap_or_default());
        let owner = self.names.get(&service.id)?;
        Some(treatments.row(spec, owner, encode::kind_of(service.kind), service.affinity_timeout, ranges))
    }
}

/// The treatment of clients inside or outside of the node: the action (`forward`, `refuse`, `drop` or `leave`), and the
/// backends of `forward`.
#[derive(PartialEq, Eq)]
struct Treatment {
    action: &'static str,
    backends: Vec<String>,
}

/// The two treatments of a frontend: for clients inside and for clients outside of the node.
struct Treatments {
    inside: Treatment,
    outside: Treatment,
}

impl Treatments {
    fn row(
        self,
        spec: &FrontendSpec,
        owner: &ServicePort,
        kind: AddressKind,
        affinity: u32,
        source_ranges: Option<Vec<String>>,
    ) -> Row {
        let Self { inside, outside } = self;
        let external_backends = (inside != outside).then_some(match outside {
            Treatment { action: "forward", backends } => External::Backends(backends),
            Treatment { action, backends: _ } => External::Action(action),
        });
        let Treatment { action, backends } = inside;
        Row {
            frontend: spec.to_string(),
            family: spec.address.is_none().then(|| Family::name(spec.family)),
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

impl Treatment {
    fn of_target(target: &Target) -> Self {
        match target {
            Target::Backends(backends) => Self::forward(backends.iter()),
            Target::Verdict(verdict) => Self { action: action_name(*verdict), backends: Vec::new() },
        }
    }

    fn of_choice(choice: Choice, slots: &[Slot]) -> Self {
        match encode::verdict_of(choice) {
            Some(verdict) => Self { action: action_name(verdict), backends: Vec::new() },
            None => Self::forward(slots.iter().map(|slot| &slot.endpoint)),
        }
    }

    fn forward<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        Self { action: "forward", backends: backend_texts(endpoints) }
    }
}

/// The backends as texts, in the order of the texts, as kube-proxy sorts them.
fn backend_texts<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<String> {
    let mut texts: Vec<String> =
        endpoints.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port).to_string()).collect();
    texts.sort();
    texts
}

/// The name of a verdict, as in [`Row::action`].
pub fn action_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Refuse => "refuse",
        Verdict::Drop => "drop",
        Verdict::Leave => "leave",
    }
}

fn kind_name(kind: AddressKind) -> &'static str {
    match kind {
        AddressKind::ClusterIp => "ClusterIP",
        AddressKind::NodePort => "NodePort",
        AddressKind::ExternalIp => "ExternalIP",
        AddressKind::LoadBalancer => "LoadBalancer",
    }
}
