//! Reads the flows that are alive, for people.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use aya::Pod;
use portmap_common::{ASSURED, CLIENT_FIN, EndpointEntry, FlowEntry, FlowKey, SERVER_FIN, TCP};

use super::{FamilyFlows, FlowMaps, entries::Located};
use crate::{
    maps::encode::{self, IpBytes},
    model::Frontend,
};

/// A flow of a client outside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The frontend that the client sends to.
    pub frontend: Frontend,
    /// The backend; `None` if the flow is refused.
    pub backend: Option<SocketAddr>,
    /// The address and port of this node that the backend sees as the client; `None` if it sees the client's address.
    pub hidden_behind: Option<SocketAddr>,
    /// The id of the service port, a key of NAMES.
    pub id: u64,
    /// The phase of the flow.
    pub phase: Phase,
    /// The time since the first packet, to about a second.
    pub age: Duration,
    /// The time since the last packet, to about five seconds.
    pub idle: Duration,
}

/// The phase of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP: the client has not confirmed the backend's answer.
    HalfOpen,
    /// TCP: both sides send.
    Established,
    /// TCP: one side has sent a FIN.
    Closing,
    /// TCP: both sides have sent a FIN, or one side a RST.
    Closed,
    /// UDP.
    Datagrams,
}

impl Phase {
    fn of<A: IpBytes>(key: &FlowKey<A>, entry: &FlowEntry<A>) -> Self {
        if key.protocol != TCP {
            Self::Datagrams
        } else if entry.is_closed() {
            Self::Closed
        } else if entry.state & (CLIENT_FIN | SERVER_FIN) != 0 {
            Self::Closing
        } else if entry.state & ASSURED != 0 {
            Self::Established
        } else {
            Self::HalfOpen
        }
    }
}

impl FlowMaps {
    /// Reads the flows that are alive at `now`, a [`portmap_common::clock`], in no order. A flow that is opened, or deleted,
    /// during the call may be missing.
    pub fn list(&self, now: u32) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        self.v4.list(now, &mut flows)?;
        self.v6.list(now, &mut flows)?;
        Ok(flows)
    }
}

impl<A: IpBytes> FamilyFlows<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    fn list(&self, now: u32, flows: &mut Vec<Flow>) -> Result<()> {
        self.for_each(|found| {
            if !self.is_superseded(&found, now)? {
                flows.extend(flow_of(&found, now, |key| self.get(key))?);
            }
            Ok(())
        })
    }
}

/// The flow with this first entry; `None` for other entries, and if the flow has expired. `get` finds an entry by its key.
fn flow_of<A: IpBytes>(
    first: &Located<A>,
    now: u32,
    get: impl Fn(&FlowKey<A>) -> Result<Option<Located<A>>>,
) -> Result<Option<Flow>> {
    let Located { table: _, key, entry } = first;
    let Some(frontend) = encode::frontend_of_flow(key).filter(|_| first.is_first()) else { return Ok(None) };
    let answer = first.twin(&get)?.map_or(*entry, |twin| twin.entry);
    // A packet may renew only the entry of its direction.
    let flow = FlowEntry { seen: entry.seen.max(answer.seen), state: entry.state | answer.state, ..*entry };
    if !flow.is_alive(key.protocol, now) {
        return Ok(None);
    }
    let hiding = first.hiding(get)?.filter(|hiding| !hiding.entry.lacks_source(&hiding.key));
    Ok(Some(Flow {
        client: encode::client_of(key),
        frontend,
        backend: Some(encode::address_of_flow(entry)).filter(|backend| backend.port() != 0),
        hidden_behind: hiding.map(|hiding| encode::address_of_flow(&hiding.entry)),
        id: entry.id.get(),
        phase: Phase::of(key, &flow),
        age: duration(now.saturating_sub(entry.opened)),
        idle: duration(now.saturating_sub(flow.seen)),
    }))
}

/// The duration of steps of [`portmap_common::clock`].
fn duration(steps: u32) -> Duration {
    Duration::from_nanos(u64::from(steps) << 30)
}
