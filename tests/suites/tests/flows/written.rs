//! Flows that a test writes into the pinned maps, as the BPF programs would.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use portmap::maps::bpf::open;
use portmap::maps::encode::IpBytes;
use portmap::maps::flows;
use portmap::maps::pin::Pins;
use portmap_common::{
    ABI_VERSION, ASSURED, EGRESS, FlowEntry, FlowKey, HIDDEN, Halves, INGRESS, REMOTE, REPLIED, RESET, TCP, V4, V6,
};

/// A flow, and the time of its packets.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The frontend's address and port.
    pub frontend: SocketAddr,
    /// The backend's address and port; port 0 if the flow is refused.
    pub backend: SocketAddr,
    /// The address and port that the backend sees as the client. Each flow to a backend must have another one.
    pub hidden_behind: Option<SocketAddr>,
    /// The id of the service port.
    pub id: u64,
    /// The number of the endpoint.
    pub endpoint: u64,
    /// The state of all entries, beside the flags that follow from the other fields.
    pub state: u32,
    /// The time since the first packet, in steps of the clock of flows.
    pub age: u32,
    /// The time since the last packet, in steps of the clock of flows.
    pub idle: u32,
}

impl Flow {
    /// An established TCP flow that has just sent a packet, of service port 0 and endpoint 0.
    pub fn established(client: SocketAddr, frontend: SocketAddr, backend: SocketAddr) -> Self {
        let state = REPLIED | ASSURED;
        Self { protocol: TCP, client, frontend, backend, hidden_behind: None, id: 0, endpoint: 0, state, age: 0, idle: 0 }
    }

    /// The same flow, closed by a RST some seconds ago. The time since boot may be too short for other lifetimes.
    pub fn expired(self) -> Self {
        Self { state: self.state | RESET, age: 20, idle: 20, ..self }
    }

    /// The entries: two, or four if the client is hidden.
    fn entries<A: IpBytes>(&self) -> Result<Vec<(FlowKey<A>, FlowEntry<A>)>> {
        let address = |of: SocketAddr| A::from_ip(of.ip()).context("an address is of the other family");
        let key = |source: SocketAddr, destination: SocketAddr, hook| {
            Ok::<_, anyhow::Error>(FlowKey {
                source: address(source)?,
                destination: address(destination)?,
                source_port: source.port(),
                destination_port: destination.port(),
                protocol: self.protocol,
                hook,
                unused: 0,
            })
        };
        let now = flows::now();
        let entry = |to: SocketAddr, other_port| {
            Ok::<_, anyhow::Error>(FlowEntry {
                check: 0,
                id: Halves::from(self.id),
                endpoint: Halves::from(self.endpoint),
                choice: 0,
                address: address(to)?,
                port: to.port(),
                other_port,
                seen: now.saturating_sub(self.idle),
                opened: now.saturating_sub(self.age),
                state: self.state | if self.hidden_behind.is_some() { HIDDEN | REMOTE } else { 0 },
                end: 0,
            })
        };
        // Each client port has a port of its own that the backend sees.
        let seen_client = SocketAddr::new(self.client.ip(), 1_024 + self.client.port() % 20_000);
        let pair = |key: FlowKey<A>, entry: FlowEntry<A>| {
            let entry = FlowEntry { check: key.check(), ..entry };
            [(key, entry), (key.twin(&entry), entry.twin(&key))]
        };
        let mut entries = pair(key(self.client, self.frontend, INGRESS)?, entry(self.backend, seen_client.port())?).to_vec();
        if let Some(hiding) = self.hidden_behind {
            entries.extend(pair(key(seen_client, self.backend, EGRESS)?, entry(hiding, self.backend.port())?));
        }
        Ok(entries)
    }
}

/// One pinned map of flows.
pub struct Table<A: IpBytes>(HashMap<MapData, FlowKey<A>, FlowEntry<A>>)
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod;

impl Table<V4> {
    /// Opens `FLOWS_V4` below this directory of pins.
    pub fn v4(bpffs: &Path) -> Result<Self> {
        Self::open(bpffs, "FLOWS_V4")
    }

    /// Opens `OPENING_V4` below this directory of pins.
    pub fn opening_v4(bpffs: &Path) -> Result<Self> {
        Self::open(bpffs, "OPENING_V4")
    }
}

impl Table<V6> {
    /// Opens `FLOWS_V6` below this directory of pins.
    pub fn v6(bpffs: &Path) -> Result<Self> {
        Self::open(bpffs, "FLOWS_V6")
    }
}

impl<A: IpBytes> Table<A>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
{
    fn open(bpffs: &Path, name: &str) -> Result<Self> {
        let map = open(&Pins::of_version(bpffs, ABI_VERSION), name)?;
        Ok(Self(HashMap::try_from(Map::LruHashMap(map))?))
    }

    /// Writes all entries of a flow.
    pub fn write(&mut self, flow: &Flow) -> Result<()> {
        flow.entries()?.iter().try_for_each(|(key, entry)| Ok(self.0.insert(key, entry, 0)?))
    }

    /// Whether the entry of the client's packets to the frontend is in the map. Without it, the flow is opened anew.
    pub fn has_first_of(&self, flow: &Flow) -> Result<bool> {
        Ok(flow.entries()?.first().is_some_and(|(key, _)| self.0.get(key, 0).is_ok()))
    }

    /// The number of the flow's entries that are in the map.
    pub fn entries_of(&self, flow: &Flow) -> Result<usize> {
        Ok(flow.entries()?.iter().filter(|(key, _)| self.0.get(key, 0).is_ok()).count())
    }
}
