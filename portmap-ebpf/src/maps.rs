//! The tables as the programs see them: the map definitions, and reads that hold up while the agent writes.
//!
//! Capacities are the defaults; the loader sets those that the agent was asked for. `docs/maps.md` describes every map.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage, lpm_trie::Key},
    macros::btf_map,
    programs::SockAddrContext,
};
use aya_log_ebpf::macro_support::{Argument, IpFormatter};
use portmap_common::{
    ADDRESSES, Address, Affinity, Backend, Choice, Client, Connected, Counters, Datagrams, Description, EndpointEntry,
    FrontendKey, Member, Name, Namespace, Neutral, Numbers, PrefixEntry, Prefixes, Service, ServiceRef, Share, SourceRange,
    State, Totals, V4, V6, Way, capacity,
};

use crate::socket::NO_ADDRESS;

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

/// How often a frontend is looked up again when the value found belongs to another key. One retry meets a second deletion
/// and insertion in the same element within nanoseconds; then it counts as a miss.
const TRIES: u32 = 4;

/// (address, port, protocol) → service, IPv4.
#[btf_map]
pub static FRONTENDS_V4: HashMap<FrontendKey<V4>, ServiceRef, FRONTENDS_MAX> = HashMap::new();

/// (address, port, protocol) → service, IPv6.
#[btf_map]
pub static FRONTENDS_V6: HashMap<FrontendKey<V6>, ServiceRef, FRONTENDS_MAX> = HashMap::new();

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
pub static NAMES: HashMap<u64, Name, FRONTENDS_MAX, NO_PREALLOC> = HashMap::new();

/// What the agent says of itself, and switches that programs read.
#[btf_map]
pub static STATE: Array<State, 1, MMAPABLE> = Array::new();

/// Never read: the kernel waits for all running programs (an RCU grace period) whenever the agent stores a map in it.
#[btf_map]
pub static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// The ranges that ClusterIPs lie in, IPv4.
#[btf_map]
pub static PREFIXES_V4: Array<Prefixes<V4>, 1, MMAPABLE> = Array::new();

/// The ranges that ClusterIPs lie in, IPv6.
#[btf_map]
pub static PREFIXES_V6: Array<Prefixes<V6>, 1, MMAPABLE> = Array::new();

/// endpoint → pod address and port, IPv4, while it serves: of UDP service ports, and of those with session affinity.
#[btf_map]
pub static ENDPOINTS_V4: HashMap<u64, EndpointEntry<V4>, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// endpoint → pod address and port, IPv6.
#[btf_map]
pub static ENDPOINTS_V6: HashMap<u64, EndpointEntry<V6>, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// (service port, endpoint), while the endpoint is in the inside choice: of service ports with session affinity.
#[btf_map]
pub static MEMBERS: HashMap<Member, u8, ITEMS_MAX, NO_PREALLOC> = HashMap::new();

/// (service port, client) → the endpoint that it was given last.
#[btf_map]
pub static AFFINITY: LruHashMap<Client, Affinity, CLIENTS_MAX> = LruHashMap::new();

/// cgroup → how many clients AFFINITY has remembered for it lately.
#[btf_map]
pub static AFFINITY_SHARES: LruHashMap<u64, Share, SHARES_MAX> = LruHashMap::new();

/// (service port, range) of those whom a load balancer's address admits, IPv4.
#[btf_map]
pub static SOURCE_RANGES_V4: LpmTrie<SourceRange<V4>, u8, SERVICES_MAX> = LpmTrie::new();

/// (service port, range) of those whom a load balancer's address admits, IPv6.
#[btf_map]
pub static SOURCE_RANGES_V6: LpmTrie<SourceRange<V6>, u8, SERVICES_MAX> = LpmTrie::new();

/// network namespace → its addresses.
#[btf_map]
pub static NAMESPACES: HashMap<u64, Namespace, NAMESPACES_MAX, NO_PREALLOC> = HashMap::new();

/// (network namespace, load balancer's address) → the source of such calls, IPv4: where a namespace has several addresses.
#[btf_map]
pub static SOURCES_V4: HashMap<Way<V4>, V4, SOURCES_MAX, NO_PREALLOC> = HashMap::new();

/// (network namespace, load balancer's address) → the source of such calls, IPv6.
#[btf_map]
pub static SOURCES_V6: HashMap<Way<V6>, V6, SOURCES_MAX, NO_PREALLOC> = HashMap::new();

/// What happened that is no service's, per CPU.
#[btf_map]
pub static TOTALS: PerCpuArray<Totals, 1> = PerCpuArray::new();

/// Numbers that are given once. For the agent: no program reads it.
#[btf_map]
pub static NUMBERS: Array<Numbers, 1, MMAPABLE> = Array::new();

