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
    let now = seconds();
    let client = Client { namespace, id: service.id, unused: 0 };
    let last = AFFINITY.get_ptr_mut(client).map(<*mut Affinity>::cast::<u64>);
    if let Some(last) = last {
        // SAFETY: the map returned the element, and its value is one aligned 8-byte word.
        let found = Affinity::from_word(unsafe { last.read_volatile() });
        if found.holds(now, service.affinity_timeout)
            && is_member(number, found.endpoint)
            && let Some(backend) = maps::endpoint::<A>(found.endpoint)
        {
            store(last, Affinity { seconds: now, ..found });
            return Some(backend);
        }
    }
    let backend: Backend<A> = forward::any(choice)?;
    let entry = Affinity { endpoint: backend.endpoint, seconds: now };
    match last {
        Some(last) => store(last, entry),
        None => begin(&client, &entry),
    }
    Some(backend)
}

/// Updates in place. Should the element have become another client's in between, that one finds an endpoint that is no
/// member of its service, or one that is: it is given a valid endpoint all the same.
#[inline(always)]
fn store(place: *mut u64, entry: Affinity) {
    // SAFETY: the map returned the element, and its value is one aligned 8-byte word.
    unsafe { place.write_volatile(entry.to_word()) };
}

/// Remembers a client for the first time. The longest unseen one is forgotten where there is no room.
#[inline(always)]
fn begin(client: &Client, entry: &Affinity) {
    if AFFINITY.insert(client, entry, 0).is_ok() {
        maps::count(|totals| totals.affinity_clients += 1);
    }
}

#[inline(always)]
fn is_member(service: u32, endpoint: u32) -> bool {
    MEMBERS.get_ptr(Member { service, endpoint }).is_some()
}

/// The monotonic clock.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "136 years")]
fn seconds() -> u32 {
    // SAFETY: the helper takes no argument.
    let nanoseconds = unsafe { bpf_ktime_get_ns() };
    (nanoseconds / 1_000_000_000) as u32
}
