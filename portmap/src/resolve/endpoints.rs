//! From EndpointSlices to the endpoints of one service port that clients are spread over.

use super::Node;
use crate::{
    object::{Hints, Slice, SliceEndpoint, SlicePort},
    table::{Endpoint, Family, ServicePort},
};

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
pub fn of_port<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    node: &Node,
    uses: Uses,
) -> Sets {
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
fn topology<'a>(candidates: &[Candidate<'_>], node: &'a Node) -> Topology<'a> {
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
fn join<'a>(slices: impl Iterator<Item = &'a Slice>, port: &ServicePort, family: Family) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate<'a>> = Vec::new();
    for slice in slices.filter(|slice| slice.family == Some(family)) {
        for slice_port in slice.ports.iter().filter(|slice_port| matches(slice_port, port)) {
            candidates.extend(slice.endpoints.iter().map(|entry| {
                let SliceEndpoint { address, local, .. } = *entry;
                Candidate { endpoint: Endpoint { address, port: slice_port.port, local }, entry }
            }));
        }
    }
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

fn matches(slice_port: &SlicePort, port: &ServicePort) -> bool {
    slice_port.protocol == port.protocol && slice_port.name == port.port
}
