//! The end of a TCP connection. A flow is deleted when each side has confirmed the FIN of the other. So FLOWS has room for open
//! connections. A flow whose last packets are lost stays for its lifetime.

use aya_ebpf::bindings::__sk_buff;
use portmap_common::packet::{self as headers, ACK, FIN, Fragment, Segment};

use super::{Family, packet::Packet, tables::Walk};

/// The state of a flow that one side or both have closed, after the walk's packet. `state` is the state without what the packet
/// confirms. Notes the end of the data in the entry, if the packet has it.
///
/// Not inlined, so that it has its own stack: few packets need it.
#[inline(never)]
pub fn state_after<A: Family, const LINK: usize>(context: *mut __sk_buff, walk: &mut Walk<A>, state: u32) -> u32 {
    let Some(segment) = segment(Packet::<LINK>::new(context), walk) else { return state };
    if walk.ports.flags & FIN != 0 {
        note_end(walk, segment.end);
    }
    if walk.ports.flags & ACK == 0 {
        return state;
    }
    walk.twin_key = walk.key.twin(&walk.entry);
    let Some(twin) = A::flow(walk.table, &walk.twin_key) else { return state };
    // SAFETY: the map returned the element. If the kernel reuses it at this moment, at worst the flow is deleted early.
    let end = unsafe { (*twin).end };
    walk.entry.state_confirmed(state, segment.acknowledged, end)
}

/// The walk's packet in sequence numbers. `None` if it is a fragment or truncated.
#[inline(always)]
fn segment<A: Family, const LINK: usize>(packet: Packet<LINK>, walk: &Walk<A>) -> Option<Segment> {
    if walk.headers.fragment != Fragment::Whole {
        return None;
    }
    headers::segment(&packet, walk.headers.transport, walk.headers.end)
}

/// Writes the end into the entry, before the state shows the FIN.
#[inline(always)]
fn note_end<A: Family>(walk: &mut Walk<A>, end: u32) {
    walk.entry.end = end;
    let Some(element) = A::flow(walk.table, &walk.key) else { return };
    // SAFETY: the map returned the element, so the pointer is valid until the program returns.
    let field = unsafe { &raw mut (*element).end };
    // SAFETY: the field is one aligned word of the element.
    unsafe { field.write_volatile(end) };
}
