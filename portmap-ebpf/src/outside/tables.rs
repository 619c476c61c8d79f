//! The maps for packets: devices, flows, fragments.
#![expect(clippy::cast_possible_truncation, reason = "the ports of the range fit into 16 bits")]

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::bpf_get_prandom_u32,
    macros::btf_map,
};
use portmap_common::{
    Affinity, Backend, Device, FlowEntry, FlowKey, FragmentKey, FragmentPorts, Gate, LOCAL, OutsideClient, REMOTE, V4, V6,
    capacity,
    packet::{Headers, Ports},
};

use super::flows;
use crate::{
    maps::{self, Tables},
    switches::{CLIENT_PORTS, CLIENT_PORTS_FIRST, HALF_OPEN_FLOWS},
};

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

/// The state of the walk of an IPv4 packet.
#[btf_map]
pub static WALK_V4: PerCpuArray<Walk<V4>, 1> = PerCpuArray::new();

/// The state of the walk of an IPv6 packet.
#[btf_map]
pub static WALK_V6: PerCpuArray<Walk<V6>, 1> = PerCpuArray::new();

/// A table of flows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Table {
    /// FLOWS.
    Flows = 0,
    /// OPENING: the flow was opened while too many flows were half open.
    Opening = 1,
}

impl Table {
    /// The other table, if it may have flows. A key that is inserted into one table must not be in the other.
    #[inline(always)]
    pub fn other(self) -> Option<Self> {
        match self {
            Self::Flows if !has_overflowed() => None,
            Self::Flows => Some(Self::Opening),
            Self::Opening => Some(Self::Flows),
        }
    }
}

/// What the steps of a packet have found out about it. It is in a map per CPU instead of on the stack. No other packet meets a
/// hook on this CPU before the program returns.
pub struct Walk<A> {
    /// The headers of the packet.
    pub headers: Headers<A>,
    /// The headers of the packet that an ICMP error quotes.
    pub quoted: Headers<A>,
    /// The packet's ports, or those of the quoted packet.
    pub ports: Ports,
    /// The packet's key.
    pub key: FlowKey<A>,
    /// The entry under `key`, as it was read or will be inserted.
    pub entry: FlowEntry<A>,
    /// The key of the twin that is read or inserted next.
    pub twin_key: FlowKey<A>,
    /// The twin that is inserted next.
    pub twin: FlowEntry<A>,
    /// The key of the client's packets in a flow that ends, because this walk's flow gets its port.
    pub ended_key: FlowKey<A>,
    /// The table of the entry.
    pub table: Table,
    /// The time, as a [`portmap_common::clock`].
    pub now: u32,
}

impl<A: Tables> Walk<A> {
    /// Takes a backend as the rewritten destination. The entry's state is [`REMOTE`] or 0 then. False without a backend.
    #[inline(always)]
    pub fn take(&mut self, backend: Option<&Backend<A>>) -> bool {
        let Some(backend) = backend else { return false };
        (self.entry.address, self.entry.port, self.entry.endpoint) = (backend.address, backend.port, backend.endpoint);
        self.entry.state = if backend.flags & LOCAL == 0 { REMOTE } else { 0 };
        true
    }

    /// As [`Self::take`], with the endpoint of this number. False if the endpoint does not serve.
    #[inline(always)]
    pub fn take_endpoint(&mut self, number: u64) -> bool {
        let Some(element) = A::endpoint(number) else { return false };
        // SAFETY: the map returned the element. If the kernel reuses it at this moment, `belongs_to` detects that by the digest.
        let found = unsafe { &*element };
        (self.entry.address, self.entry.port, self.entry.endpoint) = (found.address, found.port, number.into());
        self.entry.state = if found.flags & LOCAL == 0 { REMOTE } else { 0 };
        found.belongs_to(number)
    }
}

/// The device with this interface index.
#[inline(always)]
pub fn device(index: u32) -> Option<&'static Device> {
    // SAFETY: the map returned the element, and any bytes are a valid value. If the agent replaces it at this moment, at worst
    // one packet reads a mixture of two values.
    DEVICES.get_ptr(index).map(|device| unsafe { &*device })
}

/// The maps for packets of one address family.
pub trait FlowTables: Tables {
    /// The state of this CPU's walk.
    fn walk() -> Option<&'static mut Walk<Self>>;

    /// The element of a flow table under this key.
    fn flow(table: Table, key: &FlowKey<Self>) -> Option<*mut FlowEntry<Self>>;

    /// Inserts an entry into a flow table. `flags` is 0 or `BPF_NOEXIST`. False if the kernel refuses.
    fn insert_flow(table: Table, key: &FlowKey<Self>, entry: &FlowEntry<Self>, flags: u64) -> bool;

    /// Removes the entry under a key from a flow table, if there is one.
    fn remove_flow(table: Table, key: &FlowKey<Self>);

    /// The ports in the first fragment of a datagram.
    fn fragment(key: &FragmentKey<Self>) -> Option<*const FragmentPorts>;

    /// Notes the ports in the first fragment of a datagram.
    fn note_fragment(key: &FragmentKey<Self>, ports: FragmentPorts);

    /// The node's address on a device; zeroes without one.
    fn address_of(device: &Device) -> Self;
}

