//! The maps for packets: devices, flows, fragments.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap},
    macros::btf_map,
};
use portmap_common::{Affinity, Device, FlowEntry, FlowKey, FragmentKey, FragmentPorts, Gate, OutsideClient, V4, V6, capacity};

const DEVICES_MAX: usize = capacity::DEVICES as usize;
const FLOWS_MAX: usize = capacity::FLOWS as usize;
const OPENING_MAX: usize = capacity::OPENING as usize;
const FRAGMENTS_MAX: usize = capacity::FRAGMENTS as usize;
const CLIENTS_MAX: usize = capacity::AFFINITY_CLIENTS as usize;

/// interface index → the node's addresses on the device.
#[btf_map]
pub static DEVICES: HashMap<u32, Device, DEVICES_MAX> = HashMap::new();

/// A packet at a hook → its rewritten form, IPv4.
#[btf_map]
pub static FLOWS_V4: LruHashMap<FlowKey<V4>, FlowEntry<V4>, FLOWS_MAX> = LruHashMap::new();

/// A packet at a hook → its rewritten form, IPv6.
#[btf_map]
pub static FLOWS_V6: LruHashMap<FlowKey<V6>, FlowEntry<V6>, FLOWS_MAX> = LruHashMap::new();

/// As `FLOWS_V4`, for flows that are opened while too many flows are half open.
#[btf_map]
pub static OPENING_V4: LruHashMap<FlowKey<V4>, FlowEntry<V4>, OPENING_MAX> = LruHashMap::new();

/// As `FLOWS_V6`, for flows that are opened while too many flows are half open.
#[btf_map]
pub static OPENING_V6: LruHashMap<FlowKey<V6>, FlowEntry<V6>, OPENING_MAX> = LruHashMap::new();

/// A datagram at a hook → the ports in its first fragment, IPv4.
#[btf_map]
pub static FRAGMENTS_V4: LruHashMap<FragmentKey<V4>, FragmentPorts, FRAGMENTS_MAX> = LruHashMap::new();

/// A datagram at a hook → the ports in its first fragment, IPv6.
#[btf_map]
pub static FRAGMENTS_V6: LruHashMap<FragmentKey<V6>, FragmentPorts, FRAGMENTS_MAX> = LruHashMap::new();

/// Number of half-open flows, to limit them in FLOWS.
#[btf_map]
pub static GATE: Array<Gate, 1> = Array::new();

/// (service port, client outside the node) → the endpoint that the client used last, and the time of its last connection.
#[btf_map]
pub static OUTSIDE_AFFINITY: LruHashMap<OutsideClient, Affinity, CLIENTS_MAX> = LruHashMap::new();

/// The device with this interface index.
#[inline(always)]
pub fn device(index: u32) -> Option<&'static Device> {
    // SAFETY: the map returned the element, and any bytes are a valid value. If the agent replaces it at this moment, at worst
    // one packet reads a mixture of two values.
    DEVICES.get_ptr(index).map(|device| unsafe { &*device })
}
