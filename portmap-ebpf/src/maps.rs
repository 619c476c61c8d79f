//! The map definitions, and reads that are safe while the agent writes. Used by all steps of a call.
//!
//! Capacities are the defaults; the loader replaces those that the agent's options decide. `docs/maps.md` describes every map.

mod services;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage, lpm_trie::Key},
    macros::btf_map,
    programs::SockAddrContext,
};
use aya_log_ebpf::macro_support::{Argument, IpFormatter};
use portmap_common::{
    ADDRESSES, Address, Affinity, Backend, Choice, Client, Connected, Counters, Datagrams, EndpointEntry, FrontendKey,
    FrontendPorts, Member, Name, Namespace, Neutral, Numbers, PrefixEntry, Prefixes, Service, ServiceRef, Share, SourceRange,
    State, Totals, V4, V6, Way, capacity,
};

use crate::socket::NO_ADDRESS;
pub use services::{counters, description, inside_choice, outside_choice};

const SERVICES_MAX: usize = capacity::SERVICES as usize;
const FRONTENDS_MAX: usize = capacity::FRONTENDS as usize;
const BACKENDS_MAX: usize = capacity::BACKENDS as usize;
const ITEMS_MAX: usize = capacity::ITEMS as usize;
const NAMESPACES_MAX: usize = capacity::NAMESPACES as usize;
const SOURCES_MAX: usize = capacity::SOURCES as usize;
const CLIENTS_MAX: usize = capacity::AFFINITY_CLIENTS as usize;
const SHARES_MAX: usize = capacity::AFFINITY_SHARES as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Maximum number of look-ups of a frontend, while the value found belongs to another key. A retry usually succeeds: the agent
/// would have to reuse the element again within nanoseconds. After the last look-up, the frontend counts as absent.
const TRIES: u32 = 4;

/// (address, port, protocol) → service number, IPv4.
#[btf_map]
pub static FRONTENDS_V4: HashMap<FrontendKey<V4>, ServiceRef, FRONTENDS_MAX> = HashMap::new();

/// (address, port, protocol) → service number, IPv6.
#[btf_map]
pub static FRONTENDS_V6: HashMap<FrontendKey<V6>, ServiceRef, FRONTENDS_MAX> = HashMap::new();

/// The ports of all frontends since the maps were made.
#[btf_map]
pub static FRONTEND_PORTS: Array<FrontendPorts, 1, MMAPABLE> = Array::new();

/// service number → ranges of backends, id, session affinity and flags.
#[btf_map]
pub static SERVICES: Array<Service, SERVICES_MAX, MMAPABLE> = Array::new();

/// slot → pod address and port, IPv4.
#[btf_map]
pub static BACKENDS_V4: Array<Backend<V4>, BACKENDS_MAX, MMAPABLE> = Array::new();

/// slot → pod address and port, IPv6.
#[btf_map]
pub static BACKENDS_V6: Array<Backend<V6>, BACKENDS_MAX, MMAPABLE> = Array::new();

/// service number → number of calls by outcome, per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, SERVICES_MAX> = PerCpuArray::new();

/// id → namespace, Service, port name and protocol. For the subcommands and the agent: no program reads it.
#[btf_map]
pub static NAMES: HashMap<u64, Name, FRONTENDS_MAX, NO_PREALLOC> = HashMap::new();

/// The agent's state, for the agent and its subcommands: no program reads it.
#[btf_map]
pub static STATE: Array<State, 1, MMAPABLE> = Array::new();

/// Never read. When the agent stores a map in it, the kernel waits for all running programs (an RCU grace period).
#[btf_map]
pub static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// The address ranges of ClusterIPs, IPv4.
#[btf_map]
pub static PREFIXES_V4: Array<Prefixes<V4>, 1, MMAPABLE> = Array::new();

/// The address ranges of ClusterIPs, IPv6.
#[btf_map]
pub static PREFIXES_V6: Array<Prefixes<V6>, 1, MMAPABLE> = Array::new();

/// endpoint number → pod address and port, IPv4, while the endpoint serves. Only for UDP service ports, and those with
/// session affinity.
#[btf_map]
pub static ENDPOINTS_V4: HashMap<u64, EndpointEntry<V4>, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// endpoint number → pod address and port, IPv6, while the endpoint serves. Only for UDP service ports, and those with
/// session affinity.
#[btf_map]
pub static ENDPOINTS_V6: HashMap<u64, EndpointEntry<V6>, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// (service port, ClusterIP or not, endpoint) → 1, while clients on this node may get the endpoint. Only with session affinity.
#[btf_map]
pub static MEMBERS: HashMap<Member, u8, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// (service port, client) → the endpoint that the client used last, and the time of that call.
#[btf_map]
pub static AFFINITY: LruHashMap<Client, Affinity, CLIENTS_MAX> = LruHashMap::new();

/// cgroup → the number of clients that its processes have added to AFFINITY in the current period.
#[btf_map]
pub static AFFINITY_SHARES: LruHashMap<u64, Share, SHARES_MAX> = LruHashMap::new();