/// Implements [`FlowTables`] with the maps of an address family.
macro_rules! flow_tables {
    ($family:ty, $walk:ident, $flows:ident, $opening:ident, $fragments:ident, $address:ident) => {
        impl FlowTables for $family {
            #[inline(always)]
            fn walk() -> Option<&'static mut Walk<Self>> {
                // SAFETY: the value belongs to this CPU, only this function returns it, and a program calls it once. All bytes 0
                // are a valid value.
                $walk.get_ptr_mut(0).map(|walk| unsafe { &mut *walk })
            }

            #[inline(always)]
            fn flow(table: Table, key: &FlowKey<Self>) -> Option<*mut FlowEntry<Self>> {
                match table {
                    Table::Flows => $flows.get_ptr_mut(key),
                    Table::Opening => $opening.get_ptr_mut(key),
                }
            }

            #[inline(always)]
            fn insert_flow(table: Table, key: &FlowKey<Self>, entry: &FlowEntry<Self>, flags: u64) -> bool {
                match table {
                    Table::Flows => $flows.insert(key, entry, flags).is_ok(),
                    Table::Opening => $opening.insert(key, entry, flags).is_ok(),
                }
            }

            #[inline(always)]
            fn remove_flow(table: Table, key: &FlowKey<Self>) {
                // It fails if there is no entry.
                let _is_removed = match table {
                    Table::Flows => $flows.remove(key).is_ok(),
                    Table::Opening => $opening.remove(key).is_ok(),
                };
            }

            #[inline(always)]
            fn fragment(key: &FragmentKey<Self>) -> Option<*const FragmentPorts> {
                $fragments.get_ptr(key)
            }

            #[inline(always)]
            fn note_fragment(key: &FragmentKey<Self>, ports: FragmentPorts) {
                // Without the note, the later fragments are lost, as fragments may be.
                let _is_noted = $fragments.insert(key, ports, 0).is_ok();
            }

            #[inline(always)]
            fn address_of(device: &Device) -> Self {
                device.$address
            }
        }
    };
}

flow_tables!(V4, WALK_V4, FLOWS_V4, OPENING_V4, FRAGMENTS_V4, v4);
flow_tables!(V6, WALK_V6, FLOWS_V6, OPENING_V6, FRAGMENTS_V6, v6);

/// Steps of the clock for which OPENING may have flows after the last one was opened there.
const OPENING_LIFE: u32 = 64;

/// Whether OPENING may have flows.
#[inline(always)]
pub fn has_overflowed() -> bool {
    let Some(gate) = GATE.get_ptr(0) else { return false };
    // SAFETY: the map returned the value.
    let overflowed = unsafe { &raw const (*gate).overflowed };
    // SAFETY: the field is one aligned word of the value.
    let overflowed = unsafe { overflowed.read_volatile() };
    overflowed != 0 && flows::now().saturating_sub(overflowed) <= OPENING_LIFE
}

/// Counts a flow that is opened now. False if too many flows are half open: then it must be opened in OPENING.
#[inline(always)]
pub fn admits_half_open(now: u32) -> bool {
    let Some(gate) = GATE.get_ptr_mut(0) else { return true };
    // SAFETY: the map returned the value. Programs on other CPUs may write it at the same time: a flow may be counted less.
    let gate = unsafe { &mut *gate };
    if gate.period != now {
        (gate.period, gate.half_open) = (now, 0);
    }
    if gate.half_open >= HALF_OPEN_FLOWS.load().cast_signed() {
        gate.overflowed = now;
        maps::count(|totals| totals.outside_overflowed += 1);
        return false;
    }
    gate.half_open += 1;
    true
}

/// Counts a flow that is no longer half open.
#[inline(always)]
pub fn assured() {
    if let Some(gate) = GATE.get_ptr_mut(0) {
        // SAFETY: as in `admits_half_open`.
        unsafe { (*gate).half_open -= 1 };
    }
}

/// The client's first port below this one stays as it is: servers may ask for a privileged port.
const PRIVILEGED: u16 = 1_024;

/// A half of the range for clients. A process of a node may be a client of another node that keeps its address there. So the ports
/// of such clients must differ from those behind which the process's own node hides others: a backend meets both.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Half {
    /// The first half: the ports of clients.
    Clients = 0,
    /// The second half: the ports of this node, behind which it hides clients.
    Node = 1,
}

impl Half {
    /// The number of ports in a half.
    #[inline(always)]
    fn count() -> u32 {
        CLIENT_PORTS.load() / 2
    }

    #[inline(always)]
    fn port(self, offset: u32) -> u16 {
        (CLIENT_PORTS_FIRST.load() + self as u32 * Self::count() + offset) as u16
    }

    /// The port for a client with its own port, if it is free.
    #[inline(always)]
    pub fn port_for(self, own: u16) -> u16 {
        if own < PRIVILEGED {
            return own;
        }
        // `%` would leave a branch to a panic, which the verifier rejects.
        self.port(u32::from(own).checked_rem(Self::count()).unwrap_or(0))
    }

    /// A random port.
    #[inline(always)]
    pub fn any_port(self) -> u16 {
        // SAFETY: the helper takes no argument.
        let random = unsafe { bpf_get_prandom_u32() };
        self.port(((u64::from(random) * u64::from(Self::count())) >> 32) as u32)
    }
}
