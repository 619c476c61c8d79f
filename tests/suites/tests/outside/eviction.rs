//! Flows of which the kernel has evicted some entries, because the table was full.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use portmap::maps::bpf::open;
use portmap::maps::encode::IpBytes;
use portmap::maps::pin::Pins;
use portmap_common::{ABI_VERSION, FlowEntry, FlowKey, INGRESS, V4, V6};
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Protocol;
use portmap_harness::process::{Process, Socket};
use portmap_suites::outside_stage::Stage;

use crate::cases;

cases![a_flow_gets_its_evicted_entries_again];

/// Programs write the state of a flow whose last packet is older than this, in steps of [`portmap_common::clock`].
const IDLE: u32 = 10;

fn a_flow_gets_its_evicted_entries_again(stage: &mut Stage, via: Via) -> Result<()> {
    let process = Process::in_pod(&stage.topology.client)?;
    for (endpoint, entries) in [("a", 2), ("c", 4)] {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let frontend = service.node_port(stage.one(), via);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let socket = process.connected(frontend, protocol)?;
            socket.ask()?;
            let evicted = match via {
                Via::V4 | Via::Mapped => evict_each::<V4>(stage, &socket, frontend, "FLOWS_V4")?,
                Via::V6 => evict_each::<V6>(stage, &socket, frontend, "FLOWS_V6")?,
            };
            ensure!(evicted == entries - 1, "{evicted} of {entries} entries were found after the first, {protocol}");
        }
    }
    Ok(())
}

/// Deletes each entry of the socket's flow but the first, and sends a request after each. Returns the number of deleted entries.
fn evict_each<A: IpBytes>(stage: &Stage, socket: &Socket<'_>, frontend: SocketAddr, name: &str) -> Result<usize>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
{
    let map = Map::LruHashMap(open(&Pins::of_version(stage.one().bpffs(), ABI_VERSION), name)?);
    let mut map = HashMap::<MapData, FlowKey<A>, FlowEntry<A>>::try_from(map)?;
    let (first, others) = entries(&map, socket.local()?.port(), frontend.port())?;
    for key in &others {
        for used in others.iter().chain([&first]) {
            let entry = map.get(used, 0)?;
            map.insert(used, FlowEntry { seen: entry.seen.saturating_sub(IDLE), ..entry }, 0)?;
        }
        map.remove(key)?;
        let what = || format!("after the eviction of {key:?}");
        socket.ask().with_context(what)?;
        ensure!(map.get(key, 0).is_ok(), "the entry is still missing {}", what());
    }
    Ok(others.len())
}

/// The first key of the flow from a client's port to a frontend's port, and the other keys. No other flow has its service port.
fn entries<A: IpBytes>(
    map: &HashMap<MapData, FlowKey<A>, FlowEntry<A>>,
    client: u16,
    frontend: u16,
) -> Result<(FlowKey<A>, Vec<FlowKey<A>>)>
where
    FlowKey<A>: Pod,
    FlowEntry<A>: Pod,
{
    let all = map.iter().collect::<Result<Vec<_>, _>>()?;
    let is_first = |key: &FlowKey<A>| key.hook == INGRESS && (key.source_port, key.destination_port) == (client, frontend);
    let (first, entry) = all.iter().find(|(key, _)| is_first(key)).context("the flow is not in the map")?;
    let others = all.iter().filter(|(key, other)| other.id == entry.id && key != first).map(|(key, _)| *key).collect();
    Ok((*first, others))
}
