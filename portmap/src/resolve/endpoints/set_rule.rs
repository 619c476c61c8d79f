//! The rule of one endpoint set: whether an endpoint is in the set, with the reason.

use super::Candidate;
use crate::{model::object::Hints, resolve::NodeContext};

/// The reason for which an endpoint is in a set, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// In the set: the endpoint is ready, and the hints or the policy select it.
    Ready,
    /// In the set: the endpoint terminates and still serves, and no endpoint of the set is ready.
    LastResort,
    /// Not in the set: not ready, and not terminating.
    NotReady,
    /// Not in the set: the endpoint terminates, and serves no more.
    NotServing,
    /// Not in the set: the endpoint terminates and still serves, but others are ready.
    Terminating,
    /// Not in the local set: the endpoint is not on this node.
    OtherNode,
    /// Not in the cluster set: the hints that apply select other endpoints.
    HintedElsewhere,
}

impl Reason {
    /// Whether the endpoint is in the set.
    pub fn is_taken(self) -> bool {
        match self {
            Self::Ready | Self::LastResort => true,
            Self::NotReady | Self::NotServing | Self::Terminating | Self::OtherNode | Self::HintedElsewhere => false,
        }
    }
}

/// The hints that select the endpoints of the cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hinted {
    /// The hints for this node.
    Node(String),
    /// The hints for this zone.
    Zone(String),
    /// None.
    No,
}

/// The rule of the cluster set or the local set of a Service port. If no endpoint of a set is ready, the set has the endpoints
/// that terminate and still serve. Topology hints restrict only the ready endpoints of the cluster set.
pub struct SetRule<'a> {
    place: Place<'a>,
    /// Whether no endpoint of the set is ready.
    is_last_resort: bool,
}

/// The endpoints that a set may have, by their place.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Endpoints on all nodes.
    Cluster(Topology<'a>),
    /// Endpoints on this node.
    Local,
}

/// The kind of topology hints that are applied for a Service port on this node, with the name of the node or zone.
#[derive(Clone, Copy)]
enum Topology<'a> {
    /// Endpoints with this node in `hints.forNodes`.
    Node(&'a str),
    /// Endpoints with this zone in `hints.forZones`.
    Zone(&'a str),
    /// All endpoints; hints are ignored.
    None,
}

impl<'a> SetRule<'a> {
    /// The rule of the cluster set.
    pub fn cluster(candidates: &[Candidate<'_>], node: &'a NodeContext) -> Self {
        Self::new(candidates, Place::Cluster(topology(candidates, node)))
    }

    /// The rule of the local set.
    pub fn local(candidates: &[Candidate<'_>]) -> Self {
        Self::new(candidates, Place::Local)
    }

    fn new(candidates: &[Candidate<'_>], place: Place<'a>) -> Self {
        let is_last_resort = !candidates.iter().any(|candidate| candidate.entry.ready && place.excludes(candidate).is_none());
        Self { place, is_last_resort }
    }

    /// The reason for which the set has the endpoint, or has it not.
    pub fn reason(&self, candidate: &Candidate<'_>) -> Reason {
        let entry = candidate.entry;
        match self.place.excludes(candidate) {
            _ if !candidate.is_usable() => {
                if entry.terminating {
                    Reason::NotServing
                } else {
                    Reason::NotReady
                }
            }
            Some(reason) if entry.ready => reason,
            None if entry.ready => Reason::Ready,
            Some(Reason::OtherNode) => Reason::OtherNode,
            Some(_) | None if self.is_last_resort => Reason::LastResort,
            Some(_) | None => Reason::Terminating,
        }
    }

    /// The hints that apply.
    pub fn hinted(&self) -> Hinted {
        match self.place {
            Place::Cluster(Topology::Node(name)) => Hinted::Node(name.to_owned()),
            Place::Cluster(Topology::Zone(name)) => Hinted::Zone(name.to_owned()),
            Place::Cluster(Topology::None) | Place::Local => Hinted::No,
        }
    }
}

impl Place<'_> {
    /// The reason for which the set does not have this endpoint if it is ready; `None` if the set has it.
    fn excludes(self, candidate: &Candidate<'_>) -> Option<Reason> {
        match self {
            Self::Cluster(topology) => (!topology.allows(candidate)).then_some(Reason::HintedElsewhere),
            Self::Local => (!candidate.endpoint.local).then_some(Reason::OtherNode),
        }
    }
}

impl Candidate<'_> {
    /// Whether the endpoint is ready, or still serves while it terminates.
    pub fn is_usable(&self) -> bool {
        self.entry.ready || (self.entry.serving && self.entry.terminating)
    }
}

/// The hints to apply for a port: those for nodes or else those for zones. Hints of a kind are applied only if every ready
/// endpoint has them, and at least one names this node or zone.
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
    /// Whether the name of this node or zone is known. True if hints are ignored.
    fn is_known(self) -> bool {
        match self {
            Self::Node(name) | Self::Zone(name) => !name.is_empty(),
            Self::None => true,
        }
    }

    /// Whether the endpoint has hints of this kind (node or zone).
    fn is_hinted(self, candidate: &Candidate<'_>) -> bool {
        self.hints(candidate).is_some_and(|hints| !hints.is_empty())
    }

    /// Whether the endpoint has a hint for this node or zone. True for every endpoint if hints are ignored.
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
