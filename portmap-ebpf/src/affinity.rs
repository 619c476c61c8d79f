//! Session affinity: a client gets the same endpoint again while its session is valid and the endpoint can be used. Called by
//! `decision`.
//!
//! A client is a network namespace. The sessions are the entries of AFFINITY. The programs read and update an entry without a
//! lock.

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_ns};
use portmap_common::{Affinity, Backend, Choice, Client, Description, Member, Share};

use crate::{
    choice,
    maps::{self, AFFINITY, AFFINITY_SHARES, MEMBERS, Tables},
    switches::AFFINITY_SHARE,
};

/// The backend of the client's session for the service port, if the session is valid. Otherwise a random backend. It becomes
/// the session's backend, unless the client is new and gets no session: see `add`.
///
/// `namespace` is the cookie of the client's network namespace. `None` if the random slot is outside of BACKENDS.
#[inline(always)]
pub fn choose<A: Tables>(namespace: u64, service: &Description, backends: Choice) -> Option<Backend<A>> {
    let client = Client { namespace, id: service.id };
    let (last, now) = (AFFINITY.get_ptr_mut(client), now());
    let endpoint = last_endpoint(last, service, Member::external(service.kind), now);
    if let Some(backend) = endpoint.and_then(maps::endpoint::<A>) {
        keep(last, &Affinity { endpoint: backend.endpoint.get(), last_used: now }, |_| {});
        return Some(backend);
    }
    let backend: Backend<A> = choice::any(backends)?;
    keep(last, &Affinity { endpoint: backend.endpoint.get(), last_used: now }, |entry| add(&client, entry));
    Some(backend)
}

/// The endpoint of a client's session at `now`, if the session is valid and the endpoint is in the group of MEMBERS
/// ([`Member::external`]). The endpoint may no longer serve.
#[inline(always)]
pub fn last_endpoint(last: Option<*mut Affinity>, service: &Description, group: u32, now: u64) -> Option<u64> {
    let found = read(last?);
    (found.holds(now, service.affinity_timeout) && is_member(service.id, group, found.endpoint)).then_some(found.endpoint)
}

/// Keeps the session in the element, or calls `add` without an element.
#[inline(always)]
pub fn keep(last: Option<*mut Affinity>, entry: &Affinity, add: impl FnOnce(&Affinity)) {
    match last {
        Some(last) => replace(last, entry),
        None => add(entry),
    }
}

/// Reads an element of AFFINITY word by word, because another processor may write the element at the same time.
#[inline(always)]
fn read(element: *mut Affinity) -> Affinity {
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let endpoint = unsafe { &raw const (*element).endpoint };
    // SAFETY: as above.
    let last_used = unsafe { &raw const (*element).last_used };
    // SAFETY: the field is one aligned 8-byte word of the element.
    let endpoint = unsafe { endpoint.read_volatile() };
    // SAFETY: as above.
    let last_used = unsafe { last_used.read_volatile() };
    Affinity { endpoint, last_used }
}

/// Sets the time of the session's last call to `now`. If the kernel has just reused the element for another client, that
/// client's session may last a little longer.
#[inline(always)]
fn refresh(element: *mut Affinity, now: u64) {
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let last_used = unsafe { &raw mut (*element).last_used };
    // SAFETY: the field is one aligned 8-byte word of the element.
    unsafe { last_used.write_volatile(now) };
}

/// Writes a session into an element.
///
/// The kernel may have just reused the element for another client. That client uses the endpoint only if it is a member of the
/// client's service port, so it gets a valid endpoint in any case. A call that reads between the two writes may use the old
/// endpoint once more, as if the session were still valid.
#[inline(always)]
fn replace(element: *mut Affinity, entry: &Affinity) {
    refresh(element, entry.last_used);
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let endpoint = unsafe { &raw mut (*element).endpoint };
    // SAFETY: the field is one aligned 8-byte word of the element.
    unsafe { endpoint.write_volatile(entry.endpoint) };
}

/// Adds a session for a new client, if the share of its cgroup allows it. If AFFINITY has no free element, the kernel evicts
/// other clients, mostly those that were not seen for long.
///
/// Each cgroup may add a limited number of clients in a period. Otherwise a process that makes thousands of network namespaces,
/// each of which is a client, could evict all other clients.
#[inline(always)]
fn add(client: &Client, entry: &Affinity) {
    if !take_share(entry.last_used) {
        return maps::count(|totals| totals.affinity_over_share += 1);
    }
    if AFFINITY.insert(client, entry, 0).is_ok() {
        maps::count(|totals| totals.affinity_clients += 1);
    }
}

/// Counts one new client of the calling process's cgroup in `AFFINITY_SHARES`. False if the cgroup has used up its share, or
/// if the kernel cannot store the count.
#[inline(always)]
fn take_share(now: u64) -> bool {
    // SAFETY: the helper takes no argument.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let Some(element) = AFFINITY_SHARES.get_ptr_mut(cgroup) else {
        return AFFINITY_SHARES.insert(cgroup, Share { began: now, clients: 1 }, 0).is_ok();
    };
    // SAFETY: the map returned the element. Two processors that update it at the same time may count only one client.
    let share = unsafe { element.read() };
    let Some(rest) = share.take(now, AFFINITY_SHARE.load()) else { return false };
    // SAFETY: as above.
    unsafe { element.write(rest) };
    true
}

/// Whether MEMBERS has the endpoint for frontends of this group. Such an endpoint is still among the backends.
#[inline(always)]
fn is_member(id: u64, group: u32, endpoint: u64) -> bool {
    MEMBERS.get_ptr(Member { id, endpoint, external: group, unused: 0 }).is_some()
}

/// The monotonic clock in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
