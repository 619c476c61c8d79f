//! UDP flows whose endpoint no longer serves. A client of such a flow gets no answer, and no packet reports the end to it. When
//! the first entry of its flow is deleted, its next datagram opens a flow to another endpoint. The other entries stay until
//! they expire, so that an answer that is under way reaches the client.
//!
//! TCP flows stay: their endpoint may still answer while it terminates, and a connection cannot move.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use aya::{Pod, maps::MapError};
use portmap_common::{EndpointEntry, FlowEntry, FlowKey, UDP};

use super::{FamilyFlows, FlowMaps, entries::Located};
use crate::{
    maps::encode::{self, IpBytes},
    model::Frontend,
};

/// The frontend and the endpoint of UDP flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UdpTarget {
    /// The frontend that the clients send to.
    pub frontend: Frontend,
    /// The endpoint's address. A flow that is refused has port 0.
    pub endpoint: SocketAddr,
    /// The endpoint's number.
    pub number: u64,
}

impl UdpTarget {
    /// Whether the flow is refused: there was no endpoint when it was opened.
    fn is_refused(&self) -> bool {
        self.endpoint.port() == 0
    }
}

impl FlowMaps {
    /// The targets of UDP flows whose endpoint is not in ENDPOINTS, and of those that are refused. The endpoint no longer
    /// serves, had no room there, or got its number from another set.
    pub fn udp_targets_without_endpoint(&self) -> Result<BTreeSet<UdpTarget>> {
        let mut targets = self.v4.udp_targets_without_endpoint()?;
        targets.extend(self.v6.udp_targets_without_endpoint()?);
        Ok(targets)
    }

    /// Deletes the first entry of all UDP flows with these targets. Returns the number of flows.
    pub fn delete_udp_flows(&self, targets: &BTreeSet<UdpTarget>) -> Result<u64> {
        Ok(self.v4.delete_udp_flows(targets)? + self.v6.delete_udp_flows(targets)?)
    }
}

impl<A: IpBytes> FamilyFlows<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    fn udp_targets_without_endpoint(&self) -> Result<BTreeSet<UdpTarget>> {
        let (mut targets, mut serving) = (BTreeSet::new(), HashMap::new());
        self.for_each(|found| {
            if let Some(target) = target_of(&found)
                && (target.is_refused() || !self.is_serving(target.number, &mut serving)?)
            {
                targets.insert(target);
            }
            Ok(())
        })?;
        Ok(targets)
    }

    /// Whether an endpoint is in ENDPOINTS. `known` keeps the answers.
    fn is_serving(&self, number: u64, known: &mut HashMap<u64, bool>) -> Result<bool> {
        if let Some(is_serving) = known.get(&number) {
            return Ok(*is_serving);
        }
        let is_serving = match self.endpoints.get(&number, 0) {
            Ok(_) => true,
            Err(MapError::KeyNotFound) => false,
            Err(error) => return Err(error).context("failed to read ENDPOINTS"),
        };
        known.insert(number, is_serving);
        Ok(is_serving)
    }

    fn delete_udp_flows(&self, targets: &BTreeSet<UdpTarget>) -> Result<u64> {
        let mut flows = 0;
        self.for_each(|found| {
            if target_of(&found).is_some_and(|target| targets.contains(&target)) {
                flows += self.delete(&[found])? as u64;
            }
            Ok(())
        })?;
        Ok(flows)
    }
}

/// The target of a UDP flow, from its first entry; `None` for all other entries.
fn target_of<A: IpBytes>(found: &Located<A>) -> Option<UdpTarget> {
    let Located { table: _, key, entry } = found;
    if key.protocol != UDP || !found.is_first() {
        return None;
    }
    let frontend = encode::frontend_of_flow(key)?;
    Some(UdpTarget { frontend, endpoint: encode::address_of_flow(entry), number: entry.endpoint.get() })
}
