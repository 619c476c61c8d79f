//! Opens a flow: finds the frontend, chooses the backend, and inserts the flow's entries.

use aya_ebpf::bindings::__sk_buff;
use portmap_common::{
    Choice, Description, Device, FlowEntry, FlowKey, FrontendKey, HIDDEN, HOST_ONLY, PODS, REMOTE, SOURCE_RANGES,
    trace::{DROPPED, FORWARDED, NO_SERVICE, NO_SUCH_PORT, REFUSED},
};

use super::{
    DROP, Family, NEXT, affinity, flows,
    tables::{self, Half, Table, Walk},
    trace,
};
use crate::{
    choice,
    decision::{self, Owner},
    maps,
    outcome::Action,
};

/// The packet opens a flow, or belongs to one that it would open. Other values are a program's return value.
pub const FORWARD: i32 = 0;

/// Opens a flow for the walk's packet, or keeps the flow of an earlier SYN that `find` has found. The walk gets the entry.
///
/// Returns [`FORWARD`] or a program's return value. Not inlined, so that it has its own stack.
#[inline(never)]
pub fn open<A: Family>(context: *mut __sk_buff, walk: &mut Walk<A>, is_found: bool) -> i32 {
    let frontend = FrontendKey::new(walk.key.destination, walk.key.destination_port, walk.key.protocol);
    let found = decision::find(&frontend);
    if found.owner == Owner::Other {
        return NEXT;
    }
    // SAFETY: the kernel gives the program a valid context.
    let index = unsafe { (*context).ifindex };
    let Some(device) = tables::device(index) else { return NEXT };
    walk.now = flows::now();
    match found.owner {
        Owner::Service => serve(walk, device, index, found.service, is_found),
        Owner::UndefinedPort => {
            maps::count(|totals| totals.undefined_port += 1);
            trace::packet(walk, index, 0, NO_SUCH_PORT);
            refuse(walk, device, 0)
        }
        Owner::Unallocated => {
            maps::count(|totals| totals.unallocated += 1);
            trace::packet(walk, index, 0, NO_SERVICE);
            DROP
        }
        Owner::Other => NEXT,
    }
}

#[inline(always)]
fn serve<A: Family>(walk: &mut Walk<A>, device: &Device, index: u32, number: u32, is_found: bool) -> i32 {
    let Some(service) = maps::description(number) else { return NEXT };
    if service.flags & HOST_ONLY != 0 {
        return NEXT;
    }
    // No answer could reach port 0.
    if walk.key.source_port == 0 || service.flags & SOURCE_RANGES != 0 && !A::is_admitted(service.id, walk.key.source) {
        count(number, Action::Drop);
        trace::packet(walk, index, number, DROPPED);
        return DROP;
    }
    let (Some(inside), Some(outside)) = (maps::inside_choice(number), maps::outside_choice(number)) else { return NEXT };
    let backends = if device.flags & PODS == 0 { outside } else { inside };
    let digest = FlowEntry::<A>::digest(backends);
    if is_found && walk.entry.choice == digest && walk.entry.id.get() == service.id {
        return FORWARD;
    }
    let action = if backends.count == 0 { choice::verdict(backends) } else { Action::Forward };
    count(number, action);
    match action {
        Action::Forward => {
            let group = affinity::group(service.kind, inside, backends);
            let verdict = forward(walk, device, &service, group, backends);
            trace::packet(walk, index, number, if verdict == FORWARD { FORWARDED } else { DROPPED });
            verdict
        }
        Action::Refuse => {
            trace::packet(walk, index, number, REFUSED);
            refuse(walk, device, service.id)
        }
        Action::Drop => {
            trace::packet(walk, index, number, DROPPED);
            DROP
        }
        Action::Leave => NEXT,
    }
}

/// Counts a packet by its outcome.
#[inline(always)]
fn count(service: u32, action: Action) {
    if let Some(counters) = maps::counters(service) {
        match action {
            Action::Forward => counters.forwarded += 1,
            Action::Refuse => counters.refused += 1,
            Action::Drop => counters.dropped += 1,
            Action::Leave => {}
        }
    }
    maps::count(|totals| match action {
        Action::Forward => totals.outside_forwarded += 1,
        Action::Refuse => totals.outside_refused += 1,
        Action::Drop => totals.outside_dropped += 1,
        Action::Leave => {}
    });
}