/// (service port, source range) → 1, IPv4: the clients that a load balancer's address admits.
#[btf_map]
pub static SOURCE_RANGES_V4: LpmTrie<SourceRange<V4>, u8, SERVICES_MAX> = LpmTrie::new();

/// (service port, source range) → 1, IPv6: the clients that a load balancer's address admits.
#[btf_map]
pub static SOURCE_RANGES_V6: LpmTrie<SourceRange<V6>, u8, SERVICES_MAX> = LpmTrie::new();

/// network namespace → its addresses, for source ranges.
#[btf_map]
pub static NAMESPACES: HashMap<u64, Namespace, NAMESPACES_MAX, NO_PREALLOC> = HashMap::new();

/// (network namespace, load balancer's address) → the source address that the kernel chooses, IPv4. Only for namespaces with
/// several IPv4 addresses, and the host's.
#[btf_map]
pub static SOURCES_V4: HashMap<Way<V4>, V4, SOURCES_MAX, NO_PREALLOC> = HashMap::new();

/// (network namespace, load balancer's address) → the source address that the kernel chooses, IPv6. Only for namespaces with
/// several IPv6 addresses, and the host's.
#[btf_map]
pub static SOURCES_V6: HashMap<Way<V6>, V6, SOURCES_MAX, NO_PREALLOC> = HashMap::new();

/// Number of calls by outcome over all services, and of events that belong to no service, per CPU.
#[btf_map]
pub static TOTALS: PerCpuArray<Totals, 1> = PerCpuArray::new();

/// The next id of a service port, and the next number of an endpoint. For the agent: no program reads it.
#[btf_map]
pub static NUMBERS: Array<Numbers, 1, MMAPABLE> = Array::new();

/// Connected socket → the frontend that it asked for, and its backend.
#[btf_map]
pub static SOCKETS: SkStorage<Connected> = SkStorage::new();

/// Unconnected UDP socket → the last frontends that it sent to, and their backends.
#[btf_map]
pub static DATAGRAMS: SkStorage<Datagrams> = SkStorage::new();

/// Access to the notes on sockets. A new note is all zeroes, and the kernel frees it with its socket.
pub trait Notes<T> {
    /// The note on the hook's socket; `None` if the socket has no note.
    fn find(&self, context: &SockAddrContext) -> Option<&'static mut T>;

    /// The note on the hook's socket, created if necessary; `None` if the kernel cannot create it, usually for lack of memory.
    fn create(&self, context: &SockAddrContext) -> Option<&'static mut T>;
}

impl<T: 'static> Notes<T> for SkStorage<T> {
    #[inline(always)]
    fn find(&self, context: &SockAddrContext) -> Option<&'static mut T> {
        // SAFETY: the kernel gives the hook a context with a valid socket.
        let note = unsafe { self.get_ptr_mut(context) };
        // SAFETY: a note that is not null lives as long as its socket. Threads that share the socket may write it at the same
        // time: `socket_notes` detects this by `Chosen`, whose words are accessed atomically.
        unsafe { note.as_mut() }
    }

    #[inline(always)]
    fn create(&self, context: &SockAddrContext) -> Option<&'static mut T> {
        // SAFETY: the kernel gives the hook a context with a valid socket.
        let note = unsafe { self.get_or_insert_ptr_mut(context, None) };
        // SAFETY: as in `find`.
        unsafe { note.as_mut() }
    }
}

/// Look-ups in the maps of one address family.
pub trait Tables: Address + IpFormatter + Argument {
    /// The element of FRONTENDS under this key: a [`ServiceRef`] as one word.
    fn frontend(key: &FrontendKey<Self>) -> Option<*const u64>;

    /// The backend in this slot of BACKENDS; `None` outside of the map.
    fn backend(slot: u32) -> Option<&'static Backend<Self>>;

    /// The element of ENDPOINTS under this number.
    fn endpoint(number: u64) -> Option<*const EndpointEntry<Self>>;

