//! Packets of clients outside the node. Ingress programs change the destination of a packet, egress programs the source. The
//! kernel routes the packet in between.
//!
//! The steps of a packet: [`packet`] reads the headers → [`flows`] finds the flow → [`opening`] opens one, if the packet may
//! do so → [`closing`] notes the end of a connection → [`rewrite`] changes the packet → [`onward`] sends it on, if it only
//! passes through this node. ICMP errors about a packet of a flow take the steps of [`errors`].

mod affinity;
mod closing;
mod errors;
mod flows;
mod fragments;
mod onward;
mod opening;
mod packet;
mod rewrite;
mod tables;
mod trace;

use aya_ebpf::{EbpfContext as _, programs::TcContext};
use portmap_common::{
    EGRESS, FlowKey, INGRESS, TCP, V4, V6,
    packet::{self as headers, Fragment, Headers, Ports},
};

use onward::Onward;
pub use packet::{ETHERNET, Packet};
use rewrite::Rewrite;
use tables::{FlowTables, Walk};

/// The return value for a packet that goes on to the next program (`TC_ACT_UNSPEC`, `TCX_NEXT`).
const NEXT: i32 = -1;

/// The return value for a packet that is dropped (`TC_ACT_SHOT`).
const DROP: i32 = 2;

/// A packet of one address family: what the maps, the headers and the rewriting need.
pub trait Family: FlowTables + Rewrite + Onward {}

impl Family for V4 {}
impl Family for V6 {}

/// Handles a packet at a hook. `LINK` is the length of the link-layer header, `HOOK` is [`INGRESS`] or
/// [`portmap_common::EGRESS`]. Returns the program's return value.
#[inline(always)]
pub fn handle<const LINK: usize, const HOOK: u8>(context: &TcContext) -> i32 {
    let packet = Packet::<LINK>::new(context.as_ptr().cast());
    match packet.ethertype() {
        packet::IPV4 => of_family::<V4, LINK, HOOK>(packet),
        packet::IPV6 => of_family::<V6, LINK, HOOK>(packet),
        _ => NEXT,
    }
}

/// Handles a packet of one family. The state of the walk is in a map, because a program has only 512 bytes of stack.
#[inline(always)]
fn of_family<A: Family, const LINK: usize, const HOOK: u8>(packet: Packet<LINK>) -> i32 {
    let Some(walk) = A::walk() else { return NEXT };
    if A::headers(&packet, 0, &mut walk.headers).is_none() {
        return NEXT;
    }
    walk.headers.end = packet.end(walk.headers.end);
    if !walk.headers.has_transport() {
        return NEXT;
    }
    if headers::is_translated(walk.headers.protocol) {
        translate::<A, LINK, HOOK>(packet, walk)
    } else if walk.headers.protocol == A::ICMP && walk.headers.fragment == Fragment::Whole {
        match errors::translate::<A, LINK, HOOK>(packet.context(), walk) {
            errors::REWRITTEN => send::<A, LINK, HOOK>(packet, walk),
            verdict => verdict,
        }
    } else {
        NEXT
    }
}

/// Translates a packet of a flow. A packet that belongs to no flow may open one at ingress.
#[inline(always)]
fn translate<A: Family, const LINK: usize, const HOOK: u8>(packet: Packet<LINK>, walk: &mut Walk<A>) -> i32 {
    if !fragments::read_ports(&packet, walk, HOOK) {
        return NEXT;
    }
    walk.key = key(&walk.headers, walk.ports, HOOK);
    // A datagram of a refused flow may be served by now.
    let is_found = flows::find(walk, walk.ports.flags) && !(HOOK == INGRESS && flows::is_refused(walk));
    let is_tcp = walk.headers.protocol == TCP;
    let may_open = if is_tcp { walk.ports.opens() } else { !is_found && walk.headers.fragment != Fragment::Later };
    if HOOK == INGRESS && may_open {
        let verdict = opening::open(packet.context(), walk, is_found);
        if verdict == NEXT && is_found {
            flows::forget(walk);
        }
        if verdict != opening::FORWARD {
            return verdict;
        }
    } else if !is_found {
        return NEXT;
    } else if HOOK == INGRESS && is_tcp && flows::is_of_another(walk) {
        flows::give_up_source(walk);
        return NEXT;
    }
    if HOOK == EGRESS && walk.entry.lacks_source(&walk.key) && !flows::choose_source(walk, packet.device()) {
        return DROP;
    }
    flows::follow(walk, packet);
    fragments::note(walk, HOOK);
    if !rewrite::packet::<A, LINK, HOOK>(packet.context(), walk) {
        return DROP;
    }
    send::<A, LINK, HOOK>(packet, walk)
}

/// Lets a rewritten packet go on.
#[inline(always)]
fn send<A: Family, const LINK: usize, const HOOK: u8>(packet: Packet<LINK>, walk: &Walk<A>) -> i32 {
    if HOOK == INGRESS { onward::send(packet, walk) } else { NEXT }
}

/// The key of a packet at a hook. Copies the addresses by words: the headers were written by words, and a processor waits when it
/// reads more at once than was written at once.
#[inline(always)]
fn key<A: Family>(headers: &Headers<A>, ports: Ports, hook: u8) -> FlowKey<A> {
    FlowKey {
        source: A::from_neutral(headers.source.neutral()),
        destination: A::from_neutral(headers.destination.neutral()),
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: headers.protocol,
        hook,
        unused: 0,
    }
}