/// Opens a flow to a backend. The client is hidden from a backend on another node, so that the answers come back through this
/// node; and from itself, because a host drops packets that seem to come from itself.
#[inline(always)]
fn forward<A: Family>(walk: &mut Walk<A>, device: &Device, service: &Description, group: u32, backends: Choice) -> i32 {
    let has_backend = if service.affinity_timeout == 0 {
        walk.take(A::backend(choice::random_slot(backends)))
    } else {
        affinity::choose(walk, service, group, backends.to_word())
    };
    if !has_backend {
        return NEXT;
    }
    let is_hidden = walk.entry.state & REMOTE != 0 && device.flags & PODS == 0 || walk.key.source == walk.entry.address;
    let state = walk.entry.state | if is_hidden { HIDDEN } else { 0 };
    prepare(walk, service.id, FlowEntry::<A>::digest(backends), state);
    insert(walk)
}

/// Opens a flow to port 0 of the node's own address on the device. No process can listen there, so the kernel answers with a
/// RST or an ICMP error, which becomes the frontend's answer.
#[inline(always)]
fn refuse<A: Family>(walk: &mut Walk<A>, device: &Device, id: u64) -> i32 {
    let address = A::address_of(device);
    if address == A::default() {
        return DROP;
    }
    prepare(walk, id, FlowEntry::<A>::digest(Choice::default()), 0);
    (walk.entry.address, walk.entry.port, walk.entry.endpoint) = (address, 0, 0.into());
    insert(walk)
}

/// Sets the fields of a new entry other than the backend.
#[inline(always)]
fn prepare<A: Family>(walk: &mut Walk<A>, id: u64, choice: u32, state: u32) {
    (walk.entry.id, walk.entry.choice, walk.entry.check) = (id.into(), choice, walk.key.check());
    (walk.entry.seen, walk.entry.opened, walk.entry.state, walk.entry.end) = (walk.now, walk.now, state, 0);
}

/// Inserts the entries of a new flow: two, and one more of a hidden client. `choose_source` inserts the fourth.
#[inline(always)]
fn insert<A: Family>(walk: &mut Walk<A>) -> i32 {
    walk.table = if tables::admits_half_open(walk.now) { Table::Flows } else { Table::Opening };
    if !choose_port(walk) {
        maps::count(|totals| totals.outside_without_port += 1);
        return DROP;
    }
    let mut is_inserted = insert_first(walk.table, &walk.key, &walk.entry);
    if walk.entry.state & HIDDEN != 0 {
        flows::prepare_sent(walk);
        is_inserted &= insert_first(walk.table, &walk.twin_key, &walk.twin);
    }
    if is_inserted { FORWARD } else { DROP }
}

/// Inserts an entry in place of that of an earlier flow of the same client and frontend.
#[inline(always)]
fn insert_first<A: Family>(table: Table, key: &FlowKey<A>, entry: &FlowEntry<A>) -> bool {
    if let Some(other) = table.other() {
        A::remove_flow(other, key);
    }
    A::insert_flow(table, key, entry, 0)
}

/// Chooses the client's port towards the backend, and inserts the entry of the answers. The client's own port would mix up the
/// flow with a connection of the client to the backend's own address.
#[inline(always)]
fn choose_port<A: Family>(walk: &mut Walk<A>) -> bool {
    walk.entry.other_port = Half::Clients.port_for(walk.key.source_port);
    for attempt in 0..flows::TRIES {
        if claim_port(walk, attempt) {
            return true;
        }
    }
    false
}

/// Claims the walk's port, or changes it for the next try.
#[inline(never)]
fn claim_port<A: Family>(walk: &mut Walk<A>, attempt: u32) -> bool {
    if !is_like_answer(walk) && flows::claim(walk, attempt) {
        return true;
    }
    walk.entry.other_port = Half::Clients.any_port();
    false
}

/// Whether a pod that reaches itself would get the port it serves. Then its packets and the answers would have the same addresses
/// and ports.
#[inline(always)]
fn is_like_answer<A: Family>(walk: &Walk<A>) -> bool {
    walk.entry.other_port == walk.entry.port && walk.entry.address == walk.key.source
}
