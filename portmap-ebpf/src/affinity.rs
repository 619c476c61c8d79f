//! Session affinity: a client that was here lately gets the same endpoint again.

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_ns};
use portmap_common::{Affinity, Backend, Choice, Client, Description, Member, Share};

use crate::{
    choice,
    maps::{self, AFFINITY, AFFINITY_SHARES, MEMBERS, Tables},
    switches::AFFINITY_SHARE,
};

/// The endpoint that the client in this network namespace had last, if it is still to be had; else any, which is remembered.
#[inline(always)]
pub fn choose<A: Tables>(namespace: u64, service: &Description, backends: Choice) -> Option<Backend<A>> {
    let now = now();
    let client = Client { namespace, id: service.id };
    let last = AFFINITY.get_ptr_mut(client);
    if let Some(last) = last {
        let found = read(last);
        if found.holds(now, service.affinity_timeout)
            && is_member(service, found.endpoint)
            && let Some(backend) = maps::endpoint::<A>(found.endpoint)
        {
            refresh(last, now);
            return Some(backend);
        }
    }
    let backend: Backend<A> = choice::any(backends)?;
    let entry = Affinity { endpoint: backend.endpoint.get(), last_used: now };
    match last {
        Some(last) => replace(last, &entry),
        None => begin(&client, &entry),
    }
    Some(backend)
}

#[inline(always)]
fn read(place: *mut Affinity) -> Affinity {
    // SAFETY: the map returned the element.
    let endpoint = unsafe { &raw const (*place).endpoint };
    // SAFETY: as above.
    let last_used = unsafe { &raw const (*place).last_used };
    // SAFETY: the field is one aligned 8-byte word.
    let endpoint = unsafe { endpoint.read_volatile() };
    // SAFETY: as above.
    let last_used = unsafe { last_used.read_volatile() };
    Affinity { endpoint, last_used }
}

/// The session goes on. Should the element have become another client's in between, that one's session lasts a little longer.
#[inline(always)]
fn refresh(place: *mut Affinity, now: u64) {
    // SAFETY: the map returned the element.
    let last_used = unsafe { &raw mut (*place).last_used };
    // SAFETY: the field is one aligned 8-byte word.
    unsafe { last_used.write_volatile(now) };
}

/// Another session in place of one that is over. Should the element have become another client's in between, that one finds an
/// endpoint that is no member of its service, or one that is: it is given a valid endpoint all the same. Who reads between the
/// two writes sees the old endpoint for one more connection, which is as if it had come a moment before.
#[inline(always)]
fn replace(place: *mut Affinity, entry: &Affinity) {
    refresh(place, entry.last_used);
    // SAFETY: the map returned the element.
    let endpoint = unsafe { &raw mut (*place).endpoint };
    // SAFETY: the field is one aligned 8-byte word.
    unsafe { endpoint.write_volatile(entry.endpoint) };
}

/// Remembers a client for the first time. The longest unseen one is forgotten where there is no room.
///
/// A process may make thousands of network namespaces, each of which is a client: it must not have everybody else forgotten.
#[inline(always)]
fn begin(client: &Client, entry: &Affinity) {
    if !take_share(entry.last_used) {
        return maps::count(|totals| totals.affinity_over_share += 1);
    }
    if AFFINITY.insert(client, entry, 0).is_ok() {
        maps::count(|totals| totals.affinity_clients += 1);
    }
}

/// Takes one from the share of the process's cgroup, if any is left.
#[inline(always)]
fn take_share(now: u64) -> bool {
    // SAFETY: the helper takes no argument.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let Some(place) = AFFINITY_SHARES.get_ptr_mut(cgroup) else {
        return AFFINITY_SHARES.insert(cgroup, Share { began: now, clients: 1 }, 0).is_ok();
    };
    // SAFETY: the map returned the element. Processors that take from it at once may count one client for two.
    let share = unsafe { place.read() };
    let Some(rest) = share.take(now, AFFINITY_SHARE.load()) else { return false };
    // SAFETY: as above.
    unsafe { place.write(rest) };
    true
}

#[inline(always)]
fn is_member(service: &Description, endpoint: u64) -> bool {
    MEMBERS.get_ptr(Member::new(service.id, service.kind, endpoint)).is_some()
}

/// The monotonic clock in nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
