//! From EndpointSlices to the endpoints of one service port that clients are spread over.

use arcstr::ArcStr;

use super::NodeContext;
use crate::{
    collections::HashMap,
    model::{
        Endpoint, Family, Protocol, ServicePort,
        object::{Hints, Slice, SliceEndpoint, SlicePort},
    },
};

/// With more ports, those of the slices are indexed: a Service and a slice may have ten thousand each.
const FEW: usize = 8;

/// Which sets a service port uses.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// Endpoints anywhere.
    pub cluster: bool,
    /// Those on this node.
    pub local: bool,
    /// Those that answer the clients that they have.
    pub serving: bool,
}

/// The slices of a Service.
pub struct Slices<'a> {
    all: &'a [Slice],
    index: &'a Index,
}

/// The slices that have a port, by their place among all, and the port's number there; none where there is little to look through.
pub struct Index(Option<HashMap<PortName, Vec<(usize, u16)>>>);

/// A port as slices and Services name it.
type PortName = (ArcStr, Protocol);

/// The endpoints of a service port. Each set is sorted, with each address and port once.
#[derive(Debug, Default)]
pub struct Sets {
    /// For clients that may go anywhere; empty if not used.
    pub cluster: Vec<Endpoint>,
    /// For clients that a policy keeps on this node; empty if not used.
    pub local: Vec<Endpoint>,
    /// All that answer, whether or not they are to get new clients; empty if not used.
    pub serving: Vec<Endpoint>,
    /// Whether any endpoint could be used, on whatever node.
    pub has_any: bool,
}

/// An endpoint of the port, and the slice entry that speaks for it.
struct Candidate<'a> {
    endpoint: Endpoint,
    entry: &'a SliceEndpoint,
}

/// Which endpoints the controller's hints mean for this node.
#[derive(Clone, Copy)]
enum Topology<'a> {
    /// Those with this node among their hints.
    Node(&'a str),
    /// Those with this zone among their hints.
    Zone(&'a str),
    /// All.
    None,
}

/// The sets of a service port: ready endpoints, as the topology has it; where none is ready, those that still answer while
/// they terminate. The two sets fall back each for itself, and topology never keeps clients from the endpoints of their node.
pub fn of_port(slices: &Slices<'_>, port: &ServicePort, family: Family, node: &NodeContext, uses: Uses) -> Sets {
    let candidates = join(slices, port, family);
    let is_last_resort = |candidate: &Candidate<'_>| candidate.entry.serving && candidate.entry.terminating;
    let mut sets = Sets {
        has_any: candidates.iter().any(|candidate| candidate.entry.ready || is_last_resort(candidate)),
        ..Sets::default()
    };
    if uses.serving {
        sets.serving = select(&candidates, |candidate| candidate.entry.serving);
    }
    if uses.cluster {
        let topology = topology(&candidates, node);
        sets.cluster = select(&candidates, |candidate| candidate.entry.ready && topology.allows(candidate));
        if sets.cluster.is_empty() {
            sets.cluster = select(&candidates, is_last_resort);
        }
    }
    if uses.local {
        sets.local = select(&candidates, |candidate| candidate.entry.ready && candidate.endpoint.local);
        if sets.local.is_empty() {
            sets.local = select(&candidates, |candidate| is_last_resort(candidate) && candidate.endpoint.local);
        }
    }
    sets
}

fn select(candidates: &[Candidate<'_>], is_wanted: impl Fn(&Candidate<'_>) -> bool) -> Vec<Endpoint> {
    candidates.iter().filter(|candidate| is_wanted(candidate)).map(|candidate| candidate.endpoint).collect()
}

/// Hints count only if every ready endpoint has them and one of them means this node.
fn topology<'a>(candidates: &[Candidate<'_>], node: &'a NodeContext) -> Topology<'a> {
    if candidates.iter().all(|candidate| candidate.entry.hints.is_none()) {
        return Topology::None;
    }
    let possible = [Topology::Node(&node.name), Topology::Zone(node.zone.as_deref().unwrap_or_default())];
    let ready = || candidates.iter().filter(|candidate| candidate.entry.ready);
    let counts = |topology: &Topology<'_>| {
        topology.is_known()
            && ready().all(|candidate| topology.is_hinted(candidate))
            && ready().any(|candidate| topology.allows(candidate))
    };
    possible.into_iter().find(counts).unwrap_or(Topology::None)
}

impl Topology<'_> {
    /// Whether it is known which node, or which zone, this is.
    fn is_known(self) -> bool {
        match self {
            Self::Node(name) | Self::Zone(name) => !name.is_empty(),
            Self::None => true,
        }
    }

    /// Whether the endpoint has hints of this kind.
    fn is_hinted(self, candidate: &Candidate<'_>) -> bool {
        self.hints(candidate).is_some_and(|hints| !hints.is_empty())
    }

    /// Whether the endpoint is for clients of this node.
    fn allows(self, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::Node(name) | Self::Zone(name) => {
                self.hints(candidate).is_some_and(|hints| hints.iter().any(|hint| **hint == *name))
            }
            Self::None => true,
        }
    }

    fn hints<'a>(self, candidate: &Candidate<'a>) -> Option<&'a [Box<str>]> {
        let Hints { zones, nodes } = candidate.entry.hints.as_deref()?;
        match self {
            Self::Node(_) => Some(nodes),
            Self::Zone(_) => Some(zones),
            Self::None => None,
        }
    }
}

/// Joins slices to the service port by (port name, protocol): the targetPort is already resolved in them, per slice.
///
/// Of entries with one address and port the first counts, unless a later one is not terminating: so an endpoint may move
/// between slices, and a pod may take over the address of one that terminates.
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
    /// Those of a Service, with their index.
    pub fn new(all: &'a [Slice], index: &'a Index) -> Self {
        Self { all, index }
    }

    /// Calls back for each slice that has the port, with the port's number there.
    fn for_each_with(&self, port: &ServicePort, mut found: impl FnMut(&'a Slice, u16)) {
        if let Some(index) = &self.index.0 {
            let places = index.get(&(port.port.clone(), port.protocol)).into_iter().flatten();
            return places.filter_map(|(slice, number)| Some((self.all.get(*slice)?, *number))).for_each(|(slice, number)| {
                found(slice, number);
            });
        }
        for slice in self.all {
            let is_it = |it: &&SlicePort| it.protocol == port.protocol && it.name == port.port;
            slice.ports.iter().filter(is_it).for_each(|slice_port| found(slice, slice_port.port));
        }
    }
}

impl Index {
    /// Of these slices, for a Service with this many ports.
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
