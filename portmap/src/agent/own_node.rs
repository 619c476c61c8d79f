//! The Node object of this node: whether it exists, and whether it names an address that can serve node ports.
//!
//! Without such an address, node ports keep their addresses for some time, and are then served on all addresses of the host.
//! With manifests that never had a Node object, they are served there at once.

use std::time::Duration;

use crate::{
    model::event::ObjectKind,
    resolve::{changes::Changes, desired::Desired},
    source::Watches,
};

/// The longest wait for an address in the Node object, after the start and after the loss of the last address.
const PATIENCE: Duration = Duration::from_secs(30);

/// The Node object of this node, as it was logged last, and the wait for an address in it.
pub struct OwnNode {
    /// Whether the source should have a Node object: true for a cluster.
    is_expected: bool,
    /// Whether the Node object existed at the last log line; none before Nodes were listed.
    exists: Option<bool>,
    /// Whether the Node object ever existed. After that, node ports wait for its return as for an expected Node object.
    has_existed: bool,
    /// Since when no address of the Node object can serve node ports, as a time since the agent's start; zero at first. None
    /// while node ports wait for no address.
    lacking_since: Option<Duration>,
    /// Whether the current wait for an address was logged.
    is_waiting: bool,
}

impl OwnNode {
    /// Starts without a Node object. `is_expected`: whether the source should have one, as a cluster has.
    pub fn new(is_expected: bool) -> Self {
        Self { is_expected, exists: None, has_existed: false, lacking_since: Some(Duration::ZERO), is_waiting: false }
    }

    /// Logs when an expected Node object appears or disappears, and once if it is missing at the start.
    pub fn report(&mut self, desired: &Desired) {
        let store = desired.store();
        let exists = store.has_listed(ObjectKind::Node).then(|| store.node().is_some());
        if !self.is_expected || self.exists == exists {
            return;
        }
        self.exists = exists;
        let name = desired.node_name();
        match exists {
            Some(true) => tracing::info!("this is Node {name}"),
            Some(false) => {
                tracing::warn!("there is no Node {name}: no endpoint counts as local; set this node's name with --node-name");
            }
            None => {}
        }
    }

    /// Whether Nodes were listed without this node's, although a Service has a traffic policy `Local`. Always false for
    /// manifests without any Node.
    pub fn is_missing(&self, desired: &Desired, watches: &Watches) -> bool {
        let store = desired.store();
        let is_absent = store.has_listed(ObjectKind::Node) && store.node().is_none();
        is_absent && (self.is_expected || watches.has_nodes_of_others()) && desired.keeps_local()
    }

    /// Serves node ports on all addresses of the host if the Node object names none of them. It waits for an expected or
    /// former Node object for [`PATIENCE`]: until then node ports keep their last addresses. Returns the changed node ports.
    pub fn place_node_ports(&mut self, desired: &mut Desired, since_start: Duration) -> Changes {
        self.has_existed |= desired.store().node().is_some();
        if !desired.lacks_address() {
            (self.lacking_since, self.is_waiting) = (None, false);
            return Changes::default();
        }
        let name = desired.node_name();
        let lacking_since = *self.lacking_since.get_or_insert(since_start);
        let is_expected = self.is_expected || self.has_existed;
        if is_expected && since_start.saturating_sub(lacking_since) < PATIENCE {
            if !std::mem::replace(&mut self.is_waiting, true) {
                tracing::warn!(
                    "the Node {name} names no address of this host: node ports keep their addresses, and wait for up to {} s",
                    PATIENCE.as_secs()
                );
            }
            return Changes::default();
        }
        let consequence = "node ports are served on all addresses of this host";
        if is_expected {
            tracing::warn!("the Node {name} names no address of this host: {consequence}");
        } else {
            tracing::info!("no Node object names an address of this host: {consequence}");
        }
        desired.give_up_waiting()
    }

