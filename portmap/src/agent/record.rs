//! The agent's records in STATE, which `portmap status` reads.

use anyhow::Result;
use portmap_common::{DESTROYS_SOCKETS, LACKS_NODE, MEASURED, SETS_ERRORS, State};

use crate::{
    datapath::load,
    kernel::{limits::CANNOT_SET_ERRORS, namespaces, uptime},
    maps::{Fullness, bpf::BpfMaps, encode, flows::sweep::Swept, pin::Pins},
    plan::Plan,
    source::Outage,
};

/// Records that this process is the agent.
pub fn record_start(maps: &mut BpfMaps) -> Result<()> {
    let version = encode::text(env!("CARGO_PKG_VERSION"))?;
    let now = uptime::now().as_secs();
    let network = namespaces::own()?.inode();
    maps.set_state(|state| {
        state.network = network;
        state.version = version;
        state.pid = std::process::id();
        state.started = now;
        (state.silent_since, state.silent_on) = (0, 0);
    })
}

/// Records the kernel's features, and logs the effects of a kernel without `bpf_set_retval`. `destroys_sockets`: whether the
/// kernel can find and destroy UDP sockets of ended endpoints.
pub fn record_features(maps: &mut BpfMaps, destroys_sockets: bool) -> Result<()> {
    let mut flags = if destroys_sockets { DESTROYS_SOCKETS } else { 0 };
    if load::sets_errors()? {
        flags |= SETS_ERRORS;
    } else {
        tracing::warn!("{CANNOT_SET_ERRORS}");
    }
    maps.set_state(|state| state.flags = state.flags & !(SETS_ERRORS | DESTROYS_SOCKETS) | flags)
}

/// Records that the tables have been written: the time, the entries that were left out, and the `repaired` writes.
/// `contested`: the number of frontends that several Services claim.
pub fn record_sync(maps: &mut BpfMaps, plan: &Plan, contested: usize, repaired: usize) -> Result<()> {
    let now = uptime::now().as_secs();
    let left_out = plan.left_out.len();
    maps.set_state(|state| {
        state.last_sync = now;
        state.left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        state.without_room = u32::try_from(plan.without_room).unwrap_or(u32::MAX);
        state.contested = u32::try_from(contested).unwrap_or(u32::MAX);
        state.repairs += repaired as u64;
    })
}

/// Records the number of used entries of these maps, so that `portmap status` need not count them.
pub fn record_fullness(maps: &mut BpfMaps, fullness: &[Fullness]) -> Result<()> {
    maps.set_state(|state| set_used(state, fullness))
}

/// Sets the number of used entries of these maps. The other maps keep theirs.
fn set_used(state: &mut State, fullness: &[Fullness]) {
    for (used, name) in state.used.iter_mut().zip(MEASURED) {
        if let Some(map) = fullness.iter().find(|map| map.name == name) {
            *used = map.used;
        }
    }
}

/// Records the result of a sweep of flows.
pub fn record_sweep(maps: &mut BpfMaps, swept: &Swept) -> Result<()> {
    maps.set_state(|state| {
        state.unanswered = swept.unanswered;
        set_used(state, &swept.fullness);
    })
}

/// Records mistakes in the objects: a missing Node, and the number of Services with faults.
pub fn record_faults(maps: &mut BpfMaps, lacks_node: bool, faulty: usize) -> Result<()> {
    let flag = if lacks_node { LACKS_NODE } else { 0 };
    maps.set_state(|state| {
        state.flags = state.flags & !LACKS_NODE | flag;
        state.faulty = u32::try_from(faulty).unwrap_or(u32::MAX);
    })
}

/// Records the number of network devices that the user named and that do not exist.
pub fn record_devices(maps: &mut BpfMaps, absent: usize) -> Result<()> {
    maps.set_state(|state| state.devices_absent = u32::try_from(absent).unwrap_or(u32::MAX))
}

/// Records the kinds of objects whose watch fails, and the time of the first failure. Clears the record if `outage` is none.
pub fn record_outage(maps: &mut BpfMaps, outage: Option<&Outage>) -> Result<()> {
    let (since, kinds) = match outage {
        Some(outage) => (uptime::now().saturating_sub(outage.lasting).as_secs(), encode::kinds(&outage.kinds)),
        None => (0, 0),
    };
    maps.set_state(|state| (state.silent_since, state.silent_on) = (since, kinds))
}

/// The process id of the agent that STATE names, as the text ` (process ID)`; empty if STATE cannot be read.
pub fn holder(pins: &Pins) -> String {
    let state = BpfMaps::open(pins).and_then(|maps| maps.state());
    state.map(|state| format!(" (process {})", state.pid)).unwrap_or_default()
}
