//! The own Node object: whether there is one, and whether it names an address for node ports.

use std::time::Duration;

use crate::{
    desired::Desired,
    source::{Kind, Watches},
    table::Changes,
};

/// The addresses of the Node object are waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was said of it.
pub struct OwnNode {
    /// Whether there should be one.
    is_expected: bool,
    /// Whether there is one.
    exists: Option<bool>,
    /// That it names no address yet.
    is_waiting: bool,
}

impl OwnNode {
    /// One that should be there, or may be.
    pub fn new(is_expected: bool) -> Self {
        Self { is_expected, exists: None, is_waiting: false }
    }

    /// Says once whether there is one, where one is to be expected.
    pub fn report(&mut self, desired: &Desired) {
        let store = desired.store();
        let exists = store.has_listed(Kind::Node).then(|| store.node().is_some());
        if !self.is_expected || self.exists == exists {
            return;
        }
        self.exists = exists;
        let name = desired.node_name();
        match exists {
            Some(true) => tracing::info!("this is Node {name}"),
            Some(false) => {
                tracing::warn!("there is no Node {name}: no endpoint counts as local; give this node's name with --node-name");
            }
            None => {}
        }
    }

    /// Whether there is none of this name, although a Service keeps traffic on the node.
    pub fn is_missed(&self, desired: &Desired, watches: &Watches) -> bool {
        let store = desired.store();
        let is_missing = store.has_listed(Kind::Node) && store.node().is_none();
        is_missing && (self.is_expected || watches.has_nodes_of_others()) && desired.keeps_local()
    }

    /// Has node ports served on all addresses where none is named, after some time if one is to be expected.
    pub fn place_node_ports(&mut self, desired: &mut Desired, since_start: Duration) -> Changes {
        if !desired.lacks_address() {
            return Changes::default();
        }
        let name = desired.node_name();
        let is_expected = self.is_expected || desired.store().node().is_some();
        if is_expected && since_start < PATIENCE {
            if !std::mem::replace(&mut self.is_waiting, true) {
                tracing::warn!("the Node {name} names no address of this node yet: node ports wait for one");
            }
            return Changes::default();
        }
        let consequence = "node ports are served on all addresses that this host has";
        if is_expected {
            tracing::warn!("the Node {name} names no address of this node: {consequence}");
        } else {
            tracing::info!("no address of this node is given: {consequence}");
        }
        desired.give_up_waiting()
    }

    /// Whether load balancers may send new connections to this node.
    pub fn is_eligible(&self, desired: &Desired) -> bool {
        match desired.store().node() {
            Some(node) => !node.is_leaving,
            None => !self.is_expected,
        }
    }
}
