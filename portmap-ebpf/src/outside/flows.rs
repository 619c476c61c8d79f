//! The flow of a packet: finds its entry, and keeps the state of the flow.
//!
//! Entries are written without a lock. Programs on two CPUs may write the state of one flow at the same time; then a bit may
//! be lost, and the entry lives longer.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
};
use portmap_common::{
    ASSURED, CLIENT_FIN, EGRESS, FlowEntry, FlowKey, HIDDEN, INGRESS, REPLIED, SERVER_FIN, TOWARDS_CLIENT, UDP, clock,
    packet::{RST, SYN},
};

use super::{
    Family, closing,
    packet::Packet,
    tables::{self, Half, Table, Walk},
};
use crate::{maps, switches::COARSE_CLOCK};

/// Number of ports that are tried for a new flow.
pub const TRIES: u32 = 8;

/// Steps of the clock between two updates of [`FlowEntry::seen`].
const STAMP: u32 = 4;

/// The time, as a [`clock`]. Both helpers read the same clock.
#[inline(always)]
pub fn now() -> u32 {
    clock(if COARSE_CLOCK.load() == 0 {
        // SAFETY: the helper takes no argument.
        unsafe { bpf_ktime_get_ns() }
    } else {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_coarse_ns() }
    })
}

/// Finds the entry of the packet with the walk's key and these TCP flags. False if there is none, or it is no longer valid: it
/// has expired, or is an ended connection that the packet would open again.
///
/// Reads the clock only if there may be an entry, because most packets belong to no flow.
#[inline(always)]
pub fn find<A: Family>(walk: &mut Walk<A>, flags: u8) -> bool {
    walk.table = Table::Flows;
    if take(walk, flags) {
        return true;
    }
    if !tables::has_overflowed() {
        return false;
    }
    walk.table = Table::Opening;
    take(walk, flags)
}

#[inline(always)]
fn take<A: Family>(walk: &mut Walk<A>, flags: u8) -> bool {
    let Some(element) = A::flow(walk.table, &walk.key) else { return false };
    // SAFETY: the map returned the element. If the kernel reuses it at this moment, `belongs_to` detects that.
    unsafe { copy(element, &mut walk.entry) };
    walk.now = now();
    if flags & SYN != 0 && walk.entry.is_closed() {
        forget(walk);
        return false;
    }
    let is_valid = walk.entry.belongs_to(&walk.key) && !walk.entry.is_given_up();
    is_valid && walk.entry.is_alive(walk.key.protocol, walk.now)
}

/// Copies an element word by word. An assignment would call `memmove`, which copies single bytes.
///
/// # Safety
///
/// The pointer must be to an element of a map.
#[inline(always)]
unsafe fn copy<A>(element: *const FlowEntry<A>, entry: &mut FlowEntry<A>) {
    let (source, target) = (element.cast::<u32>(), (&raw mut *entry).cast::<u32>());
    for index in 0..size_of::<FlowEntry<A>>() / size_of::<u32>() {
        // SAFETY: the word lies in the element.
        let word = unsafe { source.wrapping_add(index).read_volatile() };
        // SAFETY: the word lies in the entry.
        unsafe { target.wrapping_add(index).write(word) };
    }
}

/// Removes the entry of the walk's key. A SYN may open a connection of another program with the addresses and ports of an earlier
/// flow; its later packets must not meet that flow's entry.
#[inline(always)]
pub fn forget<A: Family>(walk: &Walk<A>) {
    A::remove_flow(walk.table, &walk.key);
}

/// Whether the walk's entry refuses datagrams: it leads to port 0.
#[inline(always)]
pub fn is_refused<A: Family>(walk: &Walk<A>) -> bool {
    walk.entry.port == 0 && walk.key.protocol == UDP
}

/// Whether a TCP packet from a backend to this node is no answer to the flow of the walk's entry: the backend has not answered
/// before, and the packet is neither a SYN-ACK nor a RST. Then another program of this node has given the flow's port to a
/// connection of its own, as kube-proxy does while portmap takes over from it.
#[inline(always)]
pub fn is_of_another<A: Family>(walk: &Walk<A>) -> bool {
    walk.entry.state & (TOWARDS_CLIENT | REPLIED) == TOWARDS_CLIENT && walk.ports.flags & (SYN | RST) == 0
}

/// Takes the source from the flow of the walk's entry, so that the client's next SYN gets another one. The entry itself stays
/// until it expires, and translates nothing: so no flow gets its port.
#[inline(never)]
pub fn give_up_source<A: Family>(walk: &mut Walk<A>) {
    walk.twin_key = walk.key.twin(&walk.entry);
    let (Some(element), Some(twin)) = (A::flow(walk.table, &walk.key), A::flow(walk.table, &walk.twin_key)) else { return };
    // SAFETY: the map returned the element. If the kernel reuses it at this moment, `belongs_to` detects that.
    unsafe { copy(twin, &mut walk.twin) };
    let has_this_source = walk.twin.address == walk.key.destination && walk.twin.port == walk.key.destination_port;
    if walk.twin.belongs_to(&walk.twin_key) && has_this_source {
        write_port(element, 0);
        write_port(twin, 0);
    }
}

