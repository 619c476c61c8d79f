//! The agent's work on flows of clients outside the node, and `portmap flows`. The tests write the flows, so no packet and no
//! program for packets is needed.
//!
//! Needs: root and BPF.

mod ended;
mod list;
mod restart;
mod sweep;
mod written;

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use portmap::maps::{Maps as _, bpf::BpfMaps, pin::Pins};
use portmap_common::ABI_VERSION;
use portmap_harness::world::Pod;
use portmap_suites::service_objects::{Both, TARGET_PORT, Via};
use portmap_suites::service_stage::Stage;

/// The address of a client outside the node.
fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

/// The IPv4 address and port at which a pod serves.
fn at(pod: &Pod) -> SocketAddr {
    Both::of(pod).at(Via::V4, TARGET_PORT)
}

/// The id of the service port with this frontend (`10.96.0.1:80/UDP`), and the number of its endpoint at an address.
fn numbers(stage: &Stage, frontend: &str, endpoint: SocketAddr) -> Result<(u64, u64)> {
    let tables = BpfMaps::open(&Pins::of_version(stage.world.bpffs(), ABI_VERSION))?.read()?;
    let (_, found) = tables.frontends.iter().find(|(key, _)| key.to_string() == frontend).context("no such frontend")?;
    let is_at = |slot: &&portmap::maps::Slot| SocketAddr::new(slot.endpoint.address, slot.endpoint.port) == endpoint;
    let slot = found.inside.iter().flatten().find(is_at).context("no such endpoint")?;
    Ok((found.service.context("no service entry")?.id, slot.number))
}