    /// Whether load balancers may send new connections to this node: not while it is being removed, or an expected Node
    /// object is missing.
    pub fn is_eligible(&self, desired: &Desired) -> bool {
        match desired.store().node() {
            Some(node) => !node.is_leaving,
            None => !self.is_expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        model::{
            Frontend,
            event::{Event, Object},
        },
        resolve::node_ports::Eligible,
    };

    const OWN: &str = "192.168.0.1";
    const OTHER: &str = "192.168.0.2";

    fn node(addresses: &[&str]) -> Event {
        let addresses: Vec<_> = addresses.iter().map(|text| json!({"type": "InternalIP", "address": text})).collect();
        let node = json!({"metadata": {"name": "node"}, "status": {"addresses": addresses}});
        Event::Listed(ObjectKind::Node, vec![Object::node(serde_json::from_value(node).expect("a Node"))])
    }

    fn desired() -> Desired {
        let mut desired = Desired::new("node".into(), vec![Eligible::Primary], Vec::new());
        desired.set_local([OWN, OTHER].map(|text| format!("{text}/24").parse().expect("an address")).into());
        let service = json!({
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080}]},
        });
        desired.apply(Event::Changed(Object::service(serde_json::from_value(service).expect("a Service"))));
        desired
    }

    /// The addresses that serve the node port after an event, at a time since the start.
    fn served(own_node: &mut OwnNode, desired: &mut Desired, event: Option<Event>, seconds: u64) -> Vec<&'static str> {
        if let Some(event) = event {
            desired.apply(event);
        }
        own_node.place_node_ports(desired, Duration::from_secs(seconds));
        desired.resolve();
        let is_served = |text: &&str| {
            let address = text.parse().expect("an address");
            let frontend = Frontend { address, port: 30_080, protocol: crate::model::Protocol::Tcp };
            desired.table().winner(&frontend).is_some()
        };
        [OWN, OTHER].into_iter().filter(is_served).collect()
    }

    #[test]
    fn addresses_are_waited_for_whenever_there_are_none() {
        let (mut own_node, mut desired) = (OwnNode::new(true), desired());
        let mut at = |event, seconds| served(&mut own_node, &mut desired, event, seconds);
        assert!(at(Some(node(&[])), 1).is_empty());
        assert!(at(None, 29).is_empty());
        assert_eq!(at(None, 30), [OWN, OTHER], "patience ends");
        assert_eq!(at(Some(node(&[OWN])), 40), [OWN]);
        assert_eq!(at(Some(node(&[])), 100), [OWN], "long after the start");
        assert_eq!(at(None, 129), [OWN]);
        assert_eq!(at(None, 130), [OWN, OTHER]);
        assert_eq!(at(Some(node(&[OTHER])), 131), [OTHER]);
        assert_eq!(at(Some(Event::Listed(ObjectKind::Node, Vec::new())), 140), [OTHER], "the object itself is gone");
    }

    /// A Node object may have no address yet when the agent starts again.
    #[test]
    fn node_ports_of_an_earlier_agent_stay_until_addresses_are_known() {
        let (mut own_node, mut desired) = (OwnNode::new(true), desired());
        desired.keep_node_addresses([OTHER.parse().expect("an address")].into());
        let mut at = |event, seconds| served(&mut own_node, &mut desired, event, seconds);
        assert_eq!(at(Some(node(&[])), 1), [OTHER]);
        assert_eq!(at(None, 29), [OTHER]);
        assert_eq!(at(Some(node(&[OWN])), 29), [OWN]);
    }

    #[test]
    fn without_a_cluster_nothing_is_waited_for_that_was_not_there() {
        let (mut own_node, mut desired) = (OwnNode::new(false), desired());
        let mut at = |event, seconds| served(&mut own_node, &mut desired, event, seconds);
        assert_eq!(at(None, 0), [OWN, OTHER]);
        assert_eq!(at(Some(node(&[OWN])), 1), [OWN]);
        assert_eq!(at(Some(Event::Listed(ObjectKind::Node, Vec::new())), 2), [OWN]);
        assert_eq!(at(None, 32), [OWN, OTHER]);
    }
}
