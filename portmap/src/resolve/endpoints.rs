//! Selects the endpoints of one Service port from the EndpointSlices: ready, local and serving endpoints. Applies topology
//! hints.

mod set_rule;

use arcstr::ArcStr;

use super::NodeContext;
use crate::{
    collections::HashMap,
    model::{
        Endpoint, Family, Protocol, ServicePort,
        object::{Hints, Slice, SliceEndpoint, SlicePort},
    },
};
use set_rule::SetRule;
pub use set_rule::{Hinted, Reason};

/// With more Service ports than this, the ports of the slices are indexed. A Service and a slice may have ten thousand ports
/// each.
const FEW: usize = 8;

/// The endpoint sets that a Service port needs.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// Whether it needs endpoints on all nodes.
    pub cluster: bool,
    /// Whether it needs endpoints on this node.
    pub local: bool,
    /// Whether it needs all endpoints with `conditions.serving`, for clients that already use them.
    pub serving: bool,
}

/// The EndpointSlices of a Service, with their index.
pub struct Slices<'a> {
    all: &'a [Slice],
    index: &'a Index,
}

/// For each port name and protocol the slices that have the port, as (position among all slices, port number). `None` for a
/// Service with few ports.
pub struct Index(Option<HashMap<PortName, Vec<(usize, u16)>>>);

/// A slice port belongs to the Service port of the same name and protocol.
type PortName = (ArcStr, Protocol);

/// The endpoints of a Service port. Each set is sorted and has each address and port once.
#[derive(Debug, Default)]
pub struct Sets {
    /// Endpoints for traffic with the policy `Cluster`; empty if [`Uses::cluster`] is false.
    pub cluster: Vec<Endpoint>,
    /// Endpoints for traffic with the policy `Local`; empty if [`Uses::local`] is false.
    pub local: Vec<Endpoint>,
    /// All serving endpoints, including those without new clients; empty if [`Uses::serving`] is false.
    pub serving: Vec<Endpoint>,
    /// Whether any node has an endpoint that is ready, or that still serves while it terminates.
    pub has_any: bool,
}

/// An endpoint of a Service port, and the reasons for which the sets have it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its topology hints.
    pub hints: Hints,
    /// The reason in the cluster set.
    pub cluster: Reason,
    /// The reason in the local set.
    pub local: Reason,
}

/// An endpoint of the Service port, and its slice entry with conditions and hints. It is not yet selected for any set.
struct Candidate<'a> {
    endpoint: Endpoint,
    entry: &'a SliceEndpoint,
}

/// The endpoint sets of a Service port, by the rules of kube-proxy.
///
/// The cluster set and the local set have the ready endpoints. If no endpoint of a set is ready, the set has the endpoints that
/// terminate and still serve. Topology hints restrict only the ready endpoints of the cluster set.
pub fn of_port(slices: &Slices<'_>, port: &ServicePort, family: Family, node: &NodeContext, uses: Uses) -> Sets {
    let candidates = join(slices, port, family);
    let select = |set: SetRule<'_>| -> Vec<Endpoint> {
        candidates.iter().filter(|candidate| set.reason(candidate).is_taken()).map(|candidate| candidate.endpoint).collect()
    };
    let mut sets = Sets { has_any: candidates.iter().any(Candidate::is_usable), ..Sets::default() };
    if uses.serving {
        let serving = candidates.iter().filter(|candidate| candidate.entry.serving);
        sets.serving = serving.map(|candidate| candidate.endpoint).collect();
    }
    if uses.cluster {
        sets.cluster = select(SetRule::cluster(&candidates, node));
    }
    if uses.local {
        sets.local = select(SetRule::local(&candidates));
    }
    sets
}

/// The endpoints of a Service port, each with the reasons for which the sets have it or not. The same rules as for
/// [`of_port`], for `portmap explain`.
pub fn considered(slices: &Slices<'_>, port: &ServicePort, family: Family, node: &NodeContext) -> (Hinted, Vec<Considered>) {
    let candidates = join(slices, port, family);
    let (cluster, local) = (SetRule::cluster(&candidates, node), SetRule::local(&candidates));
    let considered = candidates.iter().map(|candidate| Considered {
        endpoint: candidate.endpoint,
        hints: candidate.entry.hints.as_deref().cloned().unwrap_or_default(),
        cluster: cluster.reason(candidate),
        local: local.reason(candidate),
    });
    (cluster.hinted(), considered.collect())
}

/// The endpoints of all slices of the family that have the Service port's name and protocol. Each slice has its own number of
/// the targetPort.
///
/// Of several entries with the same address and port, the last that does not terminate is used, or the first if all terminate.
/// So an endpoint may move between slices, and a new pod may have the address of a terminating pod.
fn join<'a>(slices: &Slices<'a>, port: &ServicePort, family: Family) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate<'a>> = Vec::new();
    slices.for_each_with(port, |slice, number| {
        if slice.family == Some(family) {
            candidates.extend(slice.endpoints.iter().map(|entry| {
                let SliceEndpoint { address, local, .. } = *entry;
                Candidate { endpoint: Endpoint { address, port: number, local }, entry }
            }));
        }
    });
    let key = |candidate: &Candidate<'_>| (candidate.endpoint.address, candidate.endpoint.port);
    if !candidates.is_sorted_by(|one, next| key(one) < key(next)) {
        candidates.sort_by_key(key);
    }
    candidates.dedup_by(|later, kept| {
        let is_same = key(later) == key(kept);
        if is_same && !later.entry.terminating {
            std::mem::swap(later, kept);
        }
        is_same
    });
    candidates
}

impl<'a> Slices<'a> {
    /// The slices of a Service. `index` must be the index of the same slices.
    pub fn new(all: &'a [Slice], index: &'a Index) -> Self {
        Self { all, index }
    }

    /// Calls `found` for each slice that has the port, with the number of the port in that slice.
    fn for_each_with(&self, port: &ServicePort, mut found: impl FnMut(&'a Slice, u16)) {
        if let Some(index) = &self.index.0 {
            let positions = index.get(&(port.port.clone(), port.protocol)).into_iter().flatten();
            return positions.filter_map(|(slice, number)| Some((self.all.get(*slice)?, *number))).for_each(
                |(slice, number)| {
                    found(slice, number);
                },
            );
        }
        for slice in self.all {
            let is_port = |it: &&SlicePort| it.protocol == port.protocol && it.name == port.port;
            slice.ports.iter().filter(is_port).for_each(|slice_port| found(slice, slice_port.port));
        }
    }
}

impl Index {
    /// Indexes the slices of a Service with `ports` ports. Makes no index if the ports are few.
    pub fn of(slices: &[Slice], ports: usize) -> Self {
        if ports <= FEW {
            return Self(None);
        }
        let mut index: HashMap<_, Vec<(usize, u16)>> = HashMap::default();
        for (number, slice) in slices.iter().enumerate() {
            for port in &slice.ports {
                index.entry((port.name.clone(), port.protocol)).or_default().push((number, port.port));
            }
        }
        Self(Some(index))
    }
}