    /// The range of the prefixes that are used now, and the array that contains it.
    fn prefixes() -> Option<(Choice, &'static [PrefixEntry<Self>])>;

    /// Whether a source range of the service port with this `id` contains the address.
    fn is_admitted(id: u64, address: Self) -> bool;

    /// The number of addresses of this family in a network namespace, and the first [`ADDRESSES`] of them. `namespace` is a
    /// cookie; `None` if NAMESPACES has no entry for it.
    fn addresses_of(namespace: u64) -> Option<(u32, &'static [Self; ADDRESSES])>;

    /// The source address that the kernel chooses for calls of the namespace to the destination; [`NO_ADDRESS`] if SOURCES has
    /// no entry.
    fn source_of(way: &Way<Self>) -> Neutral;
}

impl Tables for V4 {
    #[inline(always)]
    fn frontend(key: &FrontendKey<V4>) -> Option<*const u64> {
        FRONTENDS_V4.get_ptr(key).map(<*const ServiceRef>::cast)
    }

    #[inline(always)]
    fn backend(slot: u32) -> Option<&'static Backend<V4>> {
        BACKENDS_V4.get(slot)
    }

    #[inline(always)]
    fn endpoint(number: u64) -> Option<*const EndpointEntry<V4>> {
        ENDPOINTS_V4.get_ptr(number)
    }

    #[inline(always)]
    fn prefixes() -> Option<(Choice, &'static [PrefixEntry<V4>])> {
        let table = PREFIXES_V4.get(0)?;
        Some((active(&table.active), &table.prefixes))
    }

    #[inline(always)]
    fn is_admitted(id: u64, address: V4) -> bool {
        SOURCE_RANGES_V4.get(&Key::new(96, SourceRange { id: id.to_be_bytes(), address })).is_some()
    }

    #[inline(always)]
    fn addresses_of(namespace: u64) -> Option<(u32, &'static [V4; ADDRESSES])> {
        let found = namespace_of(namespace)?;
        Some((found.count_v4, &found.v4))
    }

    #[inline(always)]
    fn source_of(way: &Way<V4>) -> Neutral {
        // SAFETY: the map returned the element, and any bytes are a valid address. If the agent replaces or removes the element
        // at this moment, at worst one call reads another value.
        SOURCES_V4.get_ptr(way).map_or(NO_ADDRESS, |source| unsafe { *source }.neutral())
    }
}

impl Tables for V6 {
    #[inline(always)]
    fn frontend(key: &FrontendKey<V6>) -> Option<*const u64> {
        FRONTENDS_V6.get_ptr(key).map(<*const ServiceRef>::cast)
    }

    #[inline(always)]
    fn backend(slot: u32) -> Option<&'static Backend<V6>> {
        BACKENDS_V6.get(slot)
    }

    #[inline(always)]
    fn endpoint(number: u64) -> Option<*const EndpointEntry<V6>> {
        ENDPOINTS_V6.get_ptr(number)
    }

    #[inline(always)]
    fn prefixes() -> Option<(Choice, &'static [PrefixEntry<V6>])> {
        let table = PREFIXES_V6.get(0)?;
        Some((active(&table.active), &table.prefixes))
    }

    #[inline(always)]
    fn is_admitted(id: u64, address: V6) -> bool {
        SOURCE_RANGES_V6.get(&Key::new(192, SourceRange { id: id.to_be_bytes(), address })).is_some()
    }

    #[inline(always)]
    fn addresses_of(namespace: u64) -> Option<(u32, &'static [V6; ADDRESSES])> {
        let found = namespace_of(namespace)?;
        Some((found.count_v6, &found.v6))
    }

    #[inline(always)]
    fn source_of(way: &Way<V6>) -> Neutral {
        // SAFETY: the map returned the element, and any bytes are a valid address. If the agent replaces or removes the element
        // at this moment, at worst one call reads another value.
        SOURCES_V6.get_ptr(way).map_or(NO_ADDRESS, |source| unsafe { *source }.neutral())
    }
}

/// Whether a frontend has had the port and protocol of this key, with any address.
#[inline(always)]
pub fn has_port<A: Tables>(key: &FrontendKey<A>) -> bool {
    let (index, bit) = FrontendPorts::place(key.port, key.protocol);
    FRONTEND_PORTS.get(0).and_then(|ports| ports.words.get(index)).is_none_or(|word| word & bit != 0)
}

/// The service number of a frontend; `None` without the key, or if each of 4 look-ups found another key's value. May be
/// `UNDEFINED_PORT` or `OTHER_PROXY` for a whole address.
#[inline(always)]
pub fn service_of<A: Tables>(frontend: &FrontendKey<A>) -> Option<u32> {
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

/// The endpoint with this number as a backend; `None` if ENDPOINTS of this family does not have it, or if its digest is wrong.
#[inline(always)]
pub fn endpoint<A: Tables>(number: u64) -> Option<Backend<A>> {
    let element = A::endpoint(number)?;
    // SAFETY: the map returned the element. If the kernel reuses it at this moment, `belongs_to` detects that by the digest.
    let found = unsafe { element.read_volatile() };
    found.belongs_to(number).then(|| Backend {
        address: found.address,
        port: found.port,
        flags: found.flags,
        endpoint: number.into(),
    })
}

/// Calls `add` with the value of TOTALS of this CPU.
#[inline(always)]
pub fn count(add: impl FnOnce(&mut Totals)) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU. A program that is preempted by another may lose a count.
        add(unsafe { &mut *totals });
    }
}

/// The range of the prefixes that are used now, read with one load.
#[inline(always)]
fn active(word: &Choice) -> Choice {
    // SAFETY: a choice is one aligned 8-byte word, and this one is in a map.
    Choice::from_word(unsafe { (&raw const *word).cast::<u64>().read_volatile() })
}

/// The addresses of the network namespace with this cookie; `None` if NAMESPACES has no entry for it.
#[inline(always)]
fn namespace_of(cookie: u64) -> Option<&'static Namespace> {
    // SAFETY: the map returned the element, and any bytes are a valid value. If the agent replaces or removes the element at
    // this moment, at worst one call reads a mixture of two values.
    NAMESPACES.get_ptr(cookie).map(|found| unsafe { &*found })
}
