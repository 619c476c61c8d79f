//! The desired state: the objects and the node's addresses, and their changes since the last write.
//!
//! `source` sends the events; [`super::installed`] writes the changes.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Options, Source, own_node::OwnNode};
use crate::{
    kernel::{addresses, notifications::Notifications},
    model::{PerFamily, event::Event},
    resolve::{changes::Changes, claims::Owners, desired::Desired},
    source::Watches,
};

/// The longest wait, from the agent's start, for lists of other kinds than Services and EndpointSlices. A cluster may lack
/// such kinds, for example ServiceCIDRs, or refuse to list them.
const LISTING: Duration = Duration::from_secs(5);

/// The desired table, and the changes that are not written yet.
pub struct DesiredState {
    /// The desired table.
    pub table: Desired,
    own_node: OwnNode,
    started: Instant,
    address_changes: Notifications,
    /// Whether the addresses of the interfaces have to be listed again.
    is_address_due: bool,
    changes: Changes,
}

impl DesiredState {
    /// Starts without objects, and lists the node's addresses.
    pub fn start(options: &Options) -> Result<Self> {
        // Before the list, so that no change is missed between the two.
        let address_changes = addresses::changes()?;
        let node = options.wanted.node.clone();
        let mut table = Desired::new(node, options.node_port_addresses.clone(), options.service_cidrs.clone())
            .allowing(options.wanted.external_ips.clone());
        table.note_triggers();
        let changes = table.set_local(addresses::networks()?);
        Ok(Self {
            table,
            own_node: OwnNode::new(matches!(options.source, Source::Kube(_))),
            started: Instant::now(),
            address_changes,
            is_address_due: false,
            changes,
        })
    }

    /// Keeps node ports on the addresses on which an earlier agent served them, until the Node object's addresses are known.
    pub fn keep_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        let kept = self.table.keep_node_addresses(addresses);
        self.changes.extend(kept);
    }

    /// Stores the objects of an event. The next [`Self::take_changes`] resolves the Services that they affect.
    pub fn take(&mut self, event: Event) {
        self.table.apply(event);
    }

    /// Returns when the addresses of the node may have changed. The next [`Self::list_addresses`] lists them.
    pub async fn address_change(&mut self) -> Result<()> {
        let result = self.address_changes.next().await;
        self.is_address_due |= result.is_ok();
        result
    }

    /// Lists the node's addresses, if they may have changed.
    pub fn list_addresses(&mut self) -> Result<()> {
        if self.is_address_due {
            let changes = self.table.set_local(addresses::networks()?);
            self.is_address_due = false;
            self.changes.extend(changes);
        }
        Ok(())
    }

    /// The Node's address of each family; none without a Node object, or if it has none.
    pub fn node_addresses(&self) -> PerFamily<Option<IpAddr>> {
        self.table.store().node().map(|node| node.addresses).unwrap_or_default()
    }

    /// Whether enough objects are known to write tables: all kinds were listed, or after [`LISTING`] at least Services and
    /// EndpointSlices.
    pub fn is_known(&self) -> bool {
        self.table.is_complete() || (self.table.is_synced() && self.started.elapsed() >= LISTING)
    }

    /// Whether changes wait to be written. Events count only after [`Self::take_changes`] has resolved them.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Resolves the Services that events affected, and returns all changes of the table since the last call. `owners` states
    /// whether the Services of other proxies are known.
    pub fn take_changes(&mut self, owners: Owners) -> Changes {
        self.changes.extend(self.own_node.place_node_ports(&mut self.table, self.started.elapsed()));
        self.changes.extend(self.table.resolve());
        self.own_node.report(&self.table);
        self.table.set_owners(owners);
        std::mem::take(&mut self.changes)
    }

    /// Whether this node has no Node object, although a Service has a traffic policy `Local`. See [`OwnNode::is_missing`].
    pub fn lacks_node(&self, watches: &Watches) -> bool {
        self.own_node.is_missing(&self.table, watches)
    }

    /// Whether load balancers may send new connections to this node: false while it is being removed, or has no expected
    /// Node object.
    pub fn is_eligible(&self) -> bool {
        self.own_node.is_eligible(&self.table)
    }
}