/// What connected sockets asked for.
#[btf_map]
pub static SOCKETS: SkStorage<Connected> = SkStorage::new();

/// What sockets that are not connected sent lately.
#[btf_map]
pub static DATAGRAMS: SkStorage<Datagrams> = SkStorage::new();

/// Notes on sockets. Each begins as zeroes and ends with its socket.
pub trait Notes<T> {
    /// The note on the hook's socket, if there is one.
    fn find(&self, context: &SockAddrContext) -> Option<&'static mut T>;

    /// The note on the hook's socket, made if there is none; none if the kernel has no memory for it.
    fn create(&self, context: &SockAddrContext) -> Option<&'static mut T>;
}

impl<T: 'static> Notes<T> for SkStorage<T> {
    #[inline(always)]
    fn find(&self, context: &SockAddrContext) -> Option<&'static mut T> {
        // SAFETY: the kernel hands the hook a valid socket.
        let note = unsafe { self.get_ptr_mut(context) };
        // SAFETY: a note that is not null lives as long as its socket. Threads that share the socket may write it at once:
        // what must belong together is read as one word.
        unsafe { note.as_mut() }
    }

    #[inline(always)]
    fn create(&self, context: &SockAddrContext) -> Option<&'static mut T> {
        // SAFETY: the kernel hands the hook a valid socket.
        let note = unsafe { self.get_or_insert_ptr_mut(context, None) };
        // SAFETY: as above.
        unsafe { note.as_mut() }
    }
}

/// The address family's own maps.
pub trait Tables: Address + IpFormatter + Argument {
    /// The element of FRONTENDS under this key, as a word.
    fn frontend(key: &FrontendKey<Self>) -> Option<*const u64>;

    /// The backend in this slot.
    fn backend(slot: u32) -> Option<&'static Backend<Self>>;

    /// The element of ENDPOINTS under this number.
    fn endpoint(number: u64) -> Option<*const EndpointEntry<Self>>;

    /// Which prefixes are in force, and all that there are.
    fn prefixes() -> Option<(Choice, &'static [PrefixEntry<Self>])>;

    /// Whether a range of the service port holds the address.
    fn is_admitted(id: u64, address: Self) -> bool;

    /// How many addresses of this family a network namespace has, and as many as were kept.
    fn addresses_of(namespace: u64) -> Option<(u32, &'static [Self; ADDRESSES])>;

    /// The address that the kernel chooses for calls of the namespace to the destination; [`NO_ADDRESS`] where the agent has not asked
    /// the kernel.
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
        // SAFETY: the map returned the element; one that is replaced at this moment is that of a source which changes.
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
        // SAFETY: the map returned the element; one that is replaced at this moment is that of a source which changes.
        SOURCES_V6.get_ptr(way).map_or(NO_ADDRESS, |source| unsafe { *source }.neutral())
    }
}

/// The service number of a frontend, or none if the agent serves no such frontend.
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

/// What a service entry says beside its choices.
#[inline(always)]
pub fn description(service: u32) -> Option<Description> {
    let entry = SERVICES.get_ptr(service)?.cast::<u64>();
    // SAFETY: the entry lies in the map and has four words.
    let first = unsafe { entry.add(2) };
    // SAFETY: as above.
    let second = unsafe { entry.add(3) };
    // SAFETY: as above.
    let (first, second) = (unsafe { first.read_volatile() }, unsafe { second.read_volatile() });
    Some(Description::from_words(first, second))
}

/// The endpoint with this number as a backend, if it serves.
#[inline(always)]
pub fn endpoint<A: Tables>(number: u64) -> Option<Backend<A>> {
    let element = A::endpoint(number)?;
    // SAFETY: the map returned the element; should it be reused at this moment, its digest tells.
    let found = unsafe { element.read_volatile() };
    found.belongs_to(number).then(|| Backend { address: found.address, port: found.port, flags: 0, endpoint: number.into() })
}

/// Counts something that is no service's.
#[inline(always)]
pub fn count(what: impl FnOnce(&mut Totals)) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: as of the counters.
        what(unsafe { &mut *totals });
    }
}

#[inline(always)]
fn active(word: &Choice) -> Choice {
    // SAFETY: a choice is one aligned 8-byte word, here one that lies in a map.
    Choice::from_word(unsafe { (&raw const *word).cast::<u64>().read_volatile() })
}

#[inline(always)]
fn namespace_of(cookie: u64) -> Option<&'static Namespace> {
    // SAFETY: the agent replaces what it knows of a namespace by inserting it anew; at worst one check sees both.
    NAMESPACES.get_ptr(cookie).map(|found| unsafe { &*found })
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
    // SAFETY: the value is this CPU's own. Where a program can be preempted by another, a count may be lost.
    Some(unsafe { &mut *counters })
}
