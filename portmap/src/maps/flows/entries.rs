//! The entries of one flow: each can be found from each other one.
//!
//! The *first* entry is that of packets from the client to the frontend. Without it, a new connection opens the flow anew. The
//! other entries are its twin and, if the client is hidden, another pair of twins.

use anyhow::Result;
use portmap_common::{EGRESS, FlowEntry, FlowKey, HIDDEN, TOWARDS_CLIENT};

use crate::maps::encode::{self, IpBytes};

/// An entry and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<A> {
    /// The index of its table: 0 FLOWS, 1 OPENING.
    pub table: usize,
    /// Its key.
    pub key: FlowKey<A>,
    /// Its value.
    pub entry: FlowEntry<A>,
}

impl<A: IpBytes> Located<A> {
    /// Whether this is the first entry of a flow.
    pub fn is_first(&self) -> bool {
        encode::is_of_client(&self.key, &self.entry)
    }

    /// The twin of this entry; `None` if it is absent, or belongs to another flow.
    pub fn twin(&self, get: impl Fn(&FlowKey<A>) -> Result<Option<Self>>) -> Result<Option<Self>> {
        Ok(get(&self.key.twin(&self.entry))?.filter(|twin| twin.key.twin(&twin.entry) == self.key))
    }

    /// The entry with the address that hides the client, if this is the first entry; `None` if the client is not hidden, or if
    /// the entry is absent.
    pub fn hiding(&self, get: impl Fn(&FlowKey<A>) -> Result<Option<Self>>) -> Result<Option<Self>> {
        if self.entry.state & HIDDEN == 0 { Ok(None) } else { get(&encode::hiding_key(&self.key, &self.entry)) }
    }

    /// The other entries of the flow, if this is the first one: those that are present. `get` finds an entry by its key.
    pub fn others(&self, get: impl Fn(&FlowKey<A>) -> Result<Option<Self>>) -> Result<Vec<Self>> {
        let mut others: Vec<Self> = self.twin(&get)?.into_iter().collect();
        if let Some(hiding) = self.hiding(&get)? {
            others.push(hiding);
            others.extend(hiding.twin(&get)?);
        }
        Ok(others)
    }

    /// The first entry of the flow; `None` if it is absent. `get` finds an entry by its key.
    pub fn first(&self, get: impl Fn(&FlowKey<A>) -> Result<Option<Self>>) -> Result<Option<Self>> {
        if self.is_first() {
            return Ok(Some(*self));
        }
        let is_towards_client = self.entry.state & TOWARDS_CLIENT != 0;
        if is_towards_client && self.key.hook == EGRESS {
            return Ok(self.twin(get)?.filter(Self::is_first));
        }
        // The answer to the packets that get the hiding address is the twin of the first entry.
        let hiding = if is_towards_client { self.twin(&get)? } else { Some(*self) };
        let Some(hiding) = hiding else { return Ok(None) };
        let Some(answer) = get(&encode::answer_key(&hiding.key))? else { return Ok(None) };
        let is_of_flow = |first: &Self| first.is_first() && encode::hiding_key(&first.key, &first.entry) == hiding.key;
        Ok(answer.twin(get)?.filter(is_of_flow))
    }
}