/// Writes the port of an element. If the kernel has just reused it, another flow gets this port.
#[inline(always)]
fn write_port<A: Family>(element: *mut FlowEntry<A>, value: u16) {
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let port = unsafe { &raw mut (*element).port };
    // SAFETY: the field is one aligned 2-byte word of the element.
    unsafe { port.write_volatile(value) };
}

/// Inserts the twin of the walk's entry, which tells the flow from others. False if another flow has the twin's key, or if the
/// kernel cannot insert it.
#[inline(always)]
pub fn claim<A: Family>(walk: &mut Walk<A>, attempt: u32) -> bool {
    turn(walk);
    is_free_in_other(walk, attempt)
        && (A::insert_flow(walk.table, &walk.twin_key, &walk.twin, u64::from(BPF_NOEXIST)) || take_over(walk, attempt))
}

/// Whether no flow that must stay has the twin's key in the other table. Removes the entry of one that may end.
#[inline(always)]
fn is_free_in_other<A: Family>(walk: &mut Walk<A>, attempt: u32) -> bool {
    let Some(other) = walk.table.other() else { return true };
    let Some(element) = A::flow(other, &walk.twin_key) else { return true };
    let has_ended = end(walk, other, element, attempt);
    if has_ended {
        A::remove_flow(other, &walk.twin_key);
    }
    has_ended
}

/// Sets the walk's twin to that of its entry.
#[inline(always)]
fn turn<A: Family>(walk: &mut Walk<A>) {
    walk.twin_key = walk.key.twin(&walk.entry);
    walk.twin = walk.entry;
    walk.twin.turn(&walk.key, &walk.twin_key);
}

/// Takes over the twin's key from an earlier flow of the same client and frontend, or from one that may end.
#[inline(always)]
fn take_over<A: Family>(walk: &mut Walk<A>, attempt: u32) -> bool {
    let table = walk.table;
    A::flow(table, &walk.twin_key).is_some_and(|element| end(walk, table, element, attempt))
        && A::insert_flow(table, &walk.twin_key, &walk.twin, 0)
}

/// Ends the flow of this element, which has the twin's key, unless it must stay. A closed connection may still get packets, and a
/// client whose only datagram was answered may send another one. So such flows end only after some ports were tried.
#[inline(always)]
fn end<A: Family>(walk: &mut Walk<A>, table: Table, element: *mut FlowEntry<A>, attempt: u32) -> bool {
    // SAFETY: the map returned the element, and any bytes are a valid value. If the kernel reuses it at this moment, at worst
    // another port is tried.
    let entry = unsafe { &*element };
    let is_late = attempt >= TRIES / 2;
    let is_own = entry.address == walk.twin.address && entry.port == walk.twin.port && entry.other_port == walk.twin.other_port;
    if is_own || is_late && entry.is_closed() || !entry.is_alive(walk.key.protocol, walk.now) {
        return true;
    }
    let is_answered = entry.is_answered_once(walk.key.protocol) && (is_late || attempt != 0 && entry.is_quiet(walk.now));
    if is_answered {
        walk.ended_key = walk.twin_key.twin(entry);
        part(walk, table);
    }
    is_answered
}

/// Parts the entry of a client's packets from its twin, which another flow gets. The client's next packet opens a flow, or gets
/// another source.
#[inline(always)]
fn part<A: Family>(walk: &Walk<A>, table: Table) {
    if walk.ended_key.hook == INGRESS {
        A::remove_flow(table, &walk.ended_key);
    } else if let Some(element) = A::flow(table, &walk.ended_key) {
        write_port(element, 0);
    }
}

/// Keeps the state of the flow: the time of its last packet, and the bits that the packet sets. OPENING evicts entries early,
/// so each packet of its flows restores them.
#[inline(always)]
pub fn follow<A: Family, const LINK: usize>(walk: &mut Walk<A>, packet: Packet<LINK>) {
    let mut state = walk.entry.state_after(walk.ports.flags);
    if state & (CLIENT_FIN | SERVER_FIN) != 0 {
        state = closing::state_after::<A, LINK>(packet.context(), walk, state);
    }
    let is_due = walk.now.wrapping_sub(walk.entry.seen) >= STAMP || walk.table == Table::Opening;
    if is_due || state != walk.entry.state {
        write_state(walk, state);
    }
}

