//! Session affinity: a client that was here lately gets the same endpoint again.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use portmap_common::{Affinity, Backend, Choice, Client, Description, Member};

use crate::{
    forward,
    maps::{self, AFFINITY, MEMBERS, Tables},
};

/// The endpoint that the client in this network namespace had last, if it is still to be had; else any, which is remembered.
#[inline(always)]
pub fn choose<A: Tables>(namespace: u64, number: u32, service: &Description, choice: Choice) -> Option<Backend<A>> {
    let now = now();
    let client = Client { namespace, id: service.id };
    let last = AFFINITY.get_ptr_mut(client);
    if let Some(last) = last {
        let found = read(last);
        if found.holds(now, service.affinity_timeout)
            && is_member(number, found.endpoint)
            && let Some(backend) = maps::endpoint::<A>(found.endpoint)
        {
            refresh(last, now);
            return Some(backend);
        }
    }
    let backend: Backend<A> = forward::any(choice)?;
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
    let (endpoint, last_used) = unsafe { (&raw const (*place).endpoint, &raw const (*place).last_used) };
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
#[inline(always)]
fn begin(client: &Client, entry: &Affinity) {
    if AFFINITY.insert(client, entry, 0).is_ok() {
        maps::count(|totals| totals.affinity_clients += 1);
    }
}

#[inline(always)]
fn is_member(service: u32, endpoint: u64) -> bool {
    MEMBERS.get_ptr(Member::new(service, endpoint)).is_some()
}

/// The monotonic clock in nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
