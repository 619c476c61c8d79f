//! UDP flows of one exchange: the backend has answered, and the client has sent nothing since. Most UDP clients never use such
//! a flow again.
//!
//! A hidden client's flow has a port of this node, and its entries translate everything that the backend sends to that port.
//! Another proxy on this node does not know these ports. If it gives one to a client of the same backend, that client would get
//! no answer.

use anyhow::Result;
use aya::Pod;
use portmap_common::{ASSURED, EndpointEntry, FlowEntry, FlowKey, REPLIED, UDP};

use super::{FamilyFlows, FlowMaps, entries::Located};
use crate::maps::encode::IpBytes;

impl FlowMaps {
    /// Deletes the UDP flows of one exchange.
    pub fn delete_answered(&self) -> Result<()> {
        self.v4.delete_answered()?;
        self.v6.delete_answered()
    }
}

impl<A: IpBytes> FamilyFlows<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
    EndpointEntry<A>: Pod,
{
    fn delete_answered(&self) -> Result<()> {
        self.for_each(|found| {
            if is_answered(&found) {
                let others = found.others(|key| self.get(key))?;
                self.delete(&[&[found], others.as_slice()].concat())?;
            }
            Ok(())
        })
    }
}

/// Whether this is the first entry of a UDP flow of one exchange.
fn is_answered<A: IpBytes>(found: &Located<A>) -> bool {
    found.key.protocol == UDP && found.is_first() && found.entry.state & (REPLIED | ASSURED) == REPLIED
}