/// Writes the state of both twins, or deletes them if the flow is done. Not inlined: few packets need it.
#[inline(never)]
fn write_state<A: Family>(walk: &mut Walk<A>, state: u32) {
    let is_new = (state ^ walk.entry.state) & ASSURED != 0;
    (walk.entry.state, walk.entry.seen) = (state, walk.now);
    walk.twin_key = walk.key.twin(&walk.entry);
    if is_new {
        assure(walk);
    }
    if walk.entry.is_done() {
        A::remove_flow(walk.table, &walk.key);
        A::remove_flow(walk.table, &walk.twin_key);
        return;
    }
    if let Some(element) = A::flow(walk.table, &walk.key) {
        stamp(element, state, walk.now);
    }
    if let Some(element) = A::flow(walk.table, &walk.twin_key) {
        stamp(element, state ^ TOWARDS_CLIENT, walk.now);
    }
    if state & TOWARDS_CLIENT == 0 {
        restore(walk);
    }
}

/// Inserts the entries of the flow that the kernel has evicted, at a packet of the client. The entry that the walk has found does
/// not suffice: the flow would lose its answers until it expires.
#[inline(always)]
fn restore<A: Family>(walk: &mut Walk<A>) {
    turn(walk);
    insert_missing(walk);
    if walk.key.hook == INGRESS && walk.entry.state & HIDDEN != 0 {
        prepare_sent(walk);
        insert_missing(walk);
    }
}

/// Inserts the walk's twin, if neither table has its key.
#[inline(always)]
fn insert_missing<A: Family>(walk: &Walk<A>) {
    if walk.table.other().is_none_or(|other| A::flow(other, &walk.twin_key).is_none()) {
        A::insert_flow(walk.table, &walk.twin_key, &walk.twin, u64::from(BPF_NOEXIST));
    }
}

/// Sets the walk's twin to the entry of a hidden client's packets as they leave: with the new destination, and no source yet.
#[inline(always)]
pub fn prepare_sent<A: Family>(walk: &mut Walk<A>) {
    walk.twin_key = FlowKey {
        source: walk.key.source,
        destination: walk.entry.address,
        source_port: walk.entry.other_port,
        destination_port: walk.entry.port,
        hook: EGRESS,
        ..walk.key
    };
    walk.twin = walk.entry;
    (walk.twin.address, walk.twin.port, walk.twin.other_port) = (A::default(), 0, walk.entry.port);
    walk.twin.check = walk.twin_key.check();
}

/// Counts the flow as no longer half open. Moves it from OPENING to FLOWS.
#[inline(always)]
fn assure<A: Family>(walk: &mut Walk<A>) {
    if walk.table == Table::Flows {
        if walk.key.hook == INGRESS {
            tables::assured();
        }
    } else {
        walk.table = Table::Flows;
        A::insert_flow(walk.table, &walk.key, &walk.entry, 0);
        turn(walk);
        A::insert_flow(walk.table, &walk.twin_key, &walk.twin, 0);
        A::remove_flow(Table::Opening, &walk.key);
        A::remove_flow(Table::Opening, &walk.twin_key);
    }
}

/// Writes the state of an element. If the kernel has just reused it, another flow gets these bits.
#[inline(always)]
fn stamp<A: Family>(element: *mut FlowEntry<A>, state: u32, now: u32) {
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let seen = unsafe { &raw mut (*element).seen };
    // SAFETY: the field is one aligned word of the element.
    unsafe { seen.write_volatile(now) };
    // SAFETY: as above.
    let word = unsafe { &raw mut (*element).state };
    // SAFETY: as above.
    unsafe { word.write_volatile(state) };
}

/// Chooses the source of a hidden client's flow: the node's address on the device that sends the packet, and a port that tells
/// the flow from others. False if there is none.
#[inline(never)]
pub fn choose_source<A: Family>(walk: &mut Walk<A>, device: u32) -> bool {
    let Some(device) = tables::device(device) else { return false };
    walk.entry.address = A::address_of(device);
    if walk.entry.address == A::default() {
        return false;
    }
    walk.entry.port = Half::Node.port_for(walk.key.source_port);
    for attempt in 0..TRIES {
        if claim_source(walk, attempt) {
            return true;
        }
    }
    maps::count(|totals| totals.outside_without_port += 1);
    false
}

/// Claims the walk's source, or changes its port for the next try.
#[inline(never)]
fn claim_source<A: Family>(walk: &mut Walk<A>, attempt: u32) -> bool {
    if claim(walk, attempt) {
        write_source(walk);
        return true;
    }
    walk.entry.port = Half::Node.any_port();
    false
}

/// Writes the source into the entry. A program on another CPU that reads only a part of it chooses another source: both work.
#[inline(always)]
fn write_source<A: Family>(walk: &Walk<A>) {
    let Some(element) = A::flow(walk.table, &walk.key) else { return };
    write_port(element, walk.entry.port);
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let address = unsafe { &raw mut (*element).address };
    // SAFETY: the field is a part of the element.
    unsafe { address.write_volatile(walk.entry.address) };
}
