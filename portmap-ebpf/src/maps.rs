//! The tables as the programs see them: the map definitions, and reads that hold up while the agent writes.
//!
//! Capacities are the defaults; the loader sets those that the agent was asked for. `docs/maps.md` describes every map.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::btf_map,
};
use portmap_common::{Address, Backend, Choice, Counters, Frontend, Name, Service, ServiceRef, State, V4, V6};

const SERVICES_MAX: usize = 65_536;
const BACKENDS_MAX: usize = 524_288;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// How often a frontend is looked up again when the value found belongs to another key. One retry meets a second deletion
/// and insertion in the same element within nanoseconds; then it counts as a miss.
const TRIES: u32 = 4;

/// (address, port, protocol) → service, IPv4.
#[btf_map]
pub static FRONTENDS_V4: HashMap<Frontend<V4>, ServiceRef, SERVICES_MAX> = HashMap::new();

/// (address, port, protocol) → service, IPv6.
#[btf_map]
pub static FRONTENDS_V6: HashMap<Frontend<V6>, ServiceRef, SERVICES_MAX> = HashMap::new();

/// service → which backends.
#[btf_map]
pub static SERVICES: Array<Service, SERVICES_MAX, MMAPABLE> = Array::new();

/// slot → pod address and port, IPv4.
#[btf_map]
pub static BACKENDS_V4: Array<Backend<V4>, BACKENDS_MAX, MMAPABLE> = Array::new();

/// slot → pod address and port, IPv6.
#[btf_map]
pub static BACKENDS_V6: Array<Backend<V6>, BACKENDS_MAX, MMAPABLE> = Array::new();

/// service → calls by outcome, per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, SERVICES_MAX> = PerCpuArray::new();

/// id → namespace, Service and port name. For people: no program reads it.
#[btf_map]
pub static NAMES: HashMap<u32, Name, SERVICES_MAX, NO_PREALLOC> = HashMap::new();

/// What the agent says of itself, and switches that programs read.
#[btf_map]
pub static STATE: Array<State, 1, MMAPABLE> = Array::new();

/// Never read: the kernel waits for all running programs (an RCU grace period) whenever the agent stores a map in it.
#[btf_map]
pub static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// The address family's own maps.
pub trait Tables: Address {
    /// The element of FRONTENDS under this key, as a word.
    fn frontend(key: &Frontend<Self>) -> Option<*const u64>;

    /// The backend in this slot.
    fn backend(slot: u32) -> Option<&'static Backend<Self>>;
}

impl Tables for V4 {
    #[inline(always)]
    fn frontend(key: &Frontend<V4>) -> Option<*const u64> {
        FRONTENDS_V4.get_ptr(key).map(<*const ServiceRef>::cast)
    }

    #[inline(always)]
    fn backend(slot: u32) -> Option<&'static Backend<V4>> {
        BACKENDS_V4.get(slot)
    }
}

impl Tables for V6 {
    #[inline(always)]
    fn frontend(key: &Frontend<V6>) -> Option<*const u64> {
        FRONTENDS_V6.get_ptr(key).map(<*const ServiceRef>::cast)
    }

    #[inline(always)]
    fn backend(slot: u32) -> Option<&'static Backend<V6>> {
        BACKENDS_V6.get(slot)
    }
}

/// The service number of a frontend, or none if the agent serves no such frontend.
#[inline(always)]
pub fn service_of<A: Tables>(frontend: &Frontend<A>) -> Option<u32> {
    for _ in 0..TRIES {
        let element = A::frontend(frontend)?;
        // SAFETY: the map returned the element, and its value is one aligned 8-byte word.
        let found = ServiceRef::from_word(unsafe { element.read_volatile() });
        if found.belongs_to(frontend) {
            return Some(found.service);
        }
    }
    None
}

/// What sockets on this node get from a service.
#[inline(always)]
pub fn inside_choice(service: u32) -> Option<Choice> {
    let entry = SERVICES.get_ptr(service)?.cast::<u64>();
    // SAFETY: `inside` is the first word of the entry, which lies in the map.
    Some(Choice::from_word(unsafe { entry.read_volatile() }))
}

/// The counters of a service on this CPU.
#[inline(always)]
pub fn counters(service: u32) -> Option<&'static mut Counters> {
    let counters = COUNTERS.get_ptr_mut(service)?;
    // SAFETY: the value is this CPU's own, and programs of this type are not interrupted by one another on a CPU.
    Some(unsafe { &mut *counters })
}
